"""The containers for real: images built, the compose file up, trained against, lost and restored. `make test-docker`.

Needs a Docker daemon; takes minutes. COMPOSE names another compose command (docker-compose), BUILD further arguments
of `docker build` (--network=host where builds need the host's network, --build-arg BASE=... for another Python
image); POSTGRES_IMAGE and SEAWEEDFS_IMAGE name other images than the pinned ones.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from rakuten.monitoring.prediction_log import read_window
from rakuten.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME
from tests.support.project import environment, git, run_in
from tests.support.servers import free_port, wait_for

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_DOCKER"), reason="needs Docker: make test-docker")

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
BUILD = shlex.split(os.environ.get("BUILD", ""))
FILE = ("-f", "docker-compose.mlflow.yml")
API = ("-f", "deploy/docker-compose.api.yml")
FOLDER = {"MLFLOW_UID": "1000"}
S3 = {
    "ARTIFACTS_BUCKET": "s3://mlflow/runs", "S3_ENDPOINT_URL": "http://s3:8333",
    "S3_ACCESS_KEY_ID": "compose-key", "S3_SECRET_ACCESS_KEY": "compose-secret",
}  # fmt: skip
AUTH = {"MLFLOW_AUTH": "true", "MLFLOW_ADMIN_PASSWORD": "a-long-password", "MLFLOW_SECRET_KEY": "secret"}


class Stack:
    """The compose file of a copy of the project, under a name of its own."""

    def __init__(
        self,
        project: Path,
        settings: dict[str, str],
        profiles: tuple[str, ...] = (),
        files: tuple[str, ...] = FILE,
    ) -> None:
        self.project, self.port, self.files = project, free_port(), files
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
        command = [*COMPOSE, *self.files, *arguments]
        env = environment(self.project) | self.env
        done = subprocess.run(command, cwd=self.project, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self) -> None:
        self.compose("up", "-d", "--no-build")
        wait_for(lambda: self.health("mlflow") == "healthy", "the mlflow container", 180)

    def inspect(self, service: str, what: str) -> str:
        container = self.compose("ps", "-q", service).strip()
        asked = ["docker", "inspect", "--format", what, container]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def health(self, service: str) -> str:
        return self.inspect(service, "{{.State.Health.Status}}")

    def reaches(self, service: str, host: str, port: int) -> bool:
        """Whether a container of ours with Python can connect to another one."""
        script = f"import socket; socket.create_connection(({host!r}, {port}), 3)"
        command = [*COMPOSE, *self.files, "exec", "-T", service, "python", "-c", script]
        env = environment(self.project) | self.env
        return subprocess.run(command, cwd=self.project, env=env, capture_output=True, timeout=60).returncode == 0

    def assert_confined(self, *services: str) -> None:
        """What the daemon knows of the limits that the files ask for."""
        limits = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} "
        limits += "{{gt .HostConfig.Memory 0}} {{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig.Config}}"
        for service in services:
            found = self.inspect(service, limits)
            expected = "true [ALL] [no-new-privileges:true] true 512 map[max-file:3 max-size:10m]"
            assert found == expected, f"{service}: {found}"

    def client(self) -> mlflow.MlflowClient:
        mlflow.set_tracking_uri(self.url)
        return mlflow.MlflowClient(self.url)


@pytest.fixture(scope="module")
def image() -> None:
    _build("Dockerfile.mlflow", "rakuten-mlflow")


@pytest.fixture(scope="module")
def api_image() -> None:
    _build("deploy/Dockerfile.api", "rakuten-api")


def _build(file: str, tag: str) -> None:
    root = Path(__file__).resolve().parents[2]
    subprocess.run(["docker", "build", *BUILD, "--file", file, "--tag", tag, "."], cwd=root, check=True, timeout=900)


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
    doctor = run_in(project, sys.executable, "-m", "rakuten", "doctor", **only)
    assert f"tracking     {stack.url} answers" in doctor
    assert "artifacts    the server accepts artifacts" in doctor

    def seen() -> dict[str, object]:
        experiment = asked.get_experiment_by_name("rakuten-baseline")
        assert experiment is not None
        (run,) = asked.search_runs([experiment.experiment_id])
        version = asked.get_model_version_by_alias(MODEL_NAME, CHAMPION)
        model = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}@{CHALLENGER}")
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
    on_s3 = "COMPOSE_PROFILES" in stack.env
    stack.assert_confined("postgres", "mlflow", *(["s3"] if on_s3 else []))
    assert stack.reaches("mlflow", "postgres", 5432)
    if on_s3:
        wait_for(lambda: stack.health("s3") == "healthy", "the s3 container", 60)
        assert stack.reaches("mlflow", "s3", 8333)
        # The parts behind S3 ask for no key; nobody gets to them.
        assert not any(stack.reaches("mlflow", "s3", port) for port in (8080, 8888, 9333, 18888, 19333))

    stack.compose("restart", "--timeout", "10")
    wait_for(lambda: stack.health("mlflow") == "healthy", "the restarted container", 180)
    assert seen() == before

    # What an upgrade of MLflow asks for; here it finds nothing to do.
    stack.compose("run", "--rm", "-T", "mlflow", "upgrade")
    assert seen() == before

    backup = project / "backups" / "one"
    run_in(project, "deploy/backup.sh", str(backup), **stack.env)
    assert "is there already" in run_in(project, "deploy/backup.sh", str(backup), code=1, **stack.env)
    # A dump that PostgreSQL cannot read, with the right checksum: the server goes on with what it has.
    unreadable = shutil.copytree(backup, project / "backups" / "unreadable")
    dump = unreadable / "database.dump"
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    sums = "".join(f"{sha256_of(unreadable / name)}  {name}\n" for name in ("database.dump", "artifacts.tar"))
    (unreadable / "SHA256SUMS").write_text(sums)
    said = run_in(project, "deploy/restore.sh", str(unreadable), code=1, **stack.env)
    assert "the server has the database that it had" in said
    assert seen() == before

    stack.compose("down", "--volumes", "--timeout", "5")
    for path in (project / "mlruns").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    # A damaged backup changes nothing; a whole one brings every run back.
    damaged = shutil.copytree(backup, project / "backups" / "damaged")
    (damaged / "artifacts.tar").write_bytes(b"damaged")
    assert "is damaged" in run_in(project, "deploy/restore.sh", str(damaged), code=1, **stack.env)
    if on_s3:
        stack.compose("up", "-d", "--no-build", "s3")
    run_in(project, "deploy/restore.sh", str(backup), **stack.env)
    wait_for(lambda: stack.health("mlflow") == "healthy", "the restored container", 180)
    assert seen() == before
    # Once more, over a server in use: what it had is kept under another name.
    asked.create_experiment("made after the backup")
    run_in(project, "deploy/restore.sh", str(backup), **stack.env)
    wait_for(lambda: stack.health("mlflow") == "healthy", "the container restored again", 180)
    assert seen() == before
    assert asked.get_experiment_by_name("made after the backup") is None
    query = "SELECT name FROM experiments ORDER BY experiment_id DESC LIMIT 1"
    sql = f'PGPASSWORD="$POSTGRES_PASSWORD" psql --username=mlflow --dbname=mlflow_before_restore -tAc "{query}"'
    assert stack.compose("exec", "-T", "postgres", "sh", "-c", sql).strip() == "made after the backup"


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


def test_the_api_answers_with_the_teams_champion(workshop: Path, tmp_path: Path, image: None, api_image: None) -> None:
    project = tmp_path / "project"
    shutil.copytree(workshop, project, symlinks=True)
    port = free_port()
    prometheus = free_port()
    settings = {"API_PORT": str(port), "API_REFRESH_SECONDS": "2", "PROMETHEUS_PORT": str(prometheus)}
    stack = Stack(project, FOLDER | settings, files=FILE + API)
    only = {"MLFLOW_TRACKING_URI": stack.url}
    key = run_in(project, sys.executable, "-m", "rakuten", "keys", "catalogue").splitlines()[0]
    prometheus_key = project / "keys" / "prometheus.key"
    run_in(project, sys.executable, "-m", "rakuten", "keys", "prometheus", "--output", str(prometheus_key))
    live = project / "data" / "live"
    live.mkdir()
    if os.geteuid() == 0:
        for path in (project / "keys", project / "keys" / "api_keys.txt", prometheus_key, live):
            os.chown(path, 1000, 1000)  # the container's user; a user of their own sets API_UID

    def ask(given: str = key) -> dict[str, object]:
        body = json.dumps({"designation": "Piscine gonflable"}).encode()
        headers = {"Content-Type": "application/json", "X-API-Key": given}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return dict(json.load(answer))

    def run_id(alias: str) -> str:
        return str(stack.client().get_model_version_by_alias(MODEL_NAME, alias).run_id)

    try:
        stack.compose("up", "-d", "--no-build", "mlflow")
        wait_for(lambda: stack.health("mlflow") == "healthy", "the mlflow container", 180)
        run_in(project, "dvc", "repro", **only)
        run_in(project, sys.executable, "src/models/promote.py", **only)
        stack.compose("up", "-d", "--no-build", "api")
        wait_for(lambda: stack.health("api") == "healthy", "the api container", 180)
        first = ask()
        assert first["run_id"] == run_id(CHAMPION)
        wait_for(lambda: len(read_window(live, 10)) == 1, "the prediction in the live log", 10)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask("a-key-of-nobody")

        # The profile `monitoring`, but for Grafana, whose image is the largest.
        stack.compose("up", "-d", "--no-build", "prometheus")
        query = urllib.parse.urlencode({"query": 'up{job="api"} == 1'})
        wait_for(
            lambda: _results(f"http://127.0.0.1:{prometheus}/api/v1/query?{query}") == 1, "a scrape of the API", 90
        )
        stack.assert_confined("api", "prometheus")
        assert stack.inspect("prometheus", "{{.Config.User}}") == "1000"
        assert stack.reaches("api", "mlflow", 5000)
        assert not stack.reaches("api", "postgres", 5432)
        rules = f"http://127.0.0.1:{prometheus}/api/v1/query?query=ALERTS"
        assert _results(rules) == 0

        assert stack.compose("exec", "-T", "api", "id", "-u").strip() == "1000"
        for place, said in (("/app/new", "1"), ("/app/data/cache/new", "0")):
            script = f"touch {place} 2>/dev/null; echo $?"
            assert stack.compose("exec", "-T", "api", "sh", "-c", script).strip() == said

        # The server away: a restart answers with the last good model.
        stack.compose("stop", "--timeout", "5", "mlflow")
        stack.compose("restart", "--timeout", "10", "api")
        wait_for(lambda: stack.health("api") == "healthy", "the api container without its server", 180)
        again = ask()
        assert again | {"prediction_id": ""} == first | {"prediction_id": ""}

        # The server back, another champion: taken up without a restart.
        stack.compose("start", "mlflow")
        wait_for(lambda: stack.health("mlflow") == "healthy", "the mlflow container again", 180)
        params = project / "params.yaml"
        params.write_text(params.read_text().replace("svm_c: 0.4", "svm_c: 0.2"))
        git(project, "commit", "--all", "--message", "another model")
        run_in(project, "dvc", "repro", **only)
        run_in(project, sys.executable, "src/models/promote.py", "--without-comparison", **only)
        second = run_id(CHAMPION)
        assert second != first["run_id"]
        wait_for(lambda: ask()["run_id"] == second, "the new champion's answer", 60)
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _results(url: str) -> int:
    """How many series a query of Prometheus finds; -1 while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return len(json.load(answer)["data"]["result"])
    except OSError:
        return -1


def test_the_pipeline_runs_on_dasks_containers(workshop: Path, tmp_path: Path) -> None:
    _build("deploy/Dockerfile.dask", "rakuten-dask")
    project, port = tmp_path / "project", free_port()
    shutil.copytree(workshop, project, symlinks=True)
    cluster = Stack(project, {}, files=("-f", "deploy/docker-compose.dask.yml"))
    cluster.env |= {"PWD": str(project), "DASK_UID": str(os.getuid()), "DASK_PORT": str(port)}
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("engine: local", "engine: dask"))
    try:
        cluster.compose("up", "-d", "--no-build")
        wait_for(lambda: cluster.health("scheduler") == "healthy", "the scheduler", 60)
        said = run_in(project, "dvc", "repro", DASK_SCHEDULER_ADDRESS=f"tcp://127.0.0.1:{port}")
        assert "products predicted" in said
        assert "Close client connection" in cluster.compose("logs", "scheduler")
    finally:
        cluster.compose("down", "--timeout", "5")
