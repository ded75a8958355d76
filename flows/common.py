"""What the flows share: one at a time in a folder, commands run to one clear line, quiet logs."""

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

LOCK = ROOT / ".dvc" / "tmp" / "flow.lock"
HOLDER = LOCK.with_suffix(".json")  # who has it, for the others to read
LAST = 15  # lines of a command's output that its error carries


class BusyError(UserError):
    """Another flow works here."""


class PassingError(UserError):
    """A fault that may be gone in a minute: a network, a server that starts."""


def passing(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a task that failed is worth another try."""
    try:
        state.result()
    except PassingError:
        return True
    except BaseException:
        return False
    return False


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else's flow works in this folder meanwhile.

    Raises:
        BusyError: one does already.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"another flow works in {ROOT} ({_holder()}): wait for it, or stop it") from error
    try:
        with atomic_write(HOLDER) as (part,):
            dump_json({"pid": os.getpid(), "flow_run": flow_run.name or "none"}, part)
        yield
    finally:
        HOLDER.unlink(missing_ok=True)
        lock.release()


def _holder() -> str:
    try:
        known = json.loads(HOLDER.read_text(encoding="utf-8"))
        return f"process {known['pid']}, flow run {known['flow_run']}"
    except (OSError, ValueError, KeyError):
        return "its process is not known"


def dvc(*arguments: str) -> str:
    """Run DVC; returns what it printed.

    Raises:
        UserError: it failed, with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=ROOT, env=command_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()][-LAST:]
        raise UserError(f"dvc {' '.join(arguments)} failed: {' | '.join(said)}")
    return done.stdout


def command_environment() -> dict[str, str]:
    """This environment, with this Python first on the path: dvc.yaml says `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path}


def without_tracebacks() -> None:
    """Prefect logs the traceback of whatever fails, and that each task ended well; the line that says what went wrong
    and what to do is in the message."""

    def strip(record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return "Finished in state Completed" not in record.getMessage()

    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(strip)
