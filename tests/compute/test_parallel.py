"""Work on this machine's cores; on a cluster: tests/integration/test_dask.py."""

import os
from collections.abc import Iterator
from itertools import islice

import psutil
import pytest

from rakuten.compute import executor_from, is_remote, parallel, parallel_map
from rakuten.config import ComputeParams
from rakuten.errors import UserError
from tests.support.tasks import crash, fail, process_id, product_label, slow, ten_nested

LOCAL = ComputeParams(engine="local")


def refuse(number: int) -> int:
    raise UserError("a line for the user")


def test_one_chunk_runs_in_this_process_and_more_run_in_others() -> None:
    with executor_from(LOCAL):
        assert set(parallel_map(process_id, range(5), 5)) == {os.getpid()}
        assert list(parallel_map(process_id, [], 5)) == []
        found = set(parallel_map(process_id, range(20), 5))
    assert os.getpid() not in found


def test_new_processes_have_done_nothing_before() -> None:
    before = set(parallel_map(process_id, range(20), 1))
    assert not before & set(parallel_map(process_id, range(20), 1, new_processes=True))


def test_tasks_that_a_task_starts_run_in_its_process() -> None:
    for found in parallel_map(ten_nested, range(4), 1):
        assert len(set(found)) == 1
        assert found[0] != os.getpid()


def test_tasks_that_a_single_task_starts_run_in_all_processes() -> None:
    """A file of one chunk is scored in this process; its texts and images are embedded on all cores."""
    (found,) = parallel_map(ten_nested, range(1), 1)
    assert found[0] == os.getpid()
    assert os.getpid() not in found[1:]


def test_items_are_read_as_they_are_needed() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(10_000):
            read += 1
            yield number

    results = parallel_map(process_id, items(), 2)
    next(results)
    assert read <= 2 * (parallel.PREFETCH * (os.cpu_count() or 1) + 2)
    results.close()  # type: ignore[attr-defined]


@pytest.mark.heavy
def test_abandoned_work_ends_with_its_processes() -> None:
    for taken in range(5, 13):  # pytest fails a test in which a thread fails, as loky's own thread may
        results = parallel_map(process_id, range(1_000), 1)
        workers = set(islice(results, taken))
        assert all(map(psutil.pid_exists, workers))
        results.close()  # type: ignore[attr-defined]
        assert not any(map(psutil.pid_exists, workers))


def test_an_error_names_the_item_and_one_for_the_user_stays_as_it_is() -> None:
    for chunk_size in (5, 100):  # in processes, and here
        with pytest.raises(UserError, match="^product 37: ValueError: cannot be squared$"):
            list(parallel_map(fail, range(50), chunk_size, product_label))
        with pytest.raises(UserError, match="^a line for the user$"):
            list(parallel_map(refuse, range(20), chunk_size, product_label))
    assert list(parallel_map(fail, range(6), 1)) == [*range(6)]  # the processes are there again


def test_an_item_that_kills_its_process_is_named_and_those_before_it_are_done() -> None:
    results = []
    with pytest.raises(UserError, match="^product 37: kills every process"):
        for result in parallel_map(crash, range(60), 5, product_label):
            results.append(result)
    assert results == [*range(37)]  # its batch was tried one by one
    assert len(list(parallel_map(process_id, range(4), 1))) == 4


def test_the_executor_of_a_block_is_used_within_it_alone() -> None:
    with pytest.raises(UserError, match="compute.engine is dask"), executor_from(ComputeParams(engine="dask")):
        pass
    with executor_from(LOCAL):
        inside = set(parallel_map(process_id, range(20), 5))
    assert not is_remote()
    assert os.getpid() not in inside


def test_a_task_that_is_waited_for_long_is_still_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "POLL_SECONDS", 0.05)
    assert list(parallel_map(slow, range(4), 1)) == [0, 1, 2, 3]
