"""The champion for those who answer with it: which version it is, its files, and what is known of it."""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow

from rakuten.errors import UserError
from rakuten.tracking import registry, server, trace
from rakuten.tracking.lineage import MODEL_TAG, VERSION_LENGTH, model_digest
from rakuten.tracking.registry import CHAMPION, MODEL_NAME, Version


def get_champion() -> Version | None:
    """The version that answers; None where none was promoted.

    Raises:
        UserError: the tracking server is away or refuses.
    """
    server.check_server()
    with server.mlflow_errors():
        return registry.get_by_alias(CHAMPION)


def download_model(version: Version, folder: Path) -> dict[str, Any]:
    """Put a version's files into a folder that is not there yet, whole or not at all; return what is known of it.

    Raises:
        UserError: it cannot be fetched, or is not the model that was registered.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with server.mlflow_errors(), tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        run = server.client().get_run(version.run_id)
        place = mlflow.artifacts.download_artifacts(f"models:/{MODEL_NAME}/{version.number}", dst_path=partial)
        manifests = list(Path(place).glob("data/*/manifest.json"))
        if len(manifests) != 1:
            raise UserError(f"{MODEL_NAME} version {version.number} is not a model of this project")
        files = manifests[0].parent
        if model_digest(files) != run.data.tags.get(MODEL_TAG):
            raise UserError(f"{MODEL_NAME} version {version.number} is not the model that its run made: it was altered")
        shutil.rmtree(folder, ignore_errors=True)
        files.rename(folder)
    return run_metadata(run)


def download_reference(version: Version, path: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Fetch an artifact of the run that made a version; returns its place, and model_version and synthetic.

    Raises:
        UserError: the server is away, or the run has no such artifact: it is older than the monitoring.
    """
    with server.mlflow_errors():
        tags = server.client().get_run(version.run_id).data.tags
        place = registry.download(version.run_id, path, folder)
    return place, {
        "model_version": tags.get(MODEL_TAG, "")[:VERSION_LENGTH],
        "synthetic": tags.get("synthetic") == "true",
    }


def run_metadata(run: mlflow.entities.Run) -> dict[str, Any]:
    """What a run says of its model."""
    metrics, tags = run.data.metrics, run.data.tags
    names = ("weighted_f1", "weighted_f1_low", "weighted_f1_high", "macro_f1", "calibration_error")
    return {
        "run_id": run.info.run_id,
        "trained_at": iso_time(run.info.start_time),
        "git_commit": tags.get("git_commit"),
        "data": trace.run_inputs(run),
        "scores": {name: metrics[name] for name in names if name in metrics},
        "synthetic": tags.get("synthetic") == "true",
    }


def iso_time(milliseconds: int) -> str:
    """A time as MLflow has it, in words that sort."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
