"""Prefect flows.

pipeline             the pipeline by DVC, then the promotion gate
monitor_and_retrain  a check of live traffic; on drift, the pipeline
common               shared by both: the lock of a folder, DVC as a subprocess, logs without tracebacks
"""

import os
from pathlib import Path

# Prefect keeps its database and settings there. Where it cannot be written, Prefect tries for minutes.
if "PREFECT_HOME" not in os.environ and not os.access(Path.home(), os.W_OK):
    _home = Path(__file__).resolve().parents[1] / ".dvc" / "tmp" / "prefect"
    _home.mkdir(parents=True, exist_ok=True)  # Prefect makes only the last folder
    os.environ["PREFECT_HOME"] = str(_home)
