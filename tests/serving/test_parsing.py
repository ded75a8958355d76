"""Request bodies: JSON and forms, valid and not."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from rakuten.serving import parsing
from rakuten.serving.parsing import ParsedProduct, invalid_request, is_bloated, read_batch, read_product
from rakuten.serving.problems import Problem
from rakuten.serving.schemas import ProductIn
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import ApiSettings
from tests.support.api import POOL, base64_of

SETTINGS = ApiSettings(max_text=1000, max_picture_mb=0.01, max_batch=3, max_batch_text=2000)
NOT_UTF8 = bytes(range(256))  # as an image file's bytes are


def to_request(**kwargs: Any) -> Request:
    """A request with the body that `requests.post(url, **kwargs)` would send."""
    prepared = requests.Request("POST", "http://localhost", **kwargs).prepare()
    body = prepared.body or b""
    return http_request(body.encode() if isinstance(body, str) else body, prepared.headers.get("Content-Type", ""))


def http_request(body: bytes, media_type: str) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", media_type.encode())]
    return Request({"type": "http", "method": "POST", "path": "/predict", "headers": headers}, receive)


def parse_product(settings: ApiSettings = SETTINGS, **kwargs: Any) -> ParsedProduct:
    return asyncio.run(read_product(to_request(**kwargs), settings))


def parse_batch(settings: ApiSettings = SETTINGS, **kwargs: Any) -> list[ParsedProduct]:
    return asyncio.run(read_batch(to_request(**kwargs), settings))


def check_refused(parse: Callable[[], object], code: str, detail: str) -> None:
    with pytest.raises(Problem) as raised:
        parse()
    assert raised.value.code == code
    assert detail in raised.value.detail


def form(**fields: Any) -> dict[str, Any]:
    """Arguments of `requests.post` for a multipart form of text fields."""
    return {"files": [(name, (None, value)) for name, value in fields.items()]}


def test_json_and_form_are_parsed_alike() -> None:
    fields = {"designation": 'Écran 24"', "description": "<p>a</p>"}
    as_json = parse_product(json=fields | {"picture": base64_of(NOT_UTF8), "top_k": 5})
    as_form = parse_product(data=fields | {"top_k": "5"}, files={"picture": ("a.jpg", NOT_UTF8)})
    assert as_json.raw == as_form.raw == RawProduct('Écran 24"', "<p>a</p>", NOT_UTF8)
    assert as_json.fields.top_k == as_form.fields.top_k == 5


def test_an_uploaded_picture_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "base64", None)
    assert parse_product(data=POOL, files={"picture": ("a", NOT_UTF8)}).raw.image == NOT_UTF8


def test_a_form_may_have_its_picture_as_base64_text() -> None:
    assert parse_product(**form(designation="a", picture=base64_of(NOT_UTF8))).raw.image == NOT_UTF8


@pytest.mark.parametrize(
    "kwargs",
    [
        {"json": {"designation": ""}},
        {"json": {"designation": "", "description": None, "picture": None}},
        {"json": {"designation": "", "description": "", "picture": ""}},
        form(designation=""),
        form(designation="", description="", picture=""),
        {"data": {"designation": ""}, "files": {"picture": ("", b"")}},
    ],
)
def test_whatever_is_left_out_is_empty(kwargs: dict[str, Any]) -> None:
    product = parse_product(**kwargs)
    assert product.raw == RawProduct("", "", None)
    assert product.fields.top_k == 3


@pytest.mark.parametrize(
    ("kwargs", "detail"),
    [
        ({"json": {}}, "designation: Field required"),
        ({"json": []}, "Input should be an object"),
        ({"json": {"designation": 5}}, "designation: Input should be a valid string"),
        ({"json": POOL | {"colour": 1}}, "colour: Extra inputs are not permitted"),
        ({"json": POOL | {"top_k": 0}}, "top_k: Input should be greater than or equal to 1"),
        ({"json": POOL | {"picture": "%"}}, "picture: not base64"),
        ({"json": POOL | {"picture": "YQ"}}, "picture: not base64"),
        ({"json": {"designation": "a" * 1001}}, "designation: at most 1,000 characters"),
        ({"json": POOL | {"description": "a" * 1001}}, "description: at most 1,000 characters"),
        ({"data": "{", "headers": {"Content-Type": "application/json"}}, "Invalid JSON"),
        ({"data": b"\xff", "headers": {"Content-Type": "application/json"}}, "Invalid JSON"),
        ({"data": '{"designation": "\\ud800"}', "headers": {"Content-Type": "application/json"}}, "Invalid JSON"),
        (form(description="a"), "designation: Field required"),
        (form(designation="a", colour="red"), "colour: Extra inputs are not permitted"),
        (form(designation="a", top_k="many"), "top_k: Input should be a valid integer"),
        (form(designation="a", picture="%"), "picture: not base64"),
        ({"files": [("designation", (None, "a")), ("designation", (None, "b"))]}, "designation: given twice"),
        ({"files": [("picture", (None, "YQ==")), ("picture", ("a", b"a"))]}, "picture: given twice"),
        ({"files": {"designation": ("a.txt", b"a")}}, "designation: only picture may be a file"),
    ],
)
def test_an_invalid_product_is_refused_with_the_reason(kwargs: dict[str, Any], detail: str) -> None:
    check_refused(lambda: parse_product(**kwargs), "invalid_request", detail)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"json": POOL | {"picture": base64_of(bytes(10_001))}},
        form(designation="a", picture=base64_of(bytes(10_001))),
        {"data": POOL, "files": {"picture": ("a", bytes(10_001))}},
        {"data": POOL, "files": {"picture": ("a", bytes(3_000_000))}},
    ],
)
def test_a_picture_over_the_limit_is_refused(kwargs: dict[str, Any]) -> None:
    check_refused(lambda: parse_product(**kwargs), "picture_too_large", "at most 0.01 MB")


def test_a_picture_at_the_limit_is_accepted() -> None:
    image = bytes(10_000)
    assert parse_product(json=POOL | {"picture": base64_of(image)}).raw.image == image
    assert parse_product(data=POOL, files={"picture": ("a", image)}).raw.image == image


def test_a_forms_base64_may_have_the_largest_picture_and_is_decoded_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []
    to_product = parsing._to_parsed_product

    def watched(*arguments: Any) -> ParsedProduct:
        threads.append(threading.current_thread())
        return to_product(*arguments)

    monkeypatch.setattr(parsing, "_to_parsed_product", watched)
    image = bytes(10_000_000)
    assert parse_product(ApiSettings(), **form(designation="a", picture=base64_of(image))).raw.image == image
    assert threading.main_thread() not in threads


def test_a_forms_text_is_as_short_as_elsewhere_however_long_its_picture_may_be() -> None:
    check_refused(lambda: parse_product(**form(designation="a" * 1001)), "invalid_request", "at most 1,000 characters")


def test_a_text_of_the_most_characters_is_accepted_however_many_bytes_each_takes() -> None:
    text = "\U0001f469" * 1000  # four bytes in UTF-8
    assert parse_product(**form(designation=text)).raw.designation == text


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_another_media_type_is_refused(media_type: str) -> None:
    body = json.dumps(POOL).encode()
    for read in (read_product, read_batch):
        check_refused(
            lambda read=read: asyncio.run(read(http_request(body, media_type), SETTINGS)),
            "unsupported_media_type",
            "send application/json",
        )


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_parameters_and_case_of_a_media_type_do_not_matter(media_type: str) -> None:
    product = asyncio.run(read_product(http_request(json.dumps(POOL).encode(), media_type), SETTINGS))
    assert product.raw.designation == POOL["designation"]


@pytest.mark.parametrize("charset", ["undefined", "utf-16", "idna", "no such charset"])
def test_a_form_is_in_utf_8(charset: str) -> None:
    request = to_request(**form(designation="Écran"))
    media_type = request.headers["content-type"]
    for named in ("utf-8", "UTF-8"):
        same = http_request(asyncio.run(request.body()), f"{media_type}; charset={named}")
        assert asyncio.run(read_product(same, SETTINGS)).raw.designation == "Écran"
    other = http_request(asyncio.run(request.body()), f"{media_type}; charset={charset}")
    check_refused(lambda: asyncio.run(read_product(other, SETTINGS)), "unsupported_media_type", "UTF-8")


def test_a_batch_keeps_its_order() -> None:
    products = parse_batch(json={"products": [{"designation": title, "top_k": 2} for title in "abc"]})
    assert [(product.raw.designation, product.fields.top_k) for product in products] == [("a", 2), ("b", 2), ("c", 2)]


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        ({"products": []}, "invalid_request", "products: List should have at least 1 item"),
        ({"products": [POOL, {}]}, "invalid_request", "products.1.designation: Field required"),
        ({"products": [POOL, {"designation": "a" * 1001}]}, "invalid_request", "at most 1,000 characters"),
        ({"products": [POOL] * 4}, "batch_too_large", "at most 3 products at once"),
        ({"products": [1] * 1000}, "batch_too_large", "at most 3 products at once"),
        ({"products": [{"designation": "", "description": "a" * 900}] * 3}, "batch_too_large", "with 2,000 characters"),
        (POOL, "invalid_request", "products: Field required"),
    ],
)
def test_an_invalid_batch_is_refused_with_the_reason(body: Any, code: str, detail: str) -> None:
    check_refused(lambda: parse_batch(json=body), code, detail)


BLOATED = {
    "many values": "[" + "1," * 3_000_000 + "1]",
    "many empty strings": '{"a": ["' + '","' * 2_000_000 + '"]}',
    "many keys": "{" + ",".join(f'"{number}":1' for number in range(300_000)) + "}",
    "many objects": "[" + "{}," * 2_000_000 + "{}]",
    "deeply nested": "[" * 5_000_000,
    "escaped quotes before the values": '["\\\\\\"", ' + "1," * 3_000_000 + "1]",
    "many escapes": '"' + "\\u0061" * 1_000_000 + '"',
    "escaped quotes": '"' + '\\"' * 3_000_000 + '"',
}


@pytest.mark.parametrize("body", BLOATED.values(), ids=list(BLOATED))
def test_json_that_would_take_much_more_than_its_bytes_is_refused_unparsed(
    monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(parsing, "_validate", None)
    for read, code in ((read_product, "body_too_large"), (read_batch, "batch_too_large")):
        request = http_request(body.encode(), "application/json")
        check_refused(lambda read=read, request=request: asyncio.run(read(request, SETTINGS)), code, "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a,:{}[]"\\\n\u00e9')),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.sampled_from('a,"\\')), children),
    max_leaves=8,
)


def count_values(value: Any) -> int:
    """Commas, and opening brackets, outside of strings."""
    if isinstance(value, (list, dict)):
        children = value.values() if isinstance(value, dict) else value
        return 1 + max(0, len(value) - 1) + sum(map(count_values, children))
    return 0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON, st.booleans())
def test_values_are_counted_whatever_the_strings_hold(value: Any, ascii_only: bool) -> None:
    body, found = json.dumps(value, ensure_ascii=ascii_only).encode(), count_values(value)
    assert not is_bloated(body, 1 + found + body.count(b'"'), 1000)
    if found > 1:
        assert is_bloated(body, found - 1, 1000)


def test_a_form_is_no_batch() -> None:
    check_refused(lambda: parse_batch(**form(designation="a")), "unsupported_media_type", "send application/json")


@pytest.mark.parametrize(("n_characters", "on_the_event_loop"), [(100, True), (parsing.LARGE_BODY_BYTES, False)])
def test_a_large_body_is_parsed_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, n_characters: int, on_the_event_loop: bool
) -> None:
    threads = []
    validate = ProductIn.model_validate_json

    def spy(body: bytes) -> ProductIn:
        threads.append(threading.current_thread())
        return validate(body)

    monkeypatch.setattr(ProductIn, "model_validate_json", spy)
    image = bytes(n_characters)
    assert parse_product(ApiSettings(), json=POOL | {"picture": base64_of(image)}).raw.image == image
    assert [thread is threading.main_thread() for thread in threads] == [on_the_event_loop]


def test_fastapi_s_own_errors_are_described_like_pydantic_s() -> None:
    errors = [{"loc": ("body", "products", 1, "top_k"), "msg": "too many"}, {"loc": (), "msg": "another"}]
    assert invalid_request(errors).detail == "products.1.top_k: too many"
    assert invalid_request(errors[1:]).detail == "another"
