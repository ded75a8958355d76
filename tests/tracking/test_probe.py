"""What is said of a tracking server that cannot be reached, and that it is asked with all of MLflow's settings."""

import os
import re
import socket
import ssl
import subprocess
import threading
import time
import warnings
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
import urllib3

from rakuten.errors import UserError
from rakuten.tracking import probe
from rakuten.tracking.server import check_server
from tests.support.servers import free_port

SETTINGS = (
    "MLFLOW_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NETRC",
)
Request = tuple[str, str | None]  # path, Authorization


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine's that changes how a server is asked; an empty home folder."""
    for name in os.environ:
        if name.upper().startswith(SETTINGS) and name not in ("MLFLOW_DISABLE_TELEMETRY",):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@contextmanager
def answering(
    code: int, body: bytes = b"{}", context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[Request]]]:
    """A server on loopback that answers every request alike; yields its port and its requests."""
    requests: list[Request] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            requests.append((self.path, self.headers.get("Authorization")))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None:  # a client that breaks off a handshake
            pass

    with Quiet(("127.0.0.1", 0), Answering) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port, requests
        server.shutdown()


@pytest.fixture
def refusing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    """A tracking server that answers every request with the status code of the parameter; its requests."""
    with answering(request.param) as (port, requests):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}/")
        yield requests


@pytest.mark.parametrize("scheme", ["http", "postgresql", "mysql+pymysql"])
def test_a_server_that_is_away_is_named_with_both_ways_out(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(
        UserError, match=r"does not answer \(\D*\[Errno \d+\] .*start it, or unset MLFLOW_TRACKING_URI"
    ) as caught:
        check_server()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_accepts_no_connection_in_time_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of connections is full, so that the check itself has to end the wait."""
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(UserError, match="does not answer .*timed out"):
            check_server()


def test_a_server_that_never_responds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match="does not answer .*timed out"):
            check_server()


def test_a_server_that_sends_its_header_byte_by_byte_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's timeout begins anew with every byte."""
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.3)
    stop = threading.Event()

    def drip() -> None:
        connection, _ = dripping.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            for _ in range(60):
                connection.sendall(b"a")
                if stop.wait(0.05):
                    break

    with socket.socket() as dripping:
        dripping.bind(("127.0.0.1", 0))
        dripping.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{dripping.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(UserError, match=r"does not answer \(timed out after 0\.3 seconds\)"):
            check_server()
        assert time.monotonic() - started < 2  # the server drips for three seconds
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("refusing", "hint"),
    [
        (401, "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "your user needs permission"),
        (404, "check the address"),
        (407, "check HTTP_PROXY"),
        (429, "try again"),
        (500, "its database may be down"),
        (502, "a proxy in front of it cannot reach it"),
        (503, "its database may be down"),
        (418, "check the address"),
    ],
    indirect=["refusing"],
)
def test_a_refusal_tells_what_to_do(refusing: list[Request], hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with pytest.raises(UserError, match=f"refuses \\(.*{hint}"):
        check_server()
    assert refusing == [("/api/2.0/mlflow/experiments/search?max_results=1", "Basic dXNlcjpzZWNyZXQ=")]


def test_a_refused_host_name_is_told_from_a_refused_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(403, b"Invalid Host header - possible DNS rebinding attack detected") as (port, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with pytest.raises(UserError, match="refuses .403 .*: its --allowed-hosts must name this host"):
            check_server()


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"[]"])
def test_a_page_that_is_not_mlflows_api_is_refused(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, body) as (port, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with pytest.raises(UserError, match="this is not MLflow's API: check the address"):
            check_server()


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "mlflow.example.com:5000/path"])
def test_an_address_without_its_scheme_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match="must begin with http:// or https://"):
        check_server()


