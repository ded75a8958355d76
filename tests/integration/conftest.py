"""Servers that tests share, and a project that is ready to train."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.project import RAW_DATA, run_in
from tests.support.servers import KEY, S3, SECRET, MLflow, Postgres, ServicePostgres

Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres | ServicePostgres]:
    if "STACK_PGHOST" in os.environ:
        yield ServicePostgres()
        return
    # Not in pytest's folder: each pytest that starts closes that to others, and PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(Path(folder) / "data")
        yield server
        server.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, s3: S3) -> Iterator[MLflow]:
    """MLflow on PostgreSQL and S3, as docker-compose.mlflow.yml has it; left running by whoever stopped it."""
    env = postgres.database("mlflow") | {
        "ARTIFACTS_BUCKET": "s3://mlflow/runs", "MLFLOW_S3_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "eu-west-3",
    }  # fmt: skip
    server = MLflow(tmp_path_factory.mktemp("mlflow"), env)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def with_raw_data(once: Once, finished: Path) -> Path:
    """The same, with its raw data under DVC. Copy it, do not use it."""

    def make(folder: Path) -> None:
        shutil.copytree(finished, folder, symlinks=True)
        run_in(folder, "dvc", "add", "--quiet", *RAW_DATA)

    return once("with_raw_data", make)


@pytest.fixture
def project(workshop: Path, tmp_path: Path) -> Path:
    """A copy of the workshop: ready to train."""
    folder = tmp_path / "project"
    shutil.copytree(workshop, folder, symlinks=True)
    return folder
