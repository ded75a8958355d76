"""Tasks that workers import by name; each execution leaves a file behind."""

import os
import signal
import time
import uuid
from pathlib import Path


def square(folder: Path, number: int) -> int:
    """Takes its time, so that a worker can be killed over it."""
    (folder / f"{number}.{uuid.uuid4().hex}").touch()
    time.sleep(0.05)
    return number * number


def fail(number: int) -> int:
    if number == 37:
        raise ValueError("cannot be squared")
    return number


def crash(number: int) -> int:
    if number == 37:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def product(number: int) -> str:
    return f"product {number}"
