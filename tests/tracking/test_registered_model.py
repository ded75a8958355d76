import shutil
from pathlib import Path

import mlflow
import pytest

from rakuten.config import load_params
from rakuten.errors import UserError
from rakuten.models.classifier import ProductClassifier
from rakuten.tracking import registered_model, registry
from rakuten.tracking.lineage import model_digest, model_version
from rakuten.tracking.registry import MODEL_NAME, Version
from rakuten.tracking.signatures import NO_SIGNATURE


def test_without_a_promotion_there_is_no_champion(version: Version) -> None:
    assert registered_model.get_champion() is None


def test_the_promoted_version_is_the_champion(version: Version) -> None:
    registry.promote(version, None)
    assert registered_model.get_champion() == version


def test_the_model_files_of_a_version_are_downloaded_with_their_metadata(
    version: Version, models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "serving" / "model"
    metadata = registered_model.download_model(version, folder, NO_SIGNATURE)
    assert model_digest(folder) == model_digest(models)
    assert list(ProductClassifier.load(folder).classes) == [10, 2583]
    assert metadata["run_id"] == version.run_id
    assert metadata["scores"] == {"weighted_f1": 0.5, "weighted_f1_low": 0.4, "weighted_f1_high": 0.6}
    assert metadata["synthetic"] is True
    assert metadata["data"] == {}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_download_replaces_the_model_before_it(version: Version, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("")
    registered_model.download_model(version, folder, NO_SIGNATURE)
    assert not (folder / "old.txt").exists()


def test_a_commit_that_was_made_after_the_training_is_the_models(version: Version, tmp_path: Path) -> None:
    registry.tag_commit(version, "later")
    tagged = registry.get_by_number(version.number)
    assert tagged is not None
    assert registered_model.download_model(tagged, tmp_path / "model", NO_SIGNATURE)["git_commit"] == "later"


def test_a_champion_whose_run_was_deleted_still_serves(
    deleted: Version, store: mlflow.MlflowClient, models: Path, tmp_path: Path
) -> None:
    champion = registered_model.get_champion()
    assert champion == deleted
    metadata = registered_model.download_model(champion, tmp_path / "model", NO_SIGNATURE)
    assert model_digest(tmp_path / "model") == model_digest(models)
    assert metadata == {
        "run_id": deleted.run_id,
        "trained_at": registered_model.iso_time(deleted.started),
        "git_commit": "abc",
        "data": {},
        "scores": {},
        "synthetic": True,
    }
    with pytest.raises(UserError, match=r"reports/a.csv of rakuten-classifier version 1 was deleted with its run"):
        registered_model.download_reference(champion, "reports/a.csv", tmp_path / "copy")
    manifest = artifacts(store, champion) / "data" / "model" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(UserError, match="it was altered"):
        registered_model.download_model(champion, tmp_path / "model", NO_SIGNATURE)


def artifacts(store: mlflow.MlflowClient, version: Version) -> Path:
    """The folder of a version's files in the store."""
    return Path(mlflow.artifacts.download_artifacts(store.get_model_version(MODEL_NAME, version.number).source))


def test_an_altered_model_is_refused_and_the_one_before_it_stays(
    version: Version, store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    manifest = artifacts(store, version) / "data" / "model" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UserError, match="version 1 is not the model that its run recorded: it was altered"):
        registered_model.download_model(version, folder, NO_SIGNATURE)
    assert folder.is_dir()


def test_a_model_of_another_project_is_refused(version: Version, store: mlflow.MlflowClient, tmp_path: Path) -> None:
    shutil.rmtree(artifacts(store, version) / "data")
    with pytest.raises(UserError, match="version 1 is not a model of this project"):
        registered_model.download_model(version, tmp_path / "model", NO_SIGNATURE)


def test_a_reference_is_downloaded_with_the_version_it_belongs_to(
    version: Version, models: Path, tmp_path: Path
) -> None:
    path, about = registered_model.download_reference(version, "reports/report.json", tmp_path / "copy")
    assert path.read_text() == "{}"
    assert about == {"model_version": model_version(models), "synthetic": True, "novelty_false_alarms": None}


def test_a_reference_comes_with_the_false_alarms_that_its_model_promises(
    version: Version, store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    name = "predict.novelty_false_alarms"
    assert name in load_params().flat()  # what a training records
    store.log_param(version.run_id, name, "0.02")
    _, about = registered_model.download_reference(version, "reports/report.json", tmp_path / "copy")
    assert about["novelty_false_alarms"] == 0.02


def test_a_run_without_a_reference_is_named(version: Version, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reports/none.csv of run \w+ cannot be fetched"):
        registered_model.download_reference(version, "reports/none.csv", tmp_path / "copy")


def test_times_are_iso_8601() -> None:
    assert registered_model.iso_time(1_700_000_000_999) == "2023-11-14T22:13:20+00:00"
