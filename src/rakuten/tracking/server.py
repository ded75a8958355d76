"""The tracking server that MLFLOW_TRACKING_URI names. Without one: mlflow.db and mlruns/ at the project's root."""

import logging
import os
import socket
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import mlflow
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from rakuten.config import ROOT
from rakuten.errors import UserError

EMBEDDED = f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"
ARTIFACTS_FOLDER = ROOT / "mlruns"  # of the embedded store
DEFAULT_EXPERIMENT = "rakuten-baseline"
TIMEOUT_SECONDS = 5.0
# Not /health: that answers even where MLflow refuses this Host header or these credentials.
PROBE_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
SERVER_ERRORS = (MlflowException, OSError)  # what MLflow's client raises when a server, a network or a disk fails
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
    """A client of the tracking server; no request is sent yet."""
    # MLflow's messages about creating the embedded store and checking the input example are of no use to the user.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())
    return mlflow.MlflowClient()


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
            request = urllib.request.Request(shown.rstrip("/") + PROBE_PATH, headers=credentials(address))
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                pass
        elif address.hostname:
            with socket.create_connection((address.hostname, address.port or 5432), TIMEOUT_SECONDS):
                pass
    except urllib.error.HTTPError as error:
        hint = STATUS_HINTS.get(error.code, "check the address")
        raise UserError(f"the tracking server {shown} refuses ({error.code} {error.reason}): {hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"the tracking server {shown} does not answer ({reason}): {START_HINT}") from error


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn the errors that MLflow raises within the block (SERVER_ERRORS) into a UserError."""
    try:
        yield
    except SERVER_ERRORS as error:
        raise UserError(f"the tracking server {redacted_uri()} failed: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of an error in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def credentials(address: SplitResult) -> dict[str, str]:
    """The Authorization header for the tracking server, from the environment or the address itself; may be empty."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if not user and address.username:
        user, password = unquote(address.username), unquote(address.password or "")
    if user:
        pair = f"{user}:{password or ''}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}
