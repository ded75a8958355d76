"""dvc.lock, attached to the run that it records."""

import logging
import tempfile
from pathlib import Path

import yaml

from rakuten.errors import UserError
from rakuten.files import digest
from rakuten.tracking import server, training_run
from rakuten.tracking.lineage import MODEL_TAG, is_in_dvc_lock, model_digest, read_dvc_lock

log = logging.getLogger(__name__)

LOCK_TAG = "dvc_lock"  # MD5 of the dvc.lock that was attached
DVC_LOCK_NAME = "dvc.lock"


def attach_dvc_lock(models: Path) -> None:
    """Attach dvc.lock to the run that trained this model, now that DVC has written its entry.

    A stage cannot see its own entry in dvc.lock, so what comes after the training calls this.
    Nothing is attached where dvc.lock does not record this very model (a training without DVC),
    and a tracking server that is away is only warned of: predictions do not need it.
    """
    if not is_in_dvc_lock(models):
        log.info("dvc.lock does not record this model, so no run gets it; `dvc repro` makes both")
        return
    run_id = training_run.local_run_id(models)
    waiting = models / training_run.PENDING_FOLDER / str(run_id)
    if run_id and waiting.is_dir():
        _write(waiting / training_run.FILES_FOLDER)
        return
    try:
        server.check_server()
        with server.mlflow_errors():
            _attach(models, run_id)
    except UserError as error:
        log.warning("dvc.lock was not attached to the training's run: %s", error)


def _attach(models: Path, run_id: str | None) -> None:
    asked = server.client()
    experiments = [experiment.experiment_id for experiment in asked.search_experiments()]
    query = f"tags.{MODEL_TAG} = '{model_digest(models)}'"
    if run_id:
        query += f" and attributes.run_id = '{run_id}'"
    # Runs with other parameters may have given the same model: only the newest is the one in dvc.lock.
    for run in asked.search_runs(experiments, query, max_results=1, order_by=["attributes.start_time DESC"]):
        if LOCK_TAG not in run.data.tags:
            with tempfile.TemporaryDirectory() as folder:
                written = _write(Path(folder))
                asked.log_artifact(run.info.run_id, str(written))
                asked.set_tag(run.info.run_id, LOCK_TAG, digest(written, "md5"))


def _write(folder: Path) -> Path:
    """Write dvc.lock up to the training: what predict left there is of an earlier model, or not there yet."""
    lock = read_dvc_lock()
    stages = {name: stage for name, stage in lock["stages"].items() if name != "predict"}
    path = folder / DVC_LOCK_NAME
    text = yaml.safe_dump({**lock, "stages": stages}, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
