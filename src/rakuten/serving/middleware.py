"""What stands around every request: its id, its host, keys, limits, headers, a line of log, metrics."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rakuten.serving.keys import ApiKeys
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.problems import Problem
from rakuten.serving.settings import MB, ApiSettings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("rakuten.serving.access")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
PUBLIC_PATHS = ("/", "/health", "/ready")  # and /static/: what needs no key
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
BODY_SECONDS = 20.0  # seconds between two parts of a body
MAX_CLIENTS = 10_000  # remembered by the rate limit


class RateLimiter:
    """A bucket of tokens for each client: a minute's worth at most, filled evenly."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Raise a Problem where this client has none left."""
        if not self._per_minute:
            return
        now = time.monotonic()
        tokens, last = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - last) * self._per_minute / 60)
        enough = tokens >= 1
        self._buckets[client] = (tokens - 1 if enough else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not enough:
            wait = (1 - tokens) * 60 / self._per_minute
            raise Problem("rate_limited", f"at most {self._per_minute} requests a minute", wait)


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, settings: ApiSettings, metrics: ApiMetrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = ApiKeys(settings.keys_file) if settings.asks_for_keys else None
        self._rates = RateLimiter(settings.rate_per_minute)
        self._most = int(settings.max_body_mb * MB)
        self._local = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._most)
        try:
            self._admit(request)
            await self._app(scope, request.receive, request.send)
        except Problem as problem:
            await request.refuse(problem)
        except Exception:  # answered already, see `app`
            logging.getLogger(__name__).exception("request %s failed", request.id)
        finally:
            self._record(request)

    def _admit(self, request: "_Request") -> None:
        """Raise a Problem unless this request may go on."""
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if self._local and not is_loopback(name.strip("[]")):
            # A page elsewhere whose name was bent to this machine would be asking.
            raise Problem("host_not_allowed", "this server answers to localhost only")
        path = request.scope["path"]
        if self._keys is not None and path not in PUBLIC_PATHS and not path.startswith("/static/"):
            given = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
            owner = self._keys.owner(given) if given else None
            if owner is None:
                self._rates.take(f"address {request.address}")  # who guesses is slowed, not who has a key
                raise Problem("unauthorized", "send a valid key in the header X-API-Key")
            request.client = owner
        self._rates.take(request.client)
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._most:
            raise request.too_large()

    def _record(self, request: "_Request") -> None:
        seconds = time.perf_counter() - request.started
        route = getattr(request.scope.get("route"), "path", "none")
        state = request.scope.get("state", {})
        self._metrics.requests.labels(route, str(request.status)).inc()
        self._metrics.latency.labels(route, state.get("modality", "none")).observe(seconds)
        problem = request.problem or state.get("problem")
        if problem:
            self._metrics.problems.labels(problem).inc()
        if log.isEnabledFor(logging.INFO):
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "request_id": request.id,
                "client": request.client,
                "method": request.scope["method"],
                "route": route,
                "status": request.status,
                "ms": round(1000 * seconds, 1),
                **({"problem": problem} if problem else {}),
                **state.get("logged", {}),
            }
            log.info(json.dumps(line, ensure_ascii=False))


class _Request:
    """One request's id, limits and answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self.started = time.perf_counter()
        self.scope, self._receive, self._send, self._most = scope, receive, send, most
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = self.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID_PATTERN.fullmatch(given) else uuid.uuid4().hex
        self.address = str((scope.get("client") or ("unknown",))[0])
        self.client = self.address
        self.status, self.problem = 500, ""
        self._answering, self._got = False, 0
        scope.setdefault("state", {})["request_id"] = self.id

    def too_large(self) -> Problem:
        return Problem("body_too_large", f"at most {self._most / MB:g} MB")

    async def receive(self) -> Message:
        try:
            message = await (self._receive() if self._answering else asyncio.wait_for(self._receive(), BODY_SECONDS))
        except TimeoutError:
            raise Problem("too_slow", f"no part of the body came for {BODY_SECONDS:.0f} s") from None
        self._got += len(message.get("body", b""))
        if self._got > self._most:
            raise self.too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answering, self.status = True, message["status"]
            extra = {name: value for name, value in HEADERS.items()} | {"x-request-id": self.id}
            kept = [pair for pair in message.get("headers", []) if pair[0].decode("latin-1") not in extra]
            own = {name.decode("latin-1"): value for name, value in message.get("headers", [])}
            if "cache-control" in own:  # the page's own files say how long they hold
                extra["cache-control"] = own["cache-control"].decode("latin-1")
            message = {
                **message,
                "headers": kept + [(name.encode("latin-1"), value.encode("latin-1")) for name, value in extra.items()],
            }
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        self.problem = problem.code
        if self._answering:
            return  # too late to say so: the connection is cut
        body = problem.body(self.id)
        headers = problem.headers() | {"content-length": str(len(body))}
        if self._got < int(self.headers.get("content-length") or 0):
            headers["connection"] = "close"  # the rest of the body is not read
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})
