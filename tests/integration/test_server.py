"""Tracking against real servers on loopback, and the embedded store."""

import os
import socket
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest

from rakuten.errors import UserError
from rakuten.tracking import dvc_lock, lineage, server, training_run
from tests.support.servers import MLflow, free_port


def test_a_server_that_answers_is_accepted(tracking_server: MLflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.url)
    server.check_server()


def test_the_embedded_store_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert server.uri().startswith("sqlite:///")
    server.check_server()


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_away_is_named_with_both_ways_out(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{scheme}://user:secret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    started = time.monotonic()
    with pytest.raises(UserError, match="does not answer .*start it, or unset MLFLOW_TRACKING_URI") as caught:
        server.check_server()
    assert time.monotonic() - started < 5
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_is_given_up_after_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(UserError, match="does not answer"):
            server.check_server()
        assert 4 < time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("code", "hint"), [(401, "MLFLOW_TRACKING_PASSWORD"), (403, "--allowed-hosts"), (404, "check the address")]
)
def test_a_refusal_says_what_to_set(code: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_error(code)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        threading.Thread(target=refusing.handle_request, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{refusing.server_port}/")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        with pytest.raises(UserError, match=f"refuses \\({code} .*{hint}"):
            server.check_server()
    assert asked == [("/api/2.0/mlflow/experiments/search?max_results=1", "Basic dXNlcjpzZWNyZXQ=")]


def test_a_token_goes_before_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    assert server.credentials(urlsplit("http://a")) == {"Authorization": "Bearer token"}


def test_credentials_in_the_address_are_used_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    sent = server.credentials(urlsplit("http://user:se%40cret@a"))
    assert sent == {"Authorization": "Basic " + b64encode(b"user:se@cret").decode()}
    assert server.credentials(urlsplit("http://a")) == {}
    for address, shown in (
        ("http://user:secret@a:1/x", "http://a:1/x"),
        ("postgresql://user:secret@a/b", "postgresql://a/b"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert server.redacted_uri() == shown
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"


def test_a_failed_training_is_a_failed_run(
    tracking_server: MLflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "failing")
    data = tmp_path / "train_features.csv"
    data.write_text("a\n")
    tags = {"synthetic": "true"}
    with pytest.raises(RuntimeError), training_run.training_run({"seed": 1}, [data], tags, tmp_path) as training:
        raise RuntimeError
    run = mlflow.get_run(training.run_id)
    assert run.info.status == "FAILED"
    assert run.data.params == {"seed": "1"}
    assert run.data.tags["synthetic"] == "true"
    assert [entry.dataset.digest for entry in run.inputs.dataset_inputs] == ["60b725f10c9c85c70d97880dfe8191b3"]


def test_what_dvc_lock_does_not_record_is_not_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  train:\n    outs:\n    - {path: m, md5: abc}\n")
    for file in (tmp_path / "dvc.lock", tmp_path / "none"):
        monkeypatch.setattr(lineage, "DVC_LOCK", file)
        with caplog.at_level("INFO"):
            dvc_lock.attach_dvc_lock(tmp_path)
        assert "dvc.lock does not record this model" in caplog.text
        caplog.clear()


def test_no_git_no_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "ROOT", tmp_path)
    assert lineage.git_tags() == {}
    monkeypatch.setenv("PATH", "")
    assert lineage.git_tags() == {}
