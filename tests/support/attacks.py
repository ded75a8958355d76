"""Attacks on the API, as bytes on a connection, and an innocent client that measures what they cost it."""

import base64
import io
import json
import random
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import psutil
import requests
from PIL import Image

from tests.support.api import jpeg

PAUSE = 0.02  # between two requests of the innocent client
INNOCENT = {"designation": "Piscine gonflable ronde 360 cm", "description": "<p>Avec pompe de filtration</p>" * 5}
MB = 1e6

Attack = Callable[[socket.socket], None]  # sends what it sends; what the server answers is read afterwards


class Measured(NamedTuple):
    """How the server did for some seconds."""

    predict_seconds: Sequence[float]  # of each of the innocent client's requests
    health_seconds: Sequence[float]
    memory_mb: float  # at most, of the server and its processes
    statuses: Counter[int]  # of the innocent client's answers

    @property
    def p99(self) -> float:
        return float(np.percentile(self.predict_seconds, 99))


# the corpus


def http(body: bytes, media_type: str = "application/json", path: str = "/predict") -> bytes:
    fields = f"host: localhost\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body


def sends(request: bytes) -> Attack:
    return lambda connection: connection.sendall(request)


def predict(text: str = "", image: bytes | None = None, n_products: int = 0) -> Attack:
    """One product, or a batch of the same product."""
    product = {"designation": text[:50_000], "description": text[:50_000]}
    if image is not None:
        product = {"designation": "Lampe", "picture": base64.b64encode(image).decode()}
    if not n_products:
        return sends(http(json.dumps(product, ensure_ascii=False).encode()))
    batch = {"products": [product] * n_products}
    return sends(http(json.dumps(batch, ensure_ascii=False).encode(), path=BATCH))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(side: int, depth: int, colour: int, extra: bytes = b"") -> bytes:
    """A black PNG of a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = bytes(1 + side * channels * depth // 8)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def progressive_jpeg(side: int) -> bytes:
    return saved(Image.new("RGB", (side, side)), "JPEG", progressive=True)


def jpeg_with_scans(count: int) -> bytes:
    data = saved(Image.new("L", (3000, 3000)), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + count * data[at:-2] + data[-2:]


def dribble(head: bytes, piece: bytes) -> Attack:
    def attack(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)

    return attack


def opened_and_left(_: socket.socket) -> None:
    time.sleep(0.5)


HEAD = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
FORM = b'--b\r\ncontent-disposition: form-data; name="designation"\r\n\r\nx\r\n'
FORM_TYPE = "multipart/form-data; boundary=b"
BATCH = "/predict/batch"
UNKNOWN_CHUNK = struct.pack(">I", 0) + b"prIv" + struct.pack(">I", zlib.crc32(b"prIv"))

CORPUS: dict[str, Callable[[], Attack]] = {
    "text: digits and a letter": lambda: predict("1" * 49_990 + "a"),
    "text: unclosed comments": lambda: predict("<!--" * 12_500),
    "text: unclosed scripts": lambda: predict("<script>" * 6_250),
    "text: combining characters": lambda: predict("\u0301\u0323" * 25_000),
    "text: ligatures that become eighteen": lambda: predict("\ufdfa" * 50_000),
    "text: lines": lambda: predict("é\n" * 25_000),
    "text: mixed scripts": lambda: predict("".join(random.Random(0).choices("eéàü中😀", k=50_000))),
    "text: a batch of the longest": lambda: predict("<p>é" * 1_200, n_products=100),
    "picture: 16-bit PNG of 7,071²": lambda: predict(image=png(7_071, 16, 2)),
    "picture: RGBA PNG of 4,000²": lambda: predict(image=png(4_000, 8, 6)),
    "picture: PNG of 600,000 chunks": lambda: predict(image=png(9, 8, 0, UNKNOWN_CHUNK * 600_000)),
    "picture: JPEG of 2,000 scans": lambda: predict(image=jpeg_with_scans(2_000)),
    "picture: progressive JPEG of 7,000²": lambda: predict(image=progressive_jpeg(7_000)),
    "picture: TIFF": lambda: predict(image=saved(Image.new("RGB", (2_000, 2_000)), "TIFF")),
    "picture: a batch of RGBA PNG of 4,000²": lambda: predict(image=png(4_000, 8, 6), n_products=100),
    "JSON: seven million items": lambda: sends(http(b'{"products": [' + b"1," * 7_000_000 + b"1]}", path=BATCH)),
    "JSON: a million keys": lambda: sends(http(json.dumps(dict.fromkeys(map(str, range(1_000_000)))).encode())),
    "JSON: nested deeply": lambda: sends(http(b"[" * 15_000_000)),
    "JSON: escapes": lambda: sends(http(b'{"designation": "' + b"\\u0061" * 2_500_000 + b'"}')),
    "form: charset undefined": lambda: sends(http(FORM + b"--b--\r\n", f"{FORM_TYPE}; charset=undefined")),
    "form: many parts": lambda: sends(http(FORM * 100_000, FORM_TYPE)),
    "connection: endless header": lambda: sends(HEAD + b"a: " + b"b" * 60_000_000),
    "connection: endless fields": lambda: sends(HEAD + b"a: b\r\n" * 5_000_000),
    "connection: headers that dribble": lambda: dribble(HEAD + b"a: ", b"b"),
    "connection: bodies that dribble": lambda: dribble(HEAD + b"content-length: 10000000\r\n\r\n", b"{"),
    "connection: endless chunk extension": lambda: sends(CHUNKED + b"1;" + b"e" * 60_000_000),
    "connection: endless trailers": lambda: sends(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 5_000_000),
    "connection: opened and left": lambda: opened_and_left,
}


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 60, (source, 0))


# the measurement


def measure(url: str, server: psutil.Process, seconds: float) -> Measured:
    """Be the innocent client for some seconds."""
    predicted: list[float] = []
    health: list[float] = []
    statuses: Counter[int] = Counter()
    memory: list[float] = []
    end = time.monotonic() + seconds

    def watch() -> None:
        with requests.Session() as session:
            while time.monotonic() < end:
                started = time.perf_counter()
                with suppress(requests.RequestException):
                    session.get(f"{url}/health", timeout=60)
                health.append(time.perf_counter() - started)
                memory.append(memory_mb(server))
                time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    picture = base64.b64encode(jpeg((500, 500))).decode()
    with requests.Session() as session:
        while time.monotonic() < end:
            body = INNOCENT | ({"picture": picture} if len(predicted) % 4 == 0 else {})
            started = time.perf_counter()
            try:
                status = session.post(f"{url}/predict", json=body, timeout=60).status_code
            except requests.RequestException:
                status = 0
            predicted.append(time.perf_counter() - started)
            statuses[status] += 1
            time.sleep(PAUSE)
    watcher.join()
    return Measured(predicted, health, max(memory), statuses)


def memory_mb(server: psutil.Process) -> float:
    """Memory of the server and its processes; what they share counts once."""
    n_bytes = 0
    with suppress(psutil.Error):  # a process that ends just now
        for process in [server, *server.children(recursive=True)]:
            memory = process.memory_full_info()
            n_bytes += getattr(memory, "pss", memory.uss)  # not every system tells what is shared
    return n_bytes / MB
