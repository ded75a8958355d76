"""The ASGI application: routes and error handlers, start and stop."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from joblib import cpu_count
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp
from threadpoolctl import threadpool_limits

from rakuten.config import load_params
from rakuten.data.taxonomy import LANGUAGES, Language, current_taxonomy, label_of
from rakuten.errors import UserError
from rakuten.features.encoders.preprocessing import IMAGE_USED
from rakuten.models.pyfunc_model import image_outcome
from rakuten.monitoring.prediction_log import PredictionLog
from rakuten.serving import schemas
from rakuten.serving.exported_metrics import MonitoringCollector, read_live_precision
from rakuten.serving.image_decoder import ImageDecoder
from rakuten.serving.languages import language_headers, language_of
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.middleware import PUBLIC_PATHS, RequestMiddleware
from rakuten.serving.model_holder import ModelHolder
from rakuten.serving.parsing import ParsedProduct, invalid_request, read_batch, read_product
from rakuten.serving.problems import Problem
from rakuten.serving.responses import explanation_body, json_response
from rakuten.serving.review import SHOWN_CODES, ReviewService, add_review_routes
from rakuten.serving.review_admin import add_administer_routes
from rakuten.serving.review_intake import Answered, ReviewIntake
from rakuten.serving.review_schemas import REQUEST_MODELS
from rakuten.serving.scorer import BatchingScorer, ScoredProducts
from rakuten.serving.settings import MB, ApiSettings
from rakuten.serving.training_pictures import TrainingPictures

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
Id = Annotated[int, PathParameter(ge=0, lt=10**18)]
MAX_DEFAULT_THREADS = 4  # scoring threads, where the settings leave the number open


class Service:
    """What the routes share: the model, the scorer, the prediction log and the metrics."""

    def __init__(self, settings: ApiSettings, holder: ModelHolder) -> None:
        self.settings, self.holder, self.metrics = settings, holder, ApiMetrics()
        self.prediction_log: PredictionLog | None = None
        if settings.live_log:
            self.prediction_log = PredictionLog(
                settings.live, settings.keep_days, settings.log_text, self.metrics.log_dropped.inc
            )
            self.metrics.log_lag.set_function(self.prediction_log.lag)
        self.scorer = BatchingScorer(
            holder.current,
            self.metrics,
            queue_size=settings.queue,
            queue_timeout_seconds=settings.wait_seconds,
            n_threads=settings.threads or min(MAX_DEFAULT_THREADS, cpu_count()),
            prediction_log=self.prediction_log,
        )
        self.training_pictures = TrainingPictures(settings.images)
        self.decoder = ImageDecoder(lambda: holder.current().model.image_sizes(), settings)
        self.metrics.registry.register(MonitoringCollector(settings.live, holder.current))
        self.review = ReviewService(settings)
        self.review_intake: ReviewIntake | None = None
        if settings.review:
            self.review_intake = ReviewIntake(
                self.review.desk,
                settings.review_pictures,
                int(settings.review_pictures_mb * MB),
                load_params().review.audit_share,
                self.metrics.review_dropped.inc,
            )
        self.stopping = False
        self.publish_model_info()

    def publish_model_info(self) -> None:
        """Set the metrics that name the current model."""
        model = self.holder.current()
        self.metrics.model.info(
            {
                "version": model.model_version,
                "source": model.source,
                "registry_version": model.registry_version or "",
            }
        )
        self.metrics.model_loaded.set(time.time())

    async def poll_champion(self) -> None:
        """Load each new champion, for as long as the server runs; batches being scored keep their model."""
        last_error = ""
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            try:
                if await asyncio.to_thread(self.holder.refresh):
                    self.publish_model_info()
                last_error = ""
            except Exception as error:
                self.metrics.refresh_failures.inc()
                if str(error) != last_error:  # logged once, not at each refresh
                    log.warning("keeping the current model: %s", error)
                last_error = str(error)
            self.metrics.champion_refused.set(self.holder.has_refused())

    async def score(
        self, request: Request, products: Sequence[ParsedProduct], with_explanation: bool = False
    ) -> ScoredProducts:
        """Score the products of a request and count them in the metrics.

        Raises:
            Problem: see `BatchingScorer.score`.
        """
        state = request.scope["state"]
        state["modality"] = "batch" if len(products) > 1 else "picture" if products[0].raw.image else "text"
        if self.settings.log_text:
            texts = [product.fields.model_dump(include={"designation", "description"}) for product in products]
            state["logged"] = {"products": texts}
        raw = await self.decoder.decode_all([product.raw for product in products])
        # Not the request's id, which a client may use twice.
        scored = await self.scorer.score(raw, uuid.uuid4().hex, with_explanation)
        self._count_predictions(scored)
        if self.review_intake is not None:
            self.review_intake.offer(_answered(products, scored))
        return scored

    def _count_predictions(self, scored: ScoredProducts) -> None:
        self.metrics.novel.inc(sum(scored.is_novel))
        for codes, confidence, needs_review, image_state in zip(
            scored.codes, scored.confidence, scored.needs_review, scored.image_states, strict=True
        ):
            self.metrics.predictions.labels(str(codes[0])).inc()
            self.metrics.confidence.observe(confidence[0])
            self.metrics.needs_review.inc(needs_review)
            self.metrics.images.labels(image_state).inc()


def _answered(products: Sequence[ParsedProduct], scored: ScoredProducts) -> list[Answered]:
    """The products of a request as the review desk takes them."""
    codes, confidence = scored.codes, scored.confidence
    is_used = [state == IMAGE_USED for state in scored.image_states]
    return [
        Answered(
            designation=product.raw.designation,
            description=product.raw.description,
            picture=product.raw.image if isinstance(product.raw.image, bytes) and is_used[row] else None,
            top=[list(choice) for choice in zip(codes[row][:SHOWN_CODES], confidence[row][:SHOWN_CODES], strict=True)],
            needs_review=scored.needs_review[row],
            is_novel=scored.is_novel[row],
            model_version=scored.model.model_version,
            prediction_id=scored.prediction_ids[row],
        )
        for row, product in enumerate(products)
    ]


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
        return json_response(_single_prediction(scored, product.fields.top_k, language), language)

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
        prediction = _single_prediction(scored, product.fields.top_k, language)
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
        predictions = [_prediction(scored, row, product.fields.top_k, language) for row, product in enumerate(products)]
        return json_response({"predictions": predictions, **_model_info(scored)}, language)


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
            "classes": [_class_body(int(code), language) for code in classifier.classes],
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


def _class_body(code: int, language: Language) -> dict[str, Any]:
    """The body of `schemas.ClassOut`."""
    return {
        "prdtypecode": code,
        "label": label_of(code, language),
        "names": {each: label_of(code, each) for each in LANGUAGES},
        "parent": current_taxonomy().parent_of.get(code),
    }


def _prediction(scored: ScoredProducts, row: int, top_k: int, language: Language) -> dict[str, Any]:
    """The body of `schemas.Prediction` for one of the products."""
    top = [
        {"prdtypecode": code, "label": label_of(code, language), "confidence": confidence}
        for code, confidence in zip(scored.codes[row][:top_k], scored.confidence[row][:top_k], strict=True)
    ]
    return {
        "prediction_id": scored.prediction_ids[row],
        **top[0],
        "top": top,
        "needs_review": scored.needs_review[row],
        "parent": _parent_body(scored.parents[row], language),
        "is_novel": scored.is_novel[row],
        "novelty": scored.novelty[row],
        "picture": image_outcome(scored.image_states[row]),
    }


def _parent_body(key: str, language: Language) -> dict[str, str] | None:
    """The body of `schemas.ParentOut`; None for no parent."""
    return {"key": key, "label": current_taxonomy().parent_label(key, language)} if key else None


def _model_info(scored: ScoredProducts) -> dict[str, Any]:
    return {"model_version": scored.model.model_version, "run_id": scored.model.metadata["run_id"]}


def _single_prediction(scored: ScoredProducts, top_k: int, language: Language) -> dict[str, Any]:
    """The body of `schemas.PredictionOut`."""
    return _prediction(scored, 0, top_k, language) | _model_info(scored)


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
