from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from rakuten.errors import UserError
from rakuten.tracking import commits, trace
from rakuten.tracking.lineage import model_version
from rakuten.tracking.registry import Version
from rakuten.tracking.training_run import TrainingRun

TAGS = {"git_commit": "abc", "git_branch": "main", "git_dirty": "false"}


def found_run(store: mlflow.MlflowClient, name: str) -> mlflow.entities.Run:
    training = trace.find_training(store, name)
    assert isinstance(training, mlflow.entities.Run)
    return training


@pytest.mark.parametrize("name", ["1", "challenger", "rakuten-classifier/1", "rakuten-classifier@challenger"])
def test_a_version_leads_to_its_run(name: str, version: Version, store: mlflow.MlflowClient) -> None:
    assert found_run(store, name).info.run_id == version.run_id


def test_a_run_is_found_by_its_id(version: Version, store: mlflow.MlflowClient) -> None:
    assert found_run(store, version.run_id).info.run_id == version.run_id


def test_a_run_that_can_be_restored_in_mlflow_is_found_by_its_model(
    version: Version, store: mlflow.MlflowClient, models: Path
) -> None:
    store.delete_run(version.run_id)
    text = trace.format_training(store, found_run(store, model_version(models)))
    assert f"`mlflow runs restore --run-id {version.run_id}` brings it back" in text


def test_of_a_run_that_was_deleted_for_good_is_shown_what_its_version_records(
    deleted: Version, store: mlflow.MlflowClient, models: Path
) -> None:
    assert [trace.find_training(store, name) for name in ("champion", deleted.run_id, model_version(models))] == [
        deleted
    ] * 3
    text = trace.format_training(store, deleted)
    rows = dict(line.split(maxsplit=1) for line in text.splitlines() if "  " in line)
    assert rows["DELETED"].startswith("for good, with its branch, score, parameters, digests of the data")
    assert rows["model"] == (
        f"{model_version(models)}  rakuten-classifier version 1 (challenger, champion), trained on SYNTHETIC data"
    )
    assert rows["commit"] == "abc"
    assert "to restore this state\n  git checkout abc\n  dvc repro " in text
    assert trace.format_training(store, replace(deleted, commit=None)).endswith("not possible: its commit is unknown")
    with pytest.raises(UserError, match="was deleted in MLflow, and its dvc.lock with it; `rakuten trace 1` shows"):
        trace.restore_dvc_lock(deleted)


def test_before_a_promotion_the_next_step_is_named(version: Version, store: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match="no champion yet on .*: `make promote` makes the challenger the champion"):
        trace.find_training(store, "champion")


@pytest.mark.parametrize("alias", ["rakuten-classifier@champion", "challenger"])
def test_before_a_training_the_next_step_is_named(alias: str, store: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match="has no .* yet on .*: `make run` trains one"):
        trace.find_training(store, alias)


@pytest.mark.parametrize("quoted", ["{}", '"{}"', " '{}' "])
def test_a_prediction_leads_to_the_newest_run_of_its_model(
    quoted: str, version: Version, record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, models: Path
) -> None:
    newest = record_training().run_id
    assert found_run(store, quoted.format(model_version(models))).info.run_id == newest


@pytest.mark.parametrize("name", ["7", "nobody", "0" * 12, "0" * 32, "", "%"])
def test_an_unknown_name_is_refused(name: str, version: Version, store: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match="no such run or version on sqlite:.*; give a run's id"):
        found_run(store, name)


def text_of(store: mlflow.MlflowClient, tags: dict[str, str], record: Callable[..., TrainingRun]) -> str:
    return trace.format_training(store, store.get_run(record(tags=tags).run_id))


