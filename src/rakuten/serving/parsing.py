"""What a request holds: JSON or a form, checked and turned into products."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from rakuten.serving.problems import Problem
from rakuten.serving.schemas import ProductIn
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import MB, ApiSettings

Model = TypeVar("Model", bound=BaseModel)

LARGE_BODY_BYTES = 200_000  # bytes of a body from which on it is read off the event loop
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ProductIn"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["designation"],
                    "properties": {
                        "designation": {"type": "string"},
                        "description": {"type": "string"},
                        "picture": {"type": "string", "format": "binary"},
                        "top_k": {"type": "integer", "minimum": 1, "maximum": 27, "default": 3},
                    },
                }
            },
        },
    }
}


async def read_product(request: Request, settings: ApiSettings) -> ProductIn:
    """The product of a JSON body or a form; a form's picture is put in base64's place as bytes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await parse_json(ProductIn, await request.body())
    if kind != "multipart/form-data":
        raise Problem("unsupported_media_type", "send application/json or multipart/form-data")
    most = int(settings.max_picture_mb * MB)
    async with request.form(max_files=1, max_fields=8, max_part_size=4 * settings.max_text) as form:
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise Problem("invalid_request", f"{name}: given twice")
            if isinstance(value, UploadFile):
                if name != "picture":
                    raise Problem("invalid_request", f"{name}: only picture may be a file")
                data = await value.read(most + 1)
                fields[name] = base64.b64encode(data).decode() if data else None
            elif name == "picture" and not value:
                fields[name] = None
            else:
                fields[name] = value
    return _validate(ProductIn, fields)


def require_json(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem("unsupported_media_type", "send application/json")


async def parse_json(model: type[Model], body: bytes) -> Model:
    def parse() -> Model:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise invalid_request(error.errors(include_url=False, include_input=False)) from None

    return await asyncio.to_thread(parse) if len(body) > LARGE_BODY_BYTES else parse()


def _validate(model: type[ProductIn], fields: dict[str, Any]) -> ProductIn:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)) from None


def invalid_request(errors: Sequence[Any]) -> Problem:
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return Problem("invalid_request", f"{where}: {first['msg']}" if where else str(first["msg"]))


def to_raw_product(asked: ProductIn, settings: ApiSettings) -> RawProduct:
    for name, text in (("designation", asked.designation), ("description", asked.description or "")):
        if len(text) > settings.max_text:
            raise Problem("invalid_request", f"{name}: at most {settings.max_text:,} characters")
    picture = None
    if asked.picture:
        try:
            picture = base64.b64decode(asked.picture, validate=True)
        except (binascii.Error, ValueError):
            raise Problem("invalid_request", "picture: not base64") from None
        if len(picture) > settings.max_picture_mb * MB:
            raise Problem("picture_too_large", f"at most {settings.max_picture_mb:g} MB")
    return RawProduct(asked.designation, asked.description or "", picture)
