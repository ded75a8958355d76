"""Connections within their limits, on uvicorn itself: slow, endless and many."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from rakuten.serving.connections import MAX_HEADER_BYTES, MAX_HEADER_FIELDS, http_protocol
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.middleware import RequestMiddleware
from rakuten.serving.settings import ApiSettings
from tests.support.servers import free_port, wait_for

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
SECONDS = 10.0  # a connection that is closed must be within them


async def length(_: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the length of the body and the client's address."""
    n_bytes, more = 0, True
    while more:
        message = await receive()
        n_bytes, more = n_bytes + len(message.get("body", b"")), message.get("more_body", False)
    body = json.dumps([n_bytes, (_["client"] or ("",))[0]]).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serve(app: ASGIApp = length, **limits: object) -> Iterator[int]:
    """The port of a server with these settings, run as `rakuten serve` runs its own."""
    settings = ApiSettings(port=free_port(), **limits)  # type: ignore[arg-type]
    config = uvicorn.Config(
        RequestMiddleware(app, settings, ApiMetrics()),
        port=settings.port,
        log_config=None,
        http=http_protocol(settings),
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        wait_for(lambda: server.started, "the server", 20)
        yield settings.port
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SECONDS, (source, 0))


def answer(connection: socket.socket) -> str:
    """All that the server sends until it closes the connection."""
    received = b""
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionResetError:  # the server did not read all that was sent
        pass
    return received.decode()


def exchange(port: int, *parts: bytes) -> str:
    """The answer to what is sent on one connection, which the server must close."""
    with closing(connect(port)) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer(connection)


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(1)
    await length(scope, receive, send)


def is_answered(port: int, source: str = "127.0.0.1") -> bool:
    """Whether an ordinary request is answered on a new connection."""
    with closing(connect(port, source)) as connection:
        return is_answered_on(connection)


def is_answered_on(connection: socket.socket) -> bool:
    connection.sendall(GET)
    received = b""
    while not received.endswith(b"]") and (part := connection.recv(65_536)):
        received += part
    return received.startswith(b"HTTP/1.1 200") and received.endswith(b"]")


