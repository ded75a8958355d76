"""Versions of rakuten-classifier: challenger is the newest, champion the one that answers."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from rakuten.errors import UserError
from rakuten.tracking import server
from rakuten.tracking.lineage import MODEL_TAG

MODEL_NAME = "rakuten-classifier"
CHAMPION, CHALLENGER = "champion", "challenger"
DECISION_TAG = "promotion"  # tag of a version: what was decided about it last
PREVIOUS_CHAMPION_TAG = "previous_champion"  # tag of a champion: whom it followed
ROLLED_BACK_TAG = "rolled_back"  # tag of a version that was champion and is not to be again
STARTED_TAG = "started"  # tag: when its training began, so that a record sent late is no news
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # how MLflow says that there is none


def register(asked: mlflow.MlflowClient, run_id: str, model: Any, digest: str, started: int, late: bool) -> str:
    """Make a run's model a version, once, and the challenger. Returns the version.

    Args:
        started: when the training began, in ms by the clock of its machine. Clocks differ, so it decides only
            where the model comes late: a later training stays the challenger.
    """
    if not asked.search_registered_models(f"name = '{MODEL_NAME}'"):
        try:
            asked.create_registered_model(MODEL_NAME)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    known = asked.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{run_id}'")
    if known:
        found = known[0]
    else:
        tags = {MODEL_TAG: digest, STARTED_TAG: str(started)}
        source = f"models:/{model.model_id}"
        found = asked.create_model_version(MODEL_NAME, source, run_id, tags, model_id=model.model_id)
    now = find_by_alias(asked, CHALLENGER)
    if not late or now is None or int(now.tags.get(STARTED_TAG, 0)) <= started:
        asked.set_registered_model_alias(MODEL_NAME, CHALLENGER, found.version)
    return str(found.version)


def find_by_alias(asked: mlflow.MlflowClient, alias: str) -> ModelVersion | None:
    """The version under an alias; None where nobody has it."""
    return _or_none(asked.get_model_version_by_alias, alias)


def find_by_number(asked: mlflow.MlflowClient, version: str) -> ModelVersion | None:
    """The version of this number; None where there is none."""
    return _or_none(asked.get_model_version, version)


def _or_none(ask: Callable[[str, str], ModelVersion], which: str) -> ModelVersion | None:
    try:
        return ask(MODEL_NAME, which)
    except mlflow.MlflowException as error:
        if error.error_code in NOT_FOUND_CODES:
            return None
        raise


class Version(NamedTuple):
    """A version of the model, as promotion sees it."""

    number: str
    run_id: str
    previous: str | None  # the champion that it followed
    rolled_back: bool


def get_by_alias(alias: str) -> Version | None:
    """The version under an alias; None where nobody has it."""
    return _to_version(find_by_alias(server.client(), alias))


def get_by_number(number: str) -> Version | None:
    return _to_version(find_by_number(server.client(), number))


def _to_version(version: ModelVersion | None) -> Version | None:
    if version is None:
        return None
    return Version(
        str(version.version),
        str(version.run_id),
        version.tags.get(PREVIOUS_CHAMPION_TAG),
        ROLLED_BACK_TAG in version.tags,
    )


def check_traceable(version: Version) -> None:
    """Whether this model leads back to code and data.

    Raises:
        UserError: it does not, for the reasons named.
    """
    run = server.client().get_run(version.run_id)
    tags, inputs = run.data.tags, run.inputs.dataset_inputs if run.inputs else []
    kinds = {tag.value for entry in inputs for tag in entry.tags if tag.key == "mlflow.data.context"}
    missing = [name for name in ("git_commit", MODEL_TAG) if not tags.get(name)]
    missing += [] if "training" in kinds else ["digests of the features"]
    missing += [] if "raw" in kinds else ["digests of the raw data (train by `dvc repro`)"]
    if tags.get("git_dirty") != "false":
        missing.append("a clean tree (commit, then `dvc repro --force --single-item train`)")
    if missing:
        raise UserError(
            f"version {version.number} is not promoted: it cannot be traced, for want of {'; '.join(missing)}"
        )


def promote(version: Version, former: Version | None) -> None:
    """Make a version the champion, and note whom it followed."""
    asked = server.client()
    if former is not None:
        asked.set_model_version_tag(MODEL_NAME, version.number, PREVIOUS_CHAMPION_TAG, former.number)
    asked.set_registered_model_alias(MODEL_NAME, CHAMPION, version.number)


def roll_back(version: Version, former: Version) -> None:
    """Give the crown back to the champion before this one."""
    asked = server.client()
    asked.set_registered_model_alias(MODEL_NAME, CHAMPION, former.number)
    asked.set_model_version_tag(MODEL_NAME, version.number, ROLLED_BACK_TAG, "true")


def tag_decision(version: Version, decision: str) -> None:
    server.client().set_model_version_tag(MODEL_NAME, version.number, DECISION_TAG, decision)


def download(run_id: str, path: str, folder: Path) -> Path:
    """Fetch one artifact of a run.

    Raises:
        UserError: the run has no such artifact.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=str(folder)))
    except server.SERVER_ERRORS as error:
        raise UserError(f"{path} of run {run_id} cannot be fetched: {server.one_line(error)}") from error


class DownloadedModel:
    """A version's model, loaded as plain MLflow loads it, and its size on disk in bytes."""

    def __init__(self, version: Version) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = f"models:/{MODEL_NAME}/{version.number}"
            place = mlflow.artifacts.download_artifacts(source, dst_path=folder)
            self.size = sum(file.stat().st_size for file in Path(place, "data").rglob("*") if file.is_file())
            self._model = mlflow.pyfunc.load_model(place)

    def predict(self, products: pd.DataFrame) -> Any:
        """Predictions for raw products."""
        return self._model.predict(products)
