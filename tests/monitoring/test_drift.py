"""The drift report on products that went through the real model: quiet where nothing moved, loud where it did."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from bench.drift import BLURRED, LONGER, MISSING, NEW, PRIOR, Live, alarmed
from rakuten.config import load_params
from rakuten.data.synthetic import write_catalogue
from rakuten.features.monitored_columns import MONITORED_COLUMNS
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.monitoring.drift import COLUMN_KINDS, column_drift
from rakuten.tracking import lineage
from tests.support.project import log_window, run_in

PARAMS = load_params()
FRESH = 120  # products that windows are drawn from


@pytest.fixture(scope="module")
def reference(trained: Path) -> pd.DataFrame:
    return pd.read_parquet(trained / "reports" / "reference.parquet")


@pytest.fixture(scope="module")
def live(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    raw = tmp_path_factory.mktemp("fresh")
    write_catalogue(FRESH, 1, 8, raw)
    return Live(PyfuncModel(ProductClassifier.load(trained / "models")), raw)


def test_every_watched_column_is_judged(reference: pd.DataFrame) -> None:
    assert set(COLUMN_KINDS) == set(MONITORED_COLUMNS)
    drift = column_drift(reference, reference, PARAMS.monitor)
    assert [each.column for each in drift.columns] == list(COLUMN_KINDS)
    assert all(each.score == pytest.approx(0, abs=1e-9) for each in drift.columns)


def test_windows_of_the_reference_raise_no_alarm(reference: pd.DataFrame) -> None:
    for seed in range(12):
        assert alarmed(reference, reference.sample(1000, replace=True, random_state=seed), PARAMS) == []


@pytest.mark.parametrize(
    ("kind", "size", "moved"),
    [
        (PRIOR, 0.6, "predicted"),
        (MISSING, 0.6, "has_image"),
        (NEW, 0.6, "text_"),
        (LONGER, 0.8, "designation_len"),
        (BLURRED, 8, "picture_"),
    ],
)
def test_a_planted_shift_is_found(reference: pd.DataFrame, live: Live, kind: str, size: float, moved: str) -> None:
    alarms = alarmed(reference, live.shifted(kind, size, 0)(1000, 1), PARAMS)
    assert any(moved in alarm for alarm in alarms), alarms


def test_a_column_with_too_few_values_is_not_judged(reference: pd.DataFrame) -> None:
    few = reference.sample(1000, replace=True, random_state=0, ignore_index=True)
    few.loc[20:, "picture_0"] = np.nan
    judged = {each.column for each in column_drift(reference, few, PARAMS.monitor).columns}
    assert set(COLUMN_KINDS) - judged == {"picture_0"}


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """What tells the monitoring of a live log and an MLflow of its own; the model is the trained project's."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    yield tmp_path / "live", {"API_LIVE": str(tmp_path / "live"), "API_MODEL": "local", "MLFLOW_TRACKING_URI": uri}


def test_the_report_is_written_and_recorded(
    trained: Path, reference: pd.DataFrame, live: Live, project: tuple[Path, dict[str, str]]
) -> None:
    folder, env = project
    monitoring = (sys.executable, "-m", "rakuten", "monitor")
    version = lineage.model_version(trained / "models")
    assert "0 predictions of model" in run_in(trained, *monitoring, **env)
    log_window(folder, reference.sample(300, random_state=0), version)
    assert f"300 predictions of model {version}: too few to judge (min_rows 500)" in run_in(trained, *monitoring, **env)
    # Predictions of another model are none of its business.
    log_window(folder, live.shifted(PRIOR, 0.9, 0)(800, 0), "another")
    assert "300 predictions" in run_in(trained, *monitoring, **env)
    log_window(folder, live.shifted(PRIOR, 0.9, 0)(800, 0), version, first=300)
    labels = reference.assign(prediction_id=[f"p{at}" for at in range(len(reference))])
    labels[["prediction_id", "prdtypecode"]].to_csv(folder / "labels.csv", index=False)
    said = run_in(trained, *monitoring, **env)
    assert "WARNING monitoring: prediction: predicted has drifted, jensenshannon" in said
    found = json.loads((folder / "drift" / "drift.json").read_text(encoding="utf-8"))
    assert (found["rows"], found["model_version"], found["synthetic"]) == (1100, version, True)
    assert found["live"]["rows"] == len(reference)
    assert next(row for row in found["classes"] if row["prdtypecode"] == 2583)["live_share"] > 0.6
    assert "<html" in (folder / "drift" / "drift.html").read_text(encoding="utf-8")[:2000].lower()
    assert (folder / "drift" / "drift.png").read_bytes().startswith(b"\x89PNG")
    client = mlflow.MlflowClient(env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("rakuten-baseline-monitoring")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["alarms"] == len(found["alarms"])
    assert {"drift.html", "drift.json", "drift.png"} == {each.path for each in client.list_artifacts(run.info.run_id)}


def test_without_a_model_it_says_what_to_do(workshop: Path, project: tuple[Path, dict[str, str]]) -> None:
    said = run_in(workshop, sys.executable, "-m", "rakuten", "monitor", code=1, **project[1])
    assert "no reference of a model; make both with `make run`" in said
    assert "Traceback" not in said
