"""Product files to score, in CSV or Parquet: read and written in chunks, with all their columns unchanged."""

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from numpy.typing import NDArray

from rakuten.data.columns import examine_header
from rakuten.data.schema import id_of, text_of
from rakuten.data.tables import read_records
from rakuten.data.text_files import UTF_8, UTF_8_WITH_MARK, CsvFormat, csv_format, other_kind
from rakuten.errors import UserError

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 20  # of a Parquet column, read at a time; by default, pyarrow reads the column's whole row group
# A Parquet file of a kilobyte can unpack to gigabytes: a few rows are read at a time, and a chunk has as many as fit.
READ_ROWS, MAX_CHUNK_BYTES, MAX_ROW_BYTES = 128, 64_000_000, 16_000_000
PACKED_BYTES = 4_000_000  # of a column of text in a row group: if it is smaller, each of its values may stand for many
CSV, PARQUET = ".csv", ".parquet"  # endings of file names
TEXT_ENDINGS = (CSV, ".tsv", ".txt")  # of files that are read as CSV
DEFAULT_FORMAT = CsvFormat(UTF_8, ",", has_last_line_end=True)
TEXT_COLUMNS, ID_COLUMNS = ("designation", "description"), ("productid", "imageid")


@contextmanager
def _open_parquet(path: Path, packed: Sequence[str] = ()) -> Iterator[Any]:
    """Open a Parquet file; pyarrow's errors about a damaged one are raised as UserError.

    Args:
        packed: columns of text to read as indices into their distinct values.
    """
    try:
        with (
            path.open("rb") as stream,
            pq.ParquetFile(
                stream,
                read_dictionary=list(packed),
                pre_buffer=False,
                buffer_size=BUFFER_BYTES,
                page_checksum_verification=True,
            ) as file,
        ):
            yield file
    except (OSError, pa.ArrowException) as error:
        if path.exists() and (other := other_kind(path)) and not other.startswith("a Parquet file"):
            raise UserError(f"{path}: not a Parquet file but {other}") from error
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
        UserError: a CSV file is in another encoding than `text_files` knows, cut short or wrongly quoted; a Parquet
            file is damaged.
    """
    if path.suffix.lower() == PARQUET:
        with _open_parquet(path) as file:
            schema, packed = file.schema_arrow, _small_text_columns(file)
        with _open_parquet(path, packed) as file:
            yield from _parquet_chunks(path, file, schema, size)
        return
    records = read_records(path)
    _, header = next(records)
    while rows := [row for _, row in islice(records, size)]:
        yield pa.Table.from_arrays([pa.array(values, pa.string()) for values in zip(*rows, strict=True)], header)


def _small_text_columns(file: Any) -> list[str]:
    """The columns of text that take little in every row group, and so may unpack to much."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    large = {
        column.path_in_schema
        for group in groups
        for column in map(group.column, range(group.num_columns))
        if column.total_uncompressed_size > PACKED_BYTES
    }
    return [field.name for field in file.schema_arrow if _is_text(field.type) and field.name not in large]


def _parquet_chunks(path: Path, file: Any, schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    mean_bytes = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=0.0)
    if mean_bytes > MAX_ROW_BYTES:
        raise _too_long(path, mean_bytes)
    n_read = min(size, READ_ROWS, max(1, int(MAX_CHUNK_BYTES / max(1.0, mean_bytes))))
    parts: list[pa.Table] = []
    n_rows = n_bytes = 0
    for batch in file.iter_batches(batch_size=n_read):
        batch.validate(full=True)  # raises if a text is not UTF-8
        row_bytes, start = _row_bytes(batch), 0
        if row_bytes.max(initial=0) > MAX_ROW_BYTES:
            raise _too_long(path, row_bytes.max())
        while start < len(batch):
            fits = int(np.searchsorted(np.cumsum(row_bytes[start:]), MAX_CHUNK_BYTES - n_bytes, side="right"))
            end = min(start + fits, start + size - n_rows, len(batch))
            if end > start:
                parts.append(pa.Table.from_batches([batch.slice(start, end - start)]).cast(schema))
                n_rows += end - start
                n_bytes += int(row_bytes[start:end].sum())
                start = end
            if start < len(batch):  # the chunk is full
                yield pa.concat_tables(parts)
                parts, n_rows, n_bytes = [], 0, 0
    if parts:
        yield pa.concat_tables(parts)


