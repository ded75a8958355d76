"""What is done for every request: host, keys, limits, headers, access log."""

import asyncio
import json
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rakuten.serving import middleware as module
from rakuten.serving.keys import add_key
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.middleware import RateLimiter, RequestMiddleware
from rakuten.serving.problems import Problem
from rakuten.serving.settings import ApiSettings
from tests.support.api import POOL, Api, check_problem, get, post
from tests.support.servers import wait_for

LOCAL = {"host": "127.0.0.1:8000"}


class Answer(NamedTuple):
    """A response as the middleware sent it, and how many parts of the body were read for it."""

    status: int
    headers: dict[str, str]
    body: bytes
    n_received: int

    def problem(self) -> str:
        """Assert that it is a problem; returns its code."""
        assert self.headers["content-type"] == "application/problem+json"
        content = json.loads(self.body)
        assert content["status"] == self.status
        assert content["request_id"] == self.headers["x-request-id"]
        return str(content["code"])


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the whole body and sends it back."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def wrap(app: ASGIApp = echo, **settings: Any) -> RequestMiddleware:
    return RequestMiddleware(app, ApiSettings(**settings), ApiMetrics())


def send_request(middleware: RequestMiddleware, path: str = "/predict", **request: Any) -> Answer:
    """The answer to one request; see `answer_to`."""
    return asyncio.run(answer_to(middleware, path, **request))


async def answer_to(
    middleware: RequestMiddleware,
    path: str = "/predict",
    headers: dict[str, str] = LOCAL,
    parts: Sequence[bytes] = (b"",),
    client: str = "192.0.2.1",
) -> Answer:
    """The answer to one request; a body of no parts never comes."""
    sent: list[Message] = []
    n_received = 0

    async def receive() -> Message:
        nonlocal n_received
        if n_received == len(parts):
            await asyncio.Event().wait()
        n_received += 1
        return {"type": "http.request", "body": parts[n_received - 1], "more_body": n_received < len(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": pairs, "client": (client, 1234)}
    await asyncio.wait_for(middleware(scope, receive, send), 30)
    start, *rest = sent
    names = Counter(name for name, _ in start["headers"])
    assert max(names.values()) == 1, names
    response_headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], response_headers, b"".join(message["body"] for message in rest), n_received)


# rate limit


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def n_acquired(limiter: RateLimiter, client: str = "a") -> int:
    """How many tokens a client can take at once."""
    count = 0
    try:
        while count < 100:
            limiter.acquire(client)
            count += 1
    except Problem as problem:
        assert problem.code == "rate_limited"
    return count


def test_a_client_has_a_minute_s_worth_of_requests_refilled_evenly(clock: Clock) -> None:
    limiter = RateLimiter(6)
    assert n_acquired(limiter) == 6
    clock.seconds += 9.9
    assert n_acquired(limiter) == 0
    clock.seconds += 0.2
    assert n_acquired(limiter) == 1
    clock.seconds += 3600
    assert n_acquired(limiter) == 6


def test_each_client_has_its_own_requests(clock: Clock) -> None:
    limiter = RateLimiter(2)
    assert [n_acquired(limiter, client) for client in "aba"] == [2, 2, 0]


def test_a_refusal_says_when_the_next_request_is_allowed(clock: Clock) -> None:
    limiter = RateLimiter(6)
    n_acquired(limiter)
    clock.seconds += 4
    with pytest.raises(Problem) as raised:
        limiter.acquire("a")
    assert raised.value.retry_after == pytest.approx(6)


def test_no_limit_is_no_limit() -> None:
    assert n_acquired(RateLimiter(0)) == 100


def test_the_client_not_seen_for_longest_is_dropped(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 2)
    limiter = RateLimiter(1)
    assert [n_acquired(limiter, client) for client in "abab"] == [1, 1, 0, 0]
    assert n_acquired(limiter, "c") == 1  # in a's place
    assert [n_acquired(limiter, client) for client in "bca"] == [0, 0, 1]


# middleware


def test_a_body_and_a_response_pass_through() -> None:
    answer = send_request(wrap(), parts=(b"first ", b"", b"second"))
    assert (answer.status, answer.body) == (200, b"first second")
    assert answer.headers["content-type"] == "text/plain"


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_a_local_server_answers_to_its_own_names(host: str) -> None:
    assert send_request(wrap(), headers={"host": host}).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1", "localhost.evil.example", ""])
def test_a_local_server_refuses_other_host_names(host: str) -> None:
    answer = send_request(wrap(), headers={"host": host})
    assert (answer.status, answer.problem()) == (403, "host_not_allowed")
    assert answer.n_received == 0


