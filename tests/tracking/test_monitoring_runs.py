from pathlib import Path

import mlflow
import pytest

from rakuten.errors import UserError
from rakuten.tracking import monitoring_runs
from tests.support.servers import free_port


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "drift.json"
    path.write_text("{}")
    return path


def test_a_report_is_a_run_beside_the_trainings(store: mlflow.MlflowClient, report: Path) -> None:
    run_id = monitoring_runs.log_drift_report({"psi": 0.5}, {"model_version": "abc"}, [report])
    assert run_id is not None
    run = store.get_run(run_id)
    assert store.get_experiment(run.info.experiment_id).name == "rakuten-baseline-monitoring"
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"psi": 0.5}
    assert run.data.tags["model_version"] == "abc"
    assert [artifact.path for artifact in store.list_artifacts(run_id)] == ["drift.json"]


def test_a_server_that_is_away_is_a_warning(
    report: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    assert monitoring_runs.log_drift_report({}, {}, [report]) is None
    assert "the report is not in MLflow: the tracking server" in caplog.text


def test_tags_are_added_to_a_run(store: mlflow.MlflowClient, report: Path) -> None:
    run_id = monitoring_runs.log_drift_report({}, {"a": "1"}, [report])
    assert run_id is not None
    monitoring_runs.set_tags(run_id, {"b": "2"})
    tags = store.get_run(run_id).data.tags
    assert (tags["a"], tags["b"]) == ("1", "2")


def test_tags_of_a_run_that_does_not_exist_are_refused(store: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match="failed: .*not found"):
        monitoring_runs.set_tags("0" * 32, {"b": "2"})


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://user:secret@host:1/", "http://host:1/#/runs/abc"),
        ("sqlite:////tmp/x.db", "http://127.0.0.1:5000/#/runs/abc"),
    ],
)
def test_a_run_has_a_page(address: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert monitoring_runs.run_url("abc") == url
