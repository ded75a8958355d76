"""What a connection may hold and how long it may take until its request is whole: uvicorn limits neither.

`http_protocol` makes uvicorn's protocol for httptools with these limits. h11 has one of the bytes of a header, and
takes more of the time of the event loop: docs/security.md has the figures.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rakuten.serving.problems import PROBLEM_TYPES, Problem
from rakuten.serving.settings import ApiSettings

MAX_HEADER_BYTES = 32_768  # of a request line and all header fields
MAX_HEADER_FIELDS = 100
# A body may come in chunks, of which each has a few bytes around it: so many times the bytes of the body itself.
MAX_CHUNK_OVERHEAD = 8


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. `http_protocol` makes the subclass that is used."""

    settings: ApiSettings
    open_by_address: "Counter[str]"  # connections of each address
    idle: "dict[LimitedHttpProtocol, None]"  # those between two requests, or in a header: the longest idle first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._address = ""
        self._in_header = True  # from the end of one request until the header of the next is whole
        self._n_bytes = 0  # received of an unfinished header, or of a body with what is around its chunks
        self._n_body_bytes = 0  # of the body alone
        self._n_fields = 0  # of an unfinished header, or after the body
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of too many connections, of this address or in all, close the longest idle one; if none is, refuse this."""
        super().connection_made(transport)
        settings = self.settings
        self._address = self.client[0] if self.client else ""
        self.open_by_address[self._address] += 1
        self.idle[self] = None
        self._start_header_timer()
        idle: Iterable[LimitedHttpProtocol] = ()
        is_over = self.open_by_address[self._address] > settings.max_connections_per_address
        if is_over and not settings.is_trusted_proxy(self._address):
            idle = (connection for connection in self.idle if connection._address == self._address)
        elif len(self.connections) > settings.max_connections:
            idle = self.idle
        for connection in idle:  # the last of them is this one
            connection._refuse(Problem("overloaded", "too many connections", 1))
            break

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_header_timer()
        self.idle.pop(self, None)
        self.open_by_address[self._address] -= 1
        if not self.open_by_address[self._address]:
            del self.open_by_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse the request if its header stays unfinished or its body goes on for too long."""
        if self.transport.is_closing():
            return
        if self._in_header and self._header_timer is None:  # a further request on this connection
            self._start_header_timer()
        self._n_bytes += len(data)
        super().data_received(data)  # begins to count anew where a header or a body ends
        if self._in_header and self._n_bytes > MAX_HEADER_BYTES:
            self._refuse_header()
        elif self._n_bytes > MAX_CHUNK_OVERHEAD * self._n_body_bytes + MAX_HEADER_BYTES:
            self.transport.close()  # what comes is hardly a body

    def on_message_begin(self) -> None:
        """Limit the time of a header that begins in what was received together with the request before it."""
        super().on_message_begin()
        if self._header_timer is None:
            self._start_header_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field, and leave it out if it is a trailer, after a body: nothing reads those.

        Raises:
            ValueError: there are too many, so that the parser stops in the middle of what was received.
        """
        self._n_fields += 1
        if self._n_fields > MAX_HEADER_FIELDS:
            if self._in_header:
                self._refuse_header()
            self.transport.close()
            raise ValueError("too many header fields")
        if self._in_header:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request on unless its header is too large."""
        if self.transport.is_closing():
            return
        n_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if n_bytes > MAX_HEADER_BYTES:
            self._refuse_header()
            return
        self._in_header, self._n_bytes, self._n_body_bytes, self._n_fields = False, 0, 0, 0
        self._stop_header_timer()
        self.idle.pop(self, None)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Count the connection as idle until its next request."""
        if self._in_header and not self.pipeline and not self.transport.is_closing():
            self.idle[self] = None
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        self._n_body_bytes += len(body)
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next request."""
        if self.transport.is_closing():
            return
        self._in_header, self._n_bytes, self._n_body_bytes, self._n_fields = True, 0, 0, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, unless an answer has been sent."""
        if not self.transport.is_closing():
            self._refuse(Problem("invalid_request", "not HTTP"))

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.settings.header_seconds, self._on_header_timeout)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_header_timeout(self) -> None:
        self._refuse(Problem("too_slow", f"no complete header after {self.settings.header_seconds:g} s"))

    def _refuse_header(self) -> None:
        limits = f"at most {MAX_HEADER_BYTES:,} bytes and {MAX_HEADER_FIELDS} fields"
        self._refuse(Problem("header_too_large", limits))

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem and close the connection."""
        if self.transport.is_closing():
            return
        self.idle.pop(self, None)
        is_asked = self.cycle is None or self._header_timer is not None  # an idle client expects no answer
        if is_asked and (self.cycle is None or self.cycle.response_complete):
            status, title = PROBLEM_TYPES[problem.code]
            body = problem.body("")
            fields = problem.headers() | {"content-length": str(len(body)), "connection": "close"}
            lines = [f"HTTP/1.1 {status} {title}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
            self.transport.write("\r\n".join(lines).encode() + body)
        self.transport.close()


def http_protocol(api_settings: ApiSettings) -> type[LimitedHttpProtocol]:
    """The protocol of a server with these settings, for uvicorn's `http`."""

    class Protocol(LimitedHttpProtocol):
        settings = api_settings
        open_by_address: Counter[str] = Counter()
        idle: dict[LimitedHttpProtocol, None] = {}

    return Protocol
