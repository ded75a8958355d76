"""Batch scoring: a file of raw products in, the same rows with their predictions out, in constant memory.

The file is read, described and scored a chunk at a time, by the features stage's own functions. A
scored chunk is kept as a part, in a folder beside the output, until all are there and are joined:
a killed job goes on where it stopped, and ends with the bytes that it would have had undisturbed.
"""

import csv
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from src.cli import progress
from src.data.catalog import picture_name, records
from src.data.checks import INTEGER, picture_state
from src.data.pictures import counts, inspect_all, picture_files
from src.errors import UserError
from src.features.embeddings import embed_pictures, embed_texts, read_embeddings
from src.features.encoders import NONE
from src.features.products import embedded_text, product_features
from src.files import digest, dump_json, writing
from src.models.classifier import MEANING, PICTURE, ProductClassifier, Products
from src.models.raw_model import OUTPUTS, RawModel
from src.tracking.lineage import model_digest, model_version

log = logging.getLogger(__name__)

CHUNK = 2_000  # rows in memory at a time, and what a killed job loses
BUFFER = 1 << 20  # bytes of a Parquet column read at a time: pyarrow else reads all of a row group's
CSV, PARQUET = ".csv", ".parquet"
TEXTS, IDS = ("designation", "description"), ("productid", "imageid")
TALLY = b"pictures"  # where a part keeps what its rows' pictures were

_ARROW = {"long": pa.int64(), "string": pa.string(), "double": pa.float64(), "boolean": pa.bool_()}
ANSWERS = pa.schema([*((name, _ARROW[kind]) for name, kind in OUTPUTS.items()), ("model_version", pa.string())])


class Scorer(NamedTuple):
    """What rows are scored with."""

    classifier: ProductClassifier
    version: str
    pictures: Mapping[str, Path]  # files by name
    cache: Path  # folder of the embedding caches

    def score(self, chunk: pa.Table, where: str) -> pa.Table:
        """Raw products with ANSWERS added, and a tally of their pictures in the metadata; `where` is for the log."""
        products, states = self.describe(chunk, where)
        answers = self.classifier.predict(products).assign(model_version=self.version)
        added = pa.Table.from_pandas(answers, schema=ANSWERS, preserve_index=False)
        for name in ANSWERS.names:
            chunk = chunk.append_column(ANSWERS.field(name), added[name])
        tally = json.dumps(counts([state or "used" for state in states])).encode()
        return chunk.replace_schema_metadata({**(chunk.schema.metadata or {}), TALLY: tally})

    def describe(self, chunk: pa.Table, where: str) -> tuple[Products, list[str]]:
        """Raw products as ingest and the features stage would describe them, and what is wrong with their pictures."""
        rows, features, views = raw_rows(chunk), self.classifier.features, self.classifier.linear
        names = [picture_name(*ids) for ids in zip(rows["imageid"], rows["productid"], strict=True)]
        there = {name: self.pictures[name] for name in names if name in self.pictures}
        states = picture_state(rows, inspect_all(list(there.values()))).tolist()
        usable = [there[name] if state == "" else None for name, state in zip(names, states, strict=True)]
        table = product_features(rows.assign(has_image=[str(state == "") for state in states]), features, where)
        text_choice = features.text_encoder if MEANING in views else NONE
        image_choice = features.image_encoder if PICTURE in views and any(usable) else NONE
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            texts, images = Path(folder) / "texts.npy", Path(folder) / "images.npy"
            embed_texts(embedded_text(table), text_choice, self.cache, texts, f"texts of {where}")
            embed_pictures(usable, image_choice, self.cache, images, f"pictures of {where}")
            return Products(table, *(read_embeddings(path, len(table)) for path in (texts, images))), states


