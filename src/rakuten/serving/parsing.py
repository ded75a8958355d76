"""Request bodies, JSON or a form, checked and turned into products.

FastAPI's own parsing of bodies is bypassed: it runs on the event loop, where ten megabytes of JSON would hold up every
other request. Here a body over LARGE_BODY_BYTES is parsed in a thread, and what it may hold is limited before it is
parsed: seven million numbers take a gigabyte as JSON values, and as much again as the errors of each.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from rakuten.serving.large_bodies import LARGE_BODY_BYTES
from rakuten.serving.problems import Problem
from rakuten.serving.schemas import BatchIn, ProductIn
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import MB, ApiSettings

Model = TypeVar("Model", bound=BaseModel)
Parsed = TypeVar("Parsed")

MAX_FORM_FIELDS = 8
MAX_UTF8_BYTES = 4  # of a character
MAX_VALUES = 10  # JSON values, objects and lists for each product; a product with all its fields has five
MAX_OTHER_VALUES = 20  # of a body beside its products


class ParsedProduct(NamedTuple):
    """One product of a request."""

    fields: ProductIn  # as sent, without the picture
    raw: RawProduct  # what is scored


async def read_product(request: Request, settings: ApiSettings) -> ParsedProduct:
    """The product in the JSON object or the multipart form of a request's body.

    A form's picture may be an uploaded file, whose bytes are taken as they are. Elsewhere the picture is base64.

    Raises:
        Problem: the body is neither, is invalid, or is larger than the settings allow.
    """
    kind = media_type(request)
    if kind == "application/json":
        return await _parse_body(_parse_json_product, await read_body(request), settings)
    if kind != "multipart/form-data":
        raise Problem("unsupported_media_type", "send application/json or multipart/form-data")
    fields, image = await _read_form(request, settings)
    if sum(len(value) for value in fields.values() if value) > LARGE_BODY_BYTES:  # a picture in base64
        return await asyncio.to_thread(_parse_form_product, fields, image, settings)
    return _parse_form_product(fields, image, settings)


async def read_batch(request: Request, settings: ApiSettings) -> list[ParsedProduct]:
    """The products in the JSON object of a request's body.

    Raises:
        Problem: the body is not JSON, is invalid, or is larger than the settings allow.
    """
    if media_type(request) != "application/json":
        raise Problem("unsupported_media_type", "send application/json")
    return await _parse_body(_parse_json_batch, await read_body(request), settings)


async def read_json(request: Request, model: type[Model]) -> Model:
    """The JSON object of a request's body as a model; for objects of a few values.

    Raises:
        Problem: the body is not JSON, is invalid, or has more values than such an object.
    """
    if media_type(request) != "application/json":
        raise Problem("unsupported_media_type", "send application/json")
    body = await read_body(request)
    if len(body) > LARGE_BODY_BYTES or is_bloated(body, MAX_OTHER_VALUES, LARGE_BODY_BYTES):
        raise Problem("body_too_large", "more than such an object needs")
    return _validate(model.model_validate_json, body)


def invalid_request(errors: Sequence[Any]) -> Problem:
    """The problem that describes the first of pydantic's errors, with the path of the field."""
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body")
    return Problem("invalid_request", f"{field}: {first['msg']}" if field else str(first["msg"]))


