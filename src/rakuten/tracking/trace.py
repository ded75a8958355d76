"""From a prediction, a run or a version back to code and data."""

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage, Run

from rakuten.config import DVC_LOCK
from rakuten.errors import UserError
from rakuten.files import atomic_write
from rakuten.tracking import dvc_lock, registry, server
from rakuten.tracking.lineage import DVC_LOCK_NAME, MODEL_TAG, VERSION_LENGTH
from rakuten.tracking.registry import CHALLENGER, CHAMPION, Version
from rakuten.tracking.training_run import DATASET_PATH_TAG

RUN_ID_PATTERN = re.compile(r"[0-9a-f]{32}")
MODEL_VERSION_PATTERN = re.compile(rf"[0-9a-f]{{{VERSION_LENGTH},64}}")


def find_training(client: mlflow.MlflowClient, name: str) -> Run | Version:
    """The training behind a name: its run, or the version that it gave if the run was deleted for good.

    Args:
        name: the id of the run; the model_version of a row of predictions.csv; or the number or alias of a version of
            rakuten-classifier.

    Raises:
        UserError: there is no training of this name.
    """
    name = name.strip("\"' ")  # as copied from a CSV file
    run: Run | None = None
    version: Version | None = None
    if RUN_ID_PATTERN.fullmatch(name):
        run = registry.get_run(name)
        version = registry.newest_of_run(name)
    elif MODEL_VERSION_PATTERN.fullmatch(name):
        run = server.newest_run(client, f"tags.{MODEL_TAG} LIKE '{name}%'")
        version = registry.newest_by_digest(name)
    else:
        key = name.removeprefix(registry.MODEL_NAME).lstrip("/@")
        version = registry.get_by_number(key) if key.isdigit() else _get_by_alias(key)
    if run is None and version is not None:
        run = registry.get_run(version.run_id)
    training = run or version
    if training is None:
        raise UserError(
            f"{name}: no such run or version on {server.redacted_uri()}; give a run's id, the model_version of a "
            f"prediction, or a number or an alias of {registry.MODEL_NAME}"
        )
    return training


def _get_by_alias(alias: str) -> Version | None:
    """The version with an alias.

    Raises:
        UserError: the alias is one of the project's, and no version has it yet.
    """
    version = registry.get_by_alias(alias)
    if version is None and alias in (CHALLENGER, CHAMPION):
        is_trained = alias == CHAMPION and registry.get_by_alias(CHALLENGER) is not None
        hint = "`make promote` makes the challenger the champion" if is_trained else "`make run` trains one"
        raise UserError(f"{registry.MODEL_NAME} has no {alias} yet on {server.redacted_uri()}: {hint}")
    return version


def format_training(client: mlflow.MlflowClient, training: Run | Version) -> str:
    """A training's code, parameters and data, and the commands that restore them, as text for a terminal.

    Args:
        training: see `find_training`.
    """
    return _format_version(client, training) if isinstance(training, Version) else _format_run(client, training)


def _format_run(client: mlflow.MlflowClient, run: Run) -> str:
    code = _find_code(run)
    blocks = [_align(_summary(client, run, code))]
    blocks.append("parameters\n" + _align(dict(sorted(run.data.params.items())), "  "))
    blocks.append("data (MD5, as DVC records it)\n" + _align(run_inputs(run), "  "))
    blocks.append(_steps(_restore_steps(run, code)))
    return "\n\n".join(blocks)


def _format_version(client: mlflow.MlflowClient, version: Version) -> str:
    """What is left of a training whose run was deleted for good."""
    rows = {
        "run": f"{version.run_id} on {server.redacted_uri()}",
        "DELETED": "for good, with its branch, score, parameters, digests of the data, reports and dvc.lock",
        "began": _date(version.started) if version.started else "unknown",
        "model": f"{(version.model_digest or '')[:VERSION_LENGTH]}  {_name(client, version.number)}"
        f"{', trained on SYNTHETIC data' if version.synthetic else ''}",
        "commit": version.commit or "unknown: it was recorded in the run alone",
    }
    steps = ["not possible: its commit is unknown"]
    if version.commit:
        steps = [
            f"git checkout {version.commit}",
            "dvc repro    # runs what is not in the dvc.lock of this commit",
        ]
    return f"{_align(rows)}\n\n{_steps(steps)}"


