"""The queue: what is scored together, what is refused, errors, stopping."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests

from rakuten.models.classifier import TopK
from rakuten.serving import scorer as module
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.model_holder import LoadedModel
from rakuten.serving.problems import Problem
from rakuten.serving.scorer import (
    COSTLY_CHARACTERS,
    MAX_BATCH,
    BatchingScorer,
    RawProduct,
    ScoredProducts,
    prediction_ids,
)
from tests.support.api import POOL, Api, base64_of, check_problem, jpeg, post

HANG_SECONDS = 30


class FakeModel:
    """Predicts the length of each title, once it is released; remembers the titles of each batch."""

    classes = (0,)

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started, self.released = threading.Event(), threading.Event()

    @property
    def classifier(self) -> "FakeModel":
        return self

    def featurise_many(self, texts: Sequence[tuple[str, str]], _: object) -> tuple[list[str], list[str]]:
        titles = [title for title, _ in texts]
        self.batches.append(titles)
        self.started.set()
        assert self.released.wait(HANG_SECONDS)
        if "invalid" in titles:
            raise ValueError("this product cannot be scored")
        return titles, [f"image of {title}" for title in titles]

    def top_k(self, batch: list[str], _: int) -> TopK:
        codes = np.array([[len(title)] for title in batch])
        novelty = np.where(codes[:, 0] == 1, np.nan, codes[:, 0] / 100)
        return TopK(codes, codes / 100, codes[:, 0] > 3, codes[:, 0] > 2, novelty)


class FakeLog:
    def __init__(self) -> None:
        self.records: list[Any] = []

    def enqueue(self, record: Any) -> None:
        self.records.append(record)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def make_scorer(model: FakeModel) -> Iterator[Callable[..., BatchingScorer]]:
    """Scorers of one thread on `model`, stopped at the end."""
    scorers = []

    def make(**kwargs: Any) -> BatchingScorer:
        loaded = LoadedModel(model, "one", "local", None, {})  # type: ignore[arg-type]
        arguments = {"metrics": ApiMetrics(), "queue_size": 256, "queue_timeout_seconds": HANG_SECONDS, "n_threads": 1}
        scorers.append(BatchingScorer(lambda: loaded, **(arguments | kwargs)))
        return scorers[-1]

    yield make
    model.released.set()
    for scorer in scorers:
        scorer.stop()


def products(*titles: str) -> list[RawProduct]:
    return [RawProduct(title, "", None) for title in titles]


def score_while_busy(
    scorer: BatchingScorer,
    model: FakeModel,
    *requests: Sequence[str],
    explained: Sequence[int] = (),
    before_release: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> list[ScoredProducts | BaseException]:
    """Send one product, and the requests (titles of each) while it is scored; returns the results of the requests."""

    async def run() -> list[ScoredProducts | BaseException]:
        first = asyncio.create_task(scorer.score(products("first"), "first"))
        assert await asyncio.to_thread(model.started.wait, HANG_SECONDS)
        tasks = [
            asyncio.create_task(scorer.score(products(*titles), f"request{number}", number in explained))
            for number, titles in enumerate(requests)
        ]
        await asyncio.sleep(0)  # every task runs until it waits for its result
        if before_release is not None:
            await before_release()
        model.released.set()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG_SECONDS)
        await first
        return results

    return asyncio.run(run())


def check_overloaded(result: ScoredProducts | BaseException, detail: str) -> None:
    assert isinstance(result, Problem)
    assert result.code == "overloaded"
    assert detail in result.detail
    assert result.retry_after is not None
    assert result.retry_after > 0


def test_products_that_wait_are_scored_together_and_each_request_gets_its_own(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel
) -> None:
    results = score_while_busy(make_scorer(), model, ["a"], ["bb", "ccc"], ["dddd"])
    assert model.batches == [["first"], ["a", "bb", "ccc", "dddd"]]
    assert [result.codes for result in results] == [[[1]], [[2], [3]], [[4]]]
    assert [result.confidence for result in results] == [[[0.01]], [[0.02], [0.03]], [[0.04]]]
    assert [result.needs_review for result in results] == [[False], [False, False], [True]]
    assert [result.is_novel for result in results] == [[False], [False, True], [True]]
    assert [result.novelty for result in results] == [[None], [0.02, 0.03], [0.04]]
    assert results[1].image_states == ["image of bb", "image of ccc"]
    assert [result.prediction_ids for result in results] == [["request0"], ["request1-0", "request1-1"], ["request2"]]
    assert {result.model.model_version for result in results} == {"one"}


def test_a_batch_has_at_most_max_batch_products(make_scorer: Callable[..., BatchingScorer], model: FakeModel) -> None:
    score_while_busy(make_scorer(), model, *[["a"]] * (MAX_BATCH + 8))
    assert [len(batch) for batch in model.batches] == [1, MAX_BATCH, 8]


def test_a_request_is_never_split(make_scorer: Callable[..., BatchingScorer], model: FakeModel) -> None:
    score_while_busy(make_scorer(), model, ["a"], ["b"] * (MAX_BATCH + 8), ["c"])
    assert [len(batch) for batch in model.batches] == [1, 1, MAX_BATCH + 8, 1]


def test_an_explanation_is_made_alone(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "explain", lambda _, batch, text: f"because of {batch}")
    results = score_while_busy(make_scorer(), model, ["a"], ["b"], ["c"], ["d"], explained=[2])
    assert model.batches == [["first"], ["a", "b"], ["c"], ["d"]]
    assert [result.explanation for result in results] == [None, None, "because of ['c']", None]


def test_a_request_over_the_queue_s_size_is_refused(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel
) -> None:
    fits, too_many, also_fits = score_while_busy(make_scorer(queue_size=3), model, ["a"], ["b", "c"], ["d"])
    check_overloaded(too_many, "the queue is full")
    assert [result.codes for result in (fits, also_fits)] == [[[1]], [[1]]]
    assert model.batches == [["first"], ["a", "d"]]


def test_a_request_larger_than_the_queue_is_accepted_while_it_is_empty(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel
) -> None:
    model.released.set()
    result = asyncio.run(make_scorer(queue_size=1).score(products("a", "b", "c"), "name"))
    assert len(result.codes) == 3


def test_a_product_that_waited_too_long_is_refused_and_not_scored(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel
) -> None:
    async def wait_past_the_deadline() -> None:
        await asyncio.sleep(0.1)

    scorer = make_scorer(queue_timeout_seconds=0.05)
    (result,) = score_while_busy(scorer, model, ["late"], before_release=wait_past_the_deadline)
    check_overloaded(result, "it waited too long")
    assert model.batches == [["first"]]


def test_a_product_that_cannot_be_scored_costs_no_other(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    good, invalid, other = score_while_busy(make_scorer(), model, ["a"], ["invalid"], ["bb"])
    assert isinstance(invalid, ValueError)
    assert [result.codes for result in (good, other)] == [[[1]], [[2]]]
    assert caplog.messages == ["a product could not be scored"]


def test_a_client_that_disconnects_costs_no_other(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> ScoredProducts:
        scorer = make_scorer()
        gone = asyncio.create_task(scorer.score(products("first"), "gone"))
        assert await asyncio.to_thread(model.started.wait, HANG_SECONDS)
        other = asyncio.create_task(scorer.score(products("a"), "other"))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.released.set()
        return await other

    assert asyncio.run(run()).codes == [[1]]
    assert caplog.messages == []


def test_a_stop_scores_what_is_queued_and_refuses_the_rest(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel
) -> None:
    scorer = make_scorer()
    stopped = threading.Thread(target=scorer.stop)

    async def stop() -> None:
        stopped.start()
        late = asyncio.create_task(scorer.score(products("late"), "late"))
        await asyncio.sleep(0)
        while not late.done():  # queued before the scorer was told to stop
            late = asyncio.create_task(scorer.score(products("late"), "late"))
            await asyncio.sleep(0)
        with pytest.raises(Problem, match="another instance") as raised:
            await late
        assert raised.value.code == "stopping"

    (result,) = score_while_busy(scorer, model, ["queued"], before_release=stop)
    assert result.codes == [[6]]
    stopped.join(HANG_SECONDS)
    assert not stopped.is_alive()


def test_pending_products_and_batches_are_counted(make_scorer: Callable[..., BatchingScorer], model: FakeModel) -> None:
    metrics = ApiMetrics()
    pending = []

    async def note_pending() -> None:
        pending.append(metrics.registry.get_sample_value("rakuten_api_waiting_products"))

    scorer = make_scorer(metrics=metrics)
    score_while_busy(scorer, model, ["a", "b"], ["c"], before_release=note_pending)
    scorer.stop()
    pending.append(metrics.registry.get_sample_value("rakuten_api_waiting_products"))
    assert pending == [4, 0]
    assert metrics.registry.get_sample_value("rakuten_api_batch_products_count") == 2
    assert metrics.registry.get_sample_value("rakuten_api_batch_products_sum") == 4


def test_every_prediction_is_logged_with_its_id(make_scorer: Callable[..., BatchingScorer], model: FakeModel) -> None:
    log = FakeLog()
    scorer = make_scorer(prediction_log=log)
    score_while_busy(scorer, model, ["a", "bb"], ["ccc"])
    scorer.stop()
    assert [record.prediction_ids for record in log.records] == [["first"], ["request0-0", "request0-1", "request1"]]
    assert log.records[1].texts == [("a", ""), ("bb", ""), ("ccc", "")]
    assert log.records[1].predicted == [1, 2, 3]
    assert {record.model_version for record in log.records} == {"one"}


def test_an_explanation_for_the_review_desk_is_not_logged(
    make_scorer: Callable[..., BatchingScorer], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "explain", lambda _, batch, text: "because")
    model.released.set()
    log = FakeLog()
    scorer = make_scorer(prediction_log=log)
    for is_logged in (False, True):
        asyncio.run(scorer.score(products("a"), str(is_logged), with_explanation=True, is_logged=is_logged))
    scorer.stop()
    assert [record.prediction_ids for record in log.records] == [["True"]]


def test_a_single_prediction_has_the_request_s_name() -> None:
    assert prediction_ids("name", 1) == ["name"]
    assert prediction_ids("name", 3) == ["name-0", "name-1", "name-2"]


def test_an_overloaded_server_refuses_and_goes_on(start: Callable[..., Api]) -> None:
    server = start(API_QUEUE="8")
    image = base64_of(jpeg((500, 500)))

    def ask(_: int) -> requests.Response:
        return post(f"{server.url}/predict", json=POOL | {"picture": image})

    with ThreadPoolExecutor(48) as clients:
        answers = list(clients.map(ask, range(300)))
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            check_problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    assert ask(0).status_code == 200


class SlowOnLongTexts(FakeModel):
    """Waits to be released only for a long title."""

    def featurise_many(self, texts: Sequence[tuple[str, str]], images: object) -> tuple[list[str], list[str]]:
        if len(texts[0][0]) > COSTLY_CHARACTERS:
            return super().featurise_many(texts, images)
        return [title for title, _ in texts], ["none"] * len(texts)


def test_requests_with_much_text_do_not_hold_the_others_up(make_scorer: Callable[..., BatchingScorer]) -> None:
    model = SlowOnLongTexts()
    loaded = LoadedModel(model, "one", "local", None, {})  # type: ignore[arg-type]
    scorer = make_scorer(n_threads=2, queue_size=5)
    scorer._current_model = lambda: loaded

    async def run() -> None:
        long_text = "a" * (COSTLY_CHARACTERS + 1)
        costly = [asyncio.create_task(scorer.score(products(long_text), "costly")) for _ in range(5)]
        assert await asyncio.to_thread(model.started.wait, HANG_SECONDS)
        for _ in range(20):  # more than the queue of the costly has room for
            scored = await asyncio.wait_for(scorer.score(products("a"), "light"), HANG_SECONDS)
            assert scored.codes == [[1]]
        with pytest.raises(Problem, match="the queue is full"):
            await scorer.score(products(long_text), "costly")
        assert not any(task.done() for task in costly)
        model.released.set()
        await asyncio.gather(*costly)

    asyncio.run(run())
