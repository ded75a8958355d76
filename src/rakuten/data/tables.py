"""CSV files: strict reading of the challenge's, in chunks; reading and writing of the pipeline's own tables."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pandas as pd

from rakuten.data.columns import Header, examine_header
from rakuten.data.schema import CHALLENGE_NAMES, X_OPTIONAL
from rakuten.data.text_files import csv_format, invalid_encoding, other_kind
from rakuten.errors import UserError

# Of what is sometimes there in place of a CSV file: other formats, and names that browsers and Windows make.
OTHER_ENDINGS = (".xlsx", ".xls", ".csv.xlsx", ".ods", ".zip", ".csv.zip", ".csv.gz", ".csv.txt", ".txt", ".tsv",
                 " (1).csv", ".CSV", ".parquet")  # fmt: skip
CHUNK_ROWS = 20_000  # rows held in memory at a time, where a table may be larger than memory


def read_raw(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read all rows of one of the challenge's files; see `read_raw_chunks`."""
    return pd.concat(read_raw_chunks(path, columns), ignore_index=True)


def read_raw_chunks(path: Path, columns: tuple[str, ...], size: int | None = None) -> Iterator[pd.DataFrame]:
    """Read one of the challenge's files in chunks of `size` rows (default: CHUNK_ROWS), without guessing types.

    Yields:
        The requested columns, all as str, "" for an empty cell and in an optional column that the file lacks, one row
        per record in the file's order; and column "line": the line of the file on which the record ends.

    Raises:
        UserError: the file is missing, no CSV, not UTF-8 or UTF-16, cut short, wrongly quoted, has no rows, or lacks a
            column.
    """
    records = read_records(path)
    found = examine_raw_header(next(records)[1], columns)
    if found.fault:
        raise UserError(f"{path}: line 1: {found.fault}")
    is_empty = True
    while chunk := list(islice(records, size or CHUNK_ROWS)):
        cells = {
            name: [row[found.positions[name]] for _, row in chunk] if name in found.positions else ""
            for name in columns
        }
        lines = [line for line, _ in chunk]
        yield pd.DataFrame(cells, range(len(chunk)), dtype="str").assign(line=lines)
        is_empty = False
    if is_empty:
        raise UserError(f"{path}: no rows below the header; fetch the file again")


def examine_raw_header(header: Sequence[str], columns: Sequence[str]) -> Header:
    """Look for these columns of the challenge's files in a header."""
    required, optional = ([name for name in columns if (name in X_OPTIONAL) is flag] for flag in (False, True))
    return examine_header(header, required, optional)


def check_raw(columns_by_file: Mapping[Path, Sequence[str]]) -> list[str]:
    """Check that some of the challenge's files are there and have these columns. Returns warnings.

    Raises:
        UserError: a file is missing or no CSV, or has not these columns. All columns to rename are in one message.
    """
    files_by_fault: dict[str, list[str]] = {}
    warnings = []
    for path, columns in columns_by_file.items():
        found = examine_raw_header(next(read_records(path))[1], columns)
        if found.fault:
            files_by_fault.setdefault(found.fault, []).append(str(path))
        elif found.warning:
            warnings.append(f"{path}: {found.warning}; products are classified by their titles and images")
        if not csv_format(path).has_last_line_end:
            warnings.append(f"{path}: the last line has no line end; if its last field is cut, fetch the file again")
    if files_by_fault:
        raise UserError("; ".join(f"{', '.join(files)}: line 1: {fault}" for fault, files in files_by_fault.items()))
    return warnings


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file record by record. Its encoding and separator are recognised; see `text_files`.

    Yields:
        The line on which a record ends (the first is 1), and the record's fields; the header comes first.
        Empty lines are skipped.

    Raises:
        UserError: the file is missing, no CSV, not UTF-8 or UTF-16, cut short or wrongly quoted.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file. {missing_hint(path)}")
    written = csv_format(path)
    start = 1
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding=written.encoding, newline="") as stream:
            reader = csv.reader(stream, delimiter=written.separator, strict=True)
            header = next(reader)
            yield reader.line_num, header
            start = reader.line_num + 1
            for row in reader:
                if len(row) != len(header) and row:
                    raise UserError(
                        f"{path}: the record on lines {start}-{reader.line_num} has {len(row)} fields, "
                        f"the header has {len(header)}: a quote is broken or missing, or the file "
                        "was damaged or cut short; fix the record or fetch the file again"
                    )
                if row:
                    yield reader.line_num, row
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise invalid_encoding(path, written.encoding) from error
    except csv.Error as error:
        raise UserError(
            f"{path}: the record that begins on line {start} is broken ({error}): "
            "a quote is missing or the file was cut short; fix the record or fetch the file again"
        ) from error


def read_texts(path: Path) -> pd.DataFrame:
    """All columns and rows of a CSV file as str, read by `read_records`."""
    _, header = next(records := read_records(path))
    return pd.DataFrame([row for _, row in records], columns=header, dtype="str")


def missing_hint(path: Path) -> str:
    """What to do about a missing raw file, as a sentence for an error message."""
    renames = {
        published: name
        for name, published in CHALLENGE_NAMES.items()
        if path.with_name(published).exists() and not path.with_name(name).exists()
    }
    if path.name in renames.values():
        if len(renames) == 1:
            return f"The challenge's own {CHALLENGE_NAMES[path.name]} is there: rename it to {path.name}"
        return "The challenge's own files are there: rename " + ", ".join(f"{a} to {b}" for a, b in renames.items())
    for ending in OTHER_ENDINGS:
        for name in (path.name, CHALLENGE_NAMES.get(path.name, path.name)):
            other = path.with_name(name.removesuffix(".csv") + ending)
            if other.exists():
                return f"There is {other.name}: {other_kind(other) or f'rename it to {path.name}'}"
    if any(path.with_name(name).exists() for name in CHALLENGE_NAMES):
        return "Put the challenge's file there under this name"
    return (
        "Put the challenge's file there under this name, "
        f"or write a sample catalogue with `rakuten sample --out {path.parent}`"
    )


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
