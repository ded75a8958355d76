"""Tasks for rakuten.compute, in a module that every process and worker can import."""

import os
import signal
import time
import uuid
from functools import partial
from pathlib import Path

from rakuten.compute import parallel_map

POISON = 37


def square(folder: Path, number: int) -> int:
    """The square of a number. Takes 50 ms, so that a worker can be killed meanwhile, and leaves a file behind."""
    (folder / f"{number}.{os.getpid()}.{uuid.uuid4().hex}").touch()
    time.sleep(0.05)
    return number * number


def slow(number: int) -> int:
    """The number, after 200 ms."""
    time.sleep(0.2)
    return number


def process_id(_: int) -> int:
    return os.getpid()


def environment_variable(name: str) -> str | None:
    """A variable of the worker's environment."""
    return os.environ.get(name)


def nested(count: int, _: int) -> list[int]:
    """The id of this process, and those of the processes that run `count` tasks which this task starts."""
    return [os.getpid(), *parallel_map(process_id, range(count), 1)]


def fail(number: int) -> int:
    """The number, or an error for the number POISON."""
    if number == POISON:
        raise ValueError("cannot be squared")
    return number


def crash(number: int) -> int:
    """The number; the number POISON kills the process."""
    if number == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def product_label(number: int) -> str:
    return f"product {number}"


ten_nested = partial(nested, 10)
