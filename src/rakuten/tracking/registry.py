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

NAME = "rakuten-classifier"
CHAMPION, CHALLENGER = "champion", "challenger"
DECISION = "promotion"  # tag of a version: what was decided about it last
PREVIOUS = "previous_champion"  # tag of a champion: whom it followed
ROLLED_BACK = "rolled_back"  # tag of a version that was champion and is not to be again
STARTED = "started"  # tag: when its training began, so that a record sent late is no news
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # how MLflow says that there is none


def register(asked: mlflow.MlflowClient, run_id: str, model: Any, digest: str, started: int, late: bool) -> str:
    """Make a run's model a version, once, and the challenger. Returns the version.

    Args:
        started: when the training began, in ms by the clock of its machine. Clocks differ, so it decides only
            where the model comes late: a later training stays the challenger.
    """
    if not asked.search_registered_models(f"name = '{NAME}'"):
        try:
            asked.create_registered_model(NAME)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    known = asked.search_model_versions(f"name = '{NAME}' and run_id = '{run_id}'")
    if known:
        found = known[0]
    else:
        tags = {MODEL_TAG: digest, STARTED: str(started)}
        source = f"models:/{model.model_id}"
        found = asked.create_model_version(NAME, source, run_id, tags, model_id=model.model_id)
    now = by_alias(asked, CHALLENGER)
    if not late or now is None or int(now.tags.get(STARTED, 0)) <= started:
        asked.set_registered_model_alias(NAME, CHALLENGER, found.version)
    return str(found.version)


def by_alias(asked: mlflow.MlflowClient, alias: str) -> ModelVersion | None:
    """The version under an alias; None where nobody has it."""
    return _if_there(asked.get_model_version_by_alias, alias)


def by_version(asked: mlflow.MlflowClient, version: str) -> ModelVersion | None:
    """The version of this number; None where there is none."""
    return _if_there(asked.get_model_version, version)


def _if_there(ask: Callable[[str, str], ModelVersion], which: str) -> ModelVersion | None:
    try:
        return ask(NAME, which)
    except mlflow.MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


class Version(NamedTuple):
    """A version of the model, as promotion sees it."""

    number: str
    run_id: str
    previous: str | None  # the champion that it followed
    rolled_back: bool


def under(alias: str) -> Version | None:
    """The version under an alias; None where nobody has it."""
    return _seen(by_alias(server.client(), alias))


def numbered(number: str) -> Version | None:
    return _seen(by_version(server.client(), number))


def _seen(version: ModelVersion | None) -> Version | None:
    if version is None:
        return None
    return Version(str(version.version), str(version.run_id), version.tags.get(PREVIOUS), ROLLED_BACK in version.tags)


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


def crown(version: Version, former: Version | None) -> None:
    """Make a version the champion, and note whom it followed."""
    asked = server.client()
    if former is not None:
        asked.set_model_version_tag(NAME, version.number, PREVIOUS, former.number)
    asked.set_registered_model_alias(NAME, CHAMPION, version.number)


def dethrone(version: Version, former: Version) -> None:
    """Give the crown back to the champion before this one."""
    asked = server.client()
    asked.set_registered_model_alias(NAME, CHAMPION, former.number)
    asked.set_model_version_tag(NAME, version.number, ROLLED_BACK, "true")


def note(version: Version, decision: str) -> None:
    server.client().set_model_version_tag(NAME, version.number, DECISION, decision)


def download(run_id: str, path: str, folder: Path) -> Path:
    """Fetch one artifact of a run.

    Raises:
        UserError: the run has no such artifact.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=str(folder)))
    except server.FAULTS as error:
        raise UserError(f"{path} of run {run_id} cannot be fetched: {server.one_line(error)}") from error


class Loaded:
    """A version's model, loaded as plain MLflow loads it, and its size on disk in bytes."""

    def __init__(self, version: Version) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = f"models:/{NAME}/{version.number}"
            place = mlflow.artifacts.download_artifacts(source, dst_path=folder)
            self.size = sum(file.stat().st_size for file in Path(place, "data").rglob("*") if file.is_file())
            self._model = mlflow.pyfunc.load_model(place)

    def predict(self, products: pd.DataFrame) -> Any:
        """Predictions for raw products."""
        return self._model.predict(products)
