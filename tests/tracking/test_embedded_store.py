"""The embedded store: first used by several processes at once, and in a project that was moved or copied."""

import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from rakuten.tracking import server
from tests.support.project import environment

FIRST_USE = """
from rakuten.tracking import server
client = server.get_client()
print(client.create_run(server.get_or_create_experiment(client, "first")).info.run_id)
"""


@pytest.mark.heavy
def test_several_first_uses_of_a_store_work(tmp_path: Path) -> None:
    env = environment(Path(server.PROJECT), MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'new.db'}")
    commands = [[sys.executable, "-c", FIRST_USE]] * 3
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, env=env, **pipes) for command in commands]
    results = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'new.db'}")
    experiment = client.get_experiment_by_name("first")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3


@pytest.mark.usefixtures("version")
def test_the_artifacts_of_a_moved_project_are_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing refers to the old folder any more; what was there is found, and new artifacts go into the new one."""
    old, new = server.ARTIFACTS_FOLDER, tmp_path / "moved"
    new.mkdir()
    shutil.copy(tmp_path / "mlflow.db", new)
    old.rename(new / "mlruns")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for its own processes
    monkeypatch.setattr(server, "EMBEDDED", f"sqlite:///{new / 'mlflow.db'}")
    monkeypatch.setattr(server, "ARTIFACTS_FOLDER", new / "mlruns")
    client = server.get_client()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.artifact_uri.startswith(f"file://{new}/mlruns/")
    assert "report.json" in [Path(file.path).name for file in client.list_artifacts(run.info.run_id, "reports")]
    model = mlflow.artifacts.download_artifacts("models:/rakuten-classifier/1", dst_path=str(tmp_path / "model"))
    assert list(Path(model).rglob("manifest.json"))
    assert client.create_run(run.info.experiment_id).info.artifact_uri.startswith(f"file://{new}/mlruns/")
    assert not old.exists()
