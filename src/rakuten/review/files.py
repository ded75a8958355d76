"""Files of products for the queue: predictions.csv, any scored file, label_issues.csv; and corrections.csv."""

import io
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from rakuten.config import CORRECTIONS, INTERIM, MODELS, PROCESSED, RAW, REPORTS, load_params
from rakuten.data.corrections import CORRECTIONS_FILE
from rakuten.data.images import ImageFiles
from rakuten.data.schema import image_name
from rakuten.data.tables import write_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.files import atomic_write
from rakuten.review import exchange, sources
from rakuten.review.decisions import NO_CODE
from rakuten.review.desk import ReviewDesk
from rakuten.review.tables import Source
from rakuten.tracking import lineage

TEXTS = ["productid", "imageid", "designation", "description"]
SCORED_COLUMNS = {"predicted_prdtypecode", "confidence", "needs_review", "model_version"}
PIPELINE_FILES = {"predictions": PROCESSED / "predictions.csv", "label-issues": REPORTS / "label_issues.csv"}
EXPORTED = CORRECTIONS / CORRECTIONS_FILE
PICTURES = RAW / "images" / "image_review"  # of products from live traffic


def products_of(file: Path | bytes, name: str, images: Path | None = None, source: str = "") -> list[dict[str, Any]]:
    """The products of a file, as `ReviewDesk.add` takes them.

    Args:
        file: CSV or Parquet: a path, or the file's bytes.
        name: of the file, for errors and to tell Parquet by its suffix.
        images: folder of the pictures; by default that of the pipeline.
        source: of a scored file's products, other than `file`.

    Raises:
        UserError: it cannot be read, is neither a scored file nor label_issues.csv, or lacks texts that ingest has not.
    """
    params = load_params()
    folder = RAW / "images" if images is None else images
    pictures = ImageFiles(folder) if folder.is_dir() else {}
    table = read_table(file, name)
    if "suggested_prdtypecode" in table:
        table = _with_texts(table, INTERIM / "merged_train.csv")
        return sources.from_label_issues(table, pictures, lineage.model_version(MODELS), current_taxonomy())
    if set(table.columns) >= SCORED_COLUMNS:
        table = table if "designation" in table else _with_texts(table, INTERIM / "merged_test.csv")
        products = sources.from_scored(table, pictures, params.review.audit_share, params.seed, current_taxonomy())
        return [product | {"source": Source(source)} for product in products] if source else products
    raise UserError(f"{name}: neither a scored file nor label_issues.csv; `rakuten score` makes the former")


def read_table(file: Path | bytes, name: str) -> pd.DataFrame:
    """A CSV or Parquet file.

    Raises:
        UserError: it cannot be read.
    """
    content = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        return pd.read_parquet(content) if name.endswith(".parquet") else pd.read_csv(content, keep_default_na=False)
    except (ImportError, OSError, ValueError) as error:  # the API's container has no reader of Parquet
        raise UserError(f"{name}: cannot be read ({error})") from error


def export_corrections(desk: ReviewDesk, path: Path | None = None) -> int:
    """Write the products whose label people changed, or that got their first; returns their number.

    The pictures of products from live traffic are copied to where ingest looks for pictures.

    Args:
        path: of corrections.csv; by default where ingest reads it.
    """
    path = EXPORTED if path is None else path
    decided = desk.decided()
    for product, answer, _ in decided:
        if product.productid is None and product.image and answer != NO_CODE:
            productid, imageid = exchange.ids_of(product)
            _copy(Path(product.image), PICTURES / image_name(str(imageid), str(productid)))
    table = exchange.corrections(decided, current_taxonomy())
    with atomic_write(path) as (partial,):
        write_table(table, partial)
    return len(table)


def _copy(picture: Path, copy: Path) -> None:
    """Copy a picture unless it is gone, or copied already: the name follows from the content."""
    if not copy.exists() and picture.is_file():
        with atomic_write(copy) as (partial,):
            shutil.copyfile(picture, partial)


def _with_texts(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with the texts of its products as ingest wrote them."""
    texts = read_table(path, str(path))[TEXTS]
    ids = TEXTS[:2]
    merged = table.drop(columns=["designation", "description"], errors="ignore").merge(texts, on=ids, how="left")
    if merged["designation"].isna().any():
        raise UserError(f"{path} has not all of these products: run `dvc repro`, then try again")
    return merged
