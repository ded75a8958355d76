"""One request to a tracking server, as MLflow's client sends it, and what to do if the server cannot be reached."""

import re
import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from mlflow.environment_variables import MLFLOW_TRACKING_INSECURE_TLS
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from rakuten.errors import UserError

T = TypeVar("T")

TIMEOUT_SECONDS = 5.0
# Not /health: that answers even where MLflow refuses this Host header or these credentials.
PROBE_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
NO_SCHEME = re.compile(r"[\w.-]+:\d+(/.*)?")  # 127.0.0.1:5000 would be a folder to MLflow
CONNECTION = re.compile(r"^HTTPS?Connection\([^()]*\): ")  # that urllib3 puts before the text of an error

START_HINT = "start it, or unset MLFLOW_TRACKING_URI to record into mlflow.db here"
PROXY_HINT = "check HTTP_PROXY and HTTPS_PROXY, or name its host in NO_PROXY"
GATEWAY_HINT = "a proxy in front of it cannot reach it: start it, or check that proxy"
HOST_HINT = "its --allowed-hosts must name this host"
NAME_HINT = "check its name in MLFLOW_TRACKING_URI, and this machine's network"
CA_HINT = "name its CA bundle in MLFLOW_TRACKING_SERVER_CERT_PATH in .env"
SETTINGS_HINT = "check the MLFLOW_TRACKING_ variables in .env"
ADDRESS_HINT = "this is not MLflow's API: check the address (at DagsHub it ends in .mlflow)"
STATUS_HINTS = {
    401: "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in .env",
    403: "your user needs permission for it",
    404: ADDRESS_HINT,
    407: PROXY_HINT,
    429: "it has had too many requests: try again in some minutes",
    500: "its database may be down: look at the server's log",
    502: GATEWAY_HINT,
    503: "its database may be down: look at the server's log",
    504: GATEWAY_HINT,
}
CLIENT_HINT = (
    "it may ask for a certificate of yours: name it, with its key, in MLFLOW_TRACKING_CLIENT_CERT_PATH in .env"
)
# Words of an error: what is wrong with the server, and what to do.
HINTS = {
    "Failed to resolve": ("cannot be found", NAME_HINT),
    "Name or service not known": ("cannot be found", NAME_HINT),
    "Hostname mismatch": ("is not trusted", "use the host name that its certificate is for"),
    "IP address mismatch": ("is not trusted", "use the host name that its certificate is for"),
    "has expired": ("is not trusted", "its certificate must be renewed; or this machine's clock is wrong"),
    "not yet valid": ("is not trusted", "check this machine's clock"),
    "CERTIFICATE_VERIFY_FAILED": ("is not trusted", CA_HINT),
    "WRONG_VERSION_NUMBER": ("does not use TLS", "its address begins with http://"),
    "RECORD_LAYER_FAILURE": ("does not use TLS", "its address begins with http://"),
    "CA certificate bundle": (
        "cannot be verified", "correct MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE, also in .env",
    ),
    "NO_CERTIFICATE_OR_CRL_FOUND": (
        "cannot be verified", "MLFLOW_TRACKING_SERVER_CERT_PATH must name a file of certificates in PEM",
    ),
    "TLS certificate file": ("cannot be asked", "correct MLFLOW_TRACKING_CLIENT_CERT_PATH in .env"),
}  # fmt: skip


def check(address: str, shown: str) -> None:
    """Send one request to a tracking server; for a database server, open a connection. A file always passes.

    Args:
        address: of the server, as MLFLOW_TRACKING_URI has it.
        shown: the same without a password, for messages.

    Raises:
        UserError: the server does not answer within TIMEOUT_SECONDS, refuses, or is no MLflow server; the message says
            what to do.
    """
    if NO_SCHEME.fullmatch(address):
        raise UserError(f"the tracking server {shown}: the address must begin with http:// or https://")
    parts = urlsplit(address)
    try:
        if parts.scheme in ("http", "https"):
            refusal = _refusal(request(address, "GET", PROBE_PATH, TIMEOUT_SECONDS))
        else:
            refusal = _within(TIMEOUT_SECONDS, lambda: _connect(parts))
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors
        reason = _reason(error)
        state, hint = _state_and_hint(error, reason)
        raise UserError(f"the tracking server {shown} {state} ({reason}): {hint}") from error
    if refusal:
        raise UserError(f"the tracking server {shown} {refusal}")


