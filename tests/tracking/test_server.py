import os
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

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
            self.send_error(request.param)

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


def test_a_token_goes_before_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    assert server.credentials(urlsplit("http://a")) == {"Authorization": "Bearer token"}


def test_credentials_in_the_address_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    header = server.credentials(urlsplit("http://user:se%40cret@a"))
    assert header == {"Authorization": "Basic " + b64encode(b"user:se@cret").decode()}
    assert server.credentials(urlsplit("http://a")) == {}


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
