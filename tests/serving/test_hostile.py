"""Thousands of malformed and malicious requests: no response is a server error, except 503 when overloaded."""

import base64
import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import numpy as np
import pytest
import requests
import schemathesis
from PIL import Image

from tests.support.api import POOL, Api, get, post

SEED = 7


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    data = io.BytesIO()
    noise = np.random.default_rng(SEED).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(data, kind, **options)
    return data.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few hundred kilobytes that would unpack to side x side pixels of one bit."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def image_files() -> dict[str, bytes]:
    """Image files of every kind, and files that only look like one."""
    sound = {kind: encoded(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP")}
    frames = [Image.new("P", (9, 9), colour) for colour in range(5)]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    return sound | {
        "cmyk": encoded("JPEG", "CMYK"),
        "gray": encoded("JPEG", "L"),
        "palette": encoded("PNG", "P"),
        "sixteen bits": encoded("PNG", "I;16"),
        "another format": encoded("TIFF"),
        "one pixel": encoded("PNG", size=(1, 1)),
        "a line": encoded("PNG", size=(3000, 1)),
        "rotated by a broken EXIF": encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "moving": moving.getvalue(),
        "bomb": bomb(20_000),
        "larger bomb": bomb(60_000)[:100_000],
        "empty": b"",
        "zeros": bytes(1000),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "pdf": b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>",
        "zip": b"PK\x03\x04" + bytes(40),
        "jpeg and zip": sound["JPEG"] + b"PK\x03\x04" + bytes(40),
        "gif and script": b"GIF89a/*" + sound["GIF"][8:] + b"*/=1;alert(1)//",
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "a path": b"/etc/passwd",
        "an address": b"http://169.254.169.254/latest/meta-data/",
    }


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The data cut, with a bit flipped, with bytes inserted, or with a part repeated, at a random position."""
    if not data:
        return data
    position = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:position]
        case 1:
            flipped = data[position] ^ (1 << rng.randrange(8))
            return data[:position] + bytes([flipped]) + data[position + 1 :]
        case 2:
            return data[:position] + rng.randbytes(rng.randrange(1, 40)) + data[position + 1 :]
        case _:
            return data[:position] + data[position // 2 :]


TEXTS = (
    *("", " ", "\0", "a" * 49_999, "é" * 9000, "\u202e\u0000\ufeff", "\U0001f469\u200d\U0001f467" * 500, "<p>" * 9000),
    *(
        "&amp;" * 9000,
        "&#x110000;&#0;&#xd800;",
        "'; DROP TABLE runs; --",
        "{{7*7}}${7*7}",
        "../../etc/passwd",
        "%s%n%x",
    ),
    *("=cmd|' /C calc'!A0", "Ã©" * 3000, "\r\nX: y", "-1", "NaN", "<![CDATA[" * 900, "<!--" * 9000),
    *("\ufdfa" * 3000, "a\u0301" * 9000, "\uff11\uff12 \ufb01 \u338f"),
)
TYPES = (
    *("application/json", "application/json; charset=utf-16", "application/x-www-form-urlencoded", "text/plain"),
    *("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x", "a" * 300, ""),
)


def bodies(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Keyword arguments of `requests.post`, without end."""
    corpus = list(image_files().values())
    valid_json = json.dumps(POOL).encode()
    as_json = {"Content-Type": "application/json"}
    odd_values: tuple[Any, ...] = (None, True, 1, -1.5, 1e308, [], {}, "x", [[[[]]]], {"a": {}}, 2**70)
    fields = ("designation", "description", "picture", "__proto__")
    while True:
        image = rng.choice(corpus)
        if rng.random() >= 0.2 and (len(image) <= 50_000 or rng.random() >= 0.9):
            image = damaged(image, rng)
        match rng.randrange(8):
            case 0:
                files = {"picture": ("../../a.jpg\0", image, "text/html")}
                yield {"files": files, "data": {"designation": rng.choice(TEXTS)}}
            case 1:
                picture = base64.b64encode(image[:60_000]).decode()
                yield {"json": {"designation": rng.choice(TEXTS), "picture": picture}}
            case 2:
                product = {"designation": rng.choice(TEXTS), "description": rng.choice(TEXTS)}
                yield {"json": product | {"top_k": rng.choice(odd_values)}}
            case 3:
                yield {"data": damaged(valid_json, rng), "headers": as_json}
            case 4:
                yield {"json": {rng.choice(fields): rng.choice(odd_values)}}
            case 5:
                yield {"data": rng.randbytes(rng.randrange(200)), "headers": {"Content-Type": rng.choice(TYPES)}}
            case 6:
                yield {"data": b"[" * rng.randrange(100_000), "headers": as_json}
            case _:
                yield {"json": {"products": [{"designation": rng.choice(odd_values)} for _ in range(rng.randrange(4))]}}


def is_server_error(status: int) -> bool:
    return status >= 500 and status != 503


SIZES = [300, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", SIZES)
def test_no_request_that_the_document_allows_is_a_server_error(api: Api, count: int) -> None:
    """Every route, with values at and over the limits of the OpenAPI document."""
    n_examples, n_sent = count // 7, 0
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    all_checks = list(hypothesis.HealthCheck)

    @hypothesis.settings(
        max_examples=n_examples, deadline=None, suppress_health_check=all_checks, derandomize=True, database=None
    )
    @hypothesis.given(case=schema.as_strategy())
    def send(case: schemathesis.Case) -> None:
        nonlocal n_sent
        n_sent += 1
        assert not is_server_error(case.call(timeout=60).status_code), case.as_curl_command()

    send()
    assert n_sent >= n_examples
    assert "Traceback" not in api.log.read_text()
    assert get(f"{api.url}/ready").status_code == 200


@pytest.mark.parametrize("count", SIZES)
def test_no_malicious_body_is_a_server_error(api: Api, count: int) -> None:
    """Broken images, texts and bodies, eight at a time."""
    rng = random.Random(SEED)
    routes = ("/predict", "/predict", "/predict", "/explain", "/predict/batch")
    body = bodies(rng)
    calls = [(rng.choice(routes), next(body)) for _ in range(count - count // 7)]

    def send(call: tuple[str, dict[str, Any]]) -> int:
        route, kwargs = call
        with requests.Session() as session:
            answer = session.post(api.url + route, timeout=120, **kwargs)
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert not is_server_error(answer.status_code), str(call)[:500]
        return answer.status_code

    with ThreadPoolExecutor(8) as clients:
        statuses = Counter(clients.map(send, calls))
    assert statuses.total() == len(calls)
    assert statuses[200] > count // 10  # much of what is odd is still a product
    assert statuses[422] > count // 10
    assert "Traceback" not in api.log.read_text()
    assert get(f"{api.url}/ready").status_code == 200


USABLE = {"JPEG", "PNG", "GIF", "WEBP", "cmyk", "gray", "palette", "sixteen bits", "moving"}
USABLE |= {"one pixel", "a line", "rotated by a broken EXIF", "jpeg and zip"}
DEPENDS_ON_THE_DECODER = {"gif and script"}


@pytest.mark.parametrize("name", sorted(image_files()))
def test_each_kind_of_image_file_is_used_or_named_unusable(api: Api, name: str) -> None:
    answer = post(f"{api.url}/predict", data=POOL, files={"picture": ("a", image_files()[name])})
    assert answer.status_code == 200
    state = answer.json()["picture"]
    if name in DEPENDS_ON_THE_DECODER:
        assert state in ("used", "unusable: broken", "unusable: truncated")
    elif name in USABLE:
        assert state == "used"
    elif name == "empty":
        assert state == "none"
    else:
        assert state.startswith("unusable: ")
