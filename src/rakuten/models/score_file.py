"""Batch scoring: a file of raw products in, the same rows with their predictions out, in constant memory.

The file is read, described and scored a chunk at a time, by the features stage's own functions. A
scored chunk is kept as a part, in a folder beside the output, until all are there and are joined:
a killed job goes on where it stopped, and ends with the bytes that it would have had undisturbed.
"""

import atexit
import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from rakuten.cli import progress
from rakuten.compute import parallel
from rakuten.compute.parallel import each
from rakuten.data.images import PictureFiles, counts, inspect
from rakuten.data.product_files import IDS, PARQUET, check_columns, raw_rows, read_chunks, read_schema, sheet_writer
from rakuten.data.tables import picture_name
from rakuten.data.validation import picture_state
from rakuten.errors import UserError
from rakuten.features.embedding import embed_pictures, embed_texts, read_embeddings
from rakuten.features.encoders.onnx import NONE
from rakuten.features.text_features import embedded_text, product_features
from rakuten.files import digest, dump_json, is_local, writing
from rakuten.models.classifier import MEANING, PICTURE, ProductClassifier, Products, load_once
from rakuten.models.pyfunc_model import OUTPUTS, RawModel
from rakuten.tracking.lineage import model_digest, model_version

log = logging.getLogger(__name__)

CHUNK = 2_000  # rows in memory at a time, and what a killed job loses
TALLY = b"pictures"  # where a part keeps what its rows' pictures were

_ARROW = {"long": pa.int64(), "string": pa.string(), "double": pa.float64(), "boolean": pa.bool_()}
ANSWERS = pa.schema([*((name, _ARROW[kind]) for name, kind in OUTPUTS.items()), ("model_version", pa.string())])


class Chunk(NamedTuple):
    """Raw products that are scored together."""

    rows: pa.Table
    where: str  # for errors
    pictures: Mapping[str, Path]  # files by name, of those products that have one


class Scorer(NamedTuple):
    """What chunks are scored with, wherever that is done."""

    models: Path
    version: str
    cache: Path | None  # folder of the embedding caches; None: one of the process's own

    def score(self, chunk: Chunk) -> pa.Table:
        """Raw products with ANSWERS added, and a tally of their pictures in the metadata."""
        classifier = RawModel(load_once(self.models, self.version)).classifier  # which refuses another encoder
        products, states = describe(chunk, classifier, self.cache or _own_cache())
        answers = classifier.predict(products).assign(model_version=self.version)
        added, rows = pa.Table.from_pandas(answers, schema=ANSWERS, preserve_index=False), chunk.rows
        for name in ANSWERS.names:
            rows = rows.append_column(ANSWERS.field(name), added[name])
        tally = json.dumps(counts([state or "used" for state in states])).encode()
        return rows.replace_schema_metadata({**(rows.schema.metadata or {}), TALLY: tally})


