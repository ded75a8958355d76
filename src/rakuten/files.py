"""Writing files completely or not at all; full disks; paths on object stores; digests; scratch folders."""

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from rakuten.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_PARTIAL_NAME = re.compile(r"\.([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}\.partial$")


@contextmanager
def atomic_write(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Yield a temporary path for each target, in the same folder.

    When the block ends, they are renamed to their targets, in the order given. If it raises, they are removed, the
    targets stay as they were, and folders that were made for them are removed too.

    Raises:
        OSError: also that the disk is full; its `filename` is then the folder.
    """
    partial_paths = tuple(map(partial_path, targets))
    new_folders = {target.parent for target in targets if not target.parent.exists()}
    folders = {target.parent for target in targets}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    try:
        with full_disk_named(folders):
            yield partial_paths
            for path, target in zip(partial_paths, targets, strict=True):
                path.replace(target)
    finally:
        for path in partial_paths:
            path.unlink(missing_ok=True)
        for folder in new_folders:
            with suppress(OSError):  # not empty: the block has succeeded
                folder.rmdir()


@contextmanager
def full_disk_named(folders: Iterable[Path]) -> Iterator[None]:
    """Within the block, an error that a disk is full names the folder: an error while writing names no file.

    Args:
        folders: that the block writes to, besides the one for temporary files.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL and error.filename is None:
            error.filename = str(fullest_folder(folders))
        raise


def fullest_folder(folders: Iterable[Path]) -> Path:
    """Of some local folders and the one for temporary files, the one with the least free space."""
    local = [folder for folder in folders if is_local(folder) and folder.is_dir()]
    return min([*local, Path(tempfile.gettempdir())], key=lambda folder: shutil.disk_usage(folder).free)


def partial_path(target: Path) -> Path:
    """A temporary path beside a target.

    Nobody can guess it and put a link there. It names its process, so that `remove_leftovers` can tell whether that is
    still alive.
    """
    return target.with_name(f".{target.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.partial")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that processes of this machine have left in a folder when they were killed."""
    if os.name != "posix" or not folder.is_dir():  # elsewhere asking whether a process is alive may end it
        return
    for path in folder.glob(".*.partial"):
        owner = _PARTIAL_NAME.search(path.name)
        if owner and owner[1] == _HOST and not _is_alive(int(owner[2])):
            with suppress(OSError):  # a folder that is not ours to write
                path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def parse_path(text: str) -> Path:
    """A path, or for a URL such as s3://bucket/folder an fsspec path that has the same methods."""
    if "://" not in text:
        return Path(text)
    from upath import UPath  # not installed in the API's image, which uses no store

    return cast("Path", UPath(text))


def is_local(path: Path) -> bool:
    """Whether `parse_path` made the path of a local path rather than of a URL."""
    return isinstance(path, Path)


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes. "md5" gives the digest that DVC records."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def dump_json(value: Any, path: Path) -> None:
    """Write indented JSON whose bytes depend on the value alone: sorted keys, UTF-8, LF.

    Raises:
        ValueError: the value has a NaN or an infinity.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, at no moment anybody else."""
    with atomic_write(path) as (partial,):
        partial.touch(mode=0o600)
        partial.chmod(0o600)  # whatever the umask, and also if it was there
        partial.write_text(text, encoding="utf-8")


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for temporary files, which is removed at the end. Files of a killed run are removed first.

    Args:
        folder: where to make it; only one process at a time can use it.

    Raises:
        UserError: another process uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except Timeout as error:
        raise UserError(f"{folder}: another run is using it; wait until it ends") from error


def clear_scratch(folder: Path) -> None:
    """Delete what a killed run has left in a `scratch_folder`, unless another run uses it."""
    if (folder / "work").is_dir():
        with suppress(Timeout, OSError), FileLock(folder / ".lock", timeout=0):
            shutil.rmtree(folder / "work", ignore_errors=True)