@pytest.mark.parametrize("address", ["http://a b", "http://127.0.0.1:port", "postgresql://127.0.0.1:port/a"])
def test_an_address_that_is_none_is_not_said_to_be_away(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match="cannot be asked .*check the MLFLOW_TRACKING_ variables"):
        check_server()


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_name_that_does_not_exist_is_told_from_a_server_that_is_away(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://mlflow.invalid:5000")
    with pytest.raises(UserError, match="cannot be found .*check its name"):
        check_server()


@pytest.mark.parametrize("refusing", [200], indirect=True)
def test_a_token_is_sent_if_there_is_no_password(refusing: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    check_server()
    assert refusing[0][1] == "Bearer token"


@pytest.mark.parametrize("refusing", [200], indirect=True)
def test_credentials_in_the_address_are_used(refusing: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ["MLFLOW_TRACKING_URI"].replace("://", "://user:se%40cret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    check_server()
    assert refusing[0][1] == "Basic " + b64encode(b"user:se@cret").decode()


@pytest.mark.parametrize("refusing", [200], indirect=True)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".mlflow/credentials", "[mlflow]\nmlflow_tracking_username = user\nmlflow_tracking_password = secret\n"),
        (".netrc", "machine 127.0.0.1 login user password secret\n"),
    ],
)
def test_credentials_in_a_file_of_the_home_folder_are_used(
    name: str, text: str, refusing: list[Request], tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o600)
    check_server()
    assert refusing[0][1] == "Basic dXNlcjpzZWNyZXQ="


def test_the_server_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200) as (port, requests):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000")
        check_server()
        assert requests == [("http://mlflow.invalid:5000/api/2.0/mlflow/experiments/search?max_results=1", None)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_away_is_told_from_a_server_that_is(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:secret@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://mlflow.invalid:5000")
    with pytest.raises(UserError, match="cannot be reached through the proxy .*NO_PROXY") as caught:
        check_server()
    assert "secret" not in str(caught.value)


def test_a_proxy_that_asks_for_a_password_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(407) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.invalid:5000")
        with pytest.raises(UserError, match="through the proxy .*: check HTTP_PROXY and HTTPS_PROXY"):
            check_server()


class Certificates(NamedTuple):
    """Files of an authority of its own, of a server at localhost, and of a client; each with its key."""

    authority: Path
    server: Path
    client: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def create(name: str, *options: str) -> Path:
        path = folder / f"{name}.pem"
        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
        command = ["openssl", "req", "-x509", *key.split(), "-subj", f"/CN={name}", *options]
        subprocess.run([*command, "-keyout", f"{path}.key", "-out", str(path)], capture_output=True, check=True)
        path.write_bytes(path.read_bytes() + Path(f"{path}.key").read_bytes())
        return path

    authority = create("authority")
    issued = ("-CA", str(authority), "-CAkey", str(authority), "-addext", "basicConstraints=CA:FALSE")
    return Certificates(
        authority, create("server", *issued, "-addext", "subjectAltName=DNS:localhost"), create("client", *issued)
    )


@pytest.fixture
def tls_server(
    request: pytest.FixtureRequest, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Certificates]:
    """A tracking server with a certificate of its own authority; "mutual" as parameter: it asks for the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    if getattr(request, "param", "") == "mutual":
        context.load_verify_locations(certificates.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 may close the connection before its alert is read
    with answering(200, context=context) as (port, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://localhost:{port}")
        yield certificates


@pytest.mark.usefixtures("tls_server")
def test_an_authority_that_nobody_knows_is_named_with_the_setting() -> None:
    with pytest.raises(UserError, match="is not trusted .*MLFLOW_TRACKING_SERVER_CERT_PATH") as caught:
        check_server()
    assert "unable to get local issuer certificate" in str(caught.value)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_ones_own_may_be_named(
    tls_server: Certificates, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tls_server.authority))
    check_server()


def test_another_host_name_than_the_certificates_is_said(
    tls_server: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"].replace("localhost", "127.0.0.1"))
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tls_server.authority))
    with pytest.raises(UserError, match="is not trusted .*: use the host name that its certificate is for"):
        check_server()


@pytest.mark.parametrize("tls_server", ["mutual"], indirect=True)
def test_a_certificate_of_the_client_is_used_and_asked_for(
    tls_server: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tls_server.authority))
    with pytest.raises(UserError, match="refuses TLS .*certificate of yours: .*MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        check_server()
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(tls_server.client))
    check_server()


@pytest.mark.usefixtures("tls_server")
@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", None, "cannot be verified .*correct MLFLOW_TRACKING_SERVER_CERT_PATH"),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "no certificate", "must name a file of certificates in PEM"),
        ("MLFLOW_TRACKING_CLIENT_CERT_PATH", None, "correct MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    ],
)
def test_a_certificates_file_that_is_none_is_named(
    name: str, content: str | None, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content:
        (tmp_path / "file.pem").write_text(content)
    monkeypatch.setenv(name, str(tmp_path / "file.pem"))
    with pytest.raises(UserError, match=hint):
        check_server()


@pytest.mark.parametrize("refusing", [200], indirect=True)
@pytest.mark.usefixtures("refusing")
def test_tls_to_a_server_that_has_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["MLFLOW_TRACKING_URI"].replace("http:", "https:"))
    with pytest.raises(UserError, match="does not use TLS .*: its address begins with http://"):
        check_server()


@pytest.mark.usefixtures("tls_server")
def test_tls_may_be_unverified_as_in_mlflow_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", urllib3.exceptions.InsecureRequestWarning)
        check_server()
    assert [str(warning.message) for warning in caught] == []


def test_settings_that_contradict_each_other_are_quoted(
    tls_server: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tls_server.authority))
    with pytest.raises(UserError, match=re.escape("cannot be asked (When 'ignore_tls_verification' is true")):
        check_server()


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("certificate has expired", "must be renewed"),
        ("certificate is not yet valid", "check this machine's clock"),
        ("Hostname mismatch, certificate is not valid for 'a'", "use the host name"),
        ("self-signed certificate in certificate chain", "MLFLOW_TRACKING_SERVER_CERT_PATH"),
    ],
)
def test_each_fault_of_a_certificate_has_its_remedy(fault: str, hint: str) -> None:
    """All of them are CERTIFICATE_VERIFY_FAILED too."""
    reason = f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {fault} (_ssl.c:1006)"
    state, found = probe._state_and_hint(requests.exceptions.SSLError(reason), reason)
    assert state == "is not trusted"
    assert hint in found
