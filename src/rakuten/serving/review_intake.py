"""Puts what the API answers with needs_review into the review desk, off the path of the request (API_REVIEW=true).

Products wait in a bounded queue; a thread of its own stores their pictures and writes them to the database. What does
not fit or cannot be written is dropped and counted: a prediction never waits for the desk, and never fails because of
it. Of the products that the model decided, a random sample goes into the desk too, see `rakuten.review.audit`.
"""

import hashlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rakuten.files import atomic_write
from rakuten.review import sources
from rakuten.review.audit import Top, mixed_confidences
from rakuten.review.desk import ReviewDesk

log = logging.getLogger(__name__)

MAX_WAITING, MAX_WAITING_BYTES = 1000, 32_000_000  # products, and bytes of their pictures, that wait to be written
MAX_WRITTEN = 100  # products at once
REMEMBERED = 200  # products that need review, whose confidences are shown with those of the sample


class Answered(NamedTuple):
    """A product and what the model said about it."""

    designation: str
    description: str
    picture: bytes | None  # that could be used
    top: Top
    needs_review: bool
    is_novel: bool
    model_version: str
    prediction_id: str


class ReviewIntake:
    """Takes answered products from any thread and writes some of them to the desk.

    Args:
        desk: returns the desk; called in the intake's thread.
        pictures: folder of the pictures, each named by the SHA-256 of its content.
        max_bytes: of all pictures; beyond that, products come without.
        audit_share: share of decided products among those that are put into the desk.
        on_drop: called with the number of products that were dropped.
    """

    def __init__(
        self,
        desk: Callable[[], ReviewDesk],
        pictures: Path,
        max_bytes: int,
        audit_share: float,
        on_drop: Callable[[int], object],
    ) -> None:
        self._desk, self._pictures, self._max_bytes, self._on_drop = desk, pictures, max_bytes, on_drop
        self._audit_odds = audit_share / (1 - audit_share)  # products of the sample for each that needs review
        self._random = random.Random()
        self._n_unsure = self._n_decided = 0
        self._unsure: deque[Top] = deque(maxlen=REMEMBERED)
        self._waiting: deque[tuple[Answered, Top]] = deque()  # with the confidences that people see
        self._n_bytes = 0  # of their pictures
        self._condition = threading.Condition()
        self._stopping = False
        self._last_error = ""
        self._stored_bytes: int | None = None  # of all pictures; None: not counted yet
        self._thread = threading.Thread(target=self._run, name="review-intake", daemon=True)
        self._thread.start()

    def offer(self, products: Sequence[Answered]) -> None:
        """Take those that belong into the desk. Never waits for the disk."""
        n_dropped = 0
        with self._condition:
            for product in products:
                shown = self._shown(product)
                if shown is None:
                    continue
                n_bytes = len(product.picture or b"")
                if len(self._waiting) >= MAX_WAITING or self._n_bytes + n_bytes > MAX_WAITING_BYTES:
                    n_dropped += 1
                    continue
                self._waiting.append((product, shown))
                self._n_bytes += n_bytes
            self._condition.notify()
        if n_dropped:
            self._on_drop(n_dropped)

    def stop(self) -> None:
        """Write what waits, then end the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _shown(self, product: Answered) -> Top | None:
        """The confidences that people see of a product that belongs into the desk; None for another one."""
        if product.needs_review:
            self._n_unsure += 1
            self._unsure.append(product.top)
            return product.top
        self._n_decided += 1
        # Each of them with the same probability, whatever it is like, so that the sample is a fair one.
        if len(self._unsure) < 2 or self._random.random() >= self._audit_odds * self._n_unsure / self._n_decided:
            return None
        return mixed_confidences(product.top, *self._random.sample(list(self._unsure), 2))

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._stopping:
                    self._condition.wait()
                batch = [self._waiting.popleft() for _ in range(min(MAX_WRITTEN, len(self._waiting)))]
                self._n_bytes -= sum(len(product.picture or b"") for product, _ in batch)
            if not batch:
                return
            try:
                self._desk().add(self._rows(batch))
                self._last_error = ""
            except Exception as error:  # of any kind: the thread must go on
                self._on_drop(len(batch))
                if str(error) != self._last_error:  # once, not for every product
                    log.warning("products for the review desk are dropped: %s", error)
                self._last_error = str(error)

    def _rows(self, batch: Sequence[tuple[Answered, Top]]) -> list[dict[str, Any]]:
        products = [product for product, _ in batch]
        table = pd.DataFrame(
            {
                "designation": [product.designation for product in products],
                "description": [product.description for product in products],
                "predicted": [int(product.top[0][0]) for product in products],
                "confidence": [product.top[0][1] for product in products],
                "model_version": [product.model_version for product in products],
                "prediction_id": [product.prediction_id for product in products],
                "is_audit": [not product.needs_review for product in products],
                "is_novel": [product.is_novel for product in products],
            }
        )
        names = [hashlib.sha256(product.picture).hexdigest() if product.picture else "" for product in products]
        rows = sources.from_api(table, [product.top for product in products], [shown for _, shown in batch], names)
        for row, product, name in zip(rows, products, names, strict=True):
            if product.picture:
                row["image"] = self._store(product.picture, name)
        return rows

    def _store(self, picture: bytes, name: str) -> str | None:
        """The path of a picture, written unless it is there; None if there is no room for it."""
        path = self._pictures / name[:2] / name
        if path.exists():
            return str(path)
        if self._stored_bytes is None:
            self._stored_bytes = sum(each.stat().st_size for each in self._pictures.glob("*/*"))
        if self._stored_bytes + len(picture) > self._max_bytes:
            return None
        with atomic_write(path) as (partial,):
            partial.write_bytes(picture)
        self._stored_bytes += len(picture)
        return str(path)
