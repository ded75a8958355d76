"""Versions of the registered model rakuten-classifier: the alias challenger is the newest, champion the one in use."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LifecycleStage, LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion

from rakuten.errors import UserError
from rakuten.tracking import commits, server
from rakuten.tracking.lineage import DVC_LOCK_NAME, MODEL_TAG
from rakuten.yaml_files import read_yaml

MODEL_NAME = "rakuten-classifier"
CHAMPION, CHALLENGER = "champion", "challenger"
# Tags of a version.
DECISION_TAG = "promotion"  # the last decision about it, as text
PREVIOUS_CHAMPION_TAG = "previous_champion"  # of a champion: the number of the champion before it
ROLLED_BACK_TAG = "rolled_back"  # it was champion, and must not become champion again
SIGNATURE_TAG = "signature"  # of the model's manifest, see `signatures`
COMMIT_TAG = "git_commit"  # a commit with all that it was trained with, made before the training or after it
SYNTHETIC_TAG = "synthetic"  # as of its run
STARTED_TAG = "started"  # when its training began, in ms since 1970
NOT_FOUND_CODES = (
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_PARAMETER_VALUE",
)  # of MLflow, for a missing run or version


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: str
    run_id: str
    started: int  # when its training began, in ms since 1970; 0 if not recorded
    previous_champion: str | None  # the number of the champion before it
    rolled_back: bool
    signature: str | None = None
    # What its run records, for when that was deleted; None if the version is older than these tags.
    model_digest: str | None = None
    commit: str | None = None  # of a training on changed files only once it was promoted
    synthetic: bool | None = None


def get_by_alias(alias: str) -> Version | None:
    """The version with this alias; None if no version has it."""
    return _get(server.get_client().get_model_version_by_alias, alias)


def get_by_number(number: str) -> Version | None:
    """The version with this number; None if there is none."""
    return _get(server.get_client().get_model_version, number)


def numbers_by_digest(model_digest: str) -> list[str]:
    """The numbers of the versions with a model of this digest, ascending: the same training may be registered twice."""
    found = server.get_client().search_model_versions(f"name = '{MODEL_NAME}' and tags.{MODEL_TAG} = '{model_digest}'")
    return sorted((str(version.version) for version in found), key=int)


def newest_by_digest(prefix: str) -> Version | None:
    """The newest version with a model whose digest begins like this; None if there is none."""
    return _newest(f"name = '{MODEL_NAME}' and tags.{MODEL_TAG} LIKE '{prefix}%'")


def newest_of_run(run_id: str) -> Version | None:
    """The newest version with the model of a run, which may have been deleted; None if there is none."""
    return _newest(f"name = '{MODEL_NAME}' and run_id = '{run_id}'")


def _newest(query: str) -> Version | None:
    found = server.get_client().search_model_versions(query)
    return _version(max(found, key=lambda version: int(version.version))) if found else None


def get_run(run_id: str) -> Run | None:
    """A run; None if there is none, or it was deleted for good, as by `mlflow gc`."""
    try:
        return server.get_client().get_run(run_id)
    except mlflow.MlflowException as error:
        if error.error_code not in NOT_FOUND_CODES:
            raise
    return None


def _get(request: Callable[[str, str], ModelVersion], key: str) -> Version | None:
    try:
        version = request(MODEL_NAME, key)
    except mlflow.MlflowException as error:
        if error.error_code in NOT_FOUND_CODES:
            return None
        raise
    return _version(version)


def _version(version: ModelVersion) -> Version:
    return Version(
        number=str(version.version),
        run_id=str(version.run_id),
        started=int(version.tags.get(STARTED_TAG, 0)),
        previous_champion=version.tags.get(PREVIOUS_CHAMPION_TAG),
        rolled_back=ROLLED_BACK_TAG in version.tags,
        signature=version.tags.get(SIGNATURE_TAG),
        model_digest=version.tags.get(MODEL_TAG),
        commit=version.tags.get(COMMIT_TAG),
        synthetic={"true": True, "false": False}.get(version.tags.get(SYNTHETIC_TAG, "")),
    )


def register(run_id: str, model: LoggedModel, run_tags: Mapping[str, str], started: int, delayed: bool) -> str:
    """Register a run's model as a version, unless it is one already, and make it the challenger.

    Args:
        run_tags: the tags of the run. Those that serving needs are copied, because a run may be deleted.
        started: when the training began, in ms since 1970 by the clock of its machine.
        delayed: whether later trainings may have been registered before this one. Only then are the start times
            compared, because clocks differ: the model of a later training stays the challenger.

    Returns:
        The number of the version.
    """
    client = server.get_client()
    _create_registered_model(client)
    versions = client.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{run_id}'")
    if versions:
        number = str(versions[0].version)
    else:
        tags = {name: run_tags[name] for name in (MODEL_TAG, SYNTHETIC_TAG) if name in run_tags}
        tags[STARTED_TAG] = str(started)
        if run_tags.get("git_dirty") == "false":
            tags[COMMIT_TAG] = run_tags["git_commit"]
        source = f"models:/{model.model_id}"
        version = client.create_model_version(MODEL_NAME, source, run_id, tags, model_id=model.model_id)
        number = str(version.version)
    challenger = get_by_alias(CHALLENGER)
    if not delayed or challenger is None or challenger.started <= started:
        client.set_registered_model_alias(MODEL_NAME, CHALLENGER, number)
    return number


def _create_registered_model(client: mlflow.MlflowClient) -> None:
    if client.search_registered_models(f"name = '{MODEL_NAME}'"):
        return
    try:
        client.create_registered_model(MODEL_NAME)
    except mlflow.MlflowException as error:  # another training may have created it in the meantime
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def check_traceable(version: Version) -> str | None:
    """Check that the run of a version records its data, and that a commit has what it was trained with.

    Returns:
        For a run on a clean checkout None: it records its commit. For one on changed files, a commit made since.

    Raises:
        UserError: there is none; the message lists what is missing.
    """
    run = get_run(version.run_id)
    if run is None or run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(f"version {version.number} is not promoted: its run was deleted in MLflow; train again")
    tags, inputs = run.data.tags, run.inputs.dataset_inputs if run.inputs else []
    contexts = {tag.value for entry in inputs for tag in entry.tags if tag.key == "mlflow.data.context"}
    missing = [name for name in ("git_commit", MODEL_TAG) if not tags.get(name)]
    missing += [] if "training" in contexts else ["digests of the features"]
    missing += [] if "raw" in contexts else ["digests of the raw data (train by `dvc repro`)"]
    if missing:
        raise UserError(f"version {version.number} is not promoted: it cannot be traced: missing {'; '.join(missing)}")
    if tags.get("git_dirty") == "false":
        return None
    try:
        return find_commit(version.run_id)
    except UserError as error:
        raise UserError(f"version {version.number} is not promoted: it cannot be traced: {error}") from error


def tag_commit(version: Version, commit: str) -> None:
    """Record the commit of a version that was trained before it was made."""
    server.get_client().set_model_version_tag(MODEL_NAME, version.number, COMMIT_TAG, commit)


def find_commit(run_id: str) -> str:
    """A commit with all that a run on changed files was trained with, found by the dvc.lock that is attached to it.

    Raises:
        UserError: there is none; the message says what differs from the nearest.
    """
    return commits.find_commit(_dvc_lock_of(run_id))


def _dvc_lock_of(run_id: str) -> dict[str, Any]:
    """The dvc.lock that is attached to a run; empty without one."""
    if not any(artifact.path == DVC_LOCK_NAME for artifact in server.get_client().list_artifacts(run_id)):
        raise UserError("its run has no dvc.lock: train by `dvc repro`, then run `rakuten summary`, which attaches it")
    with tempfile.TemporaryDirectory() as folder:
        return dict(read_yaml(download(run_id, DVC_LOCK_NAME, Path(folder))))


def promote(version: Version, champion: Version | None) -> None:
    """Make a version the champion, and record the champion before it."""
    client = server.get_client()
    if champion is not None:
        client.set_model_version_tag(MODEL_NAME, version.number, PREVIOUS_CHAMPION_TAG, champion.number)
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, version.number)


def roll_back(champion: Version, previous: Version) -> None:
    """Make the previous champion the champion again, and mark the present one as rolled back."""
    client = server.get_client()
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, previous.number)
    client.set_model_version_tag(MODEL_NAME, champion.number, ROLLED_BACK_TAG, "true")


def set_signature(number: str, signature: str) -> None:
    """Record the signature of a version's model."""
    server.get_client().set_model_version_tag(MODEL_NAME, number, SIGNATURE_TAG, signature)


def tag_decision(version: Version, decision: str) -> None:
    """Record what was decided about a version."""
    server.get_client().set_model_version_tag(MODEL_NAME, version.number, DECISION_TAG, decision)


def download(run_id: str, path: str, folder: Path) -> Path:
    """Download one artifact of a run into a folder; returns the path of the copy.

    Raises:
        UserError: the run has no such artifact, or the server failed.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=str(folder)))
    except server.SERVER_ERRORS as error:
        raise UserError(f"{path} of run {run_id} cannot be fetched: {server.one_line(error)}") from error
