"""Names of the status files in the prediction log's folder, which the API exports to Prometheus."""

from pathlib import Path

DRIFT_FILE = Path("drift", "drift.json")  # the last drift report
LAST_CHECK_FILE = Path("drift", "looked.json")  # time of the last check, also where it found too few predictions
PIPELINE_FILE = Path("pipeline.json")  # result of the last run of the pipeline flow
