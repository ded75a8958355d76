"""Prefect flows.

pipeline             the pipeline by DVC, then the promotion gate
monitor_and_retrain  a check of live traffic; on drift, the pipeline
common               shared by both: the lock of a folder, DVC as a subprocess, logs without tracebacks
"""
