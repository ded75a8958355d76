"""Files of product images as sellers send them: finding them by name, reading them, checking them.

What makes an image unusable ("missing", "truncated", ...) is reported as a short text, which is counted per table.
"""

import os
import re
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.data.image_decoding import BadImageError, decode, open_image, unusual_properties
from rakuten.data.schema import image_name, image_names
from rakuten.files import is_local

MAX_BYTES = 100_000_000
CHUNK_FILES = 500  # files per task
NAME_PATTERN = re.compile(r"image_(0|[1-9][0-9]{0,17})_product_(0|[1-9][0-9]{0,17})\.jpg")


class ImageCheck(NamedTuple):
    """The result of checking one image file."""

    error: str  # why the image cannot be used; "" if it can
    unusual: tuple[str, ...]  # properties that are counted and change nothing, such as "CMYK"


class ImageFiles(Mapping[str, Path]):
    """All files below a folder, by file name. Of several files with one name, the first in path order is taken.

    There may be millions, so names that `schema.image_name` makes are kept as sorted arrays of ids and folder numbers,
    20 bytes per file. Other names are kept as texts.

    Iteration order is by imageid and productid, then the other names alphabetically.
    """

    def __init__(self, folder: Path) -> None:
        ids, folder_numbers = array("q"), array("i")
        self._folders: list[Path] = []
        self._other_files: dict[str, Path] = {}
        for number, (path, names) in enumerate(_walk(folder)):
            self._folders.append(path)
            for name in names:
                if match := NAME_PATTERN.fullmatch(name):
                    ids.extend((int(match[1]), int(match[2])))
                    folder_numbers.append(number)
                else:
                    self._other_files.setdefault(name, path / name)
        pairs, numbers = np.array(ids, dtype=np.int64).reshape(-1, 2), np.array(folder_numbers, dtype=np.int32)
        order = np.lexsort((numbers, pairs[:, 1], pairs[:, 0]))
        pairs, numbers = pairs[order], numbers[order]
        is_first = np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(pairs)]
        self._imageid, self._productid, self._folder_number = pairs[is_first, 0], pairs[is_first, 1], numbers[is_first]
        self._other_files = dict(sorted(self._other_files.items()))
        self._other_positions = {name: position for position, name in enumerate(self._other_files)}

    def __getitem__(self, name: str) -> Path:
        position = self.position(name)
        if position >= len(self._imageid):
            return self._other_files[name]
        return self._folders[int(self._folder_number[position])] / name

    def __iter__(self) -> Iterator[str]:
        for imageid, productid in zip(self._imageid, self._productid, strict=True):
            yield image_name(imageid, productid)
        yield from self._other_files

    def __len__(self) -> int:
        return len(self._imageid) + len(self._other_files)

    def position(self, name: str) -> int:
        """Position of a name in iteration order.

        Raises:
            KeyError: there is no file of this name.
        """
        match = NAME_PATTERN.fullmatch(name)
        if not match:
            return len(self._imageid) + self._other_positions[name]
        imageid, productid = int(match[1]), int(match[2])
        start, end = (int(np.searchsorted(self._imageid, imageid, side)) for side in ("left", "right"))
        position = start + int(np.searchsorted(self._productid[start:end], productid))
        if position == end or self._productid[position] != productid:
            raise KeyError(name)
        return position


def _walk(folder: Path) -> Iterator[tuple[Path, Iterable[str]]]:
    """The folder and all folders below it, in path order, each with the names of its files."""
    if not is_local(folder):  # fsspec's
        for path, folders, files in folder.fs.walk(folder.path):  # type: ignore[attr-defined]
            folders.sort()
            yield folder.joinpath(path.removeprefix(folder.path).lstrip("/")), files  # type: ignore[attr-defined]
        return
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    subfolders: list[str] = []

    def file_names() -> Iterator[str]:
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    subfolders.append(entry.name)
                else:
                    yield entry.name

    yield folder, file_names()
    for name in sorted(subfolders):
        yield from _walk(folder / name)


def image_paths(products: pd.DataFrame, files: Mapping[str, Path]) -> list[Path | None]:
    """Path of each product's image; None where it has none that can be used.

    Args:
        products: imageid, productid, has_image; all str.
        files: image files by name.
    """
    has_image = products["has_image"] == "True"
    return [files.get(name) if usable else None for name, usable in zip(image_names(products), has_image, strict=True)]


def check_image(path: Path) -> ImageCheck:
    """Check whether an image file can be used, by decoding it."""
    try:
        data = read_image_bytes(path)
        unusual = tuple(unusual_properties(open_image(data)))
        decode(data, min_side=1)  # the whole stream of a JPEG is read even if it is decoded at 1/8 of its size
    except BadImageError as error:
        return ImageCheck(str(error), ())
    return ImageCheck("", unusual)


def read_image_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        BadImageError: the file cannot be read, is larger than MAX_BYTES, or is no regular file.
    """
    try:
        with _open_regular(path) if is_local(path) else path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadImageError("unreadable") from error
    if len(data) > MAX_BYTES:
        raise BadImageError("too large")
    return data


def _open_regular(path: Path) -> BinaryIO:
    """Open a file without waiting; a pipe would make the reader wait for ever, and a device might never end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadImageError("not a file")
    return os.fdopen(descriptor, "rb")


def usable_image_bytes(path: Path | None) -> bytes | None:
    """The bytes of a product's image; None without an image, or for one that was lost since it was checked."""
    try:
        return None if path is None else read_image_bytes(path)
    except BadImageError:
        return None


class ImageChecks(Mapping[str, str]):
    """For each image file, by name, why it cannot be used ("" if it can). One byte per file, besides `files`.

    Args:
        files: the image files.
        checks: the result for each file, in the order of `files`.

    Attributes:
        unusual: number of usable files with each unusual property.
    """

    def __init__(self, files: ImageFiles, checks: Iterable[ImageCheck]) -> None:
        self.unusual = Counter[str]()
        self._files = files
        self._errors = [""]  # distinct
        self._error_ids = np.zeros(len(files), dtype=np.uint8)  # of each file: position in _errors
        for position, check in enumerate(checks):
            if check.error not in self._errors:
                self._errors.append(check.error)
            self._error_ids[position] = self._errors.index(check.error)
            self.unusual.update(check.unusual)

    def __getitem__(self, name: str) -> str:
        return self._errors[int(self._error_ids[self._files.position(name)])]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def count_errors(self) -> dict[str, int]:
        """Number of files with each error."""
        counts = np.bincount(self._error_ids, minlength=len(self._errors)).tolist()
        return dict(sorted(zip(self._errors[1:], counts[1:], strict=True)))


def check_images(files: ImageFiles) -> ImageChecks:
    """Check every file, in parallel."""
    checks = parallel_map(check_image, files.values(), CHUNK_FILES)
    return ImageChecks(files, progress(checks, len(files), "checking images"))
