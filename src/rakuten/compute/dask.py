"""The workers of a Dask cluster. The only module that imports distributed.

joblib's backend for Dask does not notice a task that fails, and distributed's own executor for concurrent.futures fails
where a worker dies that held a result; so futures are used directly.
"""

import logging
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from rakuten.compute.executor import ResultFuture
from rakuten.errors import UserError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SCHEDULER_ADDRESS = "DASK_SCHEDULER_ADDRESS"  # environment variable
CONNECT_SECONDS, WORKER_SECONDS = 10.0, 60.0  # to reach the scheduler, and to wait for a worker


class DaskExecutor:
    """See `executor.Executor`."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        """Connect to a scheduler.

        Args:
            stack: closes the connection at its end.

        Raises:
            UserError: distributed is not installed, the scheduler cannot be reached, or it has no worker.
        """
        try:
            from distributed import Client, KilledWorker
            from distributed.versions import VersionMismatchWarning
        except ModuleNotFoundError as error:
            raise UserError("compute.engine dask needs an extra: `pip install -e '.[dask]'`") from error

        # What has to be the same is in the code's fingerprint.
        warnings.filterwarnings("ignore", category=VersionMismatchWarning)
        if not log.isEnabledFor(logging.DEBUG):  # a lost connection, which they log with tracebacks, is one line here
            for name in list(logging.root.manager.loggerDict):
                if name.partition(".")[0] in ("asyncio", "tornado", "distributed"):
                    logging.getLogger(name).setLevel(logging.CRITICAL)
        self.address = address
        self.crash_errors: tuple[type[BaseException], ...] = (KilledWorker,)
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
            self._client = stack.enter_context(client)
            self._client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise UserError(
                f"{SCHEDULER_ADDRESS}: no worker at {address} after {WORKER_SECONDS:.0f} s; start one"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"{SCHEDULER_ADDRESS}: no Dask scheduler at {address} ({error}); "
                "start it, or set compute.engine to local"
            ) from error

    def start(self, new_processes: bool) -> int:
        return max(1, self._n_threads())  # a worker that has come may be gone again

    def submit(self, function: Callable[..., Result], *arguments: object) -> ResultFuture[Result]:
        future: ResultFuture[Result] = self._client.submit(function, *arguments, pure=False)
        return future

    def abort(self) -> None:
        """Nothing to do: the scheduler forgets a future that nobody holds."""

    def check_alive(self) -> None:
        self._n_threads()

    def connection_error(self, error: BaseException) -> BaseException:
        return UserError(
            f"the Dask scheduler at {self.address} is gone; start it and run again: finished embeddings are kept"
        )

    def _n_threads(self) -> int:
        """Threads of all workers, asked of the scheduler: what the client remembers of it outlives it."""
        try:
            if not self._client.nthreads():
                self._client.wait_for_workers(1, timeout=WORKER_SECONDS)
            return sum(self._client.nthreads().values())
        except TimeoutError as error:
            raise UserError(
                f"{self.address}: no worker left after {WORKER_SECONDS:.0f} s; start one and run again"
            ) from error
        except Exception as error:  # it went while it was asked: one of half a dozen types
            raise self.connection_error(error) from error
