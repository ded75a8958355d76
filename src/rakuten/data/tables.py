"""CSV files: strict reading of the challenge's, in chunks; reading and writing of the pipeline's own tables."""

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pandas as pd

from rakuten.data.columns import examine_header
from rakuten.data.schema import CHALLENGE_NAMES
from rakuten.errors import UserError

CHUNK_ROWS = 20_000  # rows held in memory at a time, where a table may be larger than memory


def read_raw(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read all rows of one of the challenge's files; see `read_raw_chunks`."""
    return pd.concat(read_raw_chunks(path, columns), ignore_index=True)


def read_raw_chunks(path: Path, columns: tuple[str, ...], size: int | None = None) -> Iterator[pd.DataFrame]:
    """Read one of the challenge's files in chunks of `size` rows (default: CHUNK_ROWS), without guessing types.

    Yields:
        The requested columns, all as str, "" for an empty cell, one row per record in the file's order;
        and column "line": the line of the file on which the record ends.

    Raises:
        UserError: the file is missing, not UTF-8, cut short, wrongly quoted, has no rows,
            or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file. {missing_hint(path)}")
    records = read_records(path)
    _, header = next(records)
    check_separator(path, header)
    found = examine_header(header, columns)
    if found.fault:
        raise UserError(f"{path}: line 1: {found.fault}")
    is_empty = True
    while chunk := list(islice(records, size or CHUNK_ROWS)):
        cells = {name: [row[position] for _, row in chunk] for name, position in found.positions.items()}
        yield pd.DataFrame(cells, dtype="str").assign(line=[line for line, _ in chunk])
        is_empty = False
    if is_empty:
        raise UserError(f"{path}: no rows below the header; fetch the file again")


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file record by record.

    Yields:
        The line on which a record ends (the first is 1), and the record's fields; the header comes first.
        Empty lines are skipped.

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
                        f"the header has {len(header)}: a quote is broken or missing, or the file "
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
    """What to do about a missing raw file, as a sentence for an error message."""
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
    """Raise UserError if a file is empty or does not end with a line break."""
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            raise UserError(f"{path}: the file is empty; fetch it again")
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) not in b"\r\n":
            raise UserError(
                f"{path}: the last line has no line end, so the file was probably cut short; "
                "fetch it again, or add a line break at its end if it is complete"
            )


def _not_utf8(path: Path) -> str:
    """The error message for a file that is not UTF-8, with the line of its first invalid byte."""
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


def check_separator(path: Path, header: list[str]) -> None:
    """Raise UserError if a header of one field shows that columns are separated by semicolons or tabs."""
    if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
        raise UserError(f"{path}: line 1: columns are not separated by commas; save the file as comma-separated CSV")


def read_table(path: Path, integers: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read all rows of a table that an earlier stage wrote; see `read_table_chunks`."""
    return pd.concat(read_table_chunks(path, integers))


def read_table_chunks(path: Path, integers: tuple[str, ...] = (), size: int | None = None) -> Iterator[pd.DataFrame]:
    """Read a table that an earlier stage wrote, in chunks of `size` rows (default: CHUNK_ROWS).

    Args:
        integers: columns to convert to int64; all others are str. "NA" is a text and an empty cell is "".

    Yields:
        Chunks whose index counts the rows of the table; a table without rows gives one empty chunk.

    Raises:
        UserError: the file is missing, broken, or lacks one of the integer columns.
    """
    try:
        with pd.read_csv(
            path, dtype="str", keep_default_na=False, encoding="utf-8", chunksize=size or CHUNK_ROWS
        ) as chunks:
            for chunk in chunks:
                yield chunk.astype(dict.fromkeys(integers, "int64"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `dvc repro`, which makes it") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not what the earlier stage wrote ({error}); run `dvc repro`") from error


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV whose bytes depend on its rows alone; see `table_writer`."""
    with table_writer(path) as write:
        write(frame)


@contextmanager
def table_writer(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that appends rows to a new CSV file: UTF-8, LF, no index, every text in quotes.

    Texts are always quoted because Python's csv does not quote a lone carriage return, which pandas then reads as
    the end of the row.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:

        def write(frame: pd.DataFrame) -> None:
            is_first = stream.tell() == 0
            frame.to_csv(stream, index=False, header=is_first, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

        yield write
