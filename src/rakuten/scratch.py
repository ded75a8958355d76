"""A folder for what is written and read again within a run."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rakuten.errors import UserError


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for what is written and read again; gone at the end. What a killed run left is cleared.

    Raises:
        UserError: another process is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            within = folder / "work"
            shutil.rmtree(within, ignore_errors=True)
            within.mkdir()
            try:
                yield within
            finally:
                shutil.rmtree(within, ignore_errors=True)
    except Timeout as error:
        raise UserError(f"{folder}: another run is at work in it; wait for its end") from error