def score_file(source: Path, output: Path, images: Path | None, models: Path, cache: Path) -> str:
    """Score every row of a CSV or Parquet file, in its order.

    Args:
        source: columns designation, and if there are any description, productid and imageid; others are kept.
        output: all columns of the source as they were, and ANSWERS; CSV or Parquet by its ending.
        images: folder under which the pictures are, by `picture_name`; None to go by the texts alone.
        models: folder of the model.
        cache: folder of the embedding caches.

    Returns:
        The closing line.

    Raises:
        UserError: a path, the source or the model cannot be used; the output is then as it was.
    """
    given, before = read_schema(source), source.stat()
    check_columns(source, given, with_pictures=images is not None)
    sizes = [len(chunk) for chunk in read_chunks(source, CHUNK)]  # finds damage before hours are spent
    classifier = RawModel(ProductClassifier.load(models)).classifier  # which refuses another encoder
    scorer = Scorer(classifier, model_version(models), picture_files(images) if images else {}, cache)
    work = output.with_name(f".{output.name}.parts")
    begin(work, _job(source, images, scorer, models))
    parts = [work / f"{at:06}{PARQUET}" for at in range(len(sizes))]
    done = _score_missing(source, parts, sizes, scorer)
    after = source.stat()
    if done != sum(sizes) or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{source}: changed while it was scored; start again")
    review, seen = join(parts, pa.schema([*given, *ANSWERS], given.metadata), output)
    shutil.rmtree(work)
    if images:
        log.info("pictures: %s", ", ".join(f"{count:,} {word}" for word, count in sorted(seen.items())))
    return f"{done:,} products scored, {done - review:,} decided automatically and {review:,} to review"


def _score_missing(source: Path, parts: Sequence[Path], sizes: Sequence[int], scorer: Scorer) -> int:
    """Write the parts that are not there yet; how many rows the source has."""
    kept = {part for part, rows in zip(parts, sizes, strict=True) if finished(part, rows)}
    if kept:
        log.info("%s of %s chunks are there from a run that was stopped", f"{len(kept):,}", f"{len(parts):,}")
    start = 0
    chunks = zip(parts, read_chunks(source, CHUNK), strict=False)
    for part, chunk in progress(chunks, len(parts), f"scoring (chunks of {CHUNK:,} rows)"):
        if part not in kept:
            scored = scorer.score(chunk, f"rows {start + 1:,}-{start + len(chunk):,}")
            with writing(part) as (partial,):
                pq.write_table(scored, partial)
        start += len(chunk)
    return start


def raw_rows(chunk: pa.Table) -> pd.DataFrame:
    """Designation, description, productid and imageid as str, empty where nothing stands."""
    there = set(chunk.schema.names)
    given = {name: chunk[name].to_pylist() if name in there else [None] * len(chunk) for name in (*TEXTS, *IDS)}
    texts = {name: [value or "" for value in given[name]] for name in TEXTS}
    return pd.DataFrame(texts | {name: [_plain(value) for value in given[name]] for name in IDS}, dtype="str")


def _plain(value: Any) -> str:
    """An id in its plain spelling, as ingest has it: "007" is 7, and so is the 7.0 that a gap makes of a number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value)
    return str(int(text)) if re.fullmatch(INTEGER, text) else text


def check_columns(path: Path, schema: pa.Schema, with_pictures: bool) -> None:
    """Raise UserError unless the columns are there, once, of text, and free of names that scoring adds."""
    names = schema.names
    there = ", ".join(map(repr, names))
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise UserError(f"{path}: line 1: columns are not parted by commas; save the file as comma-separated CSV")
    for name in ("designation", *(IDS if with_pictures else ())):
        if name not in names:
            why = ", by which --images finds pictures" if name in IDS else ""
            raise UserError(f"{path}: no column '{name}'{why}; rename the one that holds it (columns there: {there})")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: column '{name}' is there twice; remove or rename one")
        if name in ANSWERS.names:
            raise UserError(f"{path}: column '{name}' is one that scoring adds; remove or rename it")
    for name in set(TEXTS) & set(names):
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if str(kind) not in ("string", "large_string", "string_view", "null"):
            raise UserError(f"{path}: column '{name}' is {kind}, not text; write it as strings")
    if "description" not in names:
        log.warning("%s: no column 'description'; products go by their titles", path)


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """A Parquet file to read; what pyarrow says of a damaged one becomes a UserError."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a whole Parquet file ({error}); write it or fetch it again") from error


