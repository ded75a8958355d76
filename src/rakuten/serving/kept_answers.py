"""Keeps answers that take long to compute for a while that depends on how long they took."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

Result = TypeVar("Result")

CHEAP_SECONDS = 0.02  # what took no longer is not kept
KEPT_FACTOR = 20  # kept for so many times as long as it took: computing it takes a twentieth of the time at most
MAX_ANSWERS = 500


class KeptAnswers:
    """Answers by their keys. While one thread computes an answer again, others get the last one."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The answer that is kept under a key, or else what `compute` returns."""
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            if len(self._entries) > MAX_ANSWERS:
                self._entries.popitem(last=False)
            if entry.until > self._now():
                return entry.answer  # type: ignore[no-any-return]
        if not entry.lock.acquire(blocking=not entry.is_kept):
            return entry.answer  # type: ignore[no-any-return]
        try:
            started = self._now()
            if entry.until > started:  # another thread has just computed it
                return entry.answer  # type: ignore[no-any-return]
            answer = compute()
            ended = self._now()
            entry.is_kept = ended - started > CHEAP_SECONDS
            entry.answer = answer if entry.is_kept else None
            entry.until = ended + KEPT_FACTOR * (ended - started) if entry.is_kept else 0.0
            return answer
        finally:
            entry.lock.release()


class _Entry:
    def __init__(self) -> None:
        self.lock = Lock()
        self.is_kept = False
        self.answer: Any = None
        self.until = 0.0
