"""Scoring off the event loop: threads that take what waits together, and a limit on how much may wait.

Products that wait are scored together, as many as there are: one alone costs the most, since most
of it is the way around a few dozen n-grams. A single client's product never waits for company.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import TopK
from rakuten.models.explain import Explanation, explain
from rakuten.monitoring.prediction_log import PredictionLog, prediction_record
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.model_holder import LoadedModel
from rakuten.serving.problems import Problem

log = logging.getLogger(__name__)

MAX_BATCH = 32  # products scored at once
TOP_CODES = 27  # ranked for each product: all that the challenge has


class RawProduct(NamedTuple):
    """One raw product."""

    designation: str
    description: str
    picture: bytes | None


class ScoredProducts(NamedTuple):
    """What the model says of products, by the model that said it."""

    champion: LoadedModel
    names: Sequence[str]  # prediction ids
    codes: Sequence[Sequence[int]]  # the likeliest first
    confidence: Sequence[Sequence[float]]
    needs_review: Sequence[bool]
    pictures: Sequence[str]
    explanation: Explanation | None = None


class _Job(NamedTuple):
    products: Sequence[RawProduct]
    name: str
    explained: bool
    until: float
    future: "asyncio.Future[ScoredProducts]"
    loop: asyncio.AbstractEventLoop


class BatchingScorer:
    """Takes products from the event loop, scores them on its own threads."""

    def __init__(
        self,
        current: Callable[[], LoadedModel],
        metrics: ApiMetrics,
        queue: int,
        wait: float,
        threads: int,
        live: PredictionLog | None = None,
    ) -> None:
        self._current, self._metrics, self._queue, self._wait, self._live = current, metrics, queue, wait, live
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._ready = threading.Condition()
        self._stopping = False
        self._pace = 0.02  # seconds a product took lately: behind Retry-After
        self._threads = [threading.Thread(target=self._work, name=f"scorer-{at}", daemon=True) for at in range(threads)]
        for thread in self._threads:
            thread.start()

    async def score(self, products: Sequence[RawProduct], name: str, explained: bool = False) -> ScoredProducts:
        """Score products, which the live log knows by this name.

        Raises:
            Problem: too many wait already, or these waited too long.
        """
        loop = asyncio.get_running_loop()
        job = _Job(products, name, explained, time.monotonic() + self._wait, loop.create_future(), loop)
        with self._ready:
            if self._stopping:
                raise Problem("stopping", "ask again, another instance will answer", 1)
            # A batch that is larger than the whole queue is let in when nothing waits.
            if self._waiting and self._waiting + len(products) > self._queue:
                raise self._overloaded("the queue is full")
            self._jobs.append(job)
            self._waiting += len(products)
            self._metrics.waiting.set(self._waiting)
            self._ready.notify()
        return await job.future

    def stop(self) -> None:
        """Score what was taken in, then end the threads."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _overloaded(self, why: str) -> Problem:
        return Problem("overloaded", f"{why}; ask again later", self._waiting * self._pace / len(self._threads))

    def _take(self) -> list[_Job]:
        """The next jobs that go together: one explanation alone, or predictions."""
        with self._ready:
            while not self._jobs:
                if self._stopping:
                    return []
                self._ready.wait()
            jobs = [self._jobs.popleft()]
            count = len(jobs[0].products)
            while self._jobs and not jobs[0].explained and not self._jobs[0].explained:
                count += len(self._jobs[0].products)
                if count > MAX_BATCH:
                    break
                jobs.append(self._jobs.popleft())
            return jobs

    def _work(self) -> None:
        while jobs := self._take():
            started = time.monotonic()
            late = [job for job in jobs if job.until < started]
            timely = [job for job in jobs if job.until >= started]
            for job in late:
                _set_result(job, self._overloaded("it waited too long"))
            if timely:
                self._run(timely)
            count = sum(len(job.products) for job in jobs)
            with self._ready:
                self._waiting -= count
                self._metrics.waiting.set(self._waiting)
                if timely:
                    self._pace += 0.1 * ((time.monotonic() - started) / count - self._pace)

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Score jobs together; where that fails each is tried alone, so that one bad product costs nobody else."""
        try:
            champion = self._current()
            described, ranked, answers = _score_jobs(champion, jobs)
            for job, scored in zip(jobs, answers, strict=True):
                _set_result(job, scored)
            self._metrics.batch.observe(sum(len(job.products) for job in jobs))
            if self._live is not None:
                names = [name for scored in answers for name in scored.names]
                texts = [(product.designation, product.description) for job in jobs for product in job.products]
                self._live.put(prediction_record(champion.model_version, names, texts, described, ranked))
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._run([job])
                return
            if not isinstance(error, Problem):
                log.exception("a product could not be scored")
            _set_result(jobs[0], error)


def _score_jobs(champion: LoadedModel, jobs: Sequence[_Job]) -> tuple[FeatureBatch, TopK, list[ScoredProducts]]:
    products = [product for job in jobs for product in job.products]
    named = [(product.designation, product.description) for product in products]
    described, pictures = champion.model.featurise_many(named, [product.picture for product in products])
    ranked = champion.model.classifier.top_k(described, TOP_CODES)
    codes, confidence, review = ranked.codes.tolist(), ranked.confidence.tolist(), ranked.needs_review.tolist()
    found, at = [], 0
    for job in jobs:
        rows = slice(at, at + len(job.products))
        at = rows.stop
        why = explain(champion.model.classifier, described) if job.explained else None
        names = prediction_ids(job.name, len(job.products))
        found.append(ScoredProducts(champion, names, codes[rows], confidence[rows], review[rows], pictures[rows], why))
    return described, ranked, found


def prediction_ids(name: str, count: int) -> list[str]:
    """What each product's prediction is called: a request's name, numbered where it had several."""
    return [name] if count == 1 else [f"{name}-{at}" for at in range(count)]


def _set_result(job: _Job, outcome: ScoredProducts | Exception) -> None:
    def settle() -> None:
        if job.future.done():  # the client went away
            return
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

    job.loop.call_soon_threadsafe(settle)
