"""Ten thousand requests that nobody sane would send: not one answer is a server's error but the deliberate 503."""

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

from tests.serving.conftest import Api
from tests.serving.test_app import POOL, get, post

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


def pictures() -> dict[str, bytes]:
    """Pictures and what only looks like one."""
    sound = {kind: encoded(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")}
    frames = [Image.new("P", (9, 9), colour) for colour in range(5)]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    return sound | {
        "cmyk": encoded("JPEG", "CMYK"),
        "gray": encoded("JPEG", "L"),
        "palette": encoded("PNG", "P"),
        "sixteen bits": encoded("TIFF", "I;16"),
        "float": encoded("TIFF", "F"),
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


def broken(data: bytes, dice: random.Random) -> bytes:
    """Cut, flipped or repeated somewhere."""
    if not data:
        return data
    at = dice.randrange(len(data))
    match dice.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
        case 2:
            return data[:at] + dice.randbytes(dice.randrange(1, 40)) + data[at + 1 :]
        case _:
            return data[:at] + data[at // 2 :]


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


def bodies(dice: random.Random) -> Iterator[dict[str, Any]]:
    """Keyword arguments of `requests.post`, without end."""
    corpus = list(pictures().values())
    whole = json.dumps(POOL).encode()
    as_json = {"Content-Type": "application/json"}
    odd: tuple[Any, ...] = (None, True, 1, -1.5, 1e308, [], {}, "x", [[[[]]]], {"a": {}}, 2**70)
    while True:
        picture = dice.choice(corpus)
        picture = (
            picture if dice.random() < 0.2 or len(picture) > 50_000 and dice.random() < 0.9 else broken(picture, dice)
        )
        kind = dice.randrange(8)
        if kind == 0:
            yield {
                "files": {"picture": ("../../a.jpg\0", picture, "text/html")},
                "data": {"designation": dice.choice(TEXTS)},
            }
        elif kind == 1:
            yield {"json": {"designation": dice.choice(TEXTS), "picture": base64.b64encode(picture[:60_000]).decode()}}
        elif kind == 2:
            yield {
                "json": {
                    "designation": dice.choice(TEXTS),
                    "description": dice.choice(TEXTS),
                    "top_k": dice.choice(odd),
                }
            }
        elif kind == 3:
            yield {"data": broken(whole, dice), "headers": as_json}
        elif kind == 4:
            yield {"json": {dice.choice(("designation", "description", "picture", "__proto__")): dice.choice(odd)}}
        elif kind == 5:
            yield {"data": dice.randbytes(dice.randrange(200)), "headers": {"Content-Type": dice.choice(TYPES)}}
        elif kind == 6:
            yield {"data": b"[" * dice.randrange(100_000), "headers": as_json}
        else:
            yield {"json": {"products": [{"designation": dice.choice(odd)} for _ in range(dice.randrange(4))]}}


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_hostile_request_is_answered_by_a_servers_error(api: Api, count: int) -> None:
    seen: Counter[int] = Counter()
    dice = random.Random(SEED)

    # By the document: every route with values at and over its edges.
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    quiet = list(hypothesis.HealthCheck)

    @hypothesis.settings(
        max_examples=count // 7, deadline=None, suppress_health_check=quiet, derandomize=True, database=None
    )
    @hypothesis.given(case=schema.as_strategy())
    def by_the_document(case: schemathesis.Case) -> None:
        answer = case.call(timeout=60)
        seen[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 503, case.as_curl_command()

    by_the_document()
    assert sum(seen.values()) >= count // 7

    # By the corpus: broken pictures, texts and bodies, eight at a time.
    routes = ("/predict", "/predict", "/predict", "/explain", "/predict/batch")
    made = bodies(dice)
    asked = [(dice.choice(routes), next(made)) for _ in range(count - sum(seen.values()))]

    def ask(one: tuple[str, dict[str, Any]]) -> tuple[int, str]:
        with requests.Session() as session:
            answer = session.post(api.url + one[0], timeout=120, **one[1])
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        return answer.status_code, "" if answer.status_code < 500 or answer.status_code == 503 else f"{one}"[:500]

    with ThreadPoolExecutor(8) as clients:
        for status, wrong in clients.map(ask, asked):
            assert not wrong
            seen[status] += 1
    assert sum(seen.values()) >= count
    assert seen[200] > count // 10  # much of what is odd is still a product
    assert seen[422] > count // 10
    assert "Traceback" not in api.log.read_text()
    assert get(f"{api.url}/ready").status_code == 200


@pytest.mark.parametrize("name", sorted(pictures()))
def test_each_odd_picture_has_its_word(api: Api, name: str) -> None:
    answer = post(f"{api.url}/predict", data=POOL, files={"picture": ("a", pictures()[name])})
    assert answer.status_code == 200
    word = answer.json()["picture"]
    usable = {"JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "cmyk", "gray", "palette", "sixteen bits", "float", "moving"}
    usable |= {"one pixel", "a line", "rotated by a broken EXIF", "jpeg and zip"}
    if name == "gif and script":
        assert word in ("used", "unusable: broken", "unusable: truncated")  # as a decoder takes it
    elif name in usable:
        assert word == "used"
    else:
        assert word == "none" if name == "empty" else word.startswith("unusable: ")
