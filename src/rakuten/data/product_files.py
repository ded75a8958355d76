"""Files of anybody's products: CSV or Parquet, read and written a part at a time, every column kept as it is."""

import csv
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from rakuten.data.schema import normalise_id
from rakuten.data.tables import read_records
from rakuten.errors import UserError

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20  # bytes of a Parquet column read at a time: pyarrow else reads all of a row group's
CSV, PARQUET = ".csv", ".parquet"
TEXT_COLUMNS, ID_COLUMNS = ("designation", "description"), ("productid", "imageid")


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """A Parquet file to read; what pyarrow says of a damaged one becomes a UserError."""
    try:
        with (
            path.open("rb") as stream,
            pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True) as file,
        ):
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a whole Parquet file ({error}); write it or fetch it again") from error


def read_schema(path: Path) -> pa.Schema:
    """Columns of a CSV or Parquet file; those of a CSV file are all text. Raises as `read_chunks`."""
    if path.suffix.lower() == PARQUET:
        with _open_parquet(path) as file:
            return file.schema_arrow
    return pa.schema([(name, pa.string()) for name in next(read_records(path))[1]])


def read_product_chunks(path: Path, size: int) -> Iterator[pa.Table]:
    """The rows of a CSV or Parquet file as they stand, so many at a time, the last of them fewer.

    Raises:
        UserError: a CSV file is not UTF-8, cut short or wrongly quoted; a Parquet file is damaged.
    """
    if path.suffix.lower() == PARQUET:
        with _open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=size):
                batch.validate(full=True)  # texts that are not UTF-8
                yield pa.Table.from_batches([batch])
        return
    found = read_records(path)
    _, header = next(found)
    while rows := [row for _, row in islice(found, size)]:
        yield pa.Table.from_arrays([pa.array(values, pa.string()) for values in zip(*rows, strict=True)], header)


def check_columns(path: Path, schema: pa.Schema, with_pictures: bool, added: Sequence[str]) -> None:
    """Raise UserError unless the columns are there, once, of text, and free of the names that are added."""
    names = schema.names
    there = ", ".join(map(repr, names))
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise UserError(f"{path}: line 1: columns are not parted by commas; save the file as comma-separated CSV")
    for name in ("designation", *(ID_COLUMNS if with_pictures else ())):
        if name not in names:
            why = ", by which --images finds pictures" if name in ID_COLUMNS else ""
            raise UserError(f"{path}: no column '{name}'{why}; rename the one that holds it (columns there: {there})")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: column '{name}' is there twice; remove or rename one")
        if name in added:
            raise UserError(f"{path}: column '{name}' is one that scoring adds; remove or rename it")
    for name in set(TEXT_COLUMNS) & set(names):
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if str(kind) not in ("string", "large_string", "string_view", "null"):
            raise UserError(f"{path}: column '{name}' is {kind}, not text; write it as strings")
    if "description" not in names:
        log.warning("%s: no column 'description'; products go by their titles", path)


def raw_products(chunk: pa.Table) -> pd.DataFrame:
    """Designation, description, productid and imageid as str, empty where nothing stands."""
    there = set(chunk.schema.names)
    given = {
        name: chunk[name].to_pylist() if name in there else [None] * len(chunk) for name in (*TEXT_COLUMNS, *ID_COLUMNS)
    }
    texts = {name: [value or "" for value in given[name]] for name in TEXT_COLUMNS}
    return pd.DataFrame(
        texts | {name: [_normalise_id_value(value) for value in given[name]] for name in ID_COLUMNS}, dtype="str"
    )


def _normalise_id_value(value: Any) -> str:
    """An id in its plain spelling, as ingest has it: "007" is 7, and so is the 7.0 that a gap makes of a number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return normalise_id("" if value is None else str(value))


@contextmanager
def product_writer(path: Path, schema: pa.Schema, ending: str) -> Iterator[Any]:
    """What appends a table to a new file; CSV in the manner of `catalog.write_table`."""
    if ending == PARQUET:
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet.write_table
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(schema.names)
        yield lambda table: writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
