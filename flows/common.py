"""Shared by the flows: one flow at a time in a folder, DVC as a subprocess, logs without tracebacks."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task

from rakuten.config import ROOT
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json

LOCK_FILE = ROOT / ".dvc" / "tmp" / "flow.lock"
HOLDER_FILE = LOCK_FILE.with_suffix(".json")  # process and flow run that hold the lock
MAX_OUTPUT_LINES = 15  # of a failed command, in the error message


class BusyError(UserError):
    """Another flow runs in this folder."""


class RetryableError(UserError):
    """A failure that a later try may not have: of a network, or of a server that is still starting."""


def is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task raised RetryableError. The signature is that of Prefect's `retry_condition_fn`."""
    try:
        state.result()
    except RetryableError:
        return True
    except BaseException:
        return False
    return False


@contextmanager
def exclusive_lock() -> Iterator[None]:
    """Hold the lock of this folder: no other flow runs in it meanwhile.

    Raises:
        BusyError: another process holds the lock.
    """
    LOCK_FILE.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"another flow works in {ROOT} ({_describe_holder()}): wait for it, or stop it") from error
    try:
        with atomic_write(HOLDER_FILE) as (partial,):
            dump_json({"pid": os.getpid(), "flow_run": flow_run.name or "none"}, partial)
        yield
    finally:
        HOLDER_FILE.unlink(missing_ok=True)
        lock.release()


def _describe_holder() -> str:
    try:
        holder = json.loads(HOLDER_FILE.read_text(encoding="utf-8"))
        return f"process {holder['pid']}, flow run {holder['flow_run']}"
    except (OSError, ValueError, KeyError):
        return "unknown process"


def dvc(*arguments: str) -> str:
    """Run DVC in this project; returns its output.

    Raises:
        UserError: DVC failed; the message has the end of its output.
    """
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=ROOT, env=dvc_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if line.strip()]
        raise UserError(f"dvc {' '.join(arguments)} failed: {' | '.join(lines[-MAX_OUTPUT_LINES:])}")
    return result.stdout


def dvc_environment() -> dict[str, str]:
    """The environment of this process, with this Python first on PATH: the commands in dvc.yaml start `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path}


def hide_tracebacks() -> None:
    """Drop tracebacks, and the line that a task completed, from Prefect's logs: each message is complete without."""

    def keep(record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return "Finished in state Completed" not in record.getMessage()

    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(keep)
