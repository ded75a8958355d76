"""Work on this machine's cores; on a cluster: tests/integration/test_dask.py."""

import os
from collections.abc import Iterator
from itertools import islice

import psutil
import pytest

from rakuten.compute import executor, executor_from, parallel_map
from rakuten.config import ComputeParams
from rakuten.errors import UserError
from tests.support.tasks import crash, fail, product, ten_more, where

LOCAL = ComputeParams(engine="local")


def refuse(number: int) -> int:
    raise UserError("a line for the user")


def test_what_fits_one_batch_runs_here_and_more_runs_in_processes() -> None:
    with executor_from(LOCAL):
        assert set(parallel_map(where, range(5), 5)) == {os.getpid()}
        assert list(parallel_map(where, [], 5)) == []
        found = set(parallel_map(where, range(20), 5))
    assert os.getpid() not in found


def test_fresh_processes_have_done_nothing_before() -> None:
    before = set(parallel_map(where, range(20), 1))
    assert not before & set(parallel_map(where, range(20), 1, fresh=True))


def test_what_a_task_calls_runs_in_its_own_process() -> None:
    for found in parallel_map(ten_more, range(4), 1):
        assert len(set(found)) == 1
        assert found[0] != os.getpid()


def test_what_a_single_task_calls_has_all_processes() -> None:
    """A file of one chunk is scored here; its texts and pictures are embedded on all cores."""
    (found,) = parallel_map(ten_more, range(1), 1)
    assert found[0] == os.getpid()
    assert os.getpid() not in found[1:]


def test_items_are_read_as_they_are_needed() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(10_000):
            read += 1
            yield number

    results = parallel_map(where, items(), 2)
    next(results)
    assert read <= 2 * (executor.PREFETCH * (os.cpu_count() or 1) + 2)
    results.close()  # type: ignore[attr-defined]


def test_work_that_is_given_up_ends_with_its_processes() -> None:
    for taken in range(5, 13):  # pytest fails a test in which a thread dies; without care loky's does, half of the time
        results = parallel_map(where, range(1_000), 1)
        workers = set(islice(results, taken))
        assert all(map(psutil.pid_exists, workers))
        results.close()  # type: ignore[attr-defined]
        assert not any(map(psutil.pid_exists, workers))


def test_an_error_names_the_item_and_one_for_the_user_stays_as_it_is() -> None:
    for batch in (5, 100):  # in processes, and here
        with pytest.raises(UserError, match="^product 37: ValueError: cannot be squared$"):
            list(parallel_map(fail, range(50), batch, product))
        with pytest.raises(UserError, match="^a line for the user$"):
            list(parallel_map(refuse, range(20), batch, product))
    assert list(parallel_map(fail, range(6), 1)) == [*range(6)]  # the processes are there again


def test_an_item_that_kills_its_process_is_named_and_the_others_are_done() -> None:
    results = []
    with pytest.raises(UserError, match="^product 37: kills every process"):
        for result in parallel_map(crash, range(60), 5, product):
            results.append(result)
    assert results == [*range(37)]  # its batch was tried one by one
    assert len(list(parallel_map(where, range(4), 1))) == 4


def test_the_engine_is_as_before_when_its_block_ends() -> None:
    before = executor._executor
    with pytest.raises(UserError), executor_from(LOCAL):
        assert executor._executor is not before
        raise UserError("x")
    assert executor._executor is before
