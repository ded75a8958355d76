from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import yaml

from rakuten.files import digest
from rakuten.tracking import dvc_lock, lineage, registry, training_run
from rakuten.tracking.training_run import FILES_FOLDER, PENDING_FOLDER, TrainingRun
from tests.support.servers import free_port


@pytest.fixture
def lock(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dvc.lock that records the model in `models`, and a later stage."""
    path = models.parent / "dvc.lock"
    out = {"path": "models/model.safetensors", "md5": digest(models / "model.safetensors", "md5")}
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train": {"outs": [out]}, "predict": {"outs": []}}}))
    monkeypatch.setattr(lineage, "ROOT", models.parent)
    monkeypatch.setattr(lineage, "DVC_LOCK", path)
    return path


def attached(run_id: str, folder: Path) -> dict[str, object]:
    lock = yaml.safe_load(registry.download(run_id, "dvc.lock", folder).read_text())
    assert isinstance(lock, dict)
    return lock


def test_the_run_of_the_model_gets_dvc_lock_up_to_the_training(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, lock: Path, models: Path, tmp_path: Path
) -> None:
    run_id = record_training().run_id
    dvc_lock.attach_dvc_lock(models)
    assert list(attached(run_id, tmp_path / "copy")["stages"]) == ["train"]  # type: ignore[call-overload]
    assert store.get_run(run_id).data.tags["dvc_lock"] == digest(tmp_path / "copy" / "dvc.lock", "md5")


def test_dvc_lock_is_attached_once(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, lock: Path, models: Path
) -> None:
    run_id = record_training().run_id
    dvc_lock.attach_dvc_lock(models)
    tag = store.get_run(run_id).data.tags["dvc_lock"]
    lock.write_text(lock.read_text() + "# changed\n")
    dvc_lock.attach_dvc_lock(models)
    assert store.get_run(run_id).data.tags["dvc_lock"] == tag


def test_of_runs_with_the_same_model_the_one_that_made_these_files_gets_it(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, lock: Path, models: Path
) -> None:
    first = record_training().run_id
    here = (models / "run.json").read_text()
    second = record_training().run_id
    (models / "run.json").write_text(here)
    dvc_lock.attach_dvc_lock(models)
    assert "dvc_lock" in store.get_run(first).data.tags
    assert "dvc_lock" not in store.get_run(second).data.tags


def test_a_model_that_was_pulled_belongs_to_the_newest_run(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, lock: Path, models: Path
) -> None:
    first, second = record_training().run_id, record_training().run_id
    (models / "run.json").unlink()
    dvc_lock.attach_dvc_lock(models)
    assert "dvc_lock" not in store.get_run(first).data.tags
    assert "dvc_lock" in store.get_run(second).data.tags


def test_a_record_that_was_not_sent_yet_gets_it_on_disk(
    record_training: Callable[..., TrainingRun], lock: Path, models: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "send_record", fail)
        run_id = record_training().run_id
    dvc_lock.attach_dvc_lock(models)
    assert (models / PENDING_FOLDER / run_id / FILES_FOLDER / "dvc.lock").is_file()
    training_run.send_pending(models)
    assert "train" in attached(run_id, tmp_path / "copy")["stages"]  # type: ignore[operator]


@pytest.mark.parametrize("text", [None, "schema: '2.0'\nstages:\n  train:\n    outs:\n    - {path: m, md5: abc}\n"])
def test_a_dvc_lock_of_another_model_is_not_attached(
    text: str | None, models: Path, lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if text is None:
        lock.unlink()
    else:
        lock.write_text(text)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")  # not asked
    with caplog.at_level("INFO"):
        dvc_lock.attach_dvc_lock(models)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "dvc.lock does not record this model" in caplog.text


def test_a_server_that_is_away_is_a_warning(
    models: Path, lock: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    dvc_lock.attach_dvc_lock(models)
    assert "dvc.lock was not attached to the training's run: the tracking server" in caplog.text