def test_a_public_server_answers_to_any_host_name() -> None:
    middleware = wrap(host="0.0.0.0", require_keys="false")
    assert send_request(middleware, headers={"host": "shop.example"}).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_other_names_are_allowed_by_a_setting(host: str) -> None:
    middleware = wrap(host=host, require_keys="false", hosts="Shop.example, shop.test")
    for name in ("shop.example", "SHOP.example:443", "shop.test", "localhost:8000"):
        assert send_request(middleware, headers={"host": name}).status == 200
    answer = send_request(middleware, headers={"host": "evil.example"})
    assert (answer.status, answer.problem()) == (403, "host_not_allowed")


@pytest.mark.parametrize("given", ["given-1", "a" * 64, "A_b.c"])
def test_a_valid_request_id_is_kept(given: str) -> None:
    assert send_request(wrap(), headers=LOCAL | {"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b\tc", "é", "a" * 65, '"'])
def test_another_request_id_is_replaced(given: str) -> None:
    answers = [send_request(wrap(), headers=LOCAL | {"x-request-id": given}) for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert given not in ids


def test_every_response_has_the_security_headers() -> None:
    for answer in (send_request(wrap()), send_request(wrap(), headers={"host": "evil.example"})):
        assert module.SECURITY_HEADERS.items() <= answer.headers.items()
        assert answer.headers["cache-control"] == "no-store"


def test_a_route_may_set_its_cache_control_but_no_security_header() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"no-cache"), (b"referrer-policy", b"unsafe-url")]
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = send_request(wrap(app))
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.txt"


def test_a_key_is_accepted_in_either_header(keys_file: Path) -> None:
    key = add_key(keys_file, "one")
    middleware = wrap(require_keys="true", keys_file=keys_file)
    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        assert send_request(middleware, headers=LOCAL | headers).status == 200
    for headers in ({}, {"x-api-key": "wrong"}, {"x-api-key": key + "x"}, {"authorization": "Bearer "}):
        answer = send_request(middleware, headers=LOCAL | headers)
        assert (answer.status, answer.problem()) == (401, "unauthorized")
        assert answer.n_received == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/health", 200), ("/ready", 200), ("/static/page.js", 200), ("/model", 401), ("/metrics", 401)],
)
def test_only_public_paths_need_no_key(keys_file: Path, path: str, status: int) -> None:
    assert send_request(wrap(require_keys="true", keys_file=keys_file), path).status == status


def test_guesses_of_keys_are_limited_by_address_and_cost_no_owner(keys_file: Path) -> None:
    key = add_key(keys_file, "192.0.2.1")  # a name like an address
    middleware = wrap(require_keys="true", keys_file=keys_file, rate_per_minute=1)
    guess = LOCAL | {"x-api-key": "wrong"}
    assert [send_request(middleware, headers=guess).status for _ in range(3)] == [401, 429, 429]
    assert send_request(middleware, headers=guess, client="192.0.2.2").status == 401
    assert [send_request(middleware, headers=LOCAL | {"x-api-key": key}).status for _ in range(2)] == [200, 429]


