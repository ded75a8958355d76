import os
import socket
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from rakuten.errors import UserError
from rakuten.tracking import server
from tests.support.servers import free_port

Request = tuple[str, str | None]  # path, Authorization


@pytest.fixture
def refusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    """A tracking server that answers every request with the status code of the parameter; its requests."""
    requests: list[Request] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            requests.append((self.path, self.headers.get("Authorization")))
            if request.param != 200:
                self.send_error(request.param)
                return
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{http_server.server_port}/")
        yield requests
        http_server.shutdown()


def test_the_embedded_store_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert server.uri().startswith("sqlite:///")
    server.check_server()


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_away_is_named_with_both_ways_out(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="does not answer .*start it, or unset MLFLOW_TRACKING_URI") as caught:
        server.check_server()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_accepts_no_connection_in_time_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of connections is full, so that the check itself has to end the wait."""
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(UserError, match="does not answer .*timed out"):
            server.check_server()


def test_a_server_that_never_responds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match="does not answer .*timed out"):
            server.check_server()


@pytest.mark.parametrize(
    ("refusing", "hint"),
    [
        (401, "MLFLOW_TRACKING_PASSWORD"),
        (403, "--allowed-hosts"),
        (404, "check the address"),
        (500, "its database may be down"),
        (503, "its database may be down"),
    ],
    indirect=["refusing"],
)
def test_a_refusal_tells_what_to_do(refusing: list[Request], hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with pytest.raises(UserError, match=f"refuses \\(.*{hint}"):
        server.check_server()
    assert refusing == [("/api/2.0/mlflow/experiments/search?max_results=1", "Basic dXNlcjpzZWNyZXQ=")]


@pytest.mark.parametrize("refusing", [200], indirect=True)
def test_a_token_goes_before_a_password(refusing: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    server.check_server()
    assert refusing[0][1] == "Bearer token"


@pytest.mark.parametrize("refusing", [200], indirect=True)
def test_credentials_in_the_address_are_used(refusing: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    address = os.environ["MLFLOW_TRACKING_URI"].replace("://", "://user:se%40cret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    server.check_server()
    assert refusing[0][1] == "Basic " + b64encode(b"user:se@cret").decode()


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The certificate of a tracking server that signed it itself."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = ["openssl", *options.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, capture_output=True, check=True)

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), Answering) as http_server:
        http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://localhost:{http_server.server_port}")
        yield certificate
        http_server.shutdown()


@pytest.mark.usefixtures("tls_server")
def test_a_certificate_that_nobody_knows_is_named_with_the_setting() -> None:
    with pytest.raises(UserError, match="is not trusted .*MLFLOW_TRACKING_SERVER_CERT_PATH") as caught:
        server.check_server()
    assert "self-signed certificate" in str(caught.value)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_its_certificate_may_be_named(tls_server: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tls_server))
    server.check_server()


@pytest.mark.usefixtures("tls_server")
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_may_be_unverified_as_in_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    server.check_server()


@pytest.mark.parametrize(
    ("address", "redacted"),
    [
        ("http://user:secret@a:1/x", "http://a:1/x"),
        ("postgresql://user:secret@a/b", "postgresql://a/b"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_credentials_in_the_address_are_not_shown(address: str, redacted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert server.redacted_uri() == redacted
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"


def test_an_error_does_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@a:1")
    text = server.one_line(MlflowException("API request to http://user:secret@a:1/api failed"))
    assert text == "API request to http://a:1/api failed"


def test_an_error_of_mlflow_becomes_one_line() -> None:
    with pytest.raises(UserError, match="the tracking server .* failed: a b") as caught, server.mlflow_errors():
        raise MlflowException("a\n  b" + " c" * 500)
    assert str(caught.value).endswith("...")
    assert "\n" not in str(caught.value)


def test_an_experiment_is_created_once_with_the_projects_artifact_folder(store: mlflow.MlflowClient) -> None:
    experiment_id = server.get_or_create_experiment(store, "trainings")
    assert server.get_or_create_experiment(store, "trainings") == experiment_id
    assert store.get_experiment(experiment_id).artifact_location.startswith(server.ARTIFACTS_FOLDER.as_uri())


def test_an_experiment_that_another_training_creates_in_the_meantime_is_used(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create_experiment

    def create_too_late(name: str, **more: str) -> str:
        create(name, **more)
        return create(name, **more)  # the second fails: the name exists

    monkeypatch.setattr(store, "create_experiment", create_too_late)
    experiment_id = server.get_or_create_experiment(store, "trainings")
    assert store.get_experiment(experiment_id).name == "trainings"


def test_a_deleted_experiment_is_refused(store: mlflow.MlflowClient) -> None:
    store.delete_experiment(server.get_or_create_experiment(store, "trainings"))
    with pytest.raises(UserError, match="'trainings' was deleted: restore it"):
        server.get_or_create_experiment(store, "trainings")


def test_the_newest_run_of_all_experiments_is_found(store: mlflow.MlflowClient) -> None:
    for name, started, mark in (("a", 2, "x"), ("b", 3, "x"), ("a", 1, "x"), ("b", 4, "y")):
        store.create_run(server.get_or_create_experiment(store, name), started, {"mark": mark})
    newest = server.newest_run(store, "tags.mark = 'x'")
    assert newest is not None
    assert newest.info.start_time == 3
    assert server.newest_run(store, "tags.mark = 'z'") is None
