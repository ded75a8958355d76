"""The ASGI application: routes and error handlers, start and stop."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp
from threadpoolctl import threadpool_limits

from rakuten.errors import UserError
from rakuten.serving import schemas
from rakuten.serving.exported_metrics import read_live_precision
from rakuten.serving.languages import language_headers, language_of
from rakuten.serving.middleware import PUBLIC_PATHS, RequestMiddleware
from rakuten.serving.model_holder import ModelHolder
from rakuten.serving.parsing import invalid_request, read_batch, read_product
from rakuten.serving.problems import Problem
from rakuten.serving.responses import (
    class_body,
    explanation_body,
    json_response,
    model_info,
    prediction_body,
    single_prediction_body,
)
from rakuten.serving.review import add_review_routes
from rakuten.serving.review_admin import add_administer_routes
from rakuten.serving.review_schemas import REQUEST_MODELS
from rakuten.serving.service import Service
from rakuten.serving.settings import MB, ApiSettings

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
Id = Annotated[int, PathParameter(ge=0, lt=10**18)]


def create_app(settings: ApiSettings, holder: ModelHolder) -> ASGIApp:
    """The ASGI application.

    Args:
        holder: has loaded a model already.
    """
    # BLAS in one thread: sums of floats depend on how they are split, and the scorer has threads of its own.
    threadpool_limits(limits=1, user_api="blas")
    service = Service(settings, holder)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(service.poll_champion())
        await service.decoder.start()
        yield
        service.stopping = True
        polling.cancel()
        await asyncio.to_thread(service.scorer.stop)
        if service.prediction_log is not None:
            await asyncio.to_thread(service.prediction_log.stop)
        if service.review_intake is not None:
            await asyncio.to_thread(service.review_intake.stop)

    app = FastAPI(
        title="Rakuten product classification",
        version="1",
        description="Assigns a product one of the catalogue's product type codes, with a calibrated confidence.",
        docs_url=None,  # FastAPI's page would load files from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_prediction_routes(app, service)
    _add_state_routes(app, service)
    add_review_routes(app, service, PAGE)
    add_administer_routes(app, service.review)
    app.mount("/static/docs", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs files")
    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    _add_error_handlers(app)
    _complete_document(app, settings.keys_required)
    return RequestMiddleware(app, settings, service.metrics)


def _complete_document(app: FastAPI, keys_required: bool) -> None:
    """Add to the OpenAPI document what FastAPI does not know: bodies and keys are not its business here."""
    fastapi_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = schemas.add_request_schemas(fastapi_document(), *REQUEST_MODELS)
        return schemas.add_security(document, PUBLIC_PATHS) if keys_required else document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_prediction_routes(app: FastAPI, service: Service) -> None:
    # The routes take the bare request, see `parsing`; their responses are made by `json_response`.
    problems = schemas.PROBLEM_RESPONSES

    @app.post(
        "/predict",
        response_model=schemas.PredictionOut,
        summary="Classify one product",
        responses=problems,
        openapi_extra=schemas.PRODUCT_BODY,
    )
    async def predict(request: Request) -> Response:
        product = await read_product(request, service.settings)
        scored = await service.score(request, [product])
        language = language_of(request)
        return json_response(single_prediction_body(scored, product.fields.top_k, language), language)

    @app.post(
        "/explain",
        response_model=schemas.ExplanationOut,
        summary="Classify one product and say why",
        responses=problems,
        openapi_extra=schemas.PRODUCT_BODY,
    )
    async def explain(request: Request) -> Response:
        product = await read_product(request, service.settings)
        scored = await service.score(request, [product], with_explanation=True)
        assert scored.explanation is not None
        language = language_of(request)
        prediction = single_prediction_body(scored, product.fields.top_k, language)
        body = explanation_body(scored.explanation, language, service.training_pictures)
        return json_response({"prediction": prediction, **body}, language)

    @app.post(
        "/predict/batch",
        response_model=schemas.BatchOut,
        summary="Classify products",
        responses=problems,
        openapi_extra=schemas.BATCH_BODY,
    )
    async def predict_batch(request: Request) -> Response:
        products = await read_batch(request, service.settings)
        scored = await service.score(request, products)
        language = language_of(request)
        predictions = [
            prediction_body(scored, row, product.fields.top_k, language) for row, product in enumerate(products)
        ]
        return json_response({"predictions": predictions, **model_info(scored)}, language)


def _add_state_routes(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html", headers={"cache-control": "no-cache"})

    @app.get("/health", response_model=schemas.Status, summary="Whether the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/ready",
        response_model=schemas.Status,
        summary="Whether it answers",
        responses={503: schemas.PROBLEM_RESPONSES[503]},
    )
    async def ready() -> dict[str, str]:
        if service.stopping:
            raise Problem("not_ready", "the server is stopping")
        return {"status": "ready"}

    @app.get(
        "/model",
        response_model=schemas.ModelOut,
        summary="Which model answers",
        responses={401: schemas.PROBLEM_RESPONSES[401]},
    )
    async def model(request: Request, response: Response) -> dict[str, Any]:
        language = language_of(request)
        response.headers.update(language_headers(language))
        current, settings = service.holder.current(), service.settings
        classifier = current.model.classifier
        return {
            "model_version": current.model_version,
            "source": current.source,
            "registry_version": current.registry_version,
            **current.metadata,
            "target_precision": classifier.config.target_precision,
            "threshold": classifier.config.threshold,
            "novelty_false_alarms": classifier.config.novelty_false_alarms,
            "live_precision": read_live_precision(settings.live, current.model_version),
            "classes": [class_body(int(code), language) for code in classifier.classes],
            "views": list(classifier.linear),
            "limits": {
                "batch": settings.max_batch,
                "picture_bytes": int(settings.max_picture_mb * MB),
                "text_characters": settings.max_text,
            },
        }

    @app.get(
        "/training-pictures/{imageid}/{productid}",
        response_class=Response,
        summary="The picture of a training product that an explanation names",
        responses={
            200: {"content": {"image/jpeg": {}}},
            **{status: schemas.PROBLEM_RESPONSES[status] for status in (401, 422)},
            404: schemas.NOT_FOUND_RESPONSE,
        },
    )
    async def training_picture(imageid: Id, productid: Id) -> Response:
        neighbours = service.holder.current().model.classifier.neighbours
        content = await service.training_pictures.read(neighbours, imageid, productid)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})

    @app.get("/metrics", summary="For Prometheus", responses={200: {"content": {"text/plain": {}}}})
    async def exposed() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every exception, FastAPI's own included, with a problem."""

    def problem_response(request: Request, problem: Problem) -> Response:
        state = request.scope["state"]
        state["problem"] = problem.code
        return Response(problem.body(state["request_id"]), problem.status, problem.headers())

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return problem_response(request, problem)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, _: ClientDisconnect) -> Response:
        return problem_response(request, Problem("disconnected", "before the request was complete"))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        response = problem_response(
            request, Problem(codes.get(error.status_code, "invalid_request"), str(error.detail))
        )
        if allowed := (error.headers or {}).get("Allow"):
            methods = set(allowed.split(", "))
            response.headers["allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        return response

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        return problem_response(request, invalid_request(error.errors()))

    @app.exception_handler(UserError)
    async def on_user_error(request: Request, error: UserError) -> Response:
        return problem_response(request, Problem("not_ready", str(error), 5))

    @app.exception_handler(Exception)
    async def on_exception(request: Request, _: Exception) -> Response:
        return problem_response(request, Problem("internal", "the server's log has the error under this request id"))