def test_without_keys_a_client_is_an_address() -> None:
    middleware = wrap(rate_per_minute=1)
    statuses = [send_request(middleware, client=client).status for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
    assert statuses == [200, 429, 200]


def test_a_body_that_declares_itself_too_large_is_not_read() -> None:
    answer = send_request(wrap(max_body_mb=0.001), headers=LOCAL | {"content-length": "1001"}, parts=(b"a" * 1001,))
    assert (answer.status, answer.problem()) == (413, "body_too_large")
    assert answer.n_received == 0
    assert answer.headers["connection"] == "close"


def test_an_answer_before_the_body_is_whole_closes_the_connection() -> None:
    async def refuse(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        raise Problem("unsupported_media_type", "no")

    for headers in ({"content-length": "2"}, {"transfer-encoding": "chunked"}):
        answer = send_request(wrap(refuse), headers=LOCAL | headers, parts=(b"a", b"b"))
        assert answer.headers["connection"] == "close"
        whole = send_request(wrap(refuse), headers=LOCAL | headers, parts=(b"ab",))
        assert "connection" not in whole.headers
    assert "connection" not in send_request(wrap()).headers


def test_a_body_without_a_length_is_read_up_to_the_limit() -> None:
    parts = (b"a" * 600, b"a" * 400, b"a", b"a")
    answer = send_request(wrap(max_body_mb=0.001), parts=parts)
    assert (answer.status, answer.problem()) == (413, "body_too_large")
    assert answer.n_received == 3
    assert send_request(wrap(max_body_mb=0.001), parts=parts[:2]).body == b"a" * 1000


def test_a_body_that_does_not_come_is_given_up() -> None:
    answer = send_request(wrap(body_seconds=0.05), parts=())
    assert (answer.status, answer.problem()) == (408, "too_slow")


def test_a_large_body_is_not_read_while_there_is_no_room_and_a_small_one_is() -> None:
    large = {"headers": LOCAL | {"content-length": "300000"}, "parts": (b"a" * 300_000,)}

    async def check() -> None:
        scored = asyncio.Event()

        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await scored.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        middleware = wrap(app, max_buffered_mb=0.5, wait_seconds=0.1)
        first = asyncio.create_task(answer_to(middleware, **large))
        await asyncio.sleep(0.01)
        refused = await answer_to(middleware, **large)
        assert (refused.status, refused.problem(), refused.n_received) == (503, "overloaded", 0)
        small = asyncio.create_task(answer_to(middleware, parts=(b"a" * 600,)))
        waiting = asyncio.create_task(answer_to(middleware, **large))
        await asyncio.sleep(0.01)
        scored.set()
        assert [(await task).status for task in (first, small, waiting)] == [200, 200, 200]

    asyncio.run(check())


def test_a_client_that_does_not_read_its_answer_holds_no_memory() -> None:
    async def check() -> None:
        read, begun = asyncio.Event(), 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal begun
            await echo(scope, receive, send)
            begun += 1
            await read.wait()  # as uvicorn does while the client's side is full

        middleware = wrap(app, max_buffered_mb=0.5, wait_seconds=5)
        large: dict[str, Any] = {"headers": LOCAL | {"content-length": "300000"}, "parts": (b"a" * 300_000,)}
        clients = [asyncio.create_task(answer_to(middleware, **large)) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert begun == 4
        read.set()
        assert [(await client).status for client in clients] == [200] * 4

    asyncio.run(check())


def test_waiting_for_the_client_to_disconnect_has_no_timeout() -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        disconnected = asyncio.create_task(receive())
        await asyncio.sleep(0.1)
        assert not disconnected.done()
        disconnected.cancel()
        await send({"type": "http.response.body", "body": b"whole"})

    answer = send_request(wrap(app, body_seconds=0.01), parts=())
    assert (answer.status, answer.body) == (200, b"whole")


def test_a_problem_after_the_response_has_started_sends_nothing_more() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Problem("internal", "too late")

    answer = send_request(wrap(app))
    assert (answer.status, answer.body) == (200, b"")


def test_an_exception_that_was_answered_is_logged_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        raise ValueError("broken")

    answer = send_request(wrap(app), headers=LOCAL | {"x-request-id": "failing"})
    assert answer.status == 500
    assert "request failing failed" in caplog.messages


def test_what_is_no_request_is_passed_on() -> None:
    scopes = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        scopes.append(scope)

    async def unused(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(wrap(app)({"type": "lifespan"}, unused, unused))
    assert scopes == [{"type": "lifespan"}]


def test_a_request_is_a_line_of_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rakuten.serving.access"):
        send_request(wrap(), headers=LOCAL | {"x-request-id": "one"})
        send_request(wrap(), headers={"host": "evil.example", "x-request-id": "two"})
    first, second = map(json.loads, caplog.messages)
    assert first.keys() == {"time", "request_id", "client", "method", "route", "status", "ms"}
    assert (first["request_id"], first["client"], first["method"], first["status"]) == ("one", "192.0.2.1", "POST", 200)
    assert (second["request_id"], second["status"], second["problem"]) == ("two", 403, "host_not_allowed")


def test_a_request_is_counted() -> None:
    middleware = wrap()
    send_request(middleware)
    send_request(middleware, headers={"host": "evil.example"})
    value = middleware._metrics.registry.get_sample_value
    assert value("rakuten_api_requests_total", {"route": "none", "status": "200"}) == 1
    assert value("rakuten_api_requests_total", {"route": "none", "status": "403"}) == 1
    assert value("rakuten_api_problems_total", {"code": "host_not_allowed"}) == 1
    assert value("rakuten_api_request_duration_seconds_count", {"route": "none", "modality": "none"}) == 2


# on a real server


def test_every_route_has_the_headers_and_the_request_s_id(api: Api) -> None:
    for path in ("/", "/health", "/model", "/metrics", "/nothing", "/openapi.json", "/static/page.js"):
        answer = get(api.url + path, headers={"X-Request-ID": "given-1"})
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == "given-1"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/ready", "/model", "/metrics", "/static/page.js"])
def test_head_has_the_headers_of_get_without_its_body(api: Api, path: str) -> None:
    got, head = get(api.url + path), requests.head(api.url + path, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":  # which grows
        assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/static/page.js", "GET, HEAD"),
        ("/predict", "POST"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(api: Api, path: str, allowed: str) -> None:
    answer = requests.put(api.url + path, timeout=10)
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("stripped", [True, False])
def test_a_reverse_proxy_may_serve_it_under_a_path(start: Callable[..., Api], stripped: bool) -> None:
    server = start(API_ROOT_PATH="/shop/rakuten", API_HOSTS="shop.example")
    base = server.url if stripped else f"{server.url}/shop/rakuten"
    headers = {"Host": "shop.example"}
    for path in ("/", "/docs", "/health", "/static/page.js", "/static/docs/swagger-ui.css"):
        assert get(base + path, headers=headers).status_code == 200, path
    assert post(f"{base}/predict", json=POOL, headers=headers).status_code == 200
    assert get(f"{base}/openapi.json", headers=headers).json()["servers"] == [{"url": "/shop/rakuten"}]
    answer = get(f"{server.url}/shop/rakuten", headers=headers, allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/shop/rakuten/")  # the page's links are relative
    assert get(f"{server.url}/shop/rakutenother", headers=headers).status_code == 404
    wait_for(lambda: '"route": "/predict"' in server.log.read_text(), "the access log", 30)


def test_a_page_of_another_host_is_refused(api: Api) -> None:
    answer = get(f"{api.url}/model", headers={"Host": f"evil.example:{api.port}"})
    check_problem(answer, 403, "host_not_allowed")


@pytest.mark.parametrize("with_text", [False, True])
def test_the_access_log_has_product_text_only_if_asked_for(
    api: Api, start: Callable[..., Api], with_text: bool
) -> None:
    server = start(API_LOG_TEXT="true") if with_text else api
    answer = post(f"{server.url}/predict", json={"designation": "Confidentiel 7f3a", "description": ""})
    request_id = answer.headers["x-request-id"]

    def lines() -> list[str]:
        return [line for line in server.log.read_text().splitlines() if request_id in line]

    wait_for(lambda: bool(lines()), "the line of the access log", 30)
    (entry,) = map(json.loads, lines())
    assert (entry["method"], entry["route"], entry["status"], entry["client"]) == ("POST", "/predict", 200, "127.0.0.1")
    products = [{"designation": "Confidentiel 7f3a", "description": ""}] if with_text else None
    assert entry.get("products") == products
    assert ("Confidentiel" in server.log.read_text()) is with_text


def test_a_key_can_be_revoked_while_the_server_runs(start: Callable[..., Api], keys_file: Path) -> None:
    keys = {name: add_key(keys_file, name) for name in ("one", "two")}
    server = start(API_REQUIRE_KEYS="true", API_KEYS_FILE=str(keys_file))

    def ask(name: str) -> int:
        answer = post(f"{server.url}/predict", json=POOL, headers={"X-API-Key": keys[name]})
        if answer.status_code != 200:
            check_problem(answer, 401, "unauthorized")
        return answer.status_code

    assert [ask("one"), ask("two")] == [200, 200]
    wait_for(lambda: '"client": "one"' in server.log.read_text(), "the owner in the access log", 30)
    lines = keys_file.read_text().splitlines(keepends=True)
    keys_file.write_text("".join(line for line in lines if line.startswith("two:")))
    assert [ask("one"), ask("two")] == [401, 200]
    keys_file.unlink()
    assert ask("two") == 401


def test_a_client_over_its_rate_is_told_when_to_come_back(start: Callable[..., Api]) -> None:
    server = start(API_RATE_PER_MINUTE="5")  # the requests of the fixture count too
    answers = [get(f"{server.url}/model") for _ in range(7)]
    check_problem(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


@pytest.mark.parametrize(("proxies", "status"), [("", 429), ("127.0.0.1", 200)])
def test_a_client_is_named_by_a_trusted_proxy_alone(start: Callable[..., Api], proxies: str, status: int) -> None:
    server = start(API_RATE_PER_MINUTE="6", API_TRUSTED_PROXIES=proxies)
    answers = [get(f"{server.url}/model", headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(8)]
    assert answers[-1].status_code == status


def test_a_client_that_leaves_before_its_request_is_whole_is_no_error(start: Callable[..., Api]) -> None:
    server = start()
    for media_type in ("application/json", "multipart/form-data; boundary=b"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media_type}\r\n"
            connection.sendall(f"{head}content-length: 1000\r\n\r\n--b\r\n".encode())
    wait_for(lambda: server.log.read_text().count('"problem": "disconnected"') == 2, "the access log", 30)
    assert "Traceback" not in server.log.read_text()


def test_a_body_over_the_limit_is_refused_with_or_without_a_length(start: Callable[..., Api]) -> None:
    server = start(API_MAX_BODY_MB="0.01", API_MAX_PICTURE_MB="0.005")
    check_problem(post(f"{server.url}/predict", json={"designation": "a" * 20_000}), 413, "body_too_large")
    parts = (b'{"designation": "' if part == 0 else b"a" * 5_000 for part in range(5))
    answer = post(f"{server.url}/predict", data=parts, headers={"Content-Type": "application/json"})
    check_problem(answer, 413, "body_too_large")
    assert post(f"{server.url}/predict", json=POOL).status_code == 200
