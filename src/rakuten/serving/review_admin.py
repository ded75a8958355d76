"""What goes into the review desk and comes out of it, over HTTP: products, corrections, decisions, Label Studio.

Its paths are those of `roles.ADMINISTER_PATHS`. Files are read and written in threads.
"""

import asyncio
import json
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.review import exchange, files, label_studio
from rakuten.review.desk import Added, ReviewDesk
from rakuten.review.tables import Source
from rakuten.serving import review_schemas, schemas
from rakuten.serving.languages import language_headers, language_of
from rakuten.serving.parsing import media_type, read_body, read_json
from rakuten.serving.problems import Problem
from rakuten.serving.responses import json_response
from rakuten.serving.review import ReviewService

MAX_FIELDS = 2  # of the form beside the file


def add_administer_routes(app: FastAPI, review: ReviewService) -> None:
    """Add the routes for those who administer the desk."""
    _add_product_routes(app, review)
    _add_decision_routes(app, review)
    _add_label_studio_routes(app, review)


def _add_product_routes(app: FastAPI, review: ReviewService) -> None:
    @app.post(
        "/review/products",
        response_model=review_schemas.AddedOut,
        summary="Put the products of a file into the queue",
        responses=schemas.PROBLEM_RESPONSES,
        openapi_extra=review_schemas.PRODUCTS_BODY,
    )
    async def add(request: Request) -> Response:
        review.named_person(request)
        if media_type(request) == "multipart/form-data":
            name, content, source = await _read_file(request)
            products = partial(files.products_of, content, name, source=source)
        else:
            path = files.PIPELINE_FILES[(await read_json(request, review_schemas.PipelineFile)).file]
            products = partial(files.products_of, path, str(path))

        def put(desk: ReviewDesk) -> Added:
            return desk.add(products())

        return json_response(vars(await review.call(put, is_slow=True)))

    @app.post(
        "/review/export",
        response_model=review_schemas.ExportedOut,
        summary="Write the corrections for the pipeline",
        responses=schemas.PROBLEM_RESPONSES,
    )
    async def export(request: Request) -> Response:
        review.named_person(request)
        number = await review.call(files.export_corrections, is_slow=True)
        return json_response({"corrections": number, "path": str(files.EXPORTED)})


def _add_decision_routes(app: FastAPI, review: ReviewService) -> None:
    @app.get(
        "/review/decisions.csv",
        summary="Every decision",
        response_class=Response,
        responses={**schemas.PROBLEM_RESPONSES, 200: {"content": {"text/csv": {}}}},
    )
    async def decisions() -> Response:
        def write(desk: ReviewDesk) -> str:
            return exchange.decisions_csv(desk.all_decisions())

        headers = {"content-disposition": 'attachment; filename="decisions.csv"'}
        return Response(await review.call(write, is_slow=True), media_type="text/csv", headers=headers)

    @app.post(
        "/review/decisions.csv",
        response_model=review_schemas.ImportedOut,
        summary="Take over decisions; those that are there already change nothing",
        responses=schemas.PROBLEM_RESPONSES,
        openapi_extra={"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def take_over(request: Request) -> Response:
        review.named_person(request)
        if media_type(request) != "text/csv":
            raise Problem("unsupported_media_type", "send text/csv")
        content = await read_body(request)

        def read(desk: ReviewDesk) -> dict[str, int]:
            rows = exchange.decisions_of(files.read_table(content, "decisions.csv"))
            return {"decisions": len(rows), "new": desk.import_decisions(rows)}

        return json_response(await review.call(read, is_slow=True))


def _add_label_studio_routes(app: FastAPI, review: ReviewService) -> None:
    @app.get(
        "/review/tasks.json",
        summary="The open products as tasks for Label Studio",
        responses=schemas.PROBLEM_RESPONSES,
    )
    async def tasks() -> Response:
        products = await review.call(lambda desk: desk.open_products(), is_slow=True)
        response = await asyncio.to_thread(lambda: json_response(label_studio.tasks(products, current_taxonomy())))
        response.headers["content-disposition"] = 'attachment; filename="tasks.json"'
        return response

    @app.get(
        "/review/tasks.xml",
        summary="The labelling configuration of a Label Studio project for these tasks",
        response_class=Response,
        responses={**schemas.PROBLEM_RESPONSES, 200: {"content": {"application/xml": {}}}},
    )
    async def labelling_configuration(request: Request) -> Response:
        language = language_of(request)
        config = label_studio.label_config(current_taxonomy(), language)
        headers = {"content-disposition": 'attachment; filename="tasks.xml"'} | language_headers(language)
        return Response(config, media_type="application/xml", headers=headers)

    @app.post(
        "/review/annotations",
        response_model=review_schemas.ImportedOut,
        summary="Take over the decisions in Label Studio's export as JSON or JSON-MIN",
        responses=schemas.PROBLEM_RESPONSES,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "array"}}}}
        },
    )
    async def annotations(request: Request) -> Response:
        review.named_person(request)
        if media_type(request) != "application/json":
            raise Problem("unsupported_media_type", "send application/json")
        content = await read_body(request)

        def read(desk: ReviewDesk) -> dict[str, int]:
            made = label_studio.decisions(_parsed(content))
            return {"decisions": len(made), "new": desk.import_decisions(made)}

        return json_response(await review.call(read, is_slow=True))


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise UserError(f"not JSON: {error}") from error


async def _read_file(request: Request) -> tuple[str, bytes, str]:
    """The name and bytes of the file in a form, and the source that its products are given; "": as the file says."""
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        file, source = form.get("file"), form.get("source") or ""
        if not isinstance(file, UploadFile):
            raise Problem("invalid_request", "file: missing")
        if source not in ("", *Source):
            raise Problem("invalid_request", f"source: one of {', '.join(Source)}")
        return file.filename or "file", await file.read(), str(source)
