"""What all commands and stages share: flags, logs, progress, errors."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import yaml
from tqdm import tqdm

from rakuten.compute import executor_from
from rakuten.config import (
    DATA,
    DVC_LOCK,
    INTERIM,
    MODELS,
    PARAMS,
    PROCESSED,
    REPORTS,
    ROOT,
    SOURCE,
    load_env,
    load_params,
)
from rakuten.errors import UserError
from rakuten.files import DISK_FULL, clear_scratch, fullest_folder, parse_path, remove_leftovers

log = logging.getLogger(__name__)
T = TypeVar("T")

LOG_PROGRESS_SECONDS = 10.0  # between two progress lines if stderr is not a terminal
RESTORE_HINT = (
    "DVC deleted the last results of this stage before it began: `dvc checkout` brings them back, `git restore models "
    "reports` those that Git has"
)


class _TerminatedError(BaseException):
    """SIGTERM has come. Not an Exception, as KeyboardInterrupt is none."""


def run_stage(
    name: str, stage: Callable[..., str], paths: Mapping[str, Path], argv: Sequence[str] | None = None
) -> int:
    """Run one stage of the pipeline and return its exit code.

    Args:
        name: the stage's name in dvc.yaml, shown in every log line.
        stage: called as `stage(params, **paths)`; returns the closing line.
        paths: flag -> default path. Flags set paths only; everything else is set by params.yaml.
        argv: the command line without the program; None for that of this process.
    """
    parser = argparse.ArgumentParser(description=(stage.__doc__ or "").strip())
    for flag, default in paths.items():
        parser.add_argument(f"--{flag}", type=parse_path, default=default, help=f"default: {_from_root(default)}")
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")

    def command(arguments: argparse.Namespace) -> str:
        params = load_params(arguments.params)
        with executor_from(params.compute):
            return stage(params, **{flag: getattr(arguments, flag) for flag in paths})

    code = run_command(name, command, parser, argv)
    if code != 0 and os.environ.get("DVC_STAGE") == name and _has_run(name):
        log.warning(RESTORE_HINT)
    return code


def _has_run(stage: str) -> bool:
    """Whether dvc.lock records results of a stage."""
    lock = yaml.safe_load(DVC_LOCK.read_text(encoding="utf-8")) if DVC_LOCK.is_file() else None
    return stage in ((lock or {}).get("stages") or {})


def run_command(
    name: str,
    command: Callable[[argparse.Namespace], str],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, set up logging, and run a command. An error is logged in one line.

    Args:
        name: shown in every log line.
        command: returns the closing line, which is logged with the seconds it took; nothing is logged if it is empty.
        parser: of the command's flags; --debug is added.
        argv: the command line without the program; None for that of this process.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM.
    """
    parser.add_argument("--debug", action="store_true", help="debug log, and tracebacks on errors")
    arguments = parser.parse_args(argv)
    _log_to_stderr(name, logging.DEBUG if arguments.debug else logging.INFO)
    started = time.perf_counter()
    try:
        with _terminated_by_exception():
            load_env()
            _export_source()
            _clear_leftovers()
            closing = command(arguments)
    except KeyboardInterrupt:
        log.error("stopped by the user")
        return 130
    except _TerminatedError:
        log.error("stopped by SIGTERM")
        return 143
    except Exception as error:  # the outermost level: no error leaves the program as a traceback
        if arguments.debug:
            traceback.print_exc()
        log.error(_one_line(error))
        return 1
    if closing:
        log.info("%s (%.1f s)", closing, time.perf_counter() - started)
    return 0


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Within the block, SIGTERM raises an exception: temporary files are removed, and a run of MLflow is ended.

    A second one ends the process at once.
    """

    def terminate(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise _TerminatedError

    # A thread may not set a handler; and one that is set already is somebody's.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _from_root(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _export_source() -> None:
    """Let every process started by this one import the library of this tree, whichever tree is installed."""
    paths = [str(SOURCE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _clear_leftovers() -> None:
    """Delete what killed runs have left in the folders that stages write."""
    for folder in (INTERIM, PROCESSED, MODELS, REPORTS):
        remove_leftovers(folder)
    clear_scratch(DATA / "scratch")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        path = Path(error.filename) if isinstance(error.filename, str) else fullest_folder((ROOT, DATA, MODELS))
        return f"the disk is full: free some space in {path if path.is_dir() else path.parent}, then run this again"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {text} (add --debug for the traceback)"


def _log_to_stderr(name: str, level: int) -> None:
    logging.basicConfig(
        level=logging.WARNING, format=f"%(levelname)s {name}: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("rakuten").setLevel(level)
    logging.getLogger("__main__").setLevel(level)
    logging.captureWarnings(True)


def progress(items: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Yield the items, with a progress bar on a terminal, else with a log line every LOG_PROGRESS_SECONDS.

    Args:
        total: number of items; None if unknown.
        description: of the work, for the bar and the log.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=description, leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= LOG_PROGRESS_SECONDS:
            last = time.monotonic()
            log.info("%s: %s%s", description, f"{done:,}", "" if total is None else f" of {total:,}")
