"""Features of products, row by row: the one path from raw text for training, prediction and serving."""

from collections.abc import Sequence

import pandas as pd
from joblib import Parallel, delayed

from src.cli import progress
from src.config import FeatureParams
from src.features.style import style
from src.features.text import clean_text

BATCH = 2000  # rows per task


def product_features(rows: pd.DataFrame, params: FeatureParams, what: str = "rows") -> pd.DataFrame:
    """Features of products, in the order given.

    Args:
        rows: designation, description, productid, imageid, has_image, and prdtypecode if known; all str.
        what: named on the progress bar.

    Returns:
        productid, imageid, designation_clean, description_clean, their lengths in characters
        (designation_len, description_len), has_description and has_image (0 or 1), style, and
        prdtypecode if it was given.
    """
    texts = list(zip(rows["designation"], rows["description"], strict=True))
    starts = range(0, len(texts), BATCH)
    tasks = (delayed(_text_features)(texts[at : at + BATCH], params) for at in starts)
    workers = Parallel(n_jobs=-1 if len(starts) > 1 else 1, return_as="generator")
    done = [row for batch in progress(workers(tasks), len(starts), f"cleaning {what}") for row in batch]
    has_image = (rows["has_image"] == "True").astype(int).tolist()
    columns = {"productid": rows["productid"], "imageid": rows["imageid"], **_columns(done, has_image)}
    table = pd.DataFrame(columns, index=rows.index)
    return table.assign(prdtypecode=rows["prdtypecode"]) if "prdtypecode" in rows else table


def raw_features(texts: Sequence[tuple[str, str]], has_image: Sequence[int], params: FeatureParams) -> pd.DataFrame:
    """The same, without ids, of a few products by their designation and description: at once, in this process."""
    return pd.DataFrame(_columns(_text_features(texts, params), has_image), copy=False)


def _columns(done: Sequence[tuple[str, str, str]], has_image: Sequence[int]) -> dict[str, Sequence[str | int]]:
    designation, description, traits = zip(*done, strict=True) if done else ((), (), ())
    return {
        "designation_clean": designation,
        "description_clean": description,
        "designation_len": [len(text) for text in designation],
        "description_len": [len(text) for text in description],
        "has_description": [int(text != "") for text in description],
        "has_image": has_image,
        "style": traits,
    }


def embedded_text(table: pd.DataFrame) -> list[str]:
    """What a text encoder reads of each product: title, then description."""
    pairs = zip(table["designation_clean"], table["description_clean"], strict=True)
    return [" ".join(filter(None, pair)) for pair in pairs]


def _text_features(texts: Sequence[tuple[str, str]], params: FeatureParams) -> list[tuple[str, str, str]]:
    """Cleaned title, cleaned description and style of each pair."""
    done = []
    for raw in texts:
        title, text = (clean_text(part, lowercase=False, strip_accents=False) for part in raw)
        designation, description = (
            clean_text(part, lowercase=params.lowercase, strip_accents=params.strip_accents) for part in (title, text)
        )
        done.append((designation, description, style(title, text, raw[1])))
    return done
