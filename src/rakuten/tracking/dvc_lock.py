"""dvc.lock as an artifact of the run that it records."""

import logging
import tempfile
from pathlib import Path

import yaml

from rakuten.errors import UserError
from rakuten.files import digest
from rakuten.tracking import server, training_run
from rakuten.tracking.lineage import DVC_LOCK_NAME, MODEL_TAG, is_in_dvc_lock, model_digest, read_dvc_lock

log = logging.getLogger(__name__)

LOCK_TAG = "dvc_lock"  # tag of a run: MD5 of the dvc.lock attached to it


def attach_dvc_lock(models: Path) -> None:
    """Attach dvc.lock to the run that trained the model in this folder.

    A stage cannot see its own entry in dvc.lock, because DVC writes it after the stage has ended. So this is called by
    what comes after the training. Nothing is attached if dvc.lock does not record this model (a training without DVC).
    If the tracking server is away, only a warning is logged: predictions do not need it.
    """
    if not is_in_dvc_lock(models):
        log.info("dvc.lock does not record this model, so it is not attached to the run; run `dvc repro`")
        return
    run_id = training_run.local_run_id(models)
    pending = models / training_run.PENDING_FOLDER / str(run_id)
    if run_id and pending.is_dir():  # it is sent together with the rest of the record
        _write_dvc_lock(pending / training_run.FILES_FOLDER)
        return
    try:
        server.check_server()
        with server.mlflow_errors():
            _attach(models, run_id)
    except UserError as error:
        log.warning("dvc.lock was not attached to the training's run: %s", error)


def _attach(models: Path, run_id: str | None) -> None:
    # Runs with other parameters may have given the same model: dvc.lock records the newest.
    query = f"tags.{MODEL_TAG} = '{model_digest(models)}'"
    if run_id:
        query += f" and attributes.run_id = '{run_id}'"
    client = server.get_client()
    run = server.newest_run(client, query)
    if run is None or LOCK_TAG in run.data.tags:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = _write_dvc_lock(Path(folder))
        client.log_artifact(run.info.run_id, str(path))
        client.set_tag(run.info.run_id, LOCK_TAG, digest(path, "md5"))


def _write_dvc_lock(folder: Path) -> Path:
    """Write dvc.lock without the predict stage: its entry is that of an earlier model, or missing yet."""
    lock = read_dvc_lock()
    stages = {name: stage for name, stage in lock["stages"].items() if name != "predict"}
    path = folder / DVC_LOCK_NAME
    text = yaml.safe_dump({**lock, "stages": stages}, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
