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
from rakuten.tracking.lineage import MODEL_TAG, VERSION_LENGTH
from rakuten.tracking.training_run import DATASET_PATH_TAG

Run = mlflow.entities.Run


def find(asked: mlflow.MlflowClient, what: str) -> Run:
    """The run that something was trained by.

    Args:
        what: a run's id; `model_version` as a row of predictions.csv has it; a version of
            rakuten-classifier by its number, or by an alias (champion, challenger).

    Raises:
        UserError: nothing is known by this name.
    """
    what = what.strip("\"' ")  # as copied from a CSV file
    if re.fullmatch(r"[0-9a-f]{32}", what):
        try:
            return asked.get_run(what)
        except mlflow.MlflowException as error:
            if error.error_code not in registry.NOT_FOUND_CODES:
                raise
    elif re.fullmatch(rf"[0-9a-f]{{{VERSION_LENGTH},64}}", what):
        experiments = [experiment.experiment_id for experiment in asked.search_experiments()]
        query = f"tags.{MODEL_TAG} LIKE '{what}%'"
        for run in asked.search_runs(experiments, query, max_results=1, order_by=["attributes.start_time DESC"]):
            return run
    else:
        name = what.removeprefix(registry.MODEL_NAME).lstrip("/@")
        version = registry.find_by_number(asked, name) if name.isdigit() else registry.find_by_alias(asked, name)
        if version is not None:
            return asked.get_run(str(version.run_id))
    raise UserError(
        f"{what}: no such run or version on {server.redacted_uri()}; a run's id, model_version of a prediction, "
        f"a number or an alias of {registry.MODEL_NAME} is asked for"
    )


def format_run(asked: mlflow.MlflowClient, run: Run) -> str:
    """All that leads back to a run's code and data, as text for a terminal."""
    tags, metrics = run.data.tags, run.data.metrics
    digest = tags.get(MODEL_TAG, "")
    versions = asked.search_model_versions(f"name = '{registry.MODEL_NAME}' and run_id = '{run.info.run_id}'")
    names = [
        f"{registry.MODEL_NAME} version {version.version}{_aliases(asked, version.version)}" for version in versions
    ]
    began = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    score = metrics.get("weighted_f1")
    about = {
        "run": f"{run.info.run_id}  ({run.info.run_name}, {run.info.status.lower()}) on {server.redacted_uri()}",
        "began": f"{began:%Y-%m-%d %H:%M:%S} UTC",
        "model": "  ".join([digest[:VERSION_LENGTH] or "none was recorded", *names]),
        "commit": tags.get("git_commit", "unknown: trained outside Git"),
        "branch": tags.get("git_branch", "unknown"),
        "dirty": _dirty(tags),
        "score": "none was recorded" if score is None else f"weighted F1 {score:.4f} out of fold{_synthetic(tags)}",
    }
    blocks = [_align(about)]
    blocks.append("parameters\n" + _align(dict(sorted(run.data.params.items())), "  "))
    blocks.append("data (MD5, as DVC has it)\n" + _align(run_inputs(run), "  "))
    blocks.append("back to this very state\n" + "\n".join(f"  {line}" for line in _way_back(run)))
    return "\n\n".join(blocks)


def run_inputs(run: Run) -> dict[str, str]:
    """Path -> MD5 of the data a run was trained on."""
    if run.inputs is None:
        return {}
    found = {}
    for entry in run.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in entry.tags}
        found[tags.get(DATASET_PATH_TAG, entry.dataset.name)] = entry.dataset.digest
    return found


def inputs_of_run(run_id: str) -> dict[str, str]:
    """Path -> MD5 of the data that a run, known by its id, was trained on."""
    return run_inputs(server.client().get_run(run_id))


def restore_dvc_lock(run: Run) -> str:
    """Write the run's dvc.lock here, so that `dvc checkout` brings its data and model back.

    Raises:
        UserError: the run has none.
    """
    if dvc_lock.LOCK_TAG not in run.data.tags and not _has_dvc_lock(run):
        raise UserError(f"run {run.info.run_id} has no dvc.lock: it was trained without `dvc repro`")
    with tempfile.TemporaryDirectory() as folder, atomic_write(DVC_LOCK) as (part,):
        part.write_bytes(registry.download(run.info.run_id, dvc_lock.DVC_LOCK_NAME, Path(folder)).read_bytes())
    return f"dvc.lock is that of run {run.info.run_id}; `dvc checkout --allow-missing` brings its data and model"


def _has_dvc_lock(run: Run) -> bool:
    return any(entry.path == dvc_lock.DVC_LOCK_NAME for entry in server.client().list_artifacts(run.info.run_id))


def _way_back(run: Run) -> Iterator[str]:
    commit = run.data.tags.get("git_commit")
    if not commit:
        yield "not possible: no commit was recorded"
        return
    yield f"git checkout {commit}"
    if dvc_lock.LOCK_TAG in run.data.tags or _has_dvc_lock(run):
        yield f"rakuten trace --restore-lock {run.info.run_id}"
        yield "dvc checkout --allow-missing    # `dvc pull --allow-missing` where the cache is not here"
        yield "dvc repro                       # only predict has something to do"
    else:
        yield "dvc repro                       # no dvc.lock was attached: this trains again"
    if run.data.tags.get("git_dirty") == "true":
        yield "but the tree was dirty: what was changed and not committed is lost"


def _dirty(tags: Mapping[str, str]) -> str:
    known = {"true": "YES: files differed from the commit", "false": "no"}
    return known.get(tags.get("git_dirty", ""), "unknown")


def _synthetic(tags: Mapping[str, str]) -> str:
    return ", on SYNTHETIC data" if tags.get("synthetic") == "true" else ""


def _aliases(asked: mlflow.MlflowClient, version: str) -> str:
    aliases = asked.get_model_version(registry.MODEL_NAME, version).aliases
    return f" ({', '.join(sorted(aliases))})" if aliases else ""


def _align(rows: Mapping[str, str], indent: str = "") -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {value}" for name, value in rows.items())
