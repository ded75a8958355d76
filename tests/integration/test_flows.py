"""The flows for real: without a server, against one, one after the other and two at once."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from filelock import FileLock

from rakuten.tracking import lineage
from rakuten.tracking.registry import CHAMPION, MODEL_NAME
from tests.support.project import environment, git, log_window, run_in
from tests.support.servers import answers, free_port, wait_for

PIPELINE = (sys.executable, "flows/pipeline.py")
MONITOR = (sys.executable, "flows/monitor_and_retrain.py")


@pytest.fixture
def project(workshop: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A project whose features are made, and a home for Prefect of its own."""
    folder = tmp_path / "project"
    shutil.copytree(workshop, folder, symlinks=True)
    return folder, {"PREFECT_HOME": str(tmp_path / "prefect")}


def status(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / "data" / "live" / "pipeline.json").read_text(encoding="utf-8")))


def log_drift(project: Path) -> None:
    """A live log whose every product is taken for one class."""
    reference = pd.read_parquet(project / "reports" / "reference.parquet")
    window = reference.sample(600, replace=True, random_state=0).assign(predicted=2583)
    log_window(project / "data" / "live", window, lineage.model_version(project / "models"))


def test_the_loop_without_a_server(project: tuple[Path, dict[str, str]]) -> None:
    """Pipeline, nothing new, drift, retraining, cool-down."""
    folder, home = project
    said = run_in(folder, *PIPELINE, **home)
    assert "ran train, predict; " in said
    assert "version 1 promoted over no champion" in said
    assert status(folder)["succeeded"] is True
    assert "ran nothing, all is up to date; nothing to decide" in run_in(folder, *PIPELINE, **home)
    assert "0 predictions of model" in run_in(folder, *MONITOR, **home)

    log_drift(folder)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("svm_c: 0.4", "svm_c: 0.2"))
    git(folder, "commit", "--all", "--message", "something new to learn")
    with FileLock(folder / ".dvc" / "tmp" / "flow.lock"):
        assert "another flow works in" in run_in(folder, *MONITOR, code=1, **home)
    # Nothing was retrained, so the cool-down has not begun: the next look may.
    said = run_in(folder, *MONITOR, **home)
    assert "prediction: predicted has drifted" in said
    assert "the pipeline ran train, predict; " in said
    assert "version 2 " in said, "the gate judged the challenger"
    log_drift(folder)
    said = run_in(folder, *MONITOR, **home)
    assert "no retraining before " in said
    assert "the pipeline ran" not in said


def test_a_stage_that_fails_is_said_in_a_line_and_not_tried_again(project: tuple[Path, dict[str, str]]) -> None:
    folder, home = project
    (folder / "data" / "interim" / "merged_train.csv").unlink()
    (folder / "data" / "raw" / "X_train.csv").write_text("no,such,columns\n")
    started = time.monotonic()
    said = run_in(folder, *PIPELINE, code=1, **home)
    assert time.monotonic() - started < 60
    assert "ERROR pipeline: dvc repro ingest failed" in said
    assert "X_train.csv" in said
    assert "Traceback" not in said
    assert "Retry" not in said
    assert status(folder)["succeeded"] is False


def test_two_flows_in_one_folder_do_not_meet(project: tuple[Path, dict[str, str]]) -> None:
    folder, home = project
    (folder / ".dvc" / "tmp").mkdir(exist_ok=True)
    with FileLock(folder / ".dvc" / "tmp" / "flow.lock"):
        said = run_in(folder, *PIPELINE, code=1, **home)
    assert f"another flow works in {folder}" in said
    assert "Traceback" not in said
    assert not (folder / "models" / "manifest.json").exists()


def test_a_push_that_fails_for_a_moment_is_tried_again(project: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, home = project
    place = tmp_path / "disk"
    place.write_text("not mounted yet")
    run_in(folder, "dvc", "remote", "add", "--default", "--force", "origin", str(place / "remote"))
    with (tmp_path / "log").open("w") as stream:
        flow = subprocess.Popen(
            [*PIPELINE, "--push", "--no-promotion"],
            cwd=folder, env=environment(folder, **home), stdout=stream, stderr=stream,
        )  # fmt: skip
    wait_for(lambda: "Retry 1/3 will start" in (tmp_path / "log").read_text(), "the first try's failure", 180)
    place.unlink()
    place.mkdir()
    assert flow.wait(120) == 0
    assert "dvc push --run-cache failed" in (tmp_path / "log").read_text()
    assert list((place / "remote" / "files" / "md5").iterdir())


@pytest.fixture
def server(project: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[tuple[Path, dict[str, str], str]]:
    folder, home = project
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    env = home | {
        "PWD": str(folder),  # as a shell there has it: prefect.yaml reads it
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **env), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_for(lambda: answers(f"{api}/health"), "Prefect's server", 120)
        yield folder, env, api
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def ask(api: str, path: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{api}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_a_schedule_fires_against_a_real_server(server: tuple[Path, dict[str, str], str], tmp_path: Path) -> None:
    folder, env, api = server
    run_in(folder, "prefect", "work-pool", "create", "local", "--type", "process", **env)
    said = run_in(folder, "prefect", "--no-prompt", "deploy", "--all", **env)
    assert "pipeline/nightly" in said and "monitor-and-retrain/hourly" in said
    found = {each["name"]: each for each in ask(api, "deployments/filter", {})}
    assert found["nightly"]["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    # The same deployment on a schedule that comes due in a moment.
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    schedule = {"schedule": {"interval": 86_400, "anchor_date": soon}, "active": True}
    ask(api, f"deployments/{found['nightly']['id']}/schedules", [schedule])  # type: ignore[arg-type]
    command = ["prefect", "worker", "start", "--pool", "local", "--type", "process"]
    with (tmp_path / "worker.log").open("w") as stream:
        worker = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **env), stdout=stream, stderr=stream, start_new_session=True
        )
    try:

        def ended() -> dict[str, Any] | None:
            runs = ask(api, "flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
            return next((run for run in runs if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED")), None)

        wait_for(lambda: ended() is not None, "the scheduled run", 180)
        run = ended()
        assert run is not None
        assert run["state_type"] == "COMPLETED", (run["state"], (tmp_path / "worker.log").read_text()[-3000:])
        assert run["auto_scheduled"]
    finally:
        os.killpg(worker.pid, 15)
        worker.wait(30)
    artifacts = {each["key"]: each for each in ask(api, "artifacts/filter", {}) if each["key"]}
    assert {"data-quality", "metrics", "model-card", "promotion", "mlflow-run"} <= set(artifacts)
    assert "**Synthetic** products" in artifacts["metrics"]["data"]
    # The flow run leads to the MLflow run, and back.
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias(MODEL_NAME, CHAMPION)
    assert str(version.run_id) in artifacts["mlflow-run"]["data"]
    tags = client.get_run(str(version.run_id)).data.tags
    assert tags["prefect_flow_run"] == run["id"]
    assert tags["prefect_flow_run_url"].endswith(f"/runs/flow-run/{run['id']}")
