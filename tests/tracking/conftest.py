"""An embedded MLflow store of each test's own, and a small model to record in it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest

from rakuten.features.feature_set import FeatureBatch
from rakuten.models.pyfunc_model import OUTPUTS
from rakuten.tracking import registry, server, training_run
from rakuten.tracking.registry import Version
from rakuten.tracking.training_run import TrainingRun
from tests.support.features import TEXT_ONLY, feature_table
from tests.support.training import PARAMS, fit_batch

METRICS = {"weighted_f1": 0.5, "weighted_f1_low": 0.4, "weighted_f1_high": 0.6}


@pytest.fixture(scope="session")
def empty_store(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder with the database of an empty store: to create its tables takes seconds. Copy it, do not use it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return once("empty_store", make)


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A client of an empty embedded store in tmp_path, which the library uses as well."""
    shutil.copy(empty_store / "mlflow.db", tmp_path / "mlflow.db")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "EMBEDDED", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(server, "ARTIFACTS_FOLDER", tmp_path / "mlruns")
    return server.get_client()


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of titles alone. Read only."""
    table = feature_table([f"jeu {number}" for number in range(20)] + [f"piscine {number}" for number in range(20)])
    params = PARAMS.model_copy(update={"features": TEXT_ONLY})
    folder = tmp_path_factory.mktemp("saved_model")
    classifier, _ = fit_batch(FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583] * 20)), folder, params)
    classifier.save(folder / "models")
    return folder / "models"


@pytest.fixture
def models(saved_model: Path, tmp_path: Path) -> Path:
    """A folder `models` with a trained model."""
    return Path(shutil.copytree(saved_model, tmp_path / "models"))


@pytest.fixture
def record_training(
    store: mlflow.MlflowClient, models: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainingRun]:
    """Record a training that gave the model in `models`, with a report: `record_training(data=[...], tags={...})`.

    `models` is the project's folder of models, the folder that it is in that of its features.
    """
    monkeypatch.setattr(training_run, "MODELS", models)
    monkeypatch.setattr(training_run, "PROCESSED", models.parent)

    def record(data: list[Path] | None = None, tags: Mapping[str, str] | None = None) -> TrainingRun:
        reports = models.parent / "reports"
        reports.mkdir(exist_ok=True)
        (reports / "report.json").write_text("{}")
        (reports / "model_card.md").write_text("# The card")
        with training_run.training_run({"seed": 42}, data or [], tags or {}, models) as run:
            run.log(METRICS, OUTPUTS, [reports / "report.json", reports / "model_card.md"])
        return run

    return record


@pytest.fixture
def version(record_training: Callable[..., TrainingRun]) -> Version:
    """A registered version, the challenger."""
    record_training(tags={"synthetic": "true"})
    version = registry.get_by_alias(registry.CHALLENGER)
    assert version is not None
    return version


@pytest.fixture
def deleted(record_training: Callable[..., TrainingRun], store: mlflow.MlflowClient) -> Version:
    """A champion, trained on a clean checkout of commit abc, whose run was deleted for good."""
    record_training(tags={"synthetic": "true", "git_commit": "abc", "git_dirty": "false"})
    version = registry.get_by_alias(registry.CHALLENGER)
    assert version is not None
    registry.promote(version, None)
    store.delete_run(version.run_id)
    from mlflow.cli import gc  # takes seconds: it imports MLflow's server

    gc.main(["--backend-store-uri", server.EMBEDDED, "--tracking-uri", server.EMBEDDED], standalone_mode=False)
    return version
