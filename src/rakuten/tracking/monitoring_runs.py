"""Drift reports as runs of an experiment of their own, beside the trainings, and links to runs."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, RunTag

from rakuten.errors import UserError
from rakuten.tracking import server

log = logging.getLogger(__name__)

LOCAL_UI = "http://127.0.0.1:5000"
EXPERIMENT_SUFFIX = "-monitoring"  # of the trainings' experiment


def log_drift_report(metrics: Mapping[str, float], tags: Mapping[str, str], files: Sequence[Path]) -> str | None:
    """One run with these numbers and files; its id, or None with a warning where the server fails: the report
    stands on disk all the same."""
    try:
        server.check_server()
        with server.mlflow_errors():
            asked = server.client()
            name = (os.environ.get("MLFLOW_EXPERIMENT_NAME") or server.DEFAULT_EXPERIMENT) + EXPERIMENT_SUFFIX
            run = asked.create_run(server.experiment_id(asked, name), tags=dict(tags), run_name="drift")
            now = int(1000 * time.time())
            asked.log_batch(
                run.info.run_id,
                metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            for path in files:
                asked.log_artifact(run.info.run_id, str(path))
            asked.set_terminated(run.info.run_id)
            return str(run.info.run_id)
    except UserError as error:
        log.warning("the report is not in MLflow: %s", error)
    return None


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run.

    Raises:
        UserError: the server is away, or has no such run.
    """
    with server.mlflow_errors():
        asked = server.client()
        for key, value in tags.items():
            asked.set_tag(run_id, key, value)


def run_url(run_id: str) -> str:
    """Where a run is looked at: in the server's UI, or as `make ui` serves the embedded store."""
    base = server.redacted_uri() if server.uri().startswith("http") else LOCAL_UI
    return f"{base.rstrip('/')}/#/runs/{run_id}"
