"""Features of products, row by row: the one path from raw text for training, prediction and serving."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pandas as pd

from rakuten.compute.parallel import each
from rakuten.config import FeatureParams
from rakuten.features.style import style
from rakuten.features.text import clean_text

BATCH = 2000  # rows per task
Raw = tuple[str, str, str]  # productid, designation, description


def product_features(rows: pd.DataFrame, params: FeatureParams) -> pd.DataFrame:
    """Features of products, in the order given; see `features_of`."""
    return pd.concat(features_of([rows], params))


def features_of(parts: Iterable[pd.DataFrame], params: FeatureParams) -> Iterator[pd.DataFrame]:
    """Features of products, a table for each that is given, in the order given.

    Args:
        parts: tables of designation, description, productid, imageid, has_image, and prdtypecode if known; all str.

    Yields:
        productid, imageid, designation_clean, description_clean, their lengths in characters
        (designation_len, description_len), has_description and has_image (0 or 1), style, and
        prdtypecode if it was given.
    """
    waiting: deque[pd.DataFrame] = deque()

    def texts() -> Iterator[Raw]:
        for part in parts:
            waiting.append(part)
            yield from zip(part["productid"], part["designation"], part["description"], strict=True)

    described: list[tuple[str, str, str]] = []
    for text in each(partial(_text_features, params), texts(), BATCH, _named):
        described.append(text)
        while waiting and len(described) >= len(waiting[0]):
            rows = waiting.popleft()
            yield _table(rows, described[: len(rows)])
            del described[: len(rows)]
    yield from (_table(rows, []) for rows in waiting)  # only of no rows: the others are described


def _table(rows: pd.DataFrame, described: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    has_image = (rows["has_image"] == "True").astype(int).tolist()
    columns = {"productid": rows["productid"], "imageid": rows["imageid"], **_columns(described, has_image)}
    table = pd.DataFrame(columns, index=rows.index)
    return table.assign(prdtypecode=rows["prdtypecode"]) if "prdtypecode" in rows else table


def raw_features(texts: Sequence[tuple[str, str]], has_image: Sequence[int], params: FeatureParams) -> pd.DataFrame:
    """The same, without ids, of a few products by their designation and description: at once, in this process."""
    done = [_text_features(params, ("", *text)) for text in texts]
    return pd.DataFrame(_columns(done, has_image), copy=False)


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


def _text_features(params: FeatureParams, raw: Raw) -> tuple[str, str, str]:
    """Cleaned title, cleaned description and style of a product."""
    title, text = (clean_text(part, lowercase=False, strip_accents=False) for part in raw[1:])
    designation, description = (
        clean_text(part, lowercase=params.lowercase, strip_accents=params.strip_accents) for part in (title, text)
    )
    return designation, description, style(title, text, raw[2])


def _named(raw: Raw) -> str:
    return f"the text of product {raw[0]}"