@cache
def _own_cache() -> Path:
    folder = tempfile.mkdtemp(prefix="rakuten-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def describe(chunk: Chunk, classifier: ProductClassifier, cache: Path) -> tuple[Products, list[str]]:
    """Raw products as ingest and the features stage would describe them, and what is wrong with their pictures."""
    rows, features, views = raw_rows(chunk.rows), classifier.features, classifier.linear
    names = [picture_name(*ids) for ids in zip(rows["imageid"], rows["productid"], strict=True)]
    states = picture_state(rows, {name: inspect(path).bad for name, path in chunk.pictures.items()}).tolist()
    usable = [chunk.pictures[name] if state == "" else None for name, state in zip(names, states, strict=True)]
    table = product_features(rows.assign(has_image=[str(state == "") for state in states]), features)
    text_choice = features.text_encoder if MEANING in views else NONE
    image_choice = features.image_encoder if PICTURE in views and any(usable) else NONE
    texts = list(zip(rows["productid"], embedded_text(table), strict=True))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        parts = Path(folder) / "texts.npy", Path(folder) / "images.npy"
        embed_texts(texts, text_choice, cache, parts[0], f"texts of {chunk.where}")
        embed_pictures(usable, image_choice, cache, parts[1], f"pictures of {chunk.where}")
        return Products(table, *(read_embeddings(path, len(table)) for path in parts)), states


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
    if not is_local(output):
        return _score_for(source, output, images, models, cache)
    given, before = read_schema(source), source.stat()
    check_columns(source, given, images is not None, ANSWERS.names)
    sizes = [len(chunk) for chunk in read_chunks(source, CHUNK)]  # finds damage before hours are spent
    RawModel(ProductClassifier.load(models))  # refuses what cannot be used before hours are spent
    pictures: Mapping[str, Path] = PictureFiles(images) if images else {}
    scorer = Scorer(models, model_version(models), None if parallel.is_remote() else cache)
    work = output.with_name(f".{output.name}.parts")
    begin(work, _job(source, images, pictures, models))
    parts = [work / f"{at:06}{PARQUET}" for at in range(len(sizes))]
    done = _score_missing(source, parts, sizes, scorer, pictures)
    after = source.stat()
    if done != sum(sizes) or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{source}: changed while it was scored; start again")
    review, seen = join(parts, pa.schema([*given, *ANSWERS], given.metadata), output)
    shutil.rmtree(work)
    if images:
        log.info("pictures: %s", ", ".join(f"{count:,} {word}" for word, count in sorted(seen.items())))
    return f"{done:,} products scored, {done - review:,} decided automatically and {review:,} to review"


def _score_for(source: Path, output: Path, images: Path | None, models: Path, cache: Path) -> str:
    """Score to a file here, and then send it: an object of a store is written whole or not at all."""
    name = hashlib.sha256(str(output).encode()).hexdigest()[:16] + output.suffix
    here = cache.parent / "scratch" / name
    here.parent.mkdir(parents=True, exist_ok=True)
    closing = score_file(source, here, images, models, cache)
    with here.open("rb") as whole, output.open("wb") as sent:
        shutil.copyfileobj(whole, sent)
    here.unlink()
    return closing


def _score_missing(
    source: Path, parts: Sequence[Path], sizes: Sequence[int], scorer: Scorer, pictures: Mapping[str, Path]
) -> int:
    """Write the parts that are not there yet; how many rows the source has."""
    kept = [finished(part, rows) for part, rows in zip(parts, sizes, strict=True)]
    if any(kept):
        log.info("%s of %s chunks are there from a run that was stopped", f"{sum(kept):,}", f"{len(parts):,}")
    rows = 0

    def missing() -> Iterator[Chunk]:
        nonlocal rows
        for chunk, there in zip(read_chunks(source, CHUNK), chain(kept, repeat(True)), strict=False):
            if not there:
                yield to_score(chunk, rows, pictures)
            rows += len(chunk)

    wanted = [part for part, there in zip(parts, kept, strict=True) if not there]
    scored = progress(each(scorer.score, missing(), 1, _where), len(wanted), f"scoring (chunks of {CHUNK:,} rows)")
    for part, table in zip(wanted, scored, strict=False):
        with writing(part) as (partial,):
            pq.write_table(table, partial)
    for _ in scored:  # none: the rest of the source is read, to know whether it is what it was
        pass
    return rows if wanted else sum(len(chunk) for chunk in read_chunks(source, CHUNK))


def to_score(rows: pa.Table, start: int, pictures: Mapping[str, Path]) -> Chunk:
    """A chunk that begins at this row, with the pictures that it needs."""
    ids = raw_rows(rows)[list(IDS)]
    names = [picture_name(image, product) for product, image in zip(ids["productid"], ids["imageid"], strict=True)]
    there = {name: pictures[name] for name in names if name in pictures}
    return Chunk(rows, f"rows {start + 1:,}-{start + len(rows):,}", there)


def _where(chunk: Chunk) -> str:
    return chunk.where


def _job(source: Path, images: Path | None, pictures: Mapping[str, Path], models: Path) -> dict[str, Any]:
    """What the parts hang on; of the pictures names, sizes and times, for one may be added, mended or gone."""
    listing = hashlib.sha256()
    for name, path in pictures.items():
        file = path.stat()
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
    with writing(output) as (partial,), sheet_writer(partial, schema, output.suffix.lower()) as write:
        for part in parts:
            # Not read_table: it makes columns of folder names such as "year=2026".
            with pq.ParquetFile(part) as file:
                table = file.read()
            seen.update(json.loads(table.schema.metadata[TALLY]))
            review += sum(table["needs_review"].to_pylist())
            write(table.replace_schema_metadata(schema.metadata))
    return review, seen
