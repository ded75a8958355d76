"""Names of the files about live traffic in the prediction log's folder; the API exports the JSON ones to Prometheus."""

from pathlib import Path

DRIFT_FILE = Path("drift", "drift.json")  # the last drift report
AUDIT_FILE = Path("drift", "audit.csv")  # decided predictions that a person should label
PRECISION_FILE = Path("drift", "live_precision.json")  # of automatic decisions, by the audit sample of the review desk
LAST_CHECK_FILE = Path("drift", "looked.json")  # time of the last check, also where it found too few predictions
PIPELINE_FILE = Path("pipeline.json")  # result of the last run of the pipeline flow
