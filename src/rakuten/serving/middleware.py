"""What is done for every request: id, host check, API key, rate limit, size limit, headers, access log, metrics."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections import OrderedDict
from typing import Any

from joblib import cpu_count
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rakuten.serving.keys import ApiKeys
from rakuten.serving.large_bodies import Body, LargeBodies
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.problems import Problem
from rakuten.serving.roles import required_role
from rakuten.serving.settings import MB, ApiSettings, is_loopback

log = logging.getLogger(__name__)
access_log = logging.getLogger("rakuten.serving.access")  # one JSON object for each request

CSP = "content-security-policy"
SECURITY_HEADERS = {
    CSP: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SWAGGER_CSP = SECURITY_HEADERS[CSP].replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
DEFAULT_CACHE_CONTROL = "no-store"  # unless the route sets its own, as the page's files do
PUBLIC_PATHS = (
    "",
    "/",
    "/review",
    "/docs",
    "/openapi.json",
    "/health",
    "/ready",
)  # need no key, as nothing under /static/ does
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
PORT_PATTERN = re.compile(r":\d+$")
MIN_LARGE_AT_ONCE = 2  # requests with a large body that are worked on; with more cores as many as those
MAX_CLIENTS = 10_000  # whose requests the rate limiter counts; the one not seen for longest is dropped


class RateLimiter:
    """A token bucket for each client: it holds a minute's worth of requests and is refilled evenly.

    Args:
        per_minute: requests; 0 for no limit.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, time of last request

    def acquire(self, client: str) -> None:
        """Take one token of a client.

        Raises:
            Problem: the client has none left.
        """
        if not self._per_minute:
            return
        now = time.monotonic()
        tokens, last = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - last) * self._per_minute / 60)
        has_token = tokens >= 1
        self._buckets[client] = (tokens - 1 if has_token else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not has_token:
            seconds = (1 - tokens) * 60 / self._per_minute
            raise Problem("rate_limited", f"at most {self._per_minute} requests a minute", seconds)


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, metrics: ApiMetrics) -> None:
        self._app, self._metrics = app, metrics
        self._keys = ApiKeys(settings.keys_file) if settings.keys_required else None
        self._rate_limiter = RateLimiter(settings.rate_per_minute)
        self._settings = settings
        n_at_once = max(MIN_LARGE_AT_ONCE, cpu_count())
        self._large_bodies = LargeBodies(int(settings.max_buffered_mb * MB), n_at_once, settings.wait_seconds)
        self._checks_host = is_loopback(settings.host) or bool(settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on what is none, as the application's start and stop."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        routed = _routed_scope(scope, self._settings.root_path)
        request = _Request(scope["method"], routed, receive, send, self._settings, self._large_bodies)
        try:
            self._check(request)
            app = self._app if request.path else RedirectResponse(f"{self._settings.root_path}/")
            await app(request.scope, request.receive, request.send)
        except Problem as problem:
            await request.send_problem(problem)
        except Exception:  # the application's handler has sent the response already
            log.exception("request %s failed", request.id)
        finally:
            request.body.release()
            self._record(request)

    def _check(self, request: "_Request") -> None:
        """Raise a Problem unless the application may handle this request."""
        if self._checks_host:
            _check_host(request.headers.get("host", ""), self._settings.allowed_hosts)
        path = request.path
        if self._keys is not None and path not in PUBLIC_PATHS and not path.startswith("/static/"):
            self._authenticate(request, self._keys)
        self._rate_limiter.acquire(request.client)
        if request.announced_bytes > self._settings.max_body_mb * MB:
            raise _too_large(self._settings)

    def _authenticate(self, request: "_Request", keys: ApiKeys) -> None:
        """Make the owner of the request's key its client."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = request.headers.get("x-api-key") or bearer
        owner = keys.owner(key) if key else None
        if owner is None:
            # Limits guesses by address, without using up the requests of a key's owner.
            self._rate_limiter.acquire(f"address {request.address}")
            raise Problem("unauthorized", "send a valid key in the header X-API-Key")
        request.client = owner.name
        request.scope["state"]["key_owner"] = owner
        if owner.role < (needed := required_role(request.path)):
            raise Problem(
                "forbidden", f"the key of {owner.name} has the role {owner.role.word}: this needs {needed.word}"
            )

    def _record(self, request: "_Request") -> None:
        """Count a request in the metrics and write its line of the access log."""
        seconds = time.perf_counter() - request.started
        route = getattr(request.scope.get("route"), "path", "none")
        state = request.scope.get("state", {})
        self._metrics.requests.labels(route, str(request.status)).inc()
        self._metrics.latency.labels(route, state.get("modality", "none")).observe(seconds)
        problem = request.problem or state.get("problem")
        if problem:
            self._metrics.problems.labels(problem).inc()
        if access_log.isEnabledFor(logging.INFO):
            entry: dict[str, Any] = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "request_id": request.id,
                "client": request.client,
                "method": request.method,
                "route": route,
                "status": request.status,
                "ms": round(1000 * seconds, 1),
                **({"problem": problem} if problem else {}),
                **state.get("logged", {}),
            }
            access_log.info(json.dumps(entry, ensure_ascii=False))


def _routed_scope(scope: Scope, root_path: str) -> Scope:
    """The scope as the application's routes expect it.

    A HEAD request is routed as a GET; the server leaves the body of its answer out. A reverse proxy may have taken
    `root_path` off the path, or not.
    """
    path = scope["path"]
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        path = path.removeprefix(root_path)
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": f"{root_path}{path}", "root_path": root_path}


def _check_host(host: str, allowed: frozenset[str]) -> None:
    """Raise a Problem unless the Host header names this machine or an allowed host.

    Prevents DNS rebinding: a page of another site, whose name was made to resolve to 127.0.0.1, calling this server.
    """
    name = host.rpartition(":")[0] if PORT_PATTERN.search(host) else host
    if not is_loopback(name.strip("[]")) and name.lower() not in allowed:
        raise Problem("host_not_allowed", "this server answers to localhost and the names in API_HOSTS only")


def _too_large(settings: ApiSettings) -> Problem:
    return Problem("body_too_large", f"at most {settings.max_body_mb:g} MB")


class _Request:
    """One request: its id, its client, and `receive` and `send` with the limits and headers."""

    def __init__(
        self,
        method: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        settings: ApiSettings,
        large_bodies: LargeBodies,
    ) -> None:
        self.started = time.perf_counter()
        self.method = method  # as it was sent
        self.path = scope["path"].removeprefix(scope["root_path"])  # "" if a slash is missing after the root path
        self.scope, self._receive, self._send, self._settings = scope, receive, send, settings
        self._deadline: float | None = None  # of time.monotonic(), until which the body must be whole
        self.headers = Headers(scope=scope)
        length = self.headers.get("content-length", "")
        self.announced_bytes = int(length) if length.isdecimal() else 0
        self.body = Body(large_bodies, self.announced_bytes, is_batch=self.path.endswith("/batch"))
        client_id = self.headers.get("x-request-id", "")
        self.id = client_id if REQUEST_ID_PATTERN.fullmatch(client_id) else uuid.uuid4().hex
        self.address = str((scope.get("client") or ("unknown",))[0])
        self.client = self.address  # or the owner of its key
        self.status = 500  # of the response, once it has started
        self.problem = ""  # the code of a problem that was raised outside the application's handlers
        self._response_started = False
        self._is_whole = not (self.announced_bytes or "transfer-encoding" in self.headers)
        scope.setdefault("state", {})["request_id"] = self.id

    async def receive(self) -> Message:
        """The next part of the body.

        Raises:
            Problem: it does not come in time, the body is over the limit, or there are too many large ones.
        """
        if self._response_started:  # only waits for the client to disconnect
            return await self._receive()
        if self._deadline is None:
            await self.body.wait_for_room()
            self._deadline = time.monotonic() + self._settings.body_seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise Problem("too_slow", f"the body was not complete after {self._settings.body_seconds:g} s") from None
        self.body.add(len(message.get("body", b"")))
        if self.body.n_bytes > self._settings.max_body_mb * MB:
            raise _too_large(self._settings)
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._is_whole = True
            await self.body.wait_for_turn()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self._response_started, self.status = True, message["status"]
            self.body.release()  # a client that does not read its answer holds nobody up
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            headers.update(SECURITY_HEADERS | {"x-request-id": self.id})
            if self.path == "/docs":
                headers.update({CSP: SWAGGER_CSP})
            headers.setdefault("cache-control", DEFAULT_CACHE_CONTROL)
            if not self._is_whole:
                headers["connection"] = "close"  # the rest of the body is not read
        await self._send(message)

    async def send_problem(self, problem: Problem) -> None:
        """Answer with a problem, unless a response has started: then the server closes the connection."""
        self.problem = problem.code
        if self._response_started:
            return
        body = problem.body(self.id)
        headers = problem.headers() | {"content-length": str(len(body))}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})