def request(address: str, method: str, path: str, timeout: float, body: bytes | None = None) -> requests.Response:
    """Send one request as MLflow's client does, with its settings for TLS, proxies and credentials; no second try.

    Args:
        timeout: seconds for all of it.

    Raises:
        OSError: the server cannot be reached, or has not answered in time.
        ValueError: MLflow's settings contradict each other, or the address is none.
    """
    hide_insecure_warnings()

    def send() -> requests.Response:
        credentials = get_default_host_creds(address)  # type: ignore[no-untyped-call]
        response: requests.Response = http_request(  # type: ignore[no-untyped-call]
            credentials, path, method, max_retries=0, timeout=timeout, raise_on_status=False, data=body
        )
        return response

    try:
        return _within(timeout, send)
    except MlflowException as error:  # its own text has the address, with the password, if there is a cause
        cause = error.__cause__ or error.__context__
        raise cause if isinstance(cause, OSError) else ValueError(str(cause or error)) from None


def hide_insecure_warnings() -> None:
    """No warning of urllib3's at every request, where the user has chosen not to verify certificates."""
    if MLFLOW_TRACKING_INSECURE_TLS.get():  # type: ignore[no-untyped-call]
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def _within(seconds: float, action: Callable[[], T]) -> T:
    """What an action returns, if it does in time. A socket's timeout is no limit: it begins anew with every byte.

    Raises:
        TimeoutError: it takes longer; its thread is left to itself.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except Exception as error:  # raised again below
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"timed out after {seconds:g} seconds") from None


def _connect(parts: SplitResult) -> None:
    """Open a connection to the server of a database, if the address names one."""
    port = parts.port or DATABASE_PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), TIMEOUT_SECONDS).close()


def _refusal(response: requests.Response) -> str | None:
    """How a server refused, and what to do; None if it answered as MLflow does."""
    if response.status_code == 200:
        try:
            is_mlflow = isinstance(response.json(), dict)
        except ValueError:
            is_mlflow = False
        return None if is_mlflow else f"answers with something else than JSON: {ADDRESS_HINT}"
    hint = STATUS_HINTS.get(response.status_code, "check the address")
    if response.status_code == 403 and "Invalid Host header" in response.text:
        hint = HOST_HINT
    return f"refuses ({response.status_code} {response.reason}): {hint}"


def _state_and_hint(error: Exception, reason: str) -> tuple[str, str]:
    """What is wrong with a server that gave an error, and what to do."""
    for words, state_and_hint in HINTS.items():
        if words in reason:
            return state_and_hint
    if isinstance(error, requests.exceptions.SSLError):
        return "refuses TLS", CLIENT_HINT
    if isinstance(error, requests.exceptions.ProxyError):
        return "cannot be reached through the proxy", PROXY_HINT
    if isinstance(error, ValueError):  # also those of requests about an address
        return "cannot be asked", SETTINGS_HINT
    return "does not answer", START_HINT


def _reason(error: Exception) -> str:
    """The innermost cause: requests and urllib3 wrap it, with the address, several times."""
    reason: object = error
    while True:
        arguments = getattr(reason, "args", ())
        inner = getattr(reason, "reason", None) or next(filter(_is_error, arguments), None)
        if not _is_error(inner):
            return CONNECTION.sub("", str(reason))
        reason = inner


def _is_error(value: object) -> bool:
    return isinstance(value, Exception)
