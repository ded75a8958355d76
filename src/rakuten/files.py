"""Files that are whole or not there: temporary names, renamed at the end."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from rakuten.errors import UserError


@contextmanager
def atomic_write(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Yield a temporary path for each target, in the same folder.

    All are renamed to their targets, in the order given, once the block has ended;
    if it raises, all are removed and the targets stay as they were, folders made for them included.
    """
    parts = tuple(target.with_name(f".{target.name}.partial") for target in targets)
    made = {target.parent for target in targets if not target.parent.exists()}
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield parts
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
        for folder in made:  # empty, if it came to nothing
            with suppress(OSError):
                folder.rmdir()


def parse_path(text: str) -> Path:
    """A path, or what fsspec makes of a URL such as s3://bucket/folder and speaks to like one."""
    if "://" not in text:
        return Path(text)
    from upath import UPath  # not in the API's image, which speaks to no store

    return cast("Path", UPath(text))


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes; with "md5" it is the one that DVC records."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def dump_json(value: Any, path: Path) -> None:
    """Write JSON for people and for digests: sorted keys, LF, no NaN."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


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
