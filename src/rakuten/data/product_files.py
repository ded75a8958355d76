"""Product files to score, in CSV or Parquet: read and written in chunks, with all their columns unchanged."""

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from rakuten.data.schema import normalise_id
from rakuten.data.tables import check_separator, read_records
from rakuten.errors import UserError

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20  # of a Parquet column, read at a time; by default, pyarrow reads the column's whole row group
# A file of a few kilobytes can unpack to gigabytes of text: a chunk has as many rows as fit, read a few at a time.
MAX_CHUNK_BYTES, READ_ROWS = 64_000_000, 128
CSV, PARQUET = ".csv", ".parquet"  # endings of file names
TEXT_COLUMNS, ID_COLUMNS = ("designation", "description"), ("productid", "imageid")


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; pyarrow's errors about a damaged one are raised as UserError."""
    try:
        with (
            path.open("rb") as stream,
            pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True) as file,
        ):
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a complete Parquet file ({error}); write it or fetch it again") from error


def read_schema(path: Path) -> pa.Schema:
    """The columns of a CSV or Parquet file and their types; all columns of a CSV file are text.

    Raises:
        UserError: see `read_product_chunks`.
    """
    if path.suffix.lower() == PARQUET:
        with _open_parquet(path) as file:
            return file.schema_arrow
    return pa.schema([(name, pa.string()) for name in next(read_records(path))[1]])


def read_product_chunks(path: Path, size: int) -> Iterator[pa.Table]:
    """Read a CSV or Parquet file in chunks of `size` rows, of a Parquet file fewer where they are very long.

    The same file gives the same chunks. The last one may be shorter.

    Raises:
        UserError: a CSV file is not UTF-8, cut short or wrongly quoted; a Parquet file is damaged.
    """
    if path.suffix.lower() == PARQUET:
        with _open_parquet(path) as file:
            yield from _parquet_chunks(file, size)
        return
    records = read_records(path)
    _, header = next(records)
    while rows := [row for _, row in islice(records, size)]:
        yield pa.Table.from_arrays([pa.array(values, pa.string()) for values in zip(*rows, strict=True)], header)


def _parquet_chunks(file: Any, size: int) -> Iterator[pa.Table]:
    batches: list[pa.RecordBatch] = []
    n_rows = n_bytes = 0
    for batch in file.iter_batches(batch_size=min(size, READ_ROWS)):
        batch.validate(full=True)  # raises if a text is not UTF-8
        if batches and (n_rows + len(batch) > size or n_bytes + batch.nbytes > MAX_CHUNK_BYTES):
            yield pa.Table.from_batches(batches)
            batches, n_rows, n_bytes = [], 0, 0
        batches.append(batch)
        n_rows += len(batch)
        n_bytes += batch.nbytes
    if batches:
        yield pa.Table.from_batches(batches)


def check_columns(path: Path, schema: pa.Schema, with_images: bool, added: Sequence[str]) -> None:
    """Check that the columns of a product file can be scored.

    Args:
        path: the file, for error messages.
        with_images: whether productid and imageid are needed, to find the products' images.
        added: columns that scoring adds.

    Raises:
        UserError: a column is missing, occurs twice, has the name of an added one, or is not of text.
    """
    names = schema.names
    check_separator(path, names)
    for name in ("designation", *(ID_COLUMNS if with_images else ())):
        if name not in names:
            purpose = ", by which --images finds images" if name in ID_COLUMNS else ""
            found = ", ".join(map(repr, names))
            raise UserError(f"{path}: no column '{name}'{purpose}; rename the one that holds it (columns: {found})")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: column '{name}' occurs twice; remove or rename one")
        if name in added:
            raise UserError(f"{path}: column '{name}' is one that scoring adds; remove or rename it")
    for name in set(TEXT_COLUMNS) & set(names):
        column_type = schema.field(name).type
        column_type = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
        if str(column_type) not in ("string", "large_string", "string_view", "null"):
            raise UserError(f"{path}: column '{name}' is {column_type}, not text; write it as strings")
    if "description" not in names:
        log.warning("%s: no column 'description'; products are classified by their titles", path)


def raw_products(chunk: pa.Table) -> pd.DataFrame:
    """The designation, description, productid and imageid of each row, as str; "" where a value or column is missing.

    Ids are normalised as ingestion does it.
    """
    missing = [None] * len(chunk)
    columns = {
        name: chunk[name].to_pylist() if name in chunk.schema.names else missing for name in TEXT_COLUMNS + ID_COLUMNS
    }
    texts = {name: [value or "" for value in columns[name]] for name in TEXT_COLUMNS}
    ids = {name: [_normalise_id_value(value) for value in columns[name]] for name in ID_COLUMNS}
    return pd.DataFrame(texts | ids, dtype="str")


def _normalise_id_value(value: Any) -> str:
    """Normalise an id of any type. Integers may come as floats: pandas converts a column with missing values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return normalise_id("" if value is None else str(value))


@contextmanager
def product_writer(path: Path, schema: pa.Schema, suffix: str) -> Iterator[Callable[[pa.Table], object]]:
    """Yield a function that appends a table to a new file.

    Args:
        suffix: the format, CSV or PARQUET. CSV is written like `tables.table_writer` does.
    """
    if suffix == PARQUET:
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet.write_table
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(schema.names)
        yield lambda table: writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
