from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus

from rakuten.errors import UserError
from rakuten.tracking import registry, server
from rakuten.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME, Version
from rakuten.tracking.training_run import TrainingRun


@pytest.fixture
def register(store: mlflow.MlflowClient) -> Callable[..., Version]:
    """Register the model of a new run: `register(started=1, delayed=True)` returns its version."""

    def register_new(started: int = 0, delayed: bool = False) -> Version:
        experiment = server.get_or_create_experiment(store, "trainings")
        run_id = store.create_run(experiment).info.run_id
        model = store.create_logged_model(experiment, "model", source_run_id=run_id)
        store.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        version = registry.get_by_number(registry.register(run_id, model, {"model_digest": "digest"}, started, delayed))
        assert version is not None
        return version

    return register_new


def number(alias: str) -> str | None:
    version = registry.get_by_alias(alias)
    return version and version.number


def test_an_empty_registry_has_no_versions(store: mlflow.MlflowClient) -> None:
    assert registry.get_by_alias(CHAMPION) is None
    assert registry.get_by_number("1") is None


def test_a_missing_alias_or_number_is_none(register: Callable[..., Version]) -> None:
    register()
    assert registry.get_by_alias(CHAMPION) is None
    assert registry.get_by_number("2") is None


def test_an_error_of_the_server_is_not_taken_for_a_missing_version(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> None:
        raise mlflow.MlflowException("its database is down")

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", fail)
    with pytest.raises(mlflow.MlflowException, match="database is down"):
        registry.get_by_alias(CHAMPION)


def test_a_registered_model_is_the_challenger_and_carries_its_digest(
    register: Callable[..., Version], store: mlflow.MlflowClient
) -> None:
    version = register(started=7)
    assert (version.number, version.started, version.previous_champion, version.rolled_back) == ("1", 7, None, False)
    assert registry.get_by_alias(CHALLENGER) == version
    assert version.model_digest == "digest"


def test_a_run_is_registered_once(record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient) -> None:
    run_id = record_training().run_id
    (model,) = store.search_logged_models([store.get_run(run_id).info.experiment_id])
    assert registry.register(run_id, model, {"model_digest": "digest"}, 0, delayed=False) == "1"
    assert len(store.search_model_versions(f"name = '{MODEL_NAME}'")) == 1


@pytest.mark.parametrize(
    ("started", "delayed", "challenger"),
    [
        (5, False, "2"),  # the clock of its machine is slow
        (5, True, "1"),  # sent late: the later training stays
        (10, True, "2"),
        (15, True, "2"),
    ],
)
def test_the_latest_training_is_the_challenger(
    started: int, delayed: bool, challenger: str, register: Callable[..., Version]
) -> None:
    register(started=10)
    register(started, delayed)
    assert number(CHALLENGER) == challenger


def test_the_first_champion_has_no_previous_one(register: Callable[..., Version]) -> None:
    registry.promote(register(), None)
    champion = registry.get_by_alias(CHAMPION)
    assert champion is not None
    assert champion.previous_champion is None


def test_a_promotion_records_the_previous_champion_and_can_be_rolled_back(register: Callable[..., Version]) -> None:
    first, second = register(), register()
    registry.promote(first, None)
    registry.promote(second, first)
    champion = registry.get_by_alias(CHAMPION)
    assert champion is not None
    assert (champion.number, champion.previous_champion) == ("2", "1")
    registry.roll_back(champion, first)
    assert number(CHAMPION) == "1"
    rolled_back = registry.get_by_number("2")
    assert rolled_back is not None
    assert rolled_back.rolled_back


def test_a_decision_is_a_tag_of_the_version(register: Callable[..., Version], store: mlflow.MlflowClient) -> None:
    registry.tag_decision(register(), "not promoted")
    assert store.get_model_version(MODEL_NAME, "1").tags["promotion"] == "not promoted"


TRACEABLE = {"git_commit": "c", "git_dirty": "false"}


def test_a_version_with_commit_and_data_is_traceable(record_training: Callable[..., TrainingRun], models: Path) -> None:
    raw, features = models.parent / "raw" / "X_train.csv", models.parent / "features.csv"
    raw.parent.mkdir()
    for path in (raw, features):
        path.write_text("a\n")
    record_training(data=[raw, features], tags=TRACEABLE)
    version = registry.get_by_alias(CHALLENGER)
    assert version is not None
    registry.check_traceable(version)


@pytest.mark.parametrize(
    ("tags", "missing"),
    [
        (TRACEABLE, "missing digests of the features; digests of the raw data"),
        (TRACEABLE | {"git_commit": ""}, "missing git_commit; digests"),
    ],
)
def test_what_is_missing_to_trace_a_version_is_named(
    tags: dict[str, str], missing: str, record_training: Callable[..., TrainingRun]
) -> None:
    record_training(tags=tags)
    version = registry.get_by_alias(CHALLENGER)
    assert version is not None
    with pytest.raises(UserError, match=missing):
        registry.check_traceable(version)


def test_a_version_whose_run_was_deleted_is_not_traceable(version: Version, store: mlflow.MlflowClient) -> None:
    store.delete_run(version.run_id)
    with pytest.raises(UserError, match="version 1 is not promoted: its run was deleted in MLflow"):
        registry.check_traceable(version)


def test_artifacts_are_downloaded(version: Version, tmp_path: Path) -> None:
    copy = registry.download(version.run_id, "reports/report.json", tmp_path / "copy")
    assert copy.read_text() == "{}"


def test_a_missing_artifact_is_named(version: Version, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"reports/none.json of run {version.run_id} cannot be fetched"):
        registry.download(version.run_id, "reports/none.json", tmp_path / "copy")
