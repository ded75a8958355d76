"""From a prediction, a run or a version back to code and data."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import mlflow

from rakuten.config import DVC_LOCK
from rakuten.errors import UserError
from rakuten.files import atomic_write
from rakuten.tracking import dvc_lock, registry, server
from rakuten.tracking.lineage import DVC_LOCK_NAME, MODEL_TAG, VERSION_LENGTH
from rakuten.tracking.training_run import DATASET_PATH_TAG

Run = mlflow.entities.Run
RUN_ID_PATTERN = re.compile(r"[0-9a-f]{32}")
MODEL_VERSION_PATTERN = re.compile(rf"[0-9a-f]{{{VERSION_LENGTH},64}}")


def find_run(client: mlflow.MlflowClient, name: str) -> Run:
    """The training run behind a name.

    Args:
        name: the id of the run; the model_version of a row of predictions.csv; or the number or alias of a version of
            rakuten-classifier.

    Raises:
        UserError: there is no run of this name.
    """
    name = name.strip("\"' ")  # as copied from a CSV file
    if RUN_ID_PATTERN.fullmatch(name):
        run = _run_by_id(client, name)
    elif MODEL_VERSION_PATTERN.fullmatch(name):
        run = server.newest_run(client, f"tags.{MODEL_TAG} LIKE '{name}%'")
    else:
        key = name.removeprefix(registry.MODEL_NAME).lstrip("/@")
        version = registry.get_by_number(key) if key.isdigit() else registry.get_by_alias(key)
        run = client.get_run(version.run_id) if version else None
    if run is None:
        raise UserError(
            f"{name}: no such run or version on {server.redacted_uri()}; give a run's id, the model_version of a "
            f"prediction, or a number or an alias of {registry.MODEL_NAME}"
        )
    return run


def _run_by_id(client: mlflow.MlflowClient, run_id: str) -> Run | None:
    try:
        return client.get_run(run_id)
    except mlflow.MlflowException as error:
        if error.error_code not in registry.NOT_FOUND_CODES:
            raise
    return None


def format_run(client: mlflow.MlflowClient, run: Run) -> str:
    """A run's code, parameters and data, and the commands that restore them, as text for a terminal."""
    blocks = [_align(_summary(client, run))]
    blocks.append("parameters\n" + _align(dict(sorted(run.data.params.items())), "  "))
    blocks.append("data (MD5, as DVC records it)\n" + _align(run_inputs(run), "  "))
    blocks.append("to restore this state\n" + "\n".join(f"  {line}" for line in _restore_steps(client, run)))
    return "\n\n".join(blocks)


def _summary(client: mlflow.MlflowClient, run: Run) -> dict[str, str]:
    tags, score = run.data.tags, run.data.metrics.get("weighted_f1")
    digest = tags.get(MODEL_TAG, "")
    versions = client.search_model_versions(f"name = '{registry.MODEL_NAME}' and run_id = '{run.info.run_id}'")
    names = [
        f"{registry.MODEL_NAME} version {version.version}{_aliases(client, version.version)}" for version in versions
    ]
    began = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return {
        "run": f"{run.info.run_id}  ({run.info.run_name}, {run.info.status.lower()}) on {server.redacted_uri()}",
        "began": f"{began:%Y-%m-%d %H:%M:%S} UTC",
        "model": "  ".join([digest[:VERSION_LENGTH] or "none was recorded", *names]),
        "commit": _commit(client, run) or "unknown: trained outside Git",
        "branch": tags.get("git_branch", "unknown"),
        "dirty": _dirty(tags, _later_commit(client, run)),
        "score": "none was recorded" if score is None else f"weighted F1 {score:.4f} out of fold{_synthetic(tags)}",
    }


def run_inputs(run: Run) -> dict[str, str]:
    """Path -> MD5 of the data that a run was trained on."""
    inputs: dict[str, str] = {}
    for entry in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in entry.tags}
        inputs[tags.get(DATASET_PATH_TAG, entry.dataset.name)] = entry.dataset.digest
    return inputs


def inputs_of_run(run_id: str) -> dict[str, str]:
    """Path -> MD5 of the data that the run with this id was trained on."""
    return run_inputs(server.get_client().get_run(run_id))


def restore_dvc_lock(run: Run) -> str:
    """Replace dvc.lock by that of a run, so that `dvc checkout` restores its data and model.

    Returns:
        What was done and what comes next, in one line.

    Raises:
        UserError: no dvc.lock is attached to the run.
    """
    run_id = run.info.run_id
    if not _has_dvc_lock(run):
        raise UserError(f"run {run_id} has no dvc.lock: it was trained without `dvc repro`")
    with tempfile.TemporaryDirectory() as folder, atomic_write(DVC_LOCK) as (partial,):
        partial.write_bytes(registry.download(run_id, DVC_LOCK_NAME, Path(folder)).read_bytes())
    return f"dvc.lock is that of run {run_id}; `dvc checkout --allow-missing` restores its data and model"


def _has_dvc_lock(run: Run) -> bool:
    """Whether dvc.lock is attached to a run. A record that was sent late has the file, but not the tag."""
    if dvc_lock.LOCK_TAG in run.data.tags:
        return True
    artifacts = server.get_client().list_artifacts(run.info.run_id)
    return any(artifact.path == DVC_LOCK_NAME for artifact in artifacts)


def _later_commit(client: mlflow.MlflowClient, run: Run) -> str | None:
    """The commit with all that a run on changed files was trained with, as the promotion found it."""
    versions = client.search_model_versions(f"name = '{registry.MODEL_NAME}' and run_id = '{run.info.run_id}'")
    return next(
        (version.tags[registry.COMMIT_TAG] for version in versions if registry.COMMIT_TAG in version.tags), None
    )


def _commit(client: mlflow.MlflowClient, run: Run) -> str | None:
    return _later_commit(client, run) or run.data.tags.get("git_commit")


def _restore_steps(client: mlflow.MlflowClient, run: Run) -> Iterator[str]:
    commit = _commit(client, run)
    if not commit:
        yield "not possible: no commit was recorded"
        return
    yield f"git checkout {commit}"
    if _has_dvc_lock(run):
        yield f"rakuten trace --restore-lock {run.info.run_id}"
        yield "dvc checkout --allow-missing    # `dvc pull --allow-missing` if the files are not in the cache"
        yield "dvc repro                       # only predict runs"
    else:
        yield "dvc repro                       # no dvc.lock was attached: this trains again"
    if run.data.tags.get("git_dirty") == "true" and not _later_commit(client, run):
        yield "but the tree was dirty: changes that were not committed are lost"


def _dirty(tags: Mapping[str, str], later_commit: str | None) -> str:
    if later_commit:
        return "no: this commit was made after the training, with the same files"
    texts = {"true": "YES: files differed from the commit", "false": "no"}
    return texts.get(tags.get("git_dirty", ""), "unknown")


def _synthetic(tags: Mapping[str, str]) -> str:
    return ", on SYNTHETIC data" if tags.get("synthetic") == "true" else ""


def _aliases(client: mlflow.MlflowClient, number: str) -> str:
    aliases = client.get_model_version(registry.MODEL_NAME, number).aliases
    return f" ({', '.join(sorted(aliases))})" if aliases else ""


def _align(rows: Mapping[str, str], indent: str = "") -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {value}" for name, value in rows.items())
