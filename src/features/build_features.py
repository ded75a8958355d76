"""Stage features: the interim rows, cleaned and measured, their texts and pictures embedded."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.cli import run_stage
from src.config import CACHE, INTERIM, PROCESSED, RAW, Params
from src.data.catalog import picture_name, read_table, write_table
from src.data.pictures import picture_files
from src.features.embeddings import embed_pictures, embed_texts
from src.features.products import embedded_text, product_features
from src.files import writing

PARTS = ("features.csv", "texts.npy", "images.npy")


def features(params: Params, interim: Path, raw: Path, processed: Path, cache: Path) -> str:
    """Clean titles and descriptions of the train and test rows, embed texts and pictures."""
    pictures = picture_files(raw / "images")
    closing = []
    for name in ("train", "test"):
        rows = read_table(interim / f"merged_{name}.csv")
        with writing(*(processed / f"{name}_{part}" for part in PARTS)) as (table_part, texts_part, pictures_part):
            table = product_features(rows, params.features, name)
            write_table(table, table_part)
            chosen = params.features
            texts = embed_texts(embedded_text(table), chosen.text_encoder, cache, texts_part, f"{name} texts")
            paths = picture_paths(rows, pictures)
            seen = embed_pictures(paths, chosen.image_encoder, cache, pictures_part, f"{name} pictures")
        closing.append(f"{len(rows):,} {name} rows cleaned ({texts:,} texts and {seen:,} pictures embedded)")
    return ", ".join(closing)


def picture_paths(rows: pd.DataFrame, pictures: dict[str, Path]) -> list[Path | None]:
    """The picture of each row, None where ingest found none that can be used."""
    names = (picture_name(*ids) for ids in zip(rows["imageid"], rows["productid"], strict=True))
    usable = rows["has_image"] == "True"
    return [pictures.get(name) if there else None for name, there in zip(names, usable, strict=True)]


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"interim": INTERIM, "raw": RAW, "processed": PROCESSED, "cache": CACHE}
    return run_stage("features", __file__, features, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
