import os

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from rakuten.errors import UserError
from rakuten.tracking import server


def test_the_embedded_store_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert server.uri().startswith("sqlite:///")
    server.check_server()


@pytest.mark.parametrize(
    ("address", "redacted"),
    [
        ("http://user:secret@a:1/x", "http://a:1/x"),
        ("postgresql://user:secret@a/b", "postgresql://a/b"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_credentials_in_the_address_are_not_shown(address: str, redacted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert server.redacted_uri() == redacted
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"


def test_an_error_does_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@a:1")
    text = server.one_line(MlflowException("API request to http://user:secret@a:1/api failed"))
    assert text == "API request to http://a:1/api failed"


def test_an_error_of_mlflow_becomes_one_line() -> None:
    with pytest.raises(UserError, match="the tracking server .* failed: a b") as caught, server.mlflow_errors():
        raise MlflowException("a\n  b" + " c" * 500)
    assert str(caught.value).endswith("...")
    assert "\n" not in str(caught.value)


def test_an_experiment_is_created_once_with_the_projects_artifact_folder(store: mlflow.MlflowClient) -> None:
    experiment_id = server.get_or_create_experiment(store, "trainings")
    assert server.get_or_create_experiment(store, "trainings") == experiment_id
    assert store.get_experiment(experiment_id).artifact_location.startswith(server.ARTIFACTS_FOLDER.as_uri())


def test_an_experiment_that_another_training_creates_in_the_meantime_is_used(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create_experiment

    def create_too_late(name: str, **more: str) -> str:
        create(name, **more)
        return create(name, **more)  # the second fails: the name exists

    monkeypatch.setattr(store, "create_experiment", create_too_late)
    experiment_id = server.get_or_create_experiment(store, "trainings")
    assert store.get_experiment(experiment_id).name == "trainings"


def test_a_deleted_experiment_is_refused(store: mlflow.MlflowClient) -> None:
    store.delete_experiment(server.get_or_create_experiment(store, "trainings"))
    with pytest.raises(UserError, match="'trainings' was deleted: restore it"):
        server.get_or_create_experiment(store, "trainings")


def test_the_newest_run_of_all_experiments_is_found(store: mlflow.MlflowClient) -> None:
    for name, started, mark in (("a", 2, "x"), ("b", 3, "x"), ("a", 1, "x"), ("b", 4, "y")):
        store.create_run(server.get_or_create_experiment(store, name), started, {"mark": mark})
    newest = server.newest_run(store, "tags.mark = 'x'")
    assert newest is not None
    assert newest.info.start_time == 3
    assert server.newest_run(store, "tags.mark = 'z'") is None
