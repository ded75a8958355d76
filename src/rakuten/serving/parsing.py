"""Request bodies, JSON or a form, checked and turned into products.

FastAPI's own parsing of bodies is bypassed: it runs on the event loop, where ten megabytes of JSON would hold up every
other request, and here a body over LARGE_BODY_BYTES is parsed in a thread.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from rakuten.serving.problems import Problem
from rakuten.serving.schemas import BatchIn, ProductIn
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import MB, ApiSettings

Model = TypeVar("Model", bound=BaseModel)

LARGE_BODY_BYTES = 200_000
MAX_FORM_FIELDS = 8
MAX_UTF8_BYTES = 4  # of a character


class ParsedProduct(NamedTuple):
    """One product of a request."""

    fields: ProductIn  # as sent; an uploaded file is not among them
    raw: RawProduct  # what is scored


async def read_product(request: Request, settings: ApiSettings) -> ParsedProduct:
    """The product in the JSON object or the multipart form of a request's body.

    A form's picture may be an uploaded file, whose bytes are taken as they are. Elsewhere the picture is base64.

    Raises:
        Problem: the body is neither, is invalid, or is larger than the settings allow.
    """
    media_type = _media_type(request)
    if media_type == "application/json":
        return _to_parsed_product(await _parse_json(ProductIn, await request.body()), None, settings)
    if media_type != "multipart/form-data":
        raise Problem("unsupported_media_type", "send application/json or multipart/form-data")
    fields, image = await _read_form(request, settings)
    return _to_parsed_product(_validate(ProductIn.model_validate, fields), image, settings)


async def read_batch(request: Request, settings: ApiSettings) -> list[ParsedProduct]:
    """The products in the JSON object of a request's body.

    Raises:
        Problem: the body is not JSON, is invalid, or is larger than the settings allow.
    """
    if _media_type(request) != "application/json":
        raise Problem("unsupported_media_type", "send application/json")
    products = (await _parse_json(BatchIn, await request.body())).products
    if len(products) > settings.max_batch:
        raise Problem("batch_too_large", f"at most {settings.max_batch} products at once")
    return [_to_parsed_product(fields, None, settings) for fields in products]


def invalid_request(errors: Sequence[Any]) -> Problem:
    """The problem that describes the first of pydantic's errors, with the path of the field."""
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body")
    return Problem("invalid_request", f"{field}: {first['msg']}" if field else str(first["msg"]))


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _parse_json(model: type[Model], body: bytes) -> Model:
    if len(body) > LARGE_BODY_BYTES:
        return await asyncio.to_thread(_validate, model.model_validate_json, body)
    return _validate(model.model_validate_json, body)


def _validate(validate: Callable[[Any], Model], content: Any) -> Model:
    """What one of a model's validation methods makes of some content; raises a Problem if it is invalid."""
    try:
        return validate(content)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)) from None


async def _read_form(request: Request, settings: ApiSettings) -> tuple[dict[str, Any], bytes | None]:
    """The text fields of a form, and the bytes of its uploaded picture if it has one."""
    max_part_size = MAX_UTF8_BYTES * settings.max_text
    max_image_bytes = int(settings.max_picture_mb * MB)
    fields: dict[str, Any] = {}
    image = None
    async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS, max_part_size=max_part_size) as form:
        for name, value in form.multi_items():
            if name in fields:
                raise Problem("invalid_request", f"{name}: given twice")
            fields[name] = value
            if isinstance(value, UploadFile):
                if name != "picture":
                    raise Problem("invalid_request", f"{name}: only picture may be a file")
                fields[name] = None
                image = await value.read(max_image_bytes + 1) or None
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
    return ParsedProduct(fields, RawProduct(fields.designation, description, image))
