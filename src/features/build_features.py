"""Stage features: the interim rows, cleaned and measured, their texts and pictures embedded."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from rakuten.cli import progress, run_stage
from rakuten.config import CACHE, INTERIM, PROCESSED, RAW, Params
from rakuten.data.images import PictureFiles
from rakuten.data.tables import ROWS, picture_name, table_chunks, table_writer
from rakuten.features.embedding import Reread, Text, embed_pictures, embed_texts
from rakuten.features.text_features import embedded_text, features_of
from rakuten.files import writing

PARTS = ("features.csv", "texts.npy", "images.npy")


def features(params: Params, interim: Path, raw: Path, processed: Path, cache: Path) -> str:
    """Clean titles and descriptions of the train and test rows, embed texts and pictures."""
    chosen, pictures = params.features, PictureFiles(raw / "images")
    closing = []
    for name in ("train", "test"):
        source = interim / f"merged_{name}.csv"
        with writing(*(processed / f"{name}_{part}" for part in PARTS)) as (table, texts_part, pictures_part):
            rows = 0
            with table_writer(table) as write:
                cleaned = features_of(table_chunks(source), chosen)
                for part in progress(cleaned, None, f"cleaning {name} (parts of {ROWS:,} rows)"):
                    write(part)
                    rows += len(part)
            texts = Reread(partial(texts_of, table), rows)
            read = embed_texts(texts, chosen.text_encoder, cache, texts_part, f"{name} texts")
            paths = Reread(partial(paths_of, source, pictures), rows)
            seen = embed_pictures(paths, chosen.image_encoder, cache, pictures_part, f"{name} pictures")
        closing.append(f"{rows:,} {name} rows cleaned ({read:,} texts and {seen:,} pictures embedded)")
    return ", ".join(closing)


def texts_of(table: Path) -> Iterator[Text]:
    """What a text encoder reads of each product."""
    for part in table_chunks(table):
        yield from zip(part["productid"], embedded_text(part), strict=True)


def paths_of(source: Path, pictures: Mapping[str, Path]) -> Iterator[Path | None]:
    """The picture of each product, None where ingest found none that can be used."""
    for part in table_chunks(source):
        yield from picture_paths(part, pictures)


def picture_paths(rows: pd.DataFrame, pictures: Mapping[str, Path]) -> list[Path | None]:
    """The same of some products."""
    names = (picture_name(*ids) for ids in zip(rows["imageid"], rows["productid"], strict=True))
    usable = rows["has_image"] == "True"
    return [pictures.get(name) if there else None for name, there in zip(names, usable, strict=True)]


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"interim": INTERIM, "raw": RAW, "processed": PROCESSED, "cache": CACHE}
    return run_stage("features", __file__, features, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
