"""Batch scoring: a file of raw products in, the same rows with their predictions out, in constant memory.

The file is scored in chunks, with features made by the functions of the features stage. Each scored chunk is kept as a
part in a folder beside the output until all parts are complete and are joined. So a killed job resumes where it
stopped, and its output has the same bytes as if it had not been killed. The digest of each part is
kept beside it, and a lock keeps two runs off one output.
"""

import atexit
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from filelock import FileLock, Timeout

from rakuten.cli import progress
from rakuten.compute import is_remote, parallel_map
from rakuten.data.images import ImageFiles, check_image, check_image_names, image_paths, usable_image_bytes
from rakuten.data.product_files import (
    ID_COLUMNS,
    PARQUET,
    check_columns,
    output_format,
    product_writer,
    raw_products,
    read_product_chunks,
    read_schema,
)
from rakuten.data.schema import image_name
from rakuten.data.text_files import CsvFormat
from rakuten.data.validation import image_errors
from rakuten.errors import UserError
from rakuten.features.embedding import embed_images, embed_texts
from rakuten.features.encoders.factory import NO_ENCODER
from rakuten.features.encoders.preprocessing import IMAGE_USED
from rakuten.features.feature_set import FeatureBatch
from rakuten.features.text_features import text_feature_table, texts_to_embed
from rakuten.files import atomic_write, digest, dump_json, is_local
from rakuten.models.classifier import ProductClassifier, load_cached
from rakuten.models.pyfunc_model import PREDICTIONS, check_encoders, finetuned_scores
from rakuten.tracking.lineage import model_digest, model_version
from rakuten.types import IMAGE, TEXT

log = logging.getLogger(__name__)

CHUNK_ROWS = 2_000  # in memory at a time, and lost if the job is killed
LOCK_FILE, HOLDER_FILE = ".lock", ".holder"  # in the folder of parts
IMAGE_COUNTS_KEY = b"pictures"  # metadata of a part: how many of its rows' images were used, missing, unusable

_ARROW = {"long": pa.int64(), "string": pa.string(), "double": pa.float64(), "boolean": pa.bool_()}
PREDICTION_SCHEMA = pa.schema(
    [*((name, _ARROW[kind]) for name, kind in PREDICTIONS.items()), ("model_version", pa.string())]
)


class ProductChunk(NamedTuple):
    """Raw products that are scored together."""

    rows: pa.Table
    label: str  # for errors
    images: Mapping[str, Path]  # for each product that has one, its image by name


class ChunkScorer(NamedTuple):
    """The model and the folders that chunks are scored with; it can be sent to another process."""

    models: Path
    version: str
    cache: Path | None  # folder of the embedding caches; None: a temporary one of the process

    def score(self, chunk: ProductChunk) -> pa.Table:
        """The raw products with PREDICTION_SCHEMA added, and counts of their images in the metadata."""
        classifier = load_cached(self.models, self.version)
        check_encoders(classifier)
        batch, errors = featurise_chunk(chunk, classifier, self.cache or _process_cache())
        predictions = classifier.predict(batch).assign(model_version=self.version)
        added, rows = pa.Table.from_pandas(predictions, schema=PREDICTION_SCHEMA, preserve_index=False), chunk.rows
        for name in PREDICTION_SCHEMA.names:
            rows = rows.append_column(PREDICTION_SCHEMA.field(name), added[name])
        image_counts = json.dumps(Counter(error or IMAGE_USED for error in errors), sort_keys=True).encode()
        return rows.replace_schema_metadata({**(rows.schema.metadata or {}), IMAGE_COUNTS_KEY: image_counts})


