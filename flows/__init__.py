"""Prefect flows: the pipeline on schedule, and the look at live traffic that may set it off."""
