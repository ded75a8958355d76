"""The review desk over HTTP: who asks, the next products, their pictures and explanations, decisions.

The desk is opened when it is first needed, so that an API without a review desk needs no database. Every call of it
runs in a thread. No response tells the audit sample apart: see `rakuten.review.audit`.
"""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import unquote

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from rakuten.data.taxonomy import Language, label_of
from rakuten.errors import UserError
from rakuten.review.desk import NewDecision, ReviewDesk, open_desk
from rakuten.review.tables import ReviewDecision, ReviewProduct, State
from rakuten.serving import review_schemas, schemas
from rakuten.serving.kept_answers import KeptAnswers
from rakuten.serving.keys import Owner
from rakuten.serving.languages import language_of
from rakuten.serving.parsing import read_json
from rakuten.serving.problems import Problem
from rakuten.serving.responses import explanation_body, json_response
from rakuten.serving.roles import Role
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import ApiSettings

if TYPE_CHECKING:
    from rakuten.serving.service import Service

Result = TypeVar("Result")

N_THREADS = 4  # that call the desk; more would wait for each other's turn of the interpreter
N_SLOW_THREADS = 2  # for searches in titles and files, which may take seconds
MAX_NAME = 40  # characters of a person's name
RETRY_SECONDS = 2.0  # after which to try again if the database does not answer
SHOWN_CODES = 5
IMAGE_STARTS = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}


class ReviewService:
    """The review desk as the routes use it."""

    def __init__(self, settings: ApiSettings, open_: Callable[[], ReviewDesk] = open_desk) -> None:
        self._keys_required, self._open = settings.keys_required, open_
        self._desk: ReviewDesk | None = None
        self._lock = Lock()
        self._limiter, self._slow_limiter = CapacityLimiter(N_THREADS), CapacityLimiter(N_SLOW_THREADS)
        self._kept = KeptAnswers()

    def desk(self) -> ReviewDesk:
        """The desk, opened if it is not yet; called in a thread.

        Raises:
            UserError: its database cannot be opened.
        """
        with self._lock:
            if self._desk is None:
                self._desk = self._open()
            return self._desk

    async def call(self, function: Callable[[ReviewDesk], Result], is_slow: bool = False) -> Result:
        """Call a function of the desk in a thread.

        Raises:
            Problem: the database does not answer, or the desk refuses what is asked.
        """
        limiter = self._slow_limiter if is_slow else self._limiter
        return await to_thread.run_sync(partial(self._call, function), limiter=limiter)

    def _call(self, function: Callable[[ReviewDesk], Result]) -> Result:
        try:
            desk = self.desk()
        except UserError as error:
            raise Problem("review_unavailable", str(error), RETRY_SECONDS) from error
        try:
            return function(desk)
        except UserError as error:
            raise Problem("invalid_request", str(error)) from error
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
            raise Problem("review_unavailable", f"the database: {reason}", RETRY_SECONDS) from error

    def kept(self, key: Any, compute: Callable[[], Result]) -> Result:
        """What `compute` returns, or returned a moment ago if that takes long; called in a thread."""
        return self._kept.get(key, compute)

    def role(self, request: Request) -> Role:
        """What whoever asks may do; without keys everything."""
        owner: Owner | None = request.scope["state"].get("key_owner")
        return owner.role if owner is not None else Role.ADMINISTER

    def person(self, request: Request) -> str | None:
        """Who asks: the key's owner, or whom the header X-Reviewer names.

        Raises:
            Problem: the header is no percent-encoded name.
        """
        owner: Owner | None = request.scope["state"].get("key_owner")
        if owner is not None:
            return owner.name
        header = request.headers.get("x-reviewer")
        if header is None:
            return None
        try:
            name = unquote(header, errors="strict").strip()
        except UnicodeDecodeError:
            name = ""
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise Problem("invalid_request", f"X-Reviewer: a name of 1 to {MAX_NAME} characters, percent-encoded UTF-8")
        return name

    def named_person(self, request: Request) -> str:
        """Who asks.

        A form of another site can be posted to a server on loopback, but without this header.

        Raises:
            Problem: nobody is named.
        """
        person = self.person(request)
        if person is None:
            raise Problem("invalid_request", "X-Reviewer: say who decides in this header")
        return person


def add_review_routes(app: FastAPI, service: "Service", page: Path) -> None:
    """Add the routes for those who review.

    Args:
        page: folder of the page's files.
    """

    @app.get("/review", include_in_schema=False)
    async def desk_page() -> FileResponse:
        return FileResponse(page / "review.html", headers={"cache-control": "no-cache"})

    _add_queue_routes(app, service)
    _add_product_routes(app, service)
    _add_decision_routes(app, service.review)


