"""Processes of this machine: what happens to work that is abandoned."""

import psutil
import pytest

from rakuten.compute.local import LocalExecutor
from tests.support.tasks import crash, process_id, slow


def test_abandoned_work_is_not_finished_and_its_processes_end() -> None:
    executor = LocalExecutor()
    n_processes = executor.start(new_processes=True)
    workers = {executor.submit(process_id, number).result(60) for number in range(20)}
    futures = [executor.submit(slow, number) for number in range(2 * n_processes)]
    executor.abort()
    assert not any(map(psutil.pid_exists, workers))
    assert not all(future.done() and future.exception() is None for future in futures)


def test_there_are_new_processes_after_work_was_abandoned() -> None:
    executor = LocalExecutor()
    executor.start(new_processes=True)
    before = executor.submit(process_id, 0).result(60)
    executor.abort()
    assert executor.submit(process_id, 0).result(60) != before


def test_a_killed_process_is_seen_in_its_future_and_replaced() -> None:
    executor = LocalExecutor()
    executor.start(new_processes=True)
    with pytest.raises(executor.crash_errors):
        executor.submit(crash, 37).result(60)
    assert executor.submit(crash, 1).result(60) == 1
