"""Where the heavy work runs: on this machine's cores, or on the workers of a Dask cluster, with the same results.

Work is a task, a function of one item, over many items: `each`. The only place that imports
distributed. (joblib's backend for Dask does not hear of a task that fails, and distributed's own
executor for concurrent.futures fails where a worker dies that held a result.)
"""

import asyncio
import hashlib
import logging
import os
import platform
import unicodedata
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor

from rakuten.config import ROOT, ComputeParams
from rakuten.errors import UserError

log = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741
R = TypeVar("R", covariant=True)

ADDRESS = "DASK_SCHEDULER_ADDRESS"
CONNECT, WORKERS = 10.0, 60.0  # seconds to reach the scheduler, and to wait for a worker
IDLE = 60.0  # seconds after which a process without work ends
AHEAD = 3  # batches for each core that are under way or wait
LOOK = 5.0  # seconds between looks at whether anybody still works
# One thread in each process: sums of floats depend on how they are cut.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LIBRARIES = ("ftfy", "numpy", "onnxruntime", "pandas", "pillow", "scikit-learn", "scipy", "sentencepiece", "tokenizers")


class Promise(Protocol[R]):
    """A result that comes, of either engine."""

    def result(self, timeout: float) -> R: ...


class Engine(Protocol):
    """Who does the work."""

    @property
    def dead(self) -> tuple[type[BaseException], ...]:
        """What a promise raises whose process was killed over it."""

    def begin(self, fresh: bool) -> int:
        """Be ready to work, in processes that have done nothing before if asked to; how many tasks go at a time."""

    def submit(self, function: Callable[..., R], *arguments: object) -> "Promise[R]": ...

    def give_up(self) -> None:
        """What was submitted is of no use any more. To cancel it first breaks either engine's own end of it."""

    def check(self) -> None:
        """Raise UserError if nobody works any more."""


class Local:
    """All cores of this machine."""

    dead: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def begin(self, fresh: bool) -> int:
        if fresh:
            self.give_up()
        return int(cpu_count())

    def submit(self, function: Callable[..., R], *arguments: object) -> "Promise[R]":
        promise: Promise[R] = self._pool().submit(function, *arguments)
        return promise

    def give_up(self) -> None:
        pool = self._pool()
        with pool._work_ids.mutex:  # loky forgets the work that waits, but not its numbers: its thread dies over one
            pool._work_ids.queue.clear()
        pool.shutdown(wait=True, kill_workers=True)

    def check(self) -> None:
        pass

    def _pool(self) -> Any:
        """The processes, new ones where there are none or they broke."""
        return get_reusable_executor(cpu_count(), env=THREADS, timeout=IDLE)


class Dask:
    """The workers of a scheduler."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        from distributed import Client, KilledWorker
        from distributed.versions import VersionMismatchWarning

        # What has to be the same is in the fingerprint.
        warnings.filterwarnings("ignore", category=VersionMismatchWarning)
        if not log.isEnabledFor(logging.DEBUG):  # what it says of a lost connection, with tracebacks, we say in a line
            for name in list(logging.root.manager.loggerDict):
                if name.partition(".")[0] in ("asyncio", "tornado", "distributed"):
                    logging.getLogger(name).setLevel(logging.CRITICAL)
        self.address = address
        self.dead: tuple[type[BaseException], ...] = (KilledWorker,)
        try:
            client = Client(address, timeout=CONNECT, set_as_default=False)  # type: ignore[no-untyped-call]
            self._client = stack.enter_context(client)
            self._client.wait_for_workers(1, timeout=WORKERS)
        except TimeoutError as error:
            raise UserError(f"{ADDRESS}: no worker at {address} after {WORKERS:.0f} s; start one") from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"{ADDRESS}: no Dask scheduler at {address} ({error}); start it, or set compute.engine to local"
            ) from error

    def begin(self, fresh: bool) -> int:
        return max(1, self._threads())  # a worker that has come may be gone again

    def submit(self, function: Callable[..., R], *arguments: object) -> "Promise[R]":
        promise: Promise[R] = self._client.submit(function, *arguments, pure=False)
        return promise

    def give_up(self) -> None:
        """Nothing: a promise that nobody holds is forgotten by the scheduler."""

    def check(self) -> None:
        self._threads()

    def _threads(self) -> int:
        """Of all workers. The scheduler is asked: what the client remembers of it outlives it."""
        try:
            if not self._client.nthreads():
                self._client.wait_for_workers(1, timeout=WORKERS)
            return sum(self._client.nthreads().values())
        except TimeoutError as error:
            raise UserError(f"{self.address}: no worker left after {WORKERS:.0f} s; start one and run again") from error
        except Exception as error:  # it went while it was asked: any of half a dozen, by what the client had noticed
            raise self.lost() from error

    def lost(self) -> UserError:
        return UserError(
            f"the Dask scheduler at {self.address} is gone; start it and run again: embeddings that came in are kept"
        )


_engine: Engine | None = Local()  # None in a process that works: what it calls runs in itself


@contextmanager
def using(params: ComputeParams) -> Iterator[None]:
    """Do the work of this block on the engine that params.yaml names.

    Raises:
        UserError: the cluster cannot be reached, or has no workers.
    """
    global _engine
    before = _engine
    with ExitStack() as stack:
        if params.engine == "dask":
            address = os.environ.get(ADDRESS, "")
            if not address:
                raise UserError(f"compute.engine is dask: set {ADDRESS}, for example to tcp://127.0.0.1:8786")
            _engine = Dask(address, stack)
        else:
            _engine = Local()
        try:
            yield
        finally:
            _engine = before


def is_remote() -> bool:
    """Whether the work is done on machines that need not share this one's local files."""
    return isinstance(_engine, Dask)