def _add_queue_routes(app: FastAPI, service: "Service") -> None:
    review, problems = service.review, schemas.PROBLEM_RESPONSES

    @app.get("/review/me", response_model=review_schemas.Me, summary="Who I am, and what I may do", responses=problems)
    async def me(request: Request) -> Response:
        agreement = await review.call(lambda desk: desk.required_agreement)
        return json_response(
            {
                "person": review.person(request),
                "role": review.role(request).word,
                "keys_required": service.settings.keys_required,
                "agreement": agreement,
            }
        )

    @app.get(
        "/review/queue", response_model=review_schemas.QueueOut, summary="Take the next products", responses=problems
    )
    async def queue(request: Request, query: Annotated[review_schemas.QueueQuery, Query()]) -> Response:
        person, wanted, language = review.named_person(request), query.wanted(), language_of(request)

        def take(desk: ReviewDesk) -> dict[str, Any]:
            products = desk.take(person, query.number, wanted, query.order)
            made = desk.decisions([each.id for each in products]) if wanted.state == State.DISPUTED else {}
            return {
                "products": [product_body(each, language, made.get(each.id)) for each in products],
                "waiting": review.kept(("waiting", wanted), lambda: desk.waiting(wanted)),
            }

        return json_response(await review.call(take, is_slow=bool(wanted.search)), language)

    @app.get(
        "/review/counts", response_model=review_schemas.CountsOut, summary="How many products wait", responses=problems
    )
    async def counts(query: Annotated[review_schemas.FilterQuery, Query()]) -> Response:
        wanted = query.wanted()

        def count(desk: ReviewDesk) -> dict[str, Any]:
            kappa = review.kept("agreement", desk.agreement)
            agreement = None if kappa is None else {"kappa": kappa[0], "pairs": kappa[1]}
            return review.kept(("counts", wanted), lambda: desk.counts(wanted)) | {"agreement": agreement}

        return json_response(await review.call(count, is_slow=bool(wanted.search)))


def _add_product_routes(app: FastAPI, service: "Service") -> None:
    review, problems = service.review, schemas.PROBLEM_RESPONSES

    @app.get(
        "/review/products/{product_id}/picture",
        summary="The picture of a product",
        response_class=Response,
        responses={**problems, 200: {"content": {"image/*": {}}}, 404: {"model": schemas.ProblemOut}},
    )
    async def picture(product_id: review_schemas.Code) -> Response:
        data = await review.call(partial(_picture, product_id=product_id))
        kind = next((kind for start, kind in IMAGE_STARTS.items() if data and data.startswith(start)), None)
        if data is None or kind is None:
            raise Problem("not_found", f"product {product_id} has no picture")
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=600"})

    @app.get(
        "/review/products/{product_id}/explanation",
        response_model=review_schemas.ReviewExplanation,
        summary="Why the model thinks so",
        responses={**problems, 404: {"model": schemas.ProblemOut}},
    )
    async def explanation(request: Request, product_id: review_schemas.Code) -> Response:
        product = await review.call(lambda desk: desk.product(product_id))
        if product is None:
            raise Problem("not_found", f"the review desk has no product {product_id}")
        language = language_of(request)
        return json_response(await _explanation(service, product, language), language)


def _add_decision_routes(app: FastAPI, review: ReviewService) -> None:
    problems = schemas.PROBLEM_RESPONSES

    @app.post(
        "/review/decisions",
        response_model=review_schemas.DecidedOut,
        summary="Decide about a product",
        responses=problems,
        openapi_extra=schemas.json_body("DecisionIn"),
    )
    async def decide(request: Request) -> Response:
        person = review.named_person(request)
        body = await read_json(request, review_schemas.DecisionIn)
        decision = NewDecision(
            person, body.product_id, body.given(), body.prdtypecode, body.note, body.seconds, body.decided_at
        )
        state = await review.call(lambda desk: desk.decide(decision))
        return json_response({"state": state})

    @app.post(
        "/review/undo",
        response_model=review_schemas.UndoneOut,
        summary="Take my last decision back",
        responses=problems,
    )
    async def undo(request: Request) -> Response:
        person = review.named_person(request)

        def take_back(desk: ReviewDesk) -> ReviewProduct | None:
            product_id = desk.undo(person)
            return None if product_id is None else desk.product(product_id)

        product, language = await review.call(take_back), language_of(request)
        return json_response({"product": None if product is None else product_body(product, language)}, language)


def product_body(
    product: ReviewProduct, language: Language, decisions: list[ReviewDecision] | None = None
) -> dict[str, Any]:
    """The body of `review_schemas.ReviewProductOut`."""
    body = {
        "id": product.id,
        "source": product.source,
        "designation": product.designation,
        "description": product.description,
        "has_picture": product.image is not None,
        "language": product.language,
        "prdtypecode": product.prdtypecode,
        "top": [
            {"prdtypecode": int(code), "label": label_of(int(code), language), "confidence": confidence}
            for code, confidence in product.shown_top[:SHOWN_CODES]
        ],
        "model_version": product.model_version,
        "added_at": product.added_at.isoformat(timespec="seconds"),
    }
    if decisions is not None:
        body["decisions"] = [
            {
                "person": each.person,
                "answer": each.answer,
                "prdtypecode": each.prdtypecode,
                "note": each.note,
                "decided_at": each.decided_at.isoformat(timespec="seconds"),
            }
            for each in decisions
        ]
    return body


def _picture(desk: ReviewDesk, product_id: int) -> bytes | None:
    product = desk.product(product_id)
    try:
        return Path(product.image).read_bytes() if product is not None and product.image else None
    except OSError:  # it was moved or deleted
        return None


async def _explanation(service: "Service", product: ReviewProduct, language: Language) -> dict[str, Any]:
    """The body of `review_schemas.ReviewExplanation`.

    The explanation of a prediction has its confidence too; that would tell a product of the audit sample from others.
    """
    image = await service.review.call(partial(_picture, product_id=product.id))
    max_text, max_bytes = service.settings.max_text, service.settings.max_picture_mb * 1_000_000
    raw = RawProduct(
        product.designation[:max_text],
        product.description[:max_text],
        image if image is not None and len(image) <= max_bytes else None,
    )
    scored = await service.scorer.score(
        await service.decoder.decode_all([raw]), uuid.uuid4().hex, with_explanation=True, is_logged=False
    )
    assert scored.explanation is not None
    code = scored.codes[0][0]
    prediction = {"prdtypecode": code, "label": label_of(code, language)}
    return {"prediction": prediction, **explanation_body(scored.explanation, language, service.training_pictures)}
