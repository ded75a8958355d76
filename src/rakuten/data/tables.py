"""The challenge's format: codes, columns, ids, picture names, strict reading and writing."""

import csv
import difflib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pandas as pd

from rakuten.data.schema import CHALLENGE_NAMES, INDEX
from rakuten.errors import UserError

CHUNK_ROWS = 20_000  # in memory at a time, where a table may be longer than memory


def read_raw(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """One of the challenge's files, whole; see `raw_chunks`."""
    return pd.concat(read_raw_chunks(path, columns), ignore_index=True)


def read_raw_chunks(path: Path, columns: tuple[str, ...], rows: int | None = None) -> Iterator[pd.DataFrame]:
    """Read one of the challenge's files without guessing, so many rows at a time.

    Yields:
        The asked columns, all as str, empty where the file has nothing, one row per record
        in the file's order. Column "line" tells on which line of the file a record ends.

    Raises:
        UserError: the file is missing, not UTF-8, cut short, wrongly quoted, has no rows,
            or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. {missing_hint(path)}")
    found = read_records(path)
    _, header = next(found)
    places = _column_positions(path, header, columns)
    empty = True
    while ended := list(islice(found, rows or CHUNK_ROWS)):
        cells = {name: [row[at] for _, row in ended] for name, at in places.items()}
        yield pd.DataFrame(cells, dtype="str").assign(line=[line for line, _ in ended])
        empty = False
    if empty:
        raise UserError(f"{path}: no rows below the header; fetch the file again")


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The header of a CSV file and then its rows, one at a time, each with the line that it ends on.

    Raises:
        UserError: the file is not UTF-8, cut short or wrongly quoted.
    """
    _check_end(path)
    start = 1
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader)
            yield reader.line_num, header
            start = reader.line_num + 1
            for row in reader:
                if len(row) != len(header) and row:
                    raise UserError(
                        f"{path}: the record on lines {start}-{reader.line_num} has {len(row)} fields, "
                        f"the header has {len(header)}: a quote is broken or missing there, or the file "
                        "was damaged; fix the record or fetch the file again"
                    )
                if row:
                    yield reader.line_num, row
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path)) from error
    except csv.Error as error:
        raise UserError(
            f"{path}: the record that begins on line {start} is broken ({error}): "
            "a quote is missing or the file was cut short; fix the record or fetch the file again"
        ) from error


def missing_hint(path: Path) -> str:
    """What to do about a missing raw file."""
    published = CHALLENGE_NAMES.get(path.name, "")
    if published and path.with_name(published).is_file():
        return f"The challenge's own {published} is there: rename it to {path.name}"
    if any(path.with_name(name).exists() for name in CHALLENGE_NAMES):
        return "Put the challenge's file there under this name"
    return (
        "Put the challenge's file there under this name, "
        f"or write a sample catalogue with `rakuten sample --out {path.parent}`"
    )


def _check_end(path: Path) -> None:
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            raise UserError(f"{path}: the file is empty; fetch it again")
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) not in b"\r\n":
            raise UserError(
                f"{path}: the last line has no line end, so the file was probably cut short; "
                "fetch it again, or end the file with a line break if it is whole"
            )


def _not_utf8(path: Path) -> str:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return (
                    f"{path}: line {number} is not UTF-8 (byte 0x{line[error.start]:02x}); "
                    "save the file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8`"
                )
    return f"{path}: not UTF-8; save the file as UTF-8"


def _column_positions(path: Path, header: list[str], wanted: tuple[str, ...]) -> dict[str, int]:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise UserError(f"{path}: line 1: columns are not parted by commas; save the file as comma-separated CSV")
    # pandas writes a nameless index as "", and some round trips make "Unnamed: 0" of it.
    names = [INDEX if at == 0 and name in ("", "Unnamed: 0") else name for at, name in enumerate(header)]
    for name in wanted:
        if names.count(name) > 1:
            raise UserError(f"{path}: line 1: column '{name}' is there twice; remove one")
        if name not in names:
            there = ", ".join(repr(known) for known in header)
            if name == INDEX:
                problem = "the first column must be the nameless index"
            else:
                near = difflib.get_close_matches(name, [known for known in names if known not in wanted], 1)
                problem = f"no column '{name}'" + (f"; rename '{near[0]}' to it" if near else "")
            raise UserError(f"{path}: line 1: {problem} (columns there: {there})")
    return {name: names.index(name) for name in wanted}


def read_table(path: Path, integers: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table that an earlier stage wrote, whole; see `table_chunks`."""
    return pd.concat(read_table_chunks(path, integers))


def read_table_chunks(path: Path, integers: tuple[str, ...] = (), rows: int | None = None) -> Iterator[pd.DataFrame]:
    """Read a table that an earlier stage wrote, so many rows at a time; one of no rows is one part of none.

    Text stays text ("NA" is a word, "" is nothing). The index goes on from one part to the next.

    Raises:
        UserError: the file is missing, broken, or lacks one of the integer columns.
    """
    try:
        with pd.read_csv(
            path, dtype="str", keep_default_na=False, encoding="utf-8", chunksize=rows or CHUNK_ROWS
        ) as parts:
            for part in parts:
                yield part.astype(dict.fromkeys(integers, "int64"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `dvc repro`, which makes it") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not what the earlier stage wrote ({error}); run `dvc repro`") from error


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write CSV whose bytes depend on the rows alone; see `table_writer`."""
    with table_writer(path) as write:
        write(frame)


@contextmanager
def table_writer(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """What appends rows to a new CSV file: UTF-8, LF, no index, every text in quotes.

    Python's csv leaves a lone carriage return bare, and pandas then reads it as the end of the row.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:

        def write(frame: pd.DataFrame) -> None:
            head = stream.tell() == 0
            frame.to_csv(stream, index=False, header=head, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

        yield write
