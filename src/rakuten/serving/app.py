"""The routes. Reading and answering happen here; scoring in `scorer`, everything around a request in `guard`."""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from joblib import cpu_count
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from threadpoolctl import threadpool_limits

from rakuten.data.schema import label_of
from rakuten.errors import UserError
from rakuten.models.explain import Explanation
from rakuten.models.pyfunc_model import IMAGE_USED, NO_IMAGE
from rakuten.monitoring.prediction_log import PredictionLog
from rakuten.serving import schemas
from rakuten.serving.exported_metrics import MonitoringCollector
from rakuten.serving.metrics import ApiMetrics, make_metrics
from rakuten.serving.middleware import RequestMiddleware
from rakuten.serving.model_holder import ModelHolder
from rakuten.serving.parsing import (
    REQUEST_BODY,
    invalid_request,
    parse_json,
    read_product,
    require_json,
    to_raw_product,
)
from rakuten.serving.problems import Problem
from rakuten.serving.schemas import BatchIn, ProductIn
from rakuten.serving.scorer import BatchingScorer, ScoredProducts
from rakuten.serving.settings import MB, ApiSettings

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"


class Service:
    """What the routes share."""

    def __init__(self, settings: ApiSettings, holder: ModelHolder) -> None:
        self.settings, self.holder, self.metrics = settings, holder, make_metrics()
        threads = settings.threads or min(4, cpu_count())
        self.live: PredictionLog | None = None
        if settings.live_log:
            dropped = self.metrics.log_dropped.inc
            self.live = PredictionLog(settings.live, settings.keep_days, settings.log_text, dropped)
            self.metrics.log_lag.set_function(self.live.lag)
        self.scorer = BatchingScorer(
            holder.current, self.metrics, settings.queue, settings.wait_seconds, threads, self.live
        )
        self.metrics.registry.register(MonitoringCollector(settings.live, holder.current))
        self.stopping = False
        self.tell()

    def tell(self) -> None:
        """Tell Prometheus which model answers."""
        held = self.holder.current()
        about = {"version": held.model_version, "source": held.source, "registry_version": held.registry_version or ""}
        self.metrics.model.info(about)
        self.metrics.loaded.set(time.time())

    async def look_for_champion(self) -> None:
        """Swap the model for a new champion, for as long as the server runs; requests under way keep theirs."""
        said = ""
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            try:
                if await asyncio.to_thread(self.holder.refresh):
                    self.tell()
                said = ""
            except Exception as error:
                self.metrics.looks_failed.inc()
                if str(error) != said:  # once, not at each look
                    log.warning("the champion stays the one that is loaded: %s", error)
                said = str(error)
            self.metrics.refused.set(self.holder.refused())


def create_app(settings: ApiSettings, holder: ModelHolder) -> Any:
    """The ASGI application around a holder that has a model."""
    threadpool_limits(limits=1, user_api="blas")  # sums of floats depend on how they are cut, and threads are ours
    service = Service(settings, holder)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        looking = asyncio.create_task(service.look_for_champion())
        yield
        service.stopping = True
        looking.cancel()
        await asyncio.to_thread(service.scorer.stop)
        if service.live is not None:
            await asyncio.to_thread(service.live.stop)

    app = FastAPI(
        title="Rakuten product classification",
        version="1",
        description="Puts a product into one of 27 product type codes, with a calibrated confidence.",
        docs_url=None,  # its page would come from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_routes(app, service)
    _add_state(app, service)
    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    _add_error_handlers(app)
    return RequestMiddleware(app, settings, service.metrics)


def _add_routes(app: FastAPI, service: Service) -> None:
    common: dict[str, Any] = {"responses": schemas.PROBLEMS, "openapi_extra": REQUEST_BODY}

    @app.post("/predict", response_model=schemas.PredictionOut, summary="Classify one product", **common)
    async def predict(request: Request) -> Response:
        asked = await read_product(request, service.settings)
        scored = await _score(request, service, [asked])
        return _json(_single_answer(scored, asked.top_k))

    @app.post("/explain", response_model=schemas.ExplanationOut, summary="Classify one product and say why", **common)
    async def explain(request: Request) -> Response:
        asked = await read_product(request, service.settings)
        scored = await _score(request, service, [asked], explained=True)
        assert scored.explanation is not None
        return _json({"prediction": _single_answer(scored, asked.top_k), **_explanation_body(scored.explanation)})

    @app.post(
        "/predict/batch",
        response_model=schemas.BatchOut,
        summary="Classify products",
        responses=schemas.PROBLEMS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BatchIn"}}},
            }
        },
    )
    async def predict_batch(request: Request) -> Response:
        require_json(request)
        asked = (await parse_json(BatchIn, await request.body())).products
        if len(asked) > service.settings.max_batch:
            raise Problem("batch_too_large", f"at most {service.settings.max_batch} products at once")
        scored = await _score(request, service, asked)
        found = [_prediction(scored, at, each.top_k) for at, each in enumerate(asked)]
        return _json({"predictions": found, **_model_info(scored)})

    # FastAPI lists in its document only the models that it reads or writes by itself.
    document = app.openapi

    def openapi() -> dict[str, Any]:
        made = document()
        known = made["components"]["schemas"]
        for model in (ProductIn, BatchIn):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            known |= schema.pop("$defs", {})
            known[model.__name__] = schema
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/health", response_model=schemas.Status, summary="Whether the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/ready", response_model=schemas.Status, summary="Whether it answers", responses={503: schemas.PROBLEMS[503]}
    )
    async def ready() -> dict[str, str]:
        if service.stopping:
            raise Problem("not_ready", "the server is stopping")
        return {"status": "ready"}

    @app.get(
        "/model", response_model=schemas.ModelOut, summary="Which model answers", responses={401: schemas.PROBLEMS[401]}
    )
    async def model() -> dict[str, Any]:
        held = service.holder.current()
        classifier, settings = held.model.classifier, service.settings
        return {
            "model_version": held.model_version,
            "source": held.source,
            "registry_version": held.registry_version,
            **held.about,
            "target_precision": classifier.config.target_precision,
            "threshold": classifier.config.threshold,
            "classes": [{"prdtypecode": int(code), "label": label_of(int(code))} for code in classifier.classes],
            "views": list(classifier.linear),
            "limits": {
                "batch": settings.max_batch,
                "picture_bytes": int(settings.max_picture_mb * MB),
                "text_characters": settings.max_text,
            },
        }

    @app.get("/metrics", summary="For Prometheus", responses={200: {"content": {"text/plain": {}}}})
    async def exposed() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _score(
    request: Request, service: Service, asked: Sequence[ProductIn], explained: bool = False
) -> ScoredProducts:
    products = [to_raw_product(each, service.settings) for each in asked]
    request.scope["state"]["modality"] = "batch" if len(products) > 1 else "picture" if products[0].picture else "text"
    if service.settings.log_text:
        texts = [{"designation": each.designation, "description": each.description} for each in asked]
        request.scope["state"]["logged"] = {"products": texts}
    # Not the request's id: a client may send the same one twice.
    scored = await service.scorer.score(products, uuid.uuid4().hex, explained)
    _count_predictions(service.metrics, scored)
    return scored


