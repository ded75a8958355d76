"""Scores products in threads of its own, off the event loop, with a limit on how many may wait.

Products that wait are scored together, up to MAX_BATCH: a product scored alone costs the most, since most of the time
goes into the fixed costs of vectorising a few dozen n-grams. A product is never delayed to fill a batch.

Requests with much text wait for each other in a lane of their own, which at most half of the threads serve: a few of
them would hold everybody else up for seconds.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rakuten.features.encoders.preprocessing import DecodedImage
from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import TopK
from rakuten.models.explain import Explanation, explain
from rakuten.monitoring.prediction_log import PredictionLog, prediction_record
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.model_holder import LoadedModel
from rakuten.serving.problems import Problem

log = logging.getLogger(__name__)

MAX_BATCH = 32  # products
COSTLY_CHARACTERS = 20_000  # of all texts of a request, from which it is in the lane of the costly
INITIAL_SECONDS_PER_PRODUCT = 0.02
SMOOTHING = 0.1  # weight of the newest batch in the moving average of seconds per product


class RawProduct(NamedTuple):
    """A product as it was sent."""

    designation: str
    description: str
    image: bytes | DecodedImage | None  # an image file, or what `ImageDecoder` made of it


@dataclass(frozen=True)
class ScoredProducts:
    """The predictions for the products of one request."""

    model: LoadedModel  # that made them
    prediction_ids: Sequence[str]
    codes: Sequence[Sequence[int]]  # products x classes, the most probable first
    confidence: Sequence[Sequence[float]]  # like codes
    needs_review: Sequence[bool]
    parents: Sequence[str]  # key of each product's parent; "" where none is sure or no review is needed
    is_novel: Sequence[bool]
    novelty: Sequence[float | None]  # None where it is not known
    image_states: Sequence[str]  # what became of each image: see `PyfuncModel.featurise_many`
    explanation: Explanation | None = None  # of the first product, if it was asked for


@dataclass(frozen=True)
class _Job:
    """The products of one request in the queue."""

    products: Sequence[RawProduct]
    name: str  # for `prediction_ids`
    with_explanation: bool
    is_logged: bool
    deadline: float  # of time.monotonic(): not scored after it
    is_costly: bool
    future: "asyncio.Future[ScoredProducts]"

    def set_result(self, result: ScoredProducts | Exception) -> None:
        """Wake up the request that waits; callable from any thread."""
        self.future.get_loop().call_soon_threadsafe(self._set_result, result)

    def _set_result(self, result: ScoredProducts | Exception) -> None:
        if self.future.done():  # the client has disconnected
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class BatchingScorer:
    """A queue of products, and the threads that score them.

    Args:
        current_model: returns the model to score with.
        queue_size: products of each lane that may wait or be scored at once.
        queue_timeout_seconds: a product that has waited longer is not scored.
        n_threads: scoring threads.
        prediction_log: records each prediction; None to record nothing.
    """

    def __init__(
        self,
        current_model: Callable[[], LoadedModel],
        metrics: ApiMetrics,
        queue_size: int,
        queue_timeout_seconds: float,
        n_threads: int,
        prediction_log: PredictionLog | None = None,
    ) -> None:
        self._current_model, self._metrics, self._prediction_log = current_model, metrics, prediction_log
        self._queue_size, self._queue_timeout_seconds = queue_size, queue_timeout_seconds
        # By whether they are costly: the jobs that wait, and how many products wait or are being scored.
        self._lanes: dict[bool, deque[_Job]] = {False: deque(), True: deque()}
        self._n_pending = {False: 0, True: 0}
        self._condition = threading.Condition()
        self._stopping = False
        self._seconds_per_product = INITIAL_SECONDS_PER_PRODUCT  # a moving average, for Retry-After
        self._threads = [
            threading.Thread(
                target=self._work, args=(self._lanes_of(number, n_threads),), name=f"scorer-{number}", daemon=True
            )
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    async def score(
        self, products: Sequence[RawProduct], name: str, with_explanation: bool = False, is_logged: bool = True
    ) -> ScoredProducts:
        """Score the products of one request.

        Args:
            name: unique; the predictions' ids are made from it.
            with_explanation: also explain the prediction of the first product.
            is_logged: whether the prediction log gets them; only a request with an explanation may say no.

        Raises:
            Problem: the queue is full, the products waited too long, or the server is stopping.
        """
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._queue_timeout_seconds
        is_costly = sum(len(product.designation) + len(product.description) for product in products) > COSTLY_CHARACTERS
        job = _Job(products, name, with_explanation, is_logged, deadline, is_costly, loop.create_future())
        with self._condition:
            if self._stopping:
                raise Problem("stopping", "try again, another instance will answer", 1)
            # A batch that is larger than the whole queue is accepted while the queue is empty.
            if self._n_pending[is_costly] and self._n_pending[is_costly] + len(products) > self._queue_size:
                raise self._overloaded("the queue is full", is_costly)
            self._lanes[is_costly].append(job)
            self._add_pending(is_costly, len(products))
            self._condition.notify_all()
        return await job.future

    def stop(self) -> None:
        """Score everything in the queue, then end the threads; products that come later are refused."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _lanes_of(number: int, n_threads: int) -> Sequence[bool]:
        """The lanes that a thread serves, by whether they are of costly jobs, in the order in which it looks there."""
        if n_threads == 1:
            return (False, True)
        return (True, False) if number < n_threads // 2 else (False,)

    def _add_pending(self, is_costly: bool, count: int) -> None:
        """Change the number of pending products; the lock is held by the caller."""
        self._n_pending[is_costly] += count
        self._metrics.pending_products.set(sum(self._n_pending.values()))

    def _overloaded(self, reason: str, is_costly: bool) -> Problem:
        """The problem to answer with; Retry-After is the time that the pending products take."""
        seconds = self._n_pending[is_costly] * self._seconds_per_product / len(self._threads)
        return Problem("overloaded", f"{reason}; try again later", seconds)

    def _next_batch(self, lanes: Sequence[bool]) -> list[_Job]:
        """Wait for jobs and take those that are scored together; empty when the scorer has stopped.

        A batch is one job that is costly or has an explanation, or others, with MAX_BATCH products unless the first has
        more.
        """
        with self._condition:
            while not (waiting := [self._lanes[lane] for lane in lanes if self._lanes[lane]]):
                if self._stopping:
                    return []
                self._condition.wait()
            jobs = [waiting[0].popleft()]
            n_products = len(jobs[0].products)
            while waiting[0] and not any(job.is_costly or job.with_explanation for job in (jobs[0], waiting[0][0])):
                n_products += len(waiting[0][0].products)
                if n_products > MAX_BATCH:
                    break
                jobs.append(waiting[0].popleft())
            return jobs

    def _work(self, lanes: Sequence[bool]) -> None:
        """What each thread runs."""
        while jobs := self._next_batch(lanes):
            started = time.monotonic()
            on_time = [job for job in jobs if job.deadline >= started]
            for job in jobs:
                if job.deadline < started:
                    job.set_result(self._overloaded("it waited too long", job.is_costly))
            if on_time:
                self._score_jobs(on_time)
            n_products = sum(len(job.products) for job in jobs)
            with self._condition:
                self._add_pending(jobs[0].is_costly, -n_products)
                if on_time:
                    latest = (time.monotonic() - started) / n_products
                    self._seconds_per_product += SMOOTHING * (latest - self._seconds_per_product)

    def _score_jobs(self, jobs: Sequence[_Job]) -> None:
        """Score jobs as one batch. If that fails score each alone, so that only the faulty job gets the error."""
        try:
            model = self._current_model()
            batch, top, results = _predict(model, jobs)
            for job, result in zip(jobs, results, strict=True):
                job.set_result(result)
            self._metrics.batch_size.observe(len(batch))
            if self._prediction_log is not None and jobs[0].is_logged:
                ids = [prediction_id for result in results for prediction_id in result.prediction_ids]
                texts = [(product.designation, product.description) for job in jobs for product in job.products]
                self._prediction_log.enqueue(prediction_record(model.model_version, ids, texts, batch, top))
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._score_jobs([job])
                return
            if not isinstance(error, Problem):
                log.exception("a product could not be scored")
            jobs[0].set_result(error)