def test_a_run_is_shown_with_all_that_made_it(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, models: Path, tmp_path: Path
) -> None:
    data = tmp_path / "features.csv"
    data.write_text("a\n")
    run_id = record_training(data=[data], tags=TAGS | {"synthetic": "true"}).run_id
    lines = trace.format_training(store, store.get_run(run_id)).splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines if "  " in line)
    assert rows["run"].startswith(f"{run_id}  (")
    assert rows["model"] == f"{model_version(models)}  rakuten-classifier version 1 (challenger)"
    assert (rows["commit"], rows["branch"], rows["dirty"]) == ("abc", "main", "no")
    assert rows["score"] == "weighted F1 0.5000 out of fold, on SYNTHETIC data"
    assert rows["seed"] == "42"
    assert rows[str(data)] == "60b725f10c9c85c70d97880dfe8191b3"


def test_a_run_without_a_commit_cannot_be_restored(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient
) -> None:
    text = text_of(store, {"git_commit": ""}, record_training)
    assert text.endswith("to restore this state\n  not possible: no commit was recorded")


def test_a_run_without_dvc_lock_is_restored_by_training_again(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient
) -> None:
    steps = text_of(store, TAGS, record_training).partition("to restore this state\n")[2].splitlines()
    assert [step.partition("#")[0].strip() for step in steps] == ["git checkout abc", "dvc repro"]


def test_a_run_with_dvc_lock_is_restored_from_it(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run_id = record_training(tags=TAGS).run_id
    (tmp_path / "dvc.lock").write_text("")
    store.log_artifact(run_id, str(tmp_path / "dvc.lock"))
    steps = trace.format_training(store, store.get_run(run_id)).partition("to restore this state\n")[2].splitlines()
    assert [step.partition("#")[0].strip() for step in steps] == [
        "git checkout abc",
        f"rakuten trace --restore-lock {run_id}",
        "dvc checkout --allow-missing",
        "dvc repro",
    ]


def test_a_dirty_tree_is_shown(record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient) -> None:
    text = text_of(store, TAGS | {"git_dirty": "true"}, record_training)
    assert "YES: files differed from the commit; its run has no dvc.lock: train by `dvc repro`" in text
    assert text.endswith("changes that were not committed are lost")


def test_a_commit_after_the_training_is_shown_before_a_promotion(
    record_training: Callable[..., TrainingRun],
    store: mlflow.MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "find_commit", lambda lock: f"later {lock['stages']}")
    run_id = record_training(tags=TAGS | {"git_dirty": "true"}).run_id
    (tmp_path / "dvc.lock").write_text("stages: {train: 1}")
    store.log_artifact(run_id, str(tmp_path / "dvc.lock"))
    text = trace.format_training(store, store.get_run(run_id))
    assert "git checkout later {'train': 1}\n" in text
    assert "dirty   no: this commit has the files that it was trained with" in text
    assert "lost" not in text


def test_dvc_lock_of_a_run_is_restored(
    version: Version, store: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "then").mkdir()
    (tmp_path / "then" / "dvc.lock").write_text("then")
    store.log_artifact(version.run_id, str(tmp_path / "then" / "dvc.lock"))
    (tmp_path / "dvc.lock").write_text("now")
    monkeypatch.setattr(trace, "DVC_LOCK", tmp_path / "dvc.lock")
    line = trace.restore_dvc_lock(store.get_run(version.run_id))
    assert (tmp_path / "dvc.lock").read_text() == "then"
    assert line.startswith(f"dvc.lock is that of run {version.run_id}; `dvc checkout --allow-missing`")


def test_without_dvc_lock_nothing_is_restored(
    version: Version, store: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.lock").write_text("now")
    monkeypatch.setattr(trace, "DVC_LOCK", tmp_path / "dvc.lock")
    with pytest.raises(UserError, match="has no dvc.lock: it was trained without `dvc repro`"):
        trace.restore_dvc_lock(store.get_run(version.run_id))
    assert (tmp_path / "dvc.lock").read_text() == "now"


def test_the_inputs_of_a_run_are_known_by_path(
    record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    paths = [tmp_path / folder / "features.csv" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    run_id = record_training(data=paths).run_id
    assert set(trace.inputs_of_run(run_id)) == set(map(str, paths))
    assert trace.run_inputs(store.get_run(run_id)) == trace.inputs_of_run(run_id)
