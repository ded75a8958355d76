"""Stage features: clean the texts of the ingested products, embed texts and images, find near-duplicates."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others

# isort: split
import numpy as np
from threadpoolctl import threadpool_limits

from rakuten.cli import progress, run_stage
from rakuten.config import CACHE, INTERIM, PROCESSED, RAW, REPORTS, Params
from rakuten.data.images import ImageFiles, image_paths
from rakuten.data.tables import CHUNK_ROWS, read_table_chunks, table_writer
from rakuten.features.embedding import ProductText, write_image_embeddings, write_text_embeddings
from rakuten.features.feature_set import GROUPS_FILE, TEST, TRAIN, FeaturePaths, FeatureSet
from rakuten.features.near_duplicates import find_near_duplicates
from rakuten.features.text_features import text_feature_chunks, texts_to_embed
from rakuten.files import atomic_write, dump_json


def features(params: Params, interim: Path, raw: Path, processed: Path, cache: Path, reports: Path) -> str:
    """Clean the texts of the train and test products, embed texts and images, find near-duplicates."""
    images = ImageFiles(raw / "images")
    lines = [
        write_features(params, interim / f"merged_{name}.csv", images, processed, name, cache) for name in (TRAIN, TEST)
    ]
    lines.append(write_near_duplicates(processed, reports, params.seed))
    return ", ".join(lines)


def write_features(params: Params, rows: Path, images: ImageFiles, processed: Path, name: str, cache: Path) -> str:
    """Write one feature set.

    Args:
        rows: the table of products that ingest wrote.
        images: the image files.
        processed: folder of the feature set.
        name: of the feature set, train or test.
        cache: folder of the embedding caches.

    Returns:
        Numbers of rows and embeddings, for the closing line.
    """
    with atomic_write(*FeaturePaths.of(processed, name)) as (table, text_embeddings, image_embeddings):
        n_rows = 0
        with table_writer(table) as write:
            chunks = text_feature_chunks(read_table_chunks(rows), params.features)
            for chunk in progress(chunks, None, f"cleaning {name} (chunks of {CHUNK_ROWS:,} rows)"):
                write(chunk)
                n_rows += len(chunk)

        def read_texts() -> Iterator[ProductText]:
            for chunk in read_table_chunks(table):
                yield from zip(chunk["productid"], texts_to_embed(chunk), strict=True)

        def read_paths() -> Iterator[Path | None]:
            for chunk in read_table_chunks(rows):
                yield from image_paths(chunk, images)

        n_texts = write_text_embeddings(
            read_texts, n_rows, params.features.text_encoder, cache, text_embeddings, f"{name} texts"
        )
        n_images = write_image_embeddings(
            read_paths, n_rows, params.features.image_encoder, cache, image_embeddings, f"{name} images"
        )
    return f"{n_rows:,} {name} rows cleaned ({n_texts:,} texts and {n_images:,} images embedded)"


def write_near_duplicates(processed: Path, reports: Path, seed: int) -> str:
    """Write the group of each train product, and how many products are nearly the same. Returns the latter."""
    with atomic_write(processed / GROUPS_FILE, reports / "near_duplicates.json") as (groups, report):
        with threadpool_limits(1):  # sums of floats depend on how many threads share them
            found = find_near_duplicates(FeatureSet.open(processed, TRAIN), FeatureSet.open(processed, TEST), seed)
        with groups.open("wb") as stream:
            np.lib.format.write_array(stream, found.group, version=(1, 0))
        dump_json(found.counts, report)
    return f"{found.counts['train']['products']:,} train rows with a near-duplicate"


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"interim": INTERIM, "raw": RAW, "processed": PROCESSED, "cache": CACHE, "reports": REPORTS}
    return run_stage("features", features, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