def prediction_ids(name: str, n_products: int) -> list[str]:
    """The ids of a request's predictions: its name, with a number if it has several products."""
    return [name] if n_products == 1 else [f"{name}-{number}" for number in range(n_products)]


def _predict(model: LoadedModel, jobs: Sequence[_Job]) -> tuple[FeatureBatch, TopK, list[ScoredProducts]]:
    """The features and predictions of all products of some jobs, and the result of each job."""
    products = [product for job in jobs for product in job.products]
    texts = [(product.designation, product.description) for product in products]
    batch, image_states = model.model.featurise_many(texts, [product.image for product in products])
    classifier = model.model.classifier
    top = classifier.top_k(batch, len(classifier.classes))
    codes, confidence, needs_review = top.codes.tolist(), top.confidence.tolist(), top.needs_review.tolist()
    is_novel = top.is_novel.tolist()
    novelty = [None if math.isnan(value) else value for value in top.novelty.tolist()]
    results, start = [], 0
    for job in jobs:
        rows = slice(start, start + len(job.products))
        start = rows.stop
        results.append(
            ScoredProducts(
                model=model,
                prediction_ids=prediction_ids(job.name, len(job.products)),
                codes=codes[rows],
                confidence=confidence[rows],
                needs_review=needs_review[rows],
                parents=top.parents[rows],
                is_novel=is_novel[rows],
                novelty=novelty[rows],
                image_states=image_states[rows],
                explanation=explain(classifier, batch, text=texts[0]) if job.with_explanation else None,
            )
        )
    return batch, top, results
