"""Drift reports as runs of an experiment of their own, and links to runs."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, RunTag

from rakuten.errors import UserError
from rakuten.tracking import server

log = logging.getLogger(__name__)

LOCAL_UI = "http://127.0.0.1:5000"
EXPERIMENT_SUFFIX = "-monitoring"  # appended to the name of the trainings' experiment


def log_drift_report(metrics: Mapping[str, float], tags: Mapping[str, str], files: Sequence[Path]) -> str | None:
    """Log a drift report as one run.

    Returns:
        The run's id; None, with a warning, if the server failed: the report is on disk as well.
    """
    try:
        server.check_server()
        with server.mlflow_errors():
            return _log_run(metrics, tags, files)
    except UserError as error:
        log.warning("the report is not in MLflow: %s", error)
    return None


def _log_run(metrics: Mapping[str, float], tags: Mapping[str, str], files: Sequence[Path]) -> str:
    client = server.get_client()
    experiment = server.get_or_create_experiment(client, server.experiment_name() + EXPERIMENT_SUFFIX)
    run_id = str(client.create_run(experiment, tags=dict(tags), run_name="drift").info.run_id)
    now = int(1000 * time.time())
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    for path in files:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id)
    return run_id


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run.

    Raises:
        UserError: the server failed, or has no such run.
    """
    with server.mlflow_errors():
        client = server.get_client()
        for name, value in tags.items():
            client.set_tag(run_id, name, value)


def run_url(run_id: str) -> str:
    """The address of a run's page: on the tracking server, or as `make ui` serves the embedded store."""
    base = server.redacted_uri() if server.uri().startswith("http") else LOCAL_UI
    return f"{base.rstrip('/')}/#/runs/{run_id}"