def _count_predictions(told: ApiMetrics, scored: ScoredProducts) -> None:
    for codes, confidence, review, picture in zip(
        scored.codes, scored.confidence, scored.needs_review, scored.pictures, strict=True
    ):
        told.predictions.labels(str(codes[0])).inc()
        told.confidence.observe(confidence[0])
        told.to_review.inc(review)
        told.pictures.labels(picture).inc()


def _prediction(scored: ScoredProducts, at: int, count: int) -> dict[str, Any]:
    ranked = [
        {"prdtypecode": code, "label": label_of(code), "confidence": confidence}
        for code, confidence in zip(scored.codes[at][:count], scored.confidence[at][:count], strict=True)
    ]
    word = scored.pictures[at]
    return {
        "prediction_id": scored.names[at],
        **ranked[0],
        "top": ranked,
        "needs_review": scored.needs_review[at],
        "picture": word if word in (NO_IMAGE, IMAGE_USED) else f"unusable: {word}",
    }


def _model_info(scored: ScoredProducts) -> dict[str, Any]:
    return {"model_version": scored.champion.model_version, "run_id": scored.champion.about["run_id"]}


def _single_answer(scored: ScoredProducts, count: int) -> dict[str, Any]:
    return _prediction(scored, 0, count) | _model_info(scored)


def _explanation_body(why: Explanation) -> dict[str, Any]:
    pictures = why.similar_images.to_dict("records")
    return {
        "views": why.views.to_dict("records"),
        "spoke_for": why.positive_terms.to_dict("records"),
        "spoke_against": why.negative_terms.to_dict("records"),
        "pictures": [{**each, "label": label_of(int(each["prdtypecode"]))} for each in pictures],
    }


def _json(content: Any) -> Response:
    return Response(json.dumps(content, ensure_ascii=False, allow_nan=False), media_type="application/json")


def _add_error_handlers(app: FastAPI) -> None:
    """Whatever goes wrong, or FastAPI refuses by itself, is said in the same way."""

    def answer(request: Request, problem: Problem) -> Response:
        state = request.scope["state"]
        state["problem"] = problem.code
        return Response(problem.body(state["request_id"]), problem.status, problem.headers())

    @app.exception_handler(Problem)
    async def known(request: Request, problem: Problem) -> Response:
        return answer(request, problem)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        return answer(request, Problem(codes.get(error.status_code, "invalid_request"), str(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def refused_by_fastapi(request: Request, error: RequestValidationError) -> Response:
        return answer(request, invalid_request(error.errors()))

    @app.exception_handler(UserError)
    async def unready(request: Request, error: UserError) -> Response:
        return answer(request, Problem("not_ready", str(error), 5))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _: Exception) -> Response:
        return answer(request, Problem("internal", "the log has it under this request's id"))
