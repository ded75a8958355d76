"""The champion version for the rooms that predict with it: its model files, its reference sample, its metadata.

Not part of `registry`: this module needs `trace`, which needs `registry`.
"""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow

from rakuten.errors import UntrustedModelError, UserError
from rakuten.tracking import registry, server, trace
from rakuten.tracking.lineage import MODEL_TAG, VERSION_LENGTH, model_digest
from rakuten.tracking.registry import CHAMPION, MODEL_NAME, Version
from rakuten.tracking.signatures import check_signature

SCORE_METRICS = ("weighted_f1", "weighted_f1_low", "weighted_f1_high", "macro_f1", "calibration_error")
FALSE_ALARMS_PARAM = "predict.novelty_false_alarms"


def get_champion() -> Version | None:
    """The champion; None if no version was promoted.

    Raises:
        UserError: the tracking server does not answer or refuses.
    """
    server.check_server()
    with server.mlflow_errors():
        return registry.get_by_alias(CHAMPION)


def download_model(version: Version, folder: Path, require_signature: str) -> dict[str, Any]:
    """Download a version's model files into a folder, which is replaced only once all of them have arrived.

    Args:
        require_signature: see `check_signature`.

    Returns:
        The metadata of the model: run_id, trained_at, git_commit, data (path -> MD5), scores, synthetic. If the run was
        deleted, data and scores are empty.

    Raises:
        UserError: the download failed, its digest is not the one that was recorded, or its signature is missing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with server.mlflow_errors(), tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        run = registry.get_run(version.run_id)
        model = mlflow.artifacts.download_artifacts(f"models:/{MODEL_NAME}/{version.number}", dst_path=partial)
        manifests = list(Path(model).glob("data/*/manifest.json"))
        if len(manifests) != 1:
            raise UserError(f"{MODEL_NAME} version {version.number} is not a model of this project")
        files = manifests[0].parent
        name = f"{MODEL_NAME} version {version.number}"
        if model_digest(files) != (run.data.tags.get(MODEL_TAG) if run else version.model_digest):
            raise UntrustedModelError(f"{name} is not the model that its run recorded: it was altered")
        check_signature(name, files / "manifest.json", version.signature, require_signature)
        shutil.rmtree(folder, ignore_errors=True)
        files.rename(folder)
    return _metadata(version, run)


def download_reference(version: Version, path: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Download an artifact of a version's run, and look up what belongs to it.

    Args:
        path: of the artifact within the run.
        folder: where the copy is put.

    Returns:
        The path of the copy, and model_version, synthetic and novelty_false_alarms (None in a run of before the novelty
        was measured) of the run.

    Raises:
        UserError: the server does not answer, the run was deleted, or it is older than the monitoring.
    """
    with server.mlflow_errors():
        run = registry.get_run(version.run_id)
        if run is None:
            name = f"{MODEL_NAME} version {version.number}"
            raise UserError(f"{path} of {name} was deleted with its run in MLflow: train and promote another model")
        copy = registry.download(version.run_id, path, folder)
    tags, false_alarms = run.data.tags, run.data.params.get(FALSE_ALARMS_PARAM)
    return copy, {
        "model_version": tags.get(MODEL_TAG, "")[:VERSION_LENGTH],
        "synthetic": tags.get("synthetic") == "true",
        "novelty_false_alarms": None if false_alarms is None else float(false_alarms),
    }


def _metadata(version: Version, run: mlflow.entities.Run | None) -> dict[str, Any]:
    metrics = run.data.metrics if run else {}
    began = run.info.start_time if run else version.started
    return {
        "run_id": version.run_id,
        "trained_at": iso_time(began) if began else None,
        "git_commit": version.commit or (run.data.tags.get("git_commit") if run else None),
        "data": trace.run_inputs(run) if run else {},
        "scores": {name: metrics[name] for name in SCORE_METRICS if name in metrics},
        "synthetic": run.data.tags.get("synthetic") == "true" if run else version.synthetic,
    }


def iso_time(milliseconds: int) -> str:
    """A time in ms since 1970 as ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
