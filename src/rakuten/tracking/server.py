"""The tracking server that MLFLOW_TRACKING_URI names. Without one: mlflow.db and mlruns/ at the project's root.

An experiment of `dvc exp run --temp` records its run there too: its own folder is deleted at the end.
"""

import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import mlflow
import requests
from filelock import FileLock
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from rakuten.config import PROJECT
from rakuten.errors import UserError

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
TIMEOUT_SECONDS = 5.0
# Not /health: that answers even where MLflow refuses this Host header or these credentials.
PROBE_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
SERVER_ERRORS = (MlflowException, OSError)  # what MLflow's client raises when a server, a network or a disk fails
TLS_HINT = "name its CA bundle in MLFLOW_TRACKING_SERVER_CERT_PATH in .env"
START_HINT = "start it, or unset MLFLOW_TRACKING_URI to record into mlflow.db here"
CHECK_DATABASE = "its database may be down: look at the server's log"
STATUS_HINTS = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in .env",
    403: "its --allowed-hosts must name this host, and your user needs permission",
    500: CHECK_DATABASE,
    503: CHECK_DATABASE,
}


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
        UserError: the server does not answer within TIMEOUT_SECONDS, or refuses. MLflow's own retries would block for
            minutes, and only after the training.
    """
    address, shown = urlsplit(uri()), redacted_uri()
    try:
        if address.scheme in ("http", "https"):
            response = request("GET", PROBE_PATH, TIMEOUT_SECONDS)
            if response.status_code != 200:
                hint = STATUS_HINTS.get(response.status_code, "check the address")
                raise UserError(
                    f"the tracking server {shown} refuses ({response.status_code} {response.reason}): {hint}"
                )
        elif address.hostname:
            with socket.create_connection((address.hostname, address.port or 5432), TIMEOUT_SECONDS):
                pass
    except requests.exceptions.SSLError as error:
        raise UserError(f"the tracking server {shown} is not trusted ({_reason(error)}): {TLS_HINT}") from error
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors
        raise UserError(f"the tracking server {shown} does not answer ({_reason(error)}): {START_HINT}") from error


def request(method: str, path: str, timeout: float, body: bytes | None = None) -> requests.Response:
    """Send one request as MLflow's client does, with its settings for TLS, proxies and credentials; no second try.

    Raises:
        OSError: the server cannot be reached, or does not answer within `timeout` seconds.
    """
    try:
        credentials = get_default_host_creds(uri())  # type: ignore[no-untyped-call]
        response: requests.Response = http_request(  # type: ignore[no-untyped-call]
            credentials, path, method, max_retries=0, timeout=timeout, raise_on_status=False, data=body
        )
    except MlflowException as error:  # its text has the address, with the password
        cause = error.__cause__ or error.__context__
        raise cause if isinstance(cause, OSError) else OSError(error.error_code) from None
    return response


def _reason(error: Exception) -> str:
    """The innermost cause: requests and urllib3 wrap it, with the address, several times."""
    reason: object = error
    while True:
        arguments = getattr(reason, "args", ())
        inner = getattr(reason, "reason", None) or (arguments[0] if arguments else None)
        if not isinstance(inner, Exception):
            return str(reason).rpartition(": ")[2] if "object at 0x" in str(reason) else str(reason)
        reason = inner


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
