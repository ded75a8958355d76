"""What the scripts share on the command line: flags, logs, progress, errors."""

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from rakuten.compute import parallel
from rakuten.config import PARAMS, ROOT, load_env, load_params
from rakuten.errors import UserError
from rakuten.files import place

log = logging.getLogger(__name__)
T = TypeVar("T")

PLAIN_LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal


def run_stage(
    name: str,
    script: str,
    body: Callable[..., str],
    paths: Mapping[str, Path],
    argv: Sequence[str] | None = None,
) -> int:
    """Run one stage of the pipeline and return its exit code.

    Args:
        name: the stage's name in dvc.yaml, shown in every log line.
        script: the script's own `__file__`.
        body: called as `body(params, **paths)`; returns the closing line, to which the seconds are added.
        paths: flag name to default path; flags choose paths, params.yaml the rest.
        argv: the command line without the program; None takes the real one.
    """
    parser = argparse.ArgumentParser(prog=Path(script).name, description=(body.__doc__ or "").strip())
    for flag, default in paths.items():
        shown = default.relative_to(ROOT) if default.is_relative_to(ROOT) else default
        parser.add_argument(f"--{flag}", type=place, default=default, help=f"default: {shown}")
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")

    def stage(arguments: argparse.Namespace) -> str:
        if not Path(script).resolve().is_relative_to(ROOT):
            raise UserError(
                f"this script stands in {Path(script).resolve().parents[2]} but the installed package "
                f"is {ROOT}: run `pip install -e .` in the folder you work in"
            )
        params = load_params(arguments.params)
        with parallel.using(params.compute):
            return body(params, **{flag: getattr(arguments, flag) for flag in paths})

    return run(name, stage, parser, argv)


def run(
    name: str,
    body: Callable[[argparse.Namespace], str],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, set logging up, run, and turn whatever goes wrong into one line and exit code 1."""
    parser.add_argument("--debug", action="store_true", help="debug log, and tracebacks on errors")
    arguments = parser.parse_args(argv)
    _log_to_stderr(name, logging.DEBUG if arguments.debug else logging.INFO)
    load_env()
    started = time.perf_counter()
    try:
        closing = body(arguments)
    except KeyboardInterrupt:
        log.error("stopped by the user")
        return 130
    except Exception as error:  # the edge of the program: everything ends as one line
        if arguments.debug:
            traceback.print_exc()
        log.error(_one_line(error))
        return 1
    if closing:
        log.info("%s in %.1f s", closing, time.perf_counter() - started)
    return 0


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
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


def progress(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Pass the items on: a bar on a terminal, a plain log line now and then elsewhere. None: nobody knows how many."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= PLAIN_LINE_EVERY:
            last = time.monotonic()
            log.info("%s: %s%s", what, f"{done:,}", "" if total is None else f" of {total:,}")
