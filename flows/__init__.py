"""Prefect flows.

pipeline             the pipeline by DVC, then the promotion gate
monitor_and_retrain  a check of live traffic; on drift, the pipeline
common               shared by both: the lock of a folder, DVC as a subprocess, logs without tracebacks
"""

import os
import sys
from pathlib import Path


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written; it is created if there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


# Prefect keeps its database and settings there. Where it cannot be written, Prefect tries for minutes.
if _given := os.environ.get("PREFECT_HOME"):
    if not _is_writable(Path(_given).expanduser()):
        sys.exit(f"ERROR flows: PREFECT_HOME: {_given} cannot be written: name another folder, or unset it")
elif not _is_writable(Path.home() / ".prefect"):
    _home = Path(__file__).resolve().parents[1] / ".dvc" / "tmp" / "prefect"
    _home.mkdir(parents=True, exist_ok=True)  # Prefect makes only the last folder
    os.environ["PREFECT_HOME"] = str(_home)