def each(
    task: Callable[[I], R], items: Iterable[I], batch: int, name: Callable[[I], str] = str, fresh: bool = False
) -> Iterator[R]:
    """The task's result for each item, in the order of the items, computed side by side.

    The items are read as they are needed, and at most a few batches for each core are held.

    Args:
        task: a function of a module, or a `partial` of one.
        batch: items that travel together; what is lost when a process dies.
        name: how an item is called in an error.
        fresh: in new processes. loky takes one that has grown by 300 MB since its first task for a leak, and
            replaces it with a warning; tasks that load an encoder must be its first.

    Raises:
        UserError: a task raised it, raised anything else, or killed the process that ran it; the item is named.
            Or the cluster is lost.
    """
    left = iter(items)
    batches = iter(lambda: list(islice(left, batch)), [])
    first = list(islice(batches, 2))
    if _engine is None or len(first) < 2:  # a process would cost more than it brings; what the task calls may use some
        for item in chain(*first, left):
            yield _named(task, name, item)
        return
    engine = _engine
    width, whole = engine.begin(fresh), False
    waiting: deque[tuple[list[I], Promise[list[R]]]] = deque()
    try:
        for part in chain(first, batches):
            if len(waiting) >= AHEAD * width:
                yield from _result(engine, task, name, *waiting.popleft())
            waiting.append((part, _submit(engine, task, name, part)))
        while waiting:
            yield from _result(engine, task, name, *waiting.popleft())
        whole = True
    finally:
        if not whole:
            engine.give_up()


def _submit(engine: Engine, task: Callable[[I], R], name: Callable[[I], str], part: list[I]) -> "Promise[list[R]]":
    try:
        return engine.submit(_run, fingerprint(), task, name, part)
    except engine.dead as error:  # the processes broke over another batch: this one is tried when its turn comes
        failed: Future[list[R]] = Future()
        failed.set_exception(error)
        return failed
    except Exception:
        engine.check()  # says it better, if it is the cluster
        raise


def _result(
    engine: Engine, task: Callable[[I], R], name: Callable[[I], str], part: list[I], promise: "Promise[list[R]]"
) -> Iterator[R]:
    """What a batch gave. If it killed its process, its items are tried one by one, to spare the innocent."""
    try:
        yield from _wait(engine, promise)
        return
    except engine.dead:
        pass
    for item in part:
        try:
            yield from _wait(engine, _submit(engine, task, name, [item]))
        except engine.dead as error:
            raise UserError(
                f"{name(item)}: kills every process that works on it (out of memory, or a crash of a library); "
                "mend it or take it out"
            ) from error


def _wait(engine: Engine, promise: "Promise[list[R]]") -> list[R]:
    while True:
        try:
            return promise.result(timeout=LOOK)
        except TimeoutError:
            engine.check()
        except (CancelledError, asyncio.CancelledError, OSError) as error:  # a task's own errors are UserErrors
            engine.check()
            raise (engine.lost() if isinstance(engine, Dask) else error) from error


def _run(code: str, task: Callable[[I], R], name: Callable[[I], str], items: list[I]) -> list[R]:
    """A batch, in a process that works."""
    global _engine
    if code != fingerprint():
        raise UserError(
            f"a worker on {platform.node()} has other code or other libraries than this machine; "
            "update it to the same commit and requirements.txt"
        )
    _engine = None
    return [_named(task, name, item) for item in items]


def _named(task: Callable[[I], R], name: Callable[[I], str], item: I) -> R:
    try:
        return task(item)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name(item)}: {type(error).__name__}: {error}") from error


@cache
def fingerprint() -> str:
    """Of this project's code and of the libraries that results hang on."""
    state = hashlib.sha256(f"unicode {unicodedata.unidata_version}".encode())
    for path in sorted((ROOT / "src").rglob("*.py")):
        state.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for library in LIBRARIES:
        state.update(f"{library} {version(library)}\n".encode())
    return state.hexdigest()