@cache
def _process_cache() -> Path:
    folder = tempfile.mkdtemp(prefix="rakuten-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def featurise_chunk(chunk: ProductChunk, classifier: ProductClassifier, cache: Path) -> tuple[FeatureBatch, list[str]]:
    """The features of raw products, as ingest and the features stage would make them.

    Returns:
        The features, and for each product what is wrong with its image ("" if nothing).
    """
    products, params = raw_products(chunk.rows), classifier.config.features
    errors = image_errors(products, {name: check_image(path).error for name, path in chunk.images.items()})
    products = products.assign(has_image=(errors == "").map(str))
    table = text_feature_table(products, params)
    texts = list(zip(products["productid"], texts_to_embed(table), strict=True))
    paths = image_paths(products, chunk.images)
    text_config = params.text_encoder if TEXT in classifier.linear else NO_ENCODER
    image_config = params.image_encoder if IMAGE in classifier.linear and any(paths) else NO_ENCODER
    batch = FeatureBatch(
        table,
        embed_texts(texts, text_config, cache, f"texts of {chunk.label}"),
        embed_images(paths, image_config, cache, f"images of {chunk.label}"),
        finetuned_scores(
            classifier.networks,
            zip(products["designation"], products["description"], strict=True),
            map(usable_image_bytes, paths),
        ),
    )
    return batch, errors.tolist()


def score_file(source: Path, output: Path, images: Path | None, models: Path, cache: Path) -> str:
    """Score every row of a CSV or Parquet file, in its order.

    Args:
        source: columns designation, and if there are any description, productid and imageid; others are kept.
        output: all columns of the source as they were, and PREDICTION_SCHEMA; CSV or Parquet by its ending, a
            CSV with the separator of the source.
        images: folder under which the images are, named as by `image_name`; None to use the texts only.
        models: folder of the model.
        cache: folder of the embedding caches.

    Returns:
        A sentence with the counts of the products that were scored, decided and left to review.

    Raises:
        UserError: a path, the source or the model cannot be used; the output is then as it was.
    """
    if not is_local(output):
        return _score_to_store(source, output, images, models, cache)
    schema, before = read_schema(source), source.stat()
    check_columns(source, schema, images is not None, PREDICTION_SCHEMA.names)
    sizes = [len(chunk) for chunk in read_product_chunks(source, CHUNK_ROWS)]  # finds damage before hours are spent
    check_encoders(ProductClassifier.load(models))
    image_files: Mapping[str, Path] = _find_images(images, source) if images else {}
    scorer = ChunkScorer(models, model_version(models), None if is_remote() else cache)
    work = output.with_name(f".{output.name}.parts")
    with _lock(work, output):
        prepare_parts_folder(work, _job_description(source, images, image_files, models))
        parts = [work / f"{number:06}{PARQUET}" for number in range(len(sizes))]
        done = _score_missing(source, parts, sizes, scorer, image_files)
        after = source.stat()
        if done != sum(sizes) or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(f"{source}: changed while it was scored; start again")
        columns = pa.schema([*schema, *PREDICTION_SCHEMA], schema.metadata)
        review, image_counts = join_parts(parts, columns, output, output_format(source))
        shutil.rmtree(work)
    if images:
        log.info("images: %s", ", ".join(f"{count:,} {word}" for word, count in sorted(image_counts.items())))
    return f"{done:,} products scored, {done - review:,} decided automatically and {review:,} to review"


def _find_images(folder: Path, source: Path) -> ImageFiles:
    """The image files below a folder; UserError if there are some and none is the image of a product of the source."""
    files = ImageFiles(folder)
    products = map(raw_products, read_product_chunks(source, CHUNK_ROWS))
    check_image_names(files, products, "omit --images to use only the texts")
    return files


@contextmanager
def _lock(work: Path, output: Path) -> Iterator[None]:
    """Hold the folder of parts, or raise UserError with the process that holds it."""
    work.mkdir(parents=True, exist_ok=True)
    holder = work / HOLDER_FILE
    try:
        with FileLock(work / LOCK_FILE, timeout=0):
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
            yield
    except Timeout as error:
        who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
        raise UserError(f"{output}: {who} is writing to it; wait until it ends") from error


def _score_to_store(source: Path, output: Path, images: Path | None, models: Path, cache: Path) -> str:
    """Score to a local file, then upload it: an object in a store is replaced as a whole or not at all."""
    name = hashlib.sha256(str(output).encode()).hexdigest()[:16] + output.suffix
    local = cache.parent / "scratch" / name
    local.parent.mkdir(parents=True, exist_ok=True)
    closing = score_file(source, local, images, models, cache)
    with local.open("rb") as scored, output.open("wb") as uploaded:
        shutil.copyfileobj(scored, uploaded)
    local.unlink()
    return closing


def _score_missing(
    source: Path, parts: Sequence[Path], sizes: Sequence[int], scorer: ChunkScorer, images: Mapping[str, Path]
) -> int:
    """Write the parts that are missing. Returns the number of rows of the source."""
    complete = [is_complete(part, rows) for part, rows in zip(parts, sizes, strict=True)]
    if any(complete):
        log.info("%s of %s chunks were completed by an earlier run", f"{sum(complete):,}", f"{len(parts):,}")
    rows = 0

    def missing() -> Iterator[ProductChunk]:
        nonlocal rows
        for chunk, skip in zip(read_product_chunks(source, CHUNK_ROWS), chain(complete, repeat(True)), strict=False):
            if not skip:
                yield make_chunk(chunk, rows, images)
            rows += len(chunk)

    missing_parts = [part for part, skip in zip(parts, complete, strict=True) if not skip]
    scored = parallel_map(scorer.score, missing(), 1, _chunk_label)
    scored = progress(scored, len(missing_parts), f"scoring (chunks of {CHUNK_ROWS:,} rows)")
    for part, table in zip(missing_parts, scored, strict=False):
        with atomic_write(_digest_file(part), part) as (digest_file, partial):
            pq.write_table(table, partial)
            digest_file.write_text(digest(partial), encoding="ascii")
    for _ in scored:  # gives nothing, but reads the rest of the source, which shows whether it has changed
        pass
    return rows if missing_parts else sum(len(chunk) for chunk in read_product_chunks(source, CHUNK_ROWS))


def make_chunk(rows: pa.Table, start: int, images: Mapping[str, Path]) -> ProductChunk:
    """The chunk that begins at row number `start`, with the images of its products."""
    ids = raw_products(rows)[list(ID_COLUMNS)]
    names = [image_name(image, product) for product, image in zip(ids["productid"], ids["imageid"], strict=True)]
    own_images = {name: images[name] for name in names if name in images}
    return ProductChunk(rows, f"rows {start + 1:,}-{start + len(rows):,}", own_images)


def _chunk_label(chunk: ProductChunk) -> str:
    return chunk.label


def _job_description(
    source: Path, images: Path | None, image_files: Mapping[str, Path], models: Path
) -> dict[str, Any]:
    """What the parts depend on. Images are compared by name, size and time of change."""
    listing = hashlib.sha256()
    for name, path in image_files.items():
        try:
            file = path.stat()
            listing.update(f"{name}\0{file.st_size}\0{file.st_mtime_ns}\0".encode())
        except OSError:  # such as a link that leads nowhere
            listing.update(f"{name}\0unreadable\0".encode())
    return {
        "input": {"path": str(source.resolve()), "bytes": source.stat().st_size, "sha256": digest(source)},
        "model": model_digest(models),
        "images": images and {"path": str(images.resolve()), "sha256": listing.hexdigest()},
        "chunk": CHUNK_ROWS,
        "columns": PREDICTION_SCHEMA.names,  # that are added: another version of this program may add others
    }


def prepare_parts_folder(work: Path, job: Mapping[str, Any]) -> None:
    """Make the folder of parts, and empty it unless it belongs to the same job."""
    job_file = work / "job.json"
    try:
        if json.loads(job_file.read_text(encoding="utf-8")) == job:
            return
    except (OSError, ValueError):
        pass  # no folder yet, or killed while the file was written
    if job_file.exists():
        log.info("%s: belongs to another input, model, set of images or version of this program; starting over", work)
    for path in work.iterdir() if work.exists() else ():
        if path.name not in (LOCK_FILE, HOLDER_FILE):
            path.unlink()
    with atomic_write(job_file) as (partial,):
        dump_json(job, partial)


def is_complete(part: Path, rows: int) -> bool:
    """Whether a part exists, is as it was written, and has all its rows. One that was changed since is said."""
    try:
        expected = _digest_file(part).read_text(encoding="ascii")
        if digest(part) != expected:
            log.warning("%s: damaged or changed since it was written; its rows are scored again", part)
            return False
        return bool(pq.read_metadata(part).num_rows == rows)
    except (OSError, ValueError, pa.ArrowException):
        return False


def _digest_file(part: Path) -> Path:
    return part.with_suffix(".sha256")


def join_parts(parts: Sequence[Path], schema: pa.Schema, output: Path, csv_as: CsvFormat) -> tuple[int, Counter[str]]:
    """Write the parts one after another to the output. Returns the number of rows to review, and the image counts."""
    review, image_counts = 0, Counter[str]()
    with atomic_write(output) as (partial,), product_writer(partial, schema, output.suffix.lower(), csv_as) as write:
        for part in parts:
            # Not read_table: it makes columns of folder names such as "year=2026".
            with pq.ParquetFile(part) as file:
                table = file.read()
            image_counts.update(json.loads(table.schema.metadata[IMAGE_COUNTS_KEY]))
            review += sum(table["needs_review"].to_pylist())
            write(table.replace_schema_metadata(schema.metadata))
    return review, image_counts
