"""Tasks for src.compute, in a module that every process and worker can import."""

import os
import signal
import time
import uuid
from functools import partial
from pathlib import Path

from rakuten.compute import parallel_map

POISON = 37


def square(folder: Path, number: int) -> int:
    """Takes its time, so that a worker can be killed over it, and leaves a file behind."""
    (folder / f"{number}.{os.getpid()}.{uuid.uuid4().hex}").touch()
    time.sleep(0.05)
    return number * number


def where(_: int) -> int:
    return os.getpid()


def setting(name: str) -> str | None:
    """A variable of the process's environment."""
    return os.environ.get(name)


def nested(count: int, _: int) -> list[int]:
    """The process, and those of so many tasks that it asks for in turn."""
    return [os.getpid(), *parallel_map(where, range(count), 1)]


def fail(number: int) -> int:
    if number == POISON:
        raise ValueError("cannot be squared")
    return number


def crash(number: int) -> int:
    if number == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def product(number: int) -> str:
    return f"product {number}"


ten_more = partial(nested, 10)
