"""parallel_map: a task for each of many items, in other processes, with the results in order."""

import asyncio
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from itertools import chain, islice
from typing import TypeVar

from rakuten.compute.dask import SCHEDULER_ADDRESS, DaskExecutor
from rakuten.compute.executor import POLL_SECONDS, Executor, ResultFuture
from rakuten.compute.fingerprint import code_fingerprint
from rakuten.compute.local import LocalExecutor
from rakuten.config import ComputeParams
from rakuten.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

PREFETCH = 2  # chunks submitted for each process: one that it works on, one that waits

# None in a worker process: what a task calls runs in the same process.
_executor: ContextVar[Executor | None] = ContextVar("executor", default=LocalExecutor())  # noqa: B039


@contextmanager
def executor_from(params: ComputeParams) -> Iterator[None]:
    """Within the block, work is done by the executor that params.yaml names.

    Raises:
        UserError: the cluster cannot be reached, or has no workers.
    """
    with ExitStack() as stack:
        executor: Executor = LocalExecutor()
        if params.engine == "dask":
            address = os.environ.get(SCHEDULER_ADDRESS, "")
            if not address:
                raise UserError(f"compute.engine is dask: set {SCHEDULER_ADDRESS}, for example to tcp://127.0.0.1:8786")
            executor = DaskExecutor(address, stack)
        token = _executor.set(executor)
        try:
            yield
        finally:
            _executor.reset(token)


def is_remote() -> bool:
    """Whether work is done on machines that need not share this one's local files."""
    return isinstance(_executor.get(), DaskExecutor)


def parallel_map(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    chunk_size: int,
    label: Callable[[Item], str] = str,
    new_processes: bool = False,
) -> Iterator[Result]:
    """The result of the task for each item, in the order of the items.

    Items are read as they are needed; only a few chunks for each process are held.

    Args:
        task: a function of a module, or a `partial` of one.
        chunk_size: items that are sent together, and lost together when a process dies.
        label: what an item is called in an error.
        new_processes: work in new processes. loky replaces a process that has grown by 300 MB since its first task,
            with a warning; tasks that load an encoder must be the first.

    Raises:
        UserError: a task raised it, raised anything else, or killed its process; the item is named. Or the cluster is
            lost.
    """
    remaining = iter(items)
    chunks = iter(lambda: list(islice(remaining, chunk_size)), [])
    first_chunks = list(islice(chunks, 2))
    executor = _executor.get()
    if executor is None or len(first_chunks) < 2:  # another process would cost more than it saves
        for item in chain(*first_chunks, remaining):
            yield _call(task, label, item)
        return
    n_processes, completed = executor.start(new_processes), False
    submitted: deque[tuple[list[Item], ResultFuture[list[Result]]]] = deque()
    try:
        for chunk in chain(first_chunks, chunks):
            if len(submitted) >= PREFETCH * n_processes:
                yield from _chunk_results(executor, task, label, *submitted.popleft())
            submitted.append((chunk, _submit(executor, task, label, chunk)))
        while submitted:
            yield from _chunk_results(executor, task, label, *submitted.popleft())
        completed = True
    finally:
        if not completed:
            executor.abort()


def _submit(
    executor: Executor, task: Callable[[Item], Result], label: Callable[[Item], str], chunk: list[Item]
) -> ResultFuture[list[Result]]:
    try:
        return executor.submit(_run_chunk, code_fingerprint(), task, label, chunk)
    except executor.crash_errors as error:  # the processes broke over another chunk: this one is tried in its turn
        failed: Future[list[Result]] = Future()
        failed.set_exception(error)
        return failed
    except Exception:
        executor.check_alive()  # says it better if the cluster is the reason
        raise


def _chunk_results(
    executor: Executor,
    task: Callable[[Item], Result],
    label: Callable[[Item], str],
    chunk: list[Item],
    future: ResultFuture[list[Result]],
) -> Iterator[Result]:
    """The results of a chunk. If it killed its process, its items are tried one by one, to find the one that does."""
    try:
        yield from _wait(executor, future)
        return
    except executor.crash_errors:
        pass
    for item in chunk:
        try:
            yield from _wait(executor, _submit(executor, task, label, [item]))
        except executor.crash_errors as error:
            raise UserError(
                f"{label(item)}: kills every process that works on it (out of memory, or a crash in a library); "
                "fix or remove it"
            ) from error


def _wait(executor: Executor, future: ResultFuture[list[Result]]) -> list[Result]:
    while True:
        try:
            return future.result(timeout=POLL_SECONDS)
        except TimeoutError:
            executor.check_alive()
        except (CancelledError, asyncio.CancelledError, OSError) as error:  # a task's own errors are UserErrors
            executor.check_alive()
            raise executor.connection_error(error) from error


def _run_chunk(
    fingerprint: str, task: Callable[[Item], Result], label: Callable[[Item], str], chunk: list[Item]
) -> list[Result]:
    """Work on a chunk, in a worker process."""
    if fingerprint != code_fingerprint():
        raise UserError(
            f"a worker on {platform.node()} has other code or other libraries than this machine; "
            "update it to the same commit and requirements.txt"
        )
    _executor.set(None)
    return [_call(task, label, item) for item in chunk]


def _call(task: Callable[[Item], Result], label: Callable[[Item], str], item: Item) -> Result:
    try:
        return task(item)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{label(item)}: {type(error).__name__}: {error}") from error
