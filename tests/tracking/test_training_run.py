import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus

from rakuten.errors import UserError
from rakuten.files import digest
from rakuten.models.pyfunc_model import OUTPUTS
from rakuten.tracking import registry, server, training_run
from rakuten.tracking.lineage import model_digest, model_version
from rakuten.tracking.registry import CHALLENGER, MODEL_NAME
from rakuten.tracking.training_run import PENDING_FOLDER, RECORD_FILE, TrainingRun


@pytest.fixture
def pending(record_training: Callable[..., TrainingRun], models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a record that could not be sent."""

    def fail(*_: object) -> None:
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "send_record", fail)
        run = record_training()
    return models / PENDING_FOLDER / run.run_id


def test_a_training_is_a_finished_run_with_its_results(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, models: Path
) -> None:
    run = store.get_run(record_training(tags={"synthetic": "true"}).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "42"}
    assert run.data.metrics["weighted_f1"] == 0.5
    assert run.data.tags["synthetic"] == "true"
    assert run.data.tags["model_digest"] == model_digest(models)
    artifacts = {artifact.path for artifact in store.list_artifacts(run.info.run_id)}
    assert artifacts == {"dvc.yaml", "params.yaml", "reports"}
    assert not training_run.pending_runs(models)


def test_each_file_trained_on_is_an_input_with_its_md5(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    raw, features = tmp_path / "raw" / "X_train.csv", tmp_path / "X_train.csv"
    raw.parent.mkdir()
    raw.write_text("a\n")
    features.write_text("b\n")
    inputs = store.get_run(record_training(data=[raw, features]).run_id).inputs.dataset_inputs
    assert {entry.dataset.digest: {tag.key: tag.value for tag in entry.tags} for entry in inputs} == {
        digest(raw, "md5"): {"mlflow.data.context": "raw", "path": str(raw)},
        digest(features, "md5"): {"mlflow.data.context": "training", "path": str(features)},
    }


def test_a_run_has_the_name_of_its_model_its_source_and_the_model_card_as_note(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, models: Path
) -> None:
    run = store.get_run(record_training().run_id)
    assert run.info.run_name == f"train-{model_version(models)}"
    assert run.data.tags["mlflow.note.content"] == "# The card"
    assert run.data.tags["mlflow.source.name"]
    assert run.data.tags["mlflow.user"]


@pytest.mark.parametrize("name", ["MODELS", "PROCESSED"])
def test_a_training_from_or_into_another_folder_is_recorded_but_never_the_challenger(
    name: str,
    record_training: Callable[..., TrainingRun],
    store: mlflow.MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "features.csv").write_text("a\n")
    (tmp_path / "linked.csv").symlink_to("/dev/null")  # as DVC links files of its cache, if it is told to
    data = [tmp_path / "features.csv", tmp_path / "linked.csv"]
    first = record_training(data).run_id
    monkeypatch.setattr(training_run, name, tmp_path / "elsewhere")
    second = record_training(data).run_id
    assert store.get_run(second).info.status == "FINISHED"
    challenger = registry.get_by_alias(registry.CHALLENGER)
    assert challenger is not None
    assert challenger.run_id == first


def test_an_experiment_of_dvc_gives_the_run_its_name(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-llama")
    assert store.get_run(record_training().run_id).info.run_name == "brave-llama"


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_a_training_that_stops_has_its_status(
    error: type[BaseException], status: str, store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    with pytest.raises(error), training_run.training_run({}, [], {}, tmp_path) as run:
        raise error
    assert store.get_run(run.run_id).info.status == status


def test_a_run_that_cannot_be_created_stops_the_training(
    store: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.delete_experiment(server.get_or_create_experiment(store, "trainings"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "trainings")
    with pytest.raises(UserError, match="was deleted"), training_run.training_run({}, [], {}, tmp_path):
        pytest.fail("the training began")


def test_a_record_that_could_not_be_sent_is_kept_with_a_warning(
    pending: Path, store: mlflow.MlflowClient, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (warning,) = [record.getMessage() for record in caplog.get_records("setup") if record.levelname == "WARNING"]
    assert warning.endswith(f"failed (no route): the run is kept in {pending}; `rakuten sync` sends it")
    assert training_run.pending_runs(models) == [pending]
    assert store.get_run(pending.name).info.status == "RUNNING"


def test_a_kept_record_is_sent_later_and_once(pending: Path, store: mlflow.MlflowClient, models: Path) -> None:
    assert training_run.send_pending(models) == [pending.name]
    run = store.get_run(pending.name)
    assert (run.info.status, run.data.metrics["weighted_f1"]) == ("FINISHED", 0.5)
    assert not pending.exists()
    assert training_run.send_pending(models) == []


def test_a_record_that_was_sent_already_changes_nothing(
    pending: Path, store: mlflow.MlflowClient, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(pending, tmp_path / "again")
    training_run.send_pending(models)
    training_run.send_record(tmp_path / "again")
    assert len(store.get_metric_history(pending.name, "weighted_f1")) == 1
    assert len(store.search_logged_models([store.get_run(pending.name).info.experiment_id])) == 1
    assert len(store.search_model_versions(f"name = '{MODEL_NAME}'")) == 1


def test_a_model_that_was_sent_in_part_is_sent_again(pending: Path, store: mlflow.MlflowClient, models: Path) -> None:
    experiment = store.get_run(pending.name).info.experiment_id
    partial = store.create_logged_model(experiment, "model", source_run_id=pending.name)
    training_run.send_pending(models)
    (model,) = store.search_logged_models([experiment])
    assert model.status == LoggedModelStatus.READY
    assert model.model_id != partial.model_id


def test_a_run_that_the_server_lost_is_created_again(pending: Path, store: mlflow.MlflowClient, models: Path) -> None:
    record = json.loads((pending / RECORD_FILE).read_text())
    (pending / RECORD_FILE).write_text(json.dumps(record | {"run_id": "0" * 32}))
    (run_id,) = training_run.send_pending(models)
    run = store.get_run(run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"seed": "42"})
    assert run.info.start_time == record["started"]


def test_a_run_that_was_deleted_in_mlflow_is_created_again(
    pending: Path, store: mlflow.MlflowClient, models: Path
) -> None:
    store.delete_run(pending.name)
    (run_id,) = training_run.send_pending(models)
    assert run_id != pending.name
    assert store.get_run(run_id).info.status == "FINISHED"


def test_an_altered_record_is_not_sent(pending: Path, models: Path) -> None:
    manifest = pending / "model" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(UserError, match="its model has changed since; delete this folder"):
        training_run.send_pending(models)
    assert pending.is_dir()


def test_a_kept_record_does_not_replace_a_later_challenger(
    pending: Path, record_training: Callable[..., TrainingRun], models: Path
) -> None:
    later = record_training().run_id
    training_run.send_pending(models)
    challenger = registry.get_by_alias(CHALLENGER)
    assert challenger is not None
    assert challenger.run_id == later


def test_the_model_here_is_known_by_its_run(record_training: Callable[..., TrainingRun], models: Path) -> None:
    run = record_training(tags={"git_commit": "abc"})
    record = training_run.local_run_record(models)
    assert (record["run_id"], record["git_commit"]) == (run.run_id, "abc")
    assert training_run.local_run_id(models) == run.run_id


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_model_that_came_from_elsewhere_has_no_run(text: str | None, models: Path) -> None:
    if text is not None:
        (models / "run.json").write_text(text)
    assert training_run.local_run_record(models) == {}
    assert training_run.local_run_id(models) is None


def test_an_altered_model_has_no_run(record_training: Callable[..., TrainingRun], models: Path) -> None:
    record_training()
    (models / "manifest.json").write_text("{}")
    assert training_run.local_run_record(models) == {}


def test_the_logged_model_returns_the_declared_columns(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient
) -> None:
    record_training()
    signature = mlflow.models.get_model_info(f"models:/{MODEL_NAME}/1").signature
    assert {column.name: column.type.name for column in signature.outputs} == OUTPUTS
    assert signature.inputs.input_names() == ["designation", "description", "picture"]
