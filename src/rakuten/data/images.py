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
from rakuten.errors import UserError
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

    Links to folders are followed, each folder once. There may be millions of files, so names that `schema.image_name`
    makes are kept as sorted arrays of ids and folder numbers, 20 bytes per file. Other names are kept as texts.

    Iteration order is by imageid and productid, then the other names alphabetically.

    Attributes:
        folder: the folder.
        linked_folders: the links to folders below it that were followed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.linked_folders: list[Path] = []
        ids, folder_numbers = array("q"), array("i")
        self._folders: list[Path] = []
        self._other_files: dict[str, Path] = {}
        for number, (path, names) in enumerate(_walk(folder)):
            self._folders.append(path)
            if number and is_local(path) and path.is_symlink():
                self.linked_folders.append(path)
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
    if is_local(folder):
        yield from _walk_local(folder, set())
        return
    for path, folders, files in folder.fs.walk(folder.path):  # type: ignore[attr-defined]  # fsspec's
        folders.sort()
        yield folder.joinpath(path.removeprefix(folder.path).lstrip("/")), files  # type: ignore[attr-defined]


def _walk_local(folder: Path, walked: set[str]) -> Iterator[tuple[Path, Iterable[str]]]:
    """Like `_walk`, without the folders whose real paths are in `walked`; adds those it walks."""
    real_path = os.path.realpath(folder)
    if real_path in walked:  # links may lead in a circle
        return
    walked.add(real_path)
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    subfolders: list[str] = []

    def file_names() -> Iterator[str]:
        with entries:
            for entry in entries:
                if _is_folder(entry):
                    subfolders.append(entry.name)
                else:
                    yield entry.name

    yield folder, file_names()
    for name in sorted(subfolders):
        yield from _walk_local(folder / name, walked)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be read; it is found unreadable later
        return False


def check_image_names(files: ImageFiles, chunks: Iterable[pd.DataFrame], remedy: str) -> None:
    """Check that a file is the image of a product, unless there are no files.

    Args:
        files: the image files.
        chunks: products (imageid, productid; str), read only as far as needed.
        remedy: how to go on with the texts alone, for the error message.

    Raises:
        UserError: no file has the name of a product's image.
    """
    found = next((name for name in files if not name.startswith(".")), None)
    if found is None:
        return
    expected, are_swapped = "", False
    for products in chunks:
        for imageid, productid in zip(products["imageid"], products["productid"], strict=True):
            name = image_name(imageid, productid)
            if name in files:
                return
            if not NAME_PATTERN.fullmatch(expected):  # rather than one made of empty ids
                expected = name
            are_swapped = are_swapped or image_name(productid, imageid) in files
    if expected:
        is_lost = is_local(files[found]) and not files[found].exists()
        advice = "productid and imageid are swapped in one of them" if are_swapped else f"rename the files, or {remedy}"
        raise UserError(
            f"{files.folder}: no file is the image of a product: found {found!r}"
            f"{' (a link that leads nowhere)' if is_lost else ''}, expected names such as {expected!r}; {advice}"
        )


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
