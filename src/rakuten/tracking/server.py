"""Where runs are recorded. Without a server: mlflow.db and mlruns/ at the project's root."""

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
from mlflow.exceptions import MlflowException

from rakuten.config import ROOT
from rakuten.errors import UserError

EMBEDDED = f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"
ARTIFACTS_FOLDER = ROOT / "mlruns"  # of the embedded store
DEFAULT_EXPERIMENT = "rakuten-baseline"
TIMEOUT_SECONDS = 5.0  # seconds
# Not /health: that answers even where MLflow refuses this Host header or these credentials.
PROBE_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
SERVER_ERRORS = (MlflowException, OSError)  # what MLflow's client raises when a server, a network or a disk fails


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED


def redacted_uri() -> str:
    """The tracking address without user and password."""
    address = urlsplit(uri())
    host = address.netloc.rpartition("@")[2]
    return urlunsplit(address._replace(netloc=host)) if host else uri()


def client() -> mlflow.MlflowClient:
    """A client of the tracking server; nothing is asked of it yet."""
    # Creating the embedded store and checking the example is no news to the user.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())
    return mlflow.MlflowClient()


def experiment_id(asked: mlflow.MlflowClient, name: str | None = None) -> str:
    """The experiment that runs are filed under, created if it is not there."""
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    # MLflow's default place for artifacts is relative to the current folder.
    place = ARTIFACTS_FOLDER.as_uri() if uri() == EMBEDDED else None
    found = asked.get_experiment_by_name(name)
    if found is None:
        try:
            return str(asked.create_experiment(name, artifact_location=place))
        except MlflowException:  # another training was faster
            found = asked.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(f"the experiment {name!r} was deleted: restore it in MLflow, or set MLFLOW_EXPERIMENT_NAME")
    return str(found.experiment_id)


def check_server() -> None:
    """Ask the tracking server once.

    Raises:
        UserError: it does not answer within five seconds, or refuses. MLflow's own retries
            would block for minutes, after the training.
    """
    address, shown = urlsplit(uri()), redacted_uri()
    ways_out = "start it, or unset MLFLOW_TRACKING_URI to record into mlflow.db here"
    try:
        if address.scheme in ("http", "https"):
            request = urllib.request.Request(shown.rstrip("/") + PROBE_PATH, headers=credentials(address))
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                pass
        elif address.hostname:
            with socket.create_connection((address.hostname, address.port or 5432), TIMEOUT_SECONDS):
                pass
    except urllib.error.HTTPError as error:
        hint = {
            401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in .env",
            403: "its --allowed-hosts must name this host, and your user must have the right to it",
            500: "its database may be away: look at the server's log",
            503: "its database may be away: look at the server's log",
        }.get(error.code, "check the address")
        raise UserError(f"the tracking server {shown} refuses ({error.code} {error.reason}): {hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"the tracking server {shown} does not answer ({reason}): {ways_out}") from error


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn what MLflow raises about its server within the block into one clear line."""
    try:
        yield
    except SERVER_ERRORS as error:
        raise UserError(f"the tracking server {redacted_uri()} failed: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """What MLflow raised, in one line of a readable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def credentials(address: SplitResult) -> dict[str, str]:
    """The header that says who asks, from the environment or the address itself."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if not user and address.username:
        user, password = unquote(address.username), unquote(address.password or "")
    if user:
        pair = f"{user}:{password or ''}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}