def _row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """The bytes of each row's texts, once they are unpacked."""
    total = np.zeros(len(batch), dtype=np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
        elif _is_text(column.type):
            lengths = pc.binary_length(column)
        else:
            continue
        total += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    return total


def _is_binary(column_type: pa.DataType) -> bool:
    return "binary" in str(column_type)  # of any kind, such as fixed_size_binary[16]


def _is_text(column_type: pa.DataType) -> bool:
    return str(column_type) in ("string", "large_string", "binary", "large_binary")


def _too_long(path: Path, n_bytes: float) -> UserError:
    return UserError(
        f"{path}: a row has {n_bytes / 1e6:,.0f} MB, more than the {MAX_ROW_BYTES / 1e6:.0f} MB allowed; "
        "remove the long column or row"
    )


def check_columns(path: Path, schema: pa.Schema, with_images: bool, added: Sequence[str]) -> None:
    """Check that the columns of a product file can be scored.

    Args:
        path: the file, for error messages.
        with_images: whether productid and imageid are needed, to find the products' images.
        added: columns that scoring adds.

    Raises:
        UserError: a column is missing, occurs twice, has the name of an added one, or holds lists or bytes.
    """
    names = schema.names
    found = examine_header(names, ("designation", *(ID_COLUMNS if with_images else ())), ("description",))
    if found.fault:
        purpose = f"; --images finds images by {' and '.join(ID_COLUMNS)}" if with_images else ""
        raise UserError(f"{path}: {found.fault}{purpose}")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: column '{name}' occurs twice; remove or rename one")
        if name in added:
            raise UserError(f"{path}: column '{name}' has the name of a column that scoring adds; remove or rename it")
    for name in set(TEXT_COLUMNS) & set(names):
        column_type = schema.field(name).type
        column_type = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
        if pa.types.is_nested(column_type) or _is_binary(column_type):
            raise UserError(f"{path}: column '{name}' is {column_type}, not text; write it as strings")
    if found.warning:
        log.warning("%s: %s; products are classified by their titles", path, found.warning)


def output_format(source: Path) -> CsvFormat:
    """How a CSV file with the products of another file is written: with its separator, in UTF-8, marked if it is."""
    if source.suffix.lower() == PARQUET:
        return DEFAULT_FORMAT
    written = csv_format(source)
    return written._replace(encoding=UTF_8 if written.encoding == UTF_8 else UTF_8_WITH_MARK)


def raw_products(chunk: pa.Table) -> pd.DataFrame:
    """The designation, description, productid and imageid of each row, as str; "" where a value or column is missing.

    Ids are normalised as ingestion does it.
    """
    missing = [None] * len(chunk)
    columns = {
        name: chunk[name].to_pylist() if name in chunk.schema.names else missing for name in TEXT_COLUMNS + ID_COLUMNS
    }
    texts = {name: list(map(text_of, columns[name])) for name in TEXT_COLUMNS}
    ids = {name: list(map(id_of, columns[name])) for name in ID_COLUMNS}
    return pd.DataFrame(texts | ids, dtype="str")


@contextmanager
def product_writer(
    path: Path, schema: pa.Schema, suffix: str, csv_as: CsvFormat = DEFAULT_FORMAT
) -> Iterator[Callable[[pa.Table], object]]:
    """Yield a function that appends a table to a new file.

    Args:
        suffix: the format, CSV or PARQUET. CSV is written like `tables.table_writer` does.
        csv_as: encoding and separator of a CSV file.
    """
    if suffix == PARQUET:
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet.write_table
        return
    with path.open("w", encoding=csv_as.encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=csv_as.separator, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(schema.names)
        yield lambda table: writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
