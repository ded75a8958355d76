"""TODO."""

from pathlib import Path

DRIFT_FILE, LAST_CHECK_FILE, PIPELINE_FILE = (
    Path("drift", "drift.json"),
    Path("drift", "looked.json"),
    Path("pipeline.json"),
)
