"""The containers for real: images built, the compose file up, trained against, lost and restored. `make test-docker`.

Needs a Docker daemon; takes minutes. COMPOSE names another compose command (docker-compose), BUILD
further arguments of `docker build` (--network=host, where containers reach the package registry so only).
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from src.tracking.registry import CHALLENGER, CHAMPION, NAME
from tests.helpers import environment, run_in
from tests.stack.servers import free_port, wait_for

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_DOCKER"), reason="needs Docker: make test-docker")

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
BUILD = shlex.split(os.environ.get("BUILD", ""))
FILE = ("-f", "docker-compose.mlflow.yml")
FOLDER = {"MLFLOW_UID": "1000"}
S3 = {
    "ARTIFACTS_BUCKET": "s3://mlflow/runs", "S3_ENDPOINT_URL": "http://s3:8333",
    "S3_ACCESS_KEY_ID": "compose-key", "S3_SECRET_ACCESS_KEY": "compose-secret",
}  # fmt: skip
AUTH = {"MLFLOW_AUTH": "true", "MLFLOW_ADMIN_PASSWORD": "a-long-password", "MLFLOW_SECRET_KEY": "secret"}


class Stack:
    """The compose file of a copy of the project, under a name of its own."""

    def __init__(self, project: Path, settings: dict[str, str], profiles: tuple[str, ...] = ()) -> None:
        self.project, self.port = project, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {"POSTGRES_PASSWORD": "a-long-one", "MLFLOW_PORT": str(self.port)} | settings
        (project / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        name = f"rakuten{self.port}"
        self.env = {"COMPOSE_PROJECT_NAME": name, "COMPOSE": " ".join(COMPOSE)}
        if profiles:
            self.env["COMPOSE_PROFILES"] = ",".join(profiles)
        (project / "mlruns").mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(project / "mlruns", 1000, 1000)  # the container's user; a user of their own sets MLFLOW_UID

    def compose(self, *arguments: str) -> str:
        command = [*COMPOSE, *FILE, *arguments]
        env = environment(self.project) | self.env
        done = subprocess.run(command, cwd=self.project, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self) -> None:
        self.compose("up", "-d", "--no-build")
        wait_for(lambda: self.health("mlflow") == "healthy", "the mlflow container", 180)

    def health(self, service: str) -> str:
        container = self.compose("ps", "-q", service).strip()
        asked = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def client(self) -> mlflow.MlflowClient:
        mlflow.set_tracking_uri(self.url)
        return mlflow.MlflowClient(self.url)


@pytest.fixture(scope="module")
def image() -> None:
    root = Path(__file__).resolve().parents[2]
    command = ["docker", "build", *BUILD, "--file", "Dockerfile.mlflow", "--tag", "rakuten-mlflow", "."]
    subprocess.run(command, cwd=root, check=True, timeout=600)


@pytest.fixture(params=["folder", "s3"])
def stack(request: pytest.FixtureRequest, workshop: Path, tmp_path: Path, image: None) -> Iterator[Stack]:
    project = tmp_path / "project"
    shutil.copytree(workshop, project, symlinks=True)
    stack = Stack(project, S3, ("s3",)) if request.param == "s3" else Stack(project, FOLDER)
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


def test_train_restart_lose_and_restore(stack: Stack) -> None:
    project, asked = stack.project, stack.client()
    only = {"MLFLOW_TRACKING_URI": stack.url}
    # .env holds the server's secrets too; what the client is told is the address alone.
    assert "the run is kept in" not in run_in(project, "dvc", "repro", **only)
    assert "version 1 promoted over no champion" in run_in(project, sys.executable, "src/models/promote.py", **only)
    doctor = run_in(project, sys.executable, "-m", "src.doctor", **only)
    assert f"tracking     {stack.url} answers" in doctor
    assert "artifacts    the server takes an artifact" in doctor

    def seen() -> dict[str, object]:
        experiment = asked.get_experiment_by_name("rakuten-baseline")
        assert experiment is not None
        (run,) = asked.search_runs([experiment.experiment_id])
        version = asked.get_model_version_by_alias(NAME, CHAMPION)
        model = mlflow.pyfunc.load_model(f"models:/{NAME}@{CHALLENGER}")
        answer = model.predict([{"designation": "Piscine gonflable", "description": None}])
        lock = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/dvc.lock"))
        return {
            "run": (run.info.run_id, run.info.status, run.data.params, run.data.metrics, run.data.tags),
            "version": (version.version, version.tags),
            "answer": answer.to_dict("records"),
            "lock": lock.read_text(),
        }

    before = seen()
    # Not root, and the database's password in no process's arguments.
    processes = stack.compose("exec", "-T", "mlflow", "sh", "-c", "id -u; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert processes.startswith("1000\n")
    assert "mlflow server" in processes
    assert "a-long-one" not in processes

    stack.compose("restart", "--timeout", "10")
    wait_for(lambda: stack.health("mlflow") == "healthy", "the restarted container", 180)
    assert seen() == before

    # What an upgrade of MLflow asks for; here it finds nothing to do.
    stack.compose("run", "--rm", "-T", "mlflow", "upgrade")
    assert seen() == before

    backup = project / "backups" / "one"
    run_in(project, "deploy/backup.sh", str(backup), **stack.env)
    assert "is there already" in run_in(project, "deploy/backup.sh", str(backup), code=1, **stack.env)
    stack.compose("down", "--volumes", "--timeout", "5")
    for path in (project / "mlruns").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    # A damaged backup changes nothing; a whole one brings every run back.
    damaged = shutil.copytree(backup, project / "backups" / "damaged")
    (damaged / "artifacts.tar").write_bytes(b"damaged")
    assert "is damaged" in run_in(project, "deploy/restore.sh", str(damaged), code=1, **stack.env)
    if "COMPOSE_PROFILES" in stack.env:
        stack.compose("up", "-d", "--no-build", "s3")
    run_in(project, "deploy/restore.sh", str(backup), **stack.env)
    wait_for(lambda: stack.health("mlflow") == "healthy", "the restored container", 180)
    assert seen() == before


def test_a_missing_password_is_asked_for(tmp_path: Path, image: None) -> None:
    root = Path(__file__).resolve().parents[2]
    shutil.copy(root / "docker-compose.mlflow.yml", tmp_path)
    done = subprocess.run([*COMPOSE, *FILE, "config"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "set POSTGRES_PASSWORD in .env" in done.stderr


def test_authentication_by_a_setting(workshop: Path, tmp_path: Path, image: None) -> None:
    project = tmp_path / "project"
    shutil.copytree(workshop, project, symlinks=True)
    stack = Stack(project, FOLDER | AUTH)
    try:
        stack.up()
        train = (sys.executable, "src/models/train_model.py")
        only = {"MLFLOW_TRACKING_URI": stack.url}
        assert "refuses (401" in run_in(project, *train, code=1, **only)
        user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a-long-password"}
        assert "the run is kept in" not in run_in(project, *train, **only, **user)
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")