def read_schema(path: Path) -> pa.Schema:
    """Columns of a CSV or Parquet file; those of a CSV file are all text. Raises as `read_chunks`."""
    if path.suffix.lower() == PARQUET:
        with _parquet(path) as file:
            return file.schema_arrow
    return pa.schema([(name, pa.string()) for name in next(records(path))[1]])


def read_chunks(path: Path, size: int) -> Iterator[pa.Table]:
    """The rows of a CSV or Parquet file as they stand, so many at a time, the last of them fewer.

    Raises:
        UserError: a CSV file is not UTF-8, cut short or wrongly quoted; a Parquet file is damaged.
    """
    if path.suffix.lower() == PARQUET:
        with _parquet(path) as file:
            for batch in file.iter_batches(batch_size=size):
                batch.validate(full=True)  # texts that are not UTF-8
                yield pa.Table.from_batches([batch])
        return
    found = records(path)
    _, header = next(found)
    while rows := [row for _, row in islice(found, size)]:
        yield pa.Table.from_arrays([pa.array(values, pa.string()) for values in zip(*rows, strict=True)], header)


def _job(source: Path, images: Path | None, scorer: Scorer, models: Path) -> dict[str, Any]:
    """What the parts hang on; of the pictures names, sizes and times, for one may be added, mended or gone."""
    listing = hashlib.sha256()
    for name in sorted(scorer.pictures):
        file = scorer.pictures[name].stat()
        listing.update(f"{name}\0{file.st_size}\0{file.st_mtime_ns}\0".encode())
    return {
        "input": {"path": str(source.resolve()), "bytes": source.stat().st_size, "sha256": digest(source)},
        "model": model_digest(models),
        "images": images and {"path": str(images.resolve()), "sha256": listing.hexdigest()},
        "chunk": CHUNK,
    }


def begin(work: Path, job: Mapping[str, Any]) -> None:
    """Make the folder of parts, empty unless it is of this very job."""
    note = work / "job.json"
    try:
        if json.loads(note.read_text(encoding="utf-8")) == job:
            return
    except (OSError, ValueError):
        pass  # no folder yet, or its note was being written
    if work.exists():
        log.info("%s: parts of another input, model or set of pictures; begun anew", work)
        shutil.rmtree(work)
    with writing(note) as (partial,):
        dump_json(job, partial)


def finished(part: Path, rows: int) -> bool:
    """Whether a part is there and has all its rows."""
    try:
        return bool(pq.read_metadata(part).num_rows == rows)
    except (OSError, pa.ArrowException):
        return False


def join(parts: Sequence[Path], schema: pa.Schema, output: Path) -> tuple[int, Counter[str]]:
    """Write the parts, one after another, to the output; how many rows to review, and the tally of pictures."""
    review, seen = 0, Counter[str]()
    with writing(output) as (partial,), _writer(partial, schema, output.suffix.lower()) as write:
        for part in parts:
            # Not read_table: it makes columns of folder names such as "year=2026".
            with pq.ParquetFile(part) as file:
                table = file.read()
            seen.update(json.loads(table.schema.metadata[TALLY]))
            review += sum(table["needs_review"].to_pylist())
            write(table.replace_schema_metadata(schema.metadata))
    return review, seen


@contextmanager
def _writer(path: Path, schema: pa.Schema, ending: str) -> Iterator[Any]:
    """What appends a table to a new file; CSV in the manner of `catalog.write_table`."""
    if ending == PARQUET:
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet.write_table
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(schema.names)
        yield lambda table: writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