@dataclass(frozen=True)
class _Code:
    """The code of a run."""

    commit: str | None
    dirty: str  # whether files differed from the commit, as text
    is_lost: bool = False  # whether no commit has it


def _find_code(run: Run) -> _Code:
    """The commit with all that a run was trained with, whenever it was made; else that of the checkout it ran in."""
    tags = run.data.tags
    commit = tags.get("git_commit")
    if tags.get("git_dirty") != "true":
        return _Code(commit, "no" if tags.get("git_dirty") == "false" else "unknown")
    version = registry.newest_of_run(run.info.run_id)
    try:
        later = (version and version.commit) or registry.find_commit(run.info.run_id)
    except UserError as error:
        return _Code(commit, f"YES: files differed from the commit; {error}", is_lost=True)
    return _Code(later, "no: this commit has the files that it was trained with")


def _summary(client: mlflow.MlflowClient, run: Run, code: _Code) -> dict[str, str]:
    tags, info, score = run.data.tags, run.info, run.data.metrics.get("weighted_f1")
    digest = tags.get(MODEL_TAG, "")
    versions = client.search_model_versions(f"name = '{registry.MODEL_NAME}' and run_id = '{info.run_id}'")
    names = [_name(client, str(version.version)) for version in versions]
    rows = {"run": f"{info.run_id}  ({info.run_name}, {info.status.lower()}) on {server.redacted_uri()}"}
    if info.lifecycle_stage == LifecycleStage.DELETED:
        rows["DELETED"] = f"until `mlflow gc` removes it, `mlflow runs restore --run-id {info.run_id}` brings it back"
    return rows | {
        "began": _date(info.start_time),
        "model": "  ".join([digest[:VERSION_LENGTH] or "none was recorded", *names]),
        "commit": code.commit or "unknown: trained outside Git",
        "branch": tags.get("git_branch", "unknown"),
        "dirty": code.dirty,
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


def restore_dvc_lock(training: Run | Version) -> str:
    """Replace dvc.lock by that of a run, so that `dvc checkout` restores its data and model.

    Args:
        training: see `find_training`.

    Returns:
        What was done and what comes next, in one line.

    Raises:
        UserError: no dvc.lock is attached to the run, or it was deleted.
    """
    if isinstance(training, Version):
        raise UserError(
            f"run {training.run_id} was deleted in MLflow, and its dvc.lock with it; `rakuten trace {training.number}` "
            "shows what is left"
        )
    run_id = training.info.run_id
    if not _has_dvc_lock(training):
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


def _restore_steps(run: Run, code: _Code) -> Iterator[str]:
    if not code.commit:
        yield "not possible: no commit was recorded"
        return
    yield f"git checkout {code.commit}"
    if _has_dvc_lock(run):
        yield f"rakuten trace --restore-lock {run.info.run_id}"
        yield "dvc checkout --allow-missing    # `dvc pull --allow-missing` if the files are not in the cache"
        yield "dvc repro                       # only predict runs"
    else:
        yield "dvc repro                       # no dvc.lock was attached: this trains again"
    if code.is_lost:
        yield "but the tree was dirty: changes that were not committed are lost"


def _steps(steps: Iterable[str]) -> str:
    return "to restore this state\n" + "\n".join(f"  {step}" for step in steps)


def _synthetic(tags: Mapping[str, str]) -> str:
    return ", on SYNTHETIC data" if tags.get("synthetic") == "true" else ""


def _name(client: mlflow.MlflowClient, number: str) -> str:
    aliases = client.get_model_version(registry.MODEL_NAME, number).aliases
    suffix = f" ({', '.join(sorted(aliases))})" if aliases else ""
    return f"{registry.MODEL_NAME} version {number}{suffix}"


def _date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _align(rows: Mapping[str, str], indent: str = "") -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {value}" for name, value in rows.items())
