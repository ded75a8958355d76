"""The tracking server that MLFLOW_TRACKING_URI names. Without one: mlflow.db and mlruns/ at the project's root.

An experiment of `dvc exp run --temp` records its run there too: its own folder is deleted at the end.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import mlflow
from filelock import FileLock
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from rakuten.config import PROJECT
from rakuten.errors import UserError
from rakuten.tracking import probe

EMBEDDED = f"sqlite:///{(PROJECT / 'mlflow.db').as_posix()}"
ARTIFACTS_FOLDER = PROJECT / "mlruns"  # of the embedded store
SQLITE = "sqlite:///"
# Columns of the store's tables with the address of an artifact, or of a folder of them.
ADDRESS_COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
DEFAULT_EXPERIMENT = "rakuten-baseline"
SERVER_ERRORS = (MlflowException, OSError)  # what MLflow's client raises when a server, a network or a disk fails


def uri() -> str:
    """The tracking address; it may contain a password."""
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED


def redacted_uri() -> str:
    """The tracking address without user and password."""
    address = urlsplit(uri())
    host = address.netloc.rpartition("@")[2]
    return urlunsplit(address._replace(netloc=host)) if host else uri()


def experiment_name() -> str:
    """The experiment of the trainings."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT


def get_client() -> mlflow.MlflowClient:
    """A client of the tracking server. No request is sent yet, but a database in a file is made ready."""
    # MLflow's messages about creating the embedded store and checking the input example are of no use to the user.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    probe.hide_insecure_warnings()
    mlflow.set_tracking_uri(uri())
    if uri().startswith(SQLITE):
        with suppress(OSError):  # a folder that cannot be written: the first request says so
            _prepare_database(uri())
    return mlflow.MlflowClient()


@cache
def _prepare_database(address: str) -> None:
    """Create the tables of a database in a file, unless it has them, and let the embedded one follow its folder.

    One process at a time: MLflow's migrations fail, and may leave a broken database, where two run at once.
    """
    path = Path(address.removeprefix(SQLITE))
    with FileLock(path.with_name(f".{path.name}.lock")):
        mlflow.MlflowClient().search_experiments(max_results=1)
        if address == EMBEDDED:
            _move_artifacts(path, ARTIFACTS_FOLDER.as_uri())


def _move_artifacts(database: Path, here: str) -> None:
    """Let the artifacts of a project that was moved or copied lie in its folder: MLflow records absolute addresses.

    Args:
        here: the address of the folder of the artifacts.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%/mlruns'"
        for (old,) in connection.execute(query).fetchall():
            if old == here:
                continue
            for table, column in ADDRESS_COLUMNS.items():
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
                    (here, len(old) + 1, len(old) + 1, f"{old}/"),
                )


def get_or_create_experiment(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an experiment, which is created if it does not exist.

    Raises:
        UserError: the experiment was deleted.
    """
    experiment = client.get_experiment_by_name(name) or _create_experiment(client, name)
    if experiment.lifecycle_stage != "active":
        raise UserError(f"the experiment {name!r} was deleted: restore it in MLflow, or set MLFLOW_EXPERIMENT_NAME")
    return str(experiment.experiment_id)


def _create_experiment(client: mlflow.MlflowClient, name: str) -> Experiment:
    # MLflow's default artifact location is relative to the current folder.
    location = ARTIFACTS_FOLDER.as_uri() if uri() == EMBEDDED else None
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        experiment = client.get_experiment_by_name(name)  # another training may have created it in the meantime
        if experiment is None:
            raise
        return experiment


def newest_run(client: mlflow.MlflowClient, query: str) -> Run | None:
    """The run that started last among those of all experiments that match a query; None if there is none."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, query, max_results=1, order_by=["attributes.start_time DESC"])
    return runs[0] if runs else None


def check_server() -> None:
    """Send one request to the tracking server; for a database, open a connection. The embedded store always passes.

    Raises:
        UserError: the server does not answer in five seconds, or refuses. MLflow's own retries would block for
            minutes, and only after the training.
    """
    probe.check(uri(), redacted_uri())


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn the errors that MLflow raises within the block (SERVER_ERRORS) into a UserError."""
    try:
        yield
    except SERVER_ERRORS as error:
        raise UserError(f"the tracking server {redacted_uri()} failed: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of an error in one line of at most 300 characters, without the password of the tracking address."""
    text = " ".join(str(error).split())
    if netloc := urlsplit(uri()).netloc:
        text = text.replace(netloc, netloc.rpartition("@")[2])
    return text if len(text) <= 300 else f"{text[:297]}..."
