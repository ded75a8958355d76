"""All cores of this machine: one process for each, by loky."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor

Result = TypeVar("Result")

IDLE_SECONDS = 60.0  # after which a process without work ends
# One thread in each process: sums of floats depend on how many threads share them.
SINGLE_THREAD_ENV = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class LocalExecutor:
    """See `executor.Executor`."""

    crash_errors: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self) -> None:
        self._unfinished: set[Future[Any]] = set()

    def start(self, new_processes: bool) -> int:
        if new_processes:
            self.abort()
        return int(cpu_count())

    def submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        future: Future[Result] = self._pool().submit(function, *arguments)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def abort(self) -> None:
        # loky's own thread fails if the processes are killed while work waits to be handed to them. It has been handed
        # over once it counts as running, which takes no time: there is room for all that `parallel_map` submits.
        while any(not (future.running() or future.done()) for future in tuple(self._unfinished)):
            time.sleep(0.001)
        self._pool().shutdown(wait=True, kill_workers=True)

    def check_alive(self) -> None:
        """Nothing to check: a process that dies breaks its futures."""

    def connection_error(self, error: BaseException) -> BaseException:
        return error

    def _pool(self) -> Any:
        """The processes; new ones where there are none or they broke."""
        return get_reusable_executor(cpu_count(), env=SINGLE_THREAD_ENV, timeout=IDLE_SECONDS)