def media_type(request: Request) -> str:
    """The media type of a request's body, in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """The body. `request.body()` would keep it until the request is answered."""
    return b"".join([part async for part in request.stream()])


async def _parse_body(parse: Callable[[bytes, ApiSettings], Parsed], body: bytes, settings: ApiSettings) -> Parsed:
    if len(body) > LARGE_BODY_BYTES:
        return await asyncio.to_thread(parse, body, settings)
    return parse(body, settings)


def _parse_json_product(body: bytes, settings: ApiSettings) -> ParsedProduct:
    if is_bloated(body, MAX_VALUES + MAX_OTHER_VALUES, settings.max_batch_text):
        raise Problem("body_too_large", "more JSON values or escaped characters than a product has")
    return _to_parsed_product(_validate(ProductIn.model_validate_json, body), None, settings)


def _parse_form_product(fields: dict[str, str | None], image: bytes | None, settings: ApiSettings) -> ParsedProduct:
    return _to_parsed_product(_validate(ProductIn.model_validate, fields), image, settings)


def _parse_json_batch(body: bytes, settings: ApiSettings) -> list[ParsedProduct]:
    too_large = Problem(
        "batch_too_large",
        f"at most {settings.max_batch} products at once, with {settings.max_batch_text:,} characters of text",
    )
    if is_bloated(body, MAX_VALUES * settings.max_batch + MAX_OTHER_VALUES, settings.max_batch_text):
        raise too_large
    products = _validate(BatchIn.model_validate_json, body).products
    n_characters = sum(len(product.designation) + len(product.description or "") for product in products)
    if len(products) > settings.max_batch or n_characters > settings.max_batch_text:
        raise too_large
    return [_to_parsed_product(fields, None, settings) for fields in products]


def is_bloated(body: bytes, max_values: int, max_escapes: int) -> bool:
    """Whether parsing some JSON would take much more memory and time than reading it. It is not parsed for that.

    Args:
        max_values: how many values, objects and lists it may have; each has a comma before it or a bracket around it.
        max_escapes: how many characters of its strings may be escaped.
    """
    if b"\\" in body:
        if body.count(b"\\") > 2 * max_escapes:  # beyond U+FFFF a character has two
            return True
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")  # what is left of quotes begins and ends strings
    parts = body.split(b'"', 4 * max_values)  # every second one is between two strings
    return len(parts) > 4 * max_values or sum(map(_count_values, parts[::2])) > max_values


def _count_values(between_strings: bytes) -> int:
    return sum(between_strings.count(mark) for mark in (b",", b"[", b"{"))


def _validate(validate: Callable[[Any], Model], content: Any) -> Model:
    """What one of a model's validation methods makes of some content; raises a Problem if it is invalid."""
    try:
        return validate(content)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)) from None


async def _read_form(request: Request, settings: ApiSettings) -> tuple[dict[str, str | None], bytes | None]:
    """The text fields of a form, and the bytes of its uploaded picture if it has one."""
    _, options = parse_options_header(request.headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":  # others, such as "undefined", do not decode everything
        raise Problem("unsupported_media_type", "send the form in UTF-8")
    max_image_bytes = int(settings.max_picture_mb * MB)
    max_base64_bytes = 4 * (max_image_bytes // 3 + 2)  # of a picture just over the limit, which is refused by name
    max_part_size = max(MAX_UTF8_BYTES * settings.max_text, max_base64_bytes)
    fields: dict[str, str | None] = {}
    image = None
    async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS, max_part_size=max_part_size) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise Problem("invalid_request", f"{name}: given twice")
            if isinstance(value, UploadFile):
                if name != "picture":
                    raise Problem("invalid_request", f"{name}: only picture may be a file")
                fields[name] = None
                image = await value.read(max_image_bytes + 1) or None
            else:
                fields[name] = value
    return fields, image


def _to_parsed_product(fields: ProductIn, image: bytes | None, settings: ApiSettings) -> ParsedProduct:
    """Check a product's lengths and decode its picture if it is base64."""
    description = fields.description or ""
    for name, text in (("designation", fields.designation), ("description", description)):
        if len(text) > settings.max_text:
            raise Problem("invalid_request", f"{name}: at most {settings.max_text:,} characters")
    if fields.picture:
        try:
            image = base64.b64decode(fields.picture, validate=True)
        except (binascii.Error, ValueError):
            raise Problem("invalid_request", "picture: not base64") from None
    if image is not None and len(image) > settings.max_picture_mb * MB:
        raise Problem("picture_too_large", f"at most {settings.max_picture_mb:g} MB")
    return ParsedProduct(
        fields.model_copy(update={"picture": None}), RawProduct(fields.designation, description, image)
    )