def test_a_request_and_the_next_on_its_connection_are_answered() -> None:
    with serve() as port, closing(connect(port)) as connection:
        for body in (b"abc", b"", b"a" * 300_000):
            connection.sendall(POST + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            received = b""
            while b"]" not in received:
                received += connection.recv(65_536) or pytest.fail(f"closed after {received!r}")
            assert received.endswith(json.dumps([len(body), "127.0.0.1"]).encode())


@pytest.mark.parametrize(
    "header",
    [
        b"GET /" + b"a" * MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        POST + b"a: " + b"b" * MAX_HEADER_BYTES + b"\r\n\r\n",
        POST + b"a: b\r\n" * MAX_HEADER_FIELDS + b"\r\n",
        POST + b"a: " + b"b" * 20_000_000,  # never ends
        POST + b"a: b\r\n" * 3_000_000,
        b"G" * 20_000_000,
    ],
    ids=["long path", "long field", "many fields", "endless field", "endless fields", "endless word"],
)
def test_a_header_over_the_limits_is_refused(header: bytes) -> None:
    with serve() as port:
        received = exchange(port, header)
        assert not received or received.startswith(("HTTP/1.1 431 ", "HTTP/1.1 422 ")), received[:200]
        assert is_answered(port)


def test_a_refusal_is_a_problem() -> None:
    with serve() as port:
        received = exchange(port, POST + b"a: b\r\n" * MAX_HEADER_FIELDS + b"\r\n")
    head, _, body = received.partition("\r\n\r\n")
    assert "content-type: application/problem+json" in head
    assert json.loads(body)["code"] == "header_too_large"


def test_what_is_no_http_is_refused() -> None:
    with serve() as port:
        assert '"code": "invalid_request"' in exchange(port, b"\x16\x03\x01 hello\r\n\r\n")


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost: local"])
def test_a_header_that_does_not_end_is_given_up(begun: bytes) -> None:
    with serve(header_seconds=0.3) as port:
        started = time.monotonic()
        assert '"code": "too_slow"' in exchange(port, begun)
        assert 0.25 < time.monotonic() - started < SECONDS


def test_a_header_that_dribbles_is_given_up() -> None:
    with serve(header_seconds=0.5) as port, closing(connect(port)) as connection:
        started = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() - started < SECONDS:
                connection.sendall(b"G")
                time.sleep(0.05)


def test_the_next_request_of_a_connection_has_the_same_time() -> None:
    with serve(header_seconds=0.3) as port, closing(connect(port)) as connection:
        connection.sendall(GET)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        time.sleep(0.6)  # nothing is begun: the connection may be idle for longer
        connection.sendall(b"GET / HT")
        assert '"code": "too_slow"' in answer(connection)


def test_a_header_that_begins_with_the_request_before_it_has_the_same_time() -> None:
    with serve(header_seconds=0.3) as port, closing(connect(port)) as connection:
        connection.sendall(GET + b"GET / HT")
        received = b""
        while part := connection.recv(65_536):
            received += part
        assert received.startswith(b"HTTP/1.1 200")
        assert b'"code": "too_slow"' in received


def test_a_body_that_dribbles_is_given_up() -> None:
    with serve(body_seconds=0.5) as port, closing(connect(port)) as connection:
        connection.sendall(POST + b"content-length: 1000\r\n\r\n")
        started = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() - started < SECONDS:
                connection.sendall(b"a")
                time.sleep(0.05)


@pytest.mark.parametrize(
    "body",
    [
        b"1;" + b"e" * 10_000_000,  # an extension of a chunk, which is no part of the body
        b"0\r\na: " + b"b" * 10_000_000,  # a trailer
        b"0\r\n" + b"a: b\r\n" * 2_000_000,
        b"1\r\na\r\n" * 2_000_000,
    ],
    ids=["extension", "trailer", "trailers", "small chunks"],
)
def test_what_comes_beside_the_body_is_limited_too(body: bytes) -> None:
    with serve(max_body_mb=1) as port:
        with closing(connect(port)) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(CHUNKED + body)
            answer(connection)
            connection.sendall(body)
            connection.sendall(body)
        assert is_answered(port)


def test_of_too_many_connections_of_an_address_the_longest_idle_is_closed() -> None:
    with serve(max_connections_per_address=3) as port, ExitStack() as stack:
        other = stack.enter_context(closing(connect(port)))
        first, second, third = (stack.enter_context(closing(connect(port, "127.0.0.2"))) for _ in range(3))
        assert is_answered_on(first)
        assert is_answered(port, "127.0.0.2")  # in place of the second, which has asked for nothing yet
        assert answer(second).startswith("HTTP/1.1 503 ")
        assert is_answered_on(third)
        assert [is_answered_on(connection) for connection in (first, other)] == [True, True]


def test_a_connection_is_refused_where_none_is_idle() -> None:
    with serve(slow, max_connections_per_address=2) as port, ExitStack() as stack:
        busy = [stack.enter_context(closing(connect(port))) for _ in range(2)]
        for connection in busy:
            connection.sendall(GET)
        time.sleep(0.3)
        with closing(connect(port)) as third:
            assert answer(third).startswith("HTTP/1.1 503 ")
        assert [connection.recv(65_536)[:12] for connection in busy] == [b"HTTP/1.1 200"] * 2


def test_a_trusted_proxy_has_as_many_as_it_needs() -> None:
    with serve(max_connections_per_address=3, trusted_proxies="127.0.0.0/30") as port, ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(port, "127.0.0.2"))) for _ in range(5)]
        assert all(map(is_answered_on, connections))


def test_of_too_many_connections_the_longest_idle_is_closed() -> None:
    with serve(max_connections=5) as port, ExitStack() as stack:
        idle = [stack.enter_context(closing(connect(port, f"127.0.0.{number}"))) for number in range(2, 12)]
        assert is_answered(port)
        assert answer(idle[0]).startswith("HTTP/1.1 503 ")
        assert is_answered_on(idle[-1])
