"""The flows for real: without a server and against one, one after the other and two at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from rakuten.tracking import lineage
from rakuten.tracking.registry import CHAMPION, MODEL_NAME
from tests.support.prediction_log import log_window
from tests.support.project import environment, git, run_in
from tests.support.servers import answers, free_port, wait_for

PIPELINE = (sys.executable, "flows/pipeline.py")
MONITOR = (sys.executable, "flows/monitor_and_retrain.py")
Env = dict[str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Env:
    """Prefect's folder, shared by the flows that run without a server."""
    return {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}


@pytest.fixture
def project(workshop: Path, tmp_path: Path) -> Path:
    """A project whose features are made."""
    shutil.copytree(workshop, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


@pytest.fixture(scope="module")
def promoted(workshop: Path, tmp_path_factory: pytest.TempPathFactory, home: Env) -> tuple[Path, str]:
    """A project whose first version the flow has trained and promoted, and what it printed. Copy it, do not use it."""
    folder = tmp_path_factory.mktemp("promoted") / "project"
    shutil.copytree(workshop, folder, symlinks=True)
    return folder, run_in(folder, *PIPELINE, **home)


@pytest.fixture
def drifted(promoted: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it with live traffic that has drifted, and a changed parameter to train with."""
    folder = tmp_path / "drifted"
    shutil.copytree(promoted[0], folder, symlinks=True)
    log_drift(folder)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("svm_c: 0.4", "svm_c: 0.2"))
    git(folder, "commit", "--all", "--message", "another parameter")
    return folder


def status(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / "data" / "live" / "pipeline.json").read_text(encoding="utf-8")))


def log_drift(project: Path) -> None:
    """Log predictions of one class only."""
    reference = pd.read_parquet(project / "reports" / "reference.parquet")
    window = reference.sample(600, replace=True, random_state=0).assign(predicted=2583)
    log_window(project / "data" / "live", window, lineage.model_version(project / "models"))


def test_the_pipeline_runs_what_is_not_up_to_date_and_promotes(promoted: tuple[Path, str]) -> None:
    folder, output = promoted
    assert "ran train, predict; " in output
    assert "version 1 promoted over no champion" in output
    assert status(folder)["succeeded"] is True


@pytest.mark.slow
def test_the_pipeline_runs_nothing_where_all_is_up_to_date(
    promoted: tuple[Path, str], tmp_path: Path, home: Env
) -> None:
    shutil.copytree(promoted[0], tmp_path / "again", symlinks=True)
    output = run_in(tmp_path / "again", *PIPELINE, **home)
    assert "ran nothing, all is up to date; nothing to decide" in output


def test_without_traffic_nothing_is_retrained(promoted: tuple[Path, str], tmp_path: Path, home: Env) -> None:
    shutil.copytree(promoted[0], tmp_path / "quiet", symlinks=True)
    output = run_in(tmp_path / "quiet", *MONITOR, **home)
    assert "0 predictions of model" in output
    assert "the pipeline ran" not in output


def test_drift_leads_to_one_retraining_and_then_a_cool_down(drifted: Path, home: Env) -> None:
    output = run_in(drifted, *MONITOR, **home)
    assert "prediction: predicted has drifted" in output
    assert "the pipeline ran train, predict; " in output
    assert "version 2 " in output, "the gate judged the challenger"
    log_drift(drifted)
    output = run_in(drifted, *MONITOR, **home)
    assert "no retraining before " in output
    assert "the pipeline ran" not in output


@pytest.mark.slow
def test_a_retraining_that_finds_another_flow_starts_no_cool_down(drifted: Path, home: Env) -> None:
    with FileLock(drifted / ".dvc" / "tmp" / "flow.lock"):
        output = run_in(drifted, *MONITOR, code=1, **home)
    assert "another flow works in" in output
    assert not (drifted / "data" / "live" / "retrained.json").exists()


def test_a_stage_that_fails_is_reported_in_a_line_and_not_retried(project: Path, home: Env) -> None:
    (project / "data" / "interim" / "merged_train.csv").unlink()
    (project / "data" / "raw" / "X_train.csv").write_text("no,such,columns\n")
    output = run_in(project, *PIPELINE, code=1, **home)
    assert "ERROR pipeline: dvc repro ingest failed" in output
    assert "X_train.csv" in output
    assert "Traceback" not in output
    assert "Retry" not in output
    assert status(project)["succeeded"] is False


def test_two_flows_do_not_run_in_one_folder(project: Path, home: Env) -> None:
    (project / ".dvc" / "tmp").mkdir(exist_ok=True)
    with FileLock(project / ".dvc" / "tmp" / "flow.lock"):
        output = run_in(project, *PIPELINE, code=1, **home)
    assert f"another flow works in {project}" in output
    assert "Traceback" not in output
    assert not (project / "models" / "manifest.json").exists()


@pytest.mark.slow
def test_a_push_that_fails_for_a_moment_is_retried(project: Path, tmp_path: Path, home: Env) -> None:
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.write_text("not mounted yet")
    run_in(project, "dvc", "remote", "add", "--default", "--force", "origin", str(disk / "remote"))
    with log.open("w") as stream:
        flow = subprocess.Popen(
            [*PIPELINE, "--push", "--no-promotion"],
            cwd=project, env=environment(project, **home), stdout=stream, stderr=stream,
        )  # fmt: skip
    wait_for(lambda: "Retry 1/3 will start" in log.read_text(), "the first try's failure", 300)
    disk.unlink()
    disk.mkdir()
    assert flow.wait(600) == 0
    assert "dvc push --run-cache failed" in log.read_text()
    assert list((disk / "remote" / "files" / "md5").iterdir())


class PrefectServer:
    """A Prefect server for a project, and requests to its API."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.env = {
            "PWD": str(project),  # as in a shell whose folder it is: prefect.yaml reads it
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """A process of its own group that logs to a file of this name."""
        with (self.folder / f"{name}.log").open("w") as stream:
            return subprocess.Popen(
                command, cwd=self.project, env=environment(self.project, **self.env), stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip

    def request(self, path: str, body: object = None, method: str = "POST") -> Any:
        # The server answers 503 while another of its services has locked SQLite; Prefect's own client tries again too.
        retry = Retry(status=8, status_forcelist=[503], allowed_methods=None, backoff_factor=0.5)
        with requests.Session() as session:
            session.mount(self.api, HTTPAdapter(max_retries=retry))
            response = session.request(method, f"{self.api}/{path}", json=body, timeout=30)
        response.raise_for_status()
        return response.json() if response.content else None


def stop(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


@pytest.fixture
def server(project: Path, tmp_path: Path) -> Iterator[PrefectServer]:
    server = PrefectServer(project, tmp_path)
    process = server.start(
        "server", sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(server.port)
    )
    try:
        wait_for(lambda: answers(f"{server.api}/health"), "Prefect's server", 300)
        yield server
    finally:
        stop(process)


def deploy(server: PrefectServer) -> dict[str, Any]:
    """Deploy the flows of prefect.yaml with no schedule left that may come due; returns the deployments by name."""
    run_in(server.project, "prefect", "work-pool", "create", "local", "--type", "process", **server.env)
    run_in(server.project, "prefect", "--no-prompt", "deploy", "--all", **server.env)
    deployments = {deployment["name"]: deployment for deployment in server.request("deployments/filter", {})}
    for deployment in deployments.values():
        for schedule in deployment["schedules"]:
            server.request(f"deployments/{deployment['id']}/schedules/{schedule['id']}", method="DELETE")
    return deployments


@pytest.mark.slow
def test_a_schedule_fires_against_a_real_server(server: PrefectServer, tmp_path: Path) -> None:
    deployments = deploy(server)
    crons = {name: deployment["schedules"][0]["schedule"]["cron"] for name, deployment in deployments.items()}
    assert crons == {"nightly": "0 3 * * *", "hourly": "20 * * * *"}

    # The nightly deployment alone, on a schedule that comes due in a moment.
    server.request(f"deployments/{deployments['hourly']['id']}", method="DELETE")
    nightly = deployments["nightly"]["id"]
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    schedule = {"schedule": {"interval": 86_400, "anchor_date": soon}, "active": True}
    server.request(f"deployments/{nightly}/schedules", [schedule])

    def ended() -> dict[str, Any] | None:
        """The deployment's first run, once it has ended."""
        query = {"sort": "EXPECTED_START_TIME_ASC", "deployments": {"id": {"any_": [nightly]}}, "limit": 1}
        runs = server.request("flow_runs/filter", query)
        return next((run for run in runs if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")), None)

    worker = server.start("worker", "prefect", "worker", "start", "--pool", "local", "--type", "process")
    try:
        wait_for(lambda: ended() is not None, "the scheduled run", 600)
    finally:
        stop(worker)
    run = ended()
    assert run is not None
    assert run["state_type"] == "COMPLETED", (run["state"], (tmp_path / "worker.log").read_text()[-3000:])
    assert run["auto_scheduled"]
    assert {other["deployment_id"] for other in server.request("flow_runs/filter", {})} == {nightly}
    assert status(server.project)["succeeded"] is True

    artifacts = {artifact["key"]: artifact for artifact in server.request("artifacts/filter", {}) if artifact["key"]}
    assert {"data-quality", "metrics", "model-card", "promotion", "mlflow-run"} <= set(artifacts)
    assert "**Synthetic** products" in artifacts["metrics"]["data"]
    # The flow run leads to the MLflow run, and back.
    client = mlflow.MlflowClient(f"sqlite:///{server.project / 'mlflow.db'}")
    version = client.get_model_version_by_alias(MODEL_NAME, CHAMPION)
    assert str(version.run_id) in artifacts["mlflow-run"]["data"]
    tags = client.get_run(str(version.run_id)).data.tags
    assert tags["prefect_flow_run"] == run["id"]
    assert tags["prefect_flow_run_url"].endswith(f"/runs/flow-run/{run['id']}")
