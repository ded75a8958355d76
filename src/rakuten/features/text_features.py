"""Text features of products: the one way from raw text to features, for training, prediction and serving."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, tee
from typing import NamedTuple

import pandas as pd

from rakuten.compute import parallel_map
from rakuten.config import FeatureParams
from rakuten.features.style import style_tokens
from rakuten.features.text import clean_text

CHUNK_ROWS = 2000  # rows that are cleaned in one task


class RawText(NamedTuple):
    """The texts of a product as the seller wrote them."""

    productid: str
    designation: str
    description: str


class CleanText(NamedTuple):
    """The texts of a product, cleaned, and how they were written."""

    designation: str
    description: str
    style: str  # see `style.style_tokens`


def text_feature_table(products: pd.DataFrame, params: FeatureParams) -> pd.DataFrame:
    """The table of `text_feature_chunks` for products that are in memory."""
    return pd.concat(text_feature_chunks([products], params))


def text_feature_chunks(chunks: Iterable[pd.DataFrame], params: FeatureParams) -> Iterator[pd.DataFrame]:
    """Text features of products, in the order given; cleaned in parallel.

    Args:
        chunks: tables of designation, description, productid, imageid, has_image, and prdtypecode if known; all str.

    Yields:
        For each chunk: productid, imageid, designation_clean, description_clean, their lengths in characters
        (designation_len, description_len), has_description and has_image (0 or 1), style, and prdtypecode if given.
    """
    chunks, to_clean = tee(chunks)  # the second runs ahead of the first by the rows that are being cleaned
    raw = (RawText(*row) for chunk in to_clean for row in _raw_texts(chunk))
    cleaned = parallel_map(partial(clean_product, params), raw, CHUNK_ROWS, _text_label)
    for chunk in chunks:
        yield _feature_table(chunk, list(islice(cleaned, len(chunk))))
    for _ in cleaned:  # there is none; asking for it ends the parallel work in good order
        pass


def _raw_texts(products: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    return zip(products["productid"], products["designation"], products["description"], strict=True)


def _feature_table(products: pd.DataFrame, texts: Sequence[CleanText]) -> pd.DataFrame:
    has_image = (products["has_image"] == "True").astype(int).tolist()
    columns = {"productid": products["productid"], "imageid": products["imageid"], **_feature_columns(texts, has_image)}
    table = pd.DataFrame(columns, index=products.index)
    return table.assign(prdtypecode=products["prdtypecode"]) if "prdtypecode" in products else table


def raw_text_features(
    texts: Sequence[tuple[str, str]], has_image: Sequence[int], params: FeatureParams
) -> pd.DataFrame:
    """The same table without ids, for a few products: at once, in this process.

    Args:
        texts: designation and description of each product.
        has_image: 1 for each product that has a usable image, else 0.
    """
    cleaned = [clean_product(params, RawText("", *text)) for text in texts]
    return pd.DataFrame(_feature_columns(cleaned, has_image), copy=False)


def _feature_columns(texts: Sequence[CleanText], has_image: Sequence[int]) -> dict[str, Sequence[str | int]]:
    designation, description, style = zip(*texts, strict=True) if texts else ((), (), ())
    return {
        "designation_clean": designation,
        "description_clean": description,
        "designation_len": [len(text) for text in designation],
        "description_len": [len(text) for text in description],
        "has_description": [int(text != "") for text in description],
        "has_image": has_image,
        "style": style,
    }


def texts_to_embed(table: pd.DataFrame) -> list[str]:
    """What a text encoder reads of each product: cleaned title, then cleaned description."""
    pairs = zip(table["designation_clean"], table["description_clean"], strict=True)
    return [" ".join(filter(None, pair)) for pair in pairs]


def clean_product(params: FeatureParams, raw: RawText) -> CleanText:
    """The cleaned texts and the style of a product."""
    title, text = (clean_text(part, lowercase=False, strip_accents=False) for part in raw[1:])
    designation, description = (
        clean_text(part, lowercase=params.lowercase, strip_accents=params.strip_accents) for part in (title, text)
    )
    return CleanText(designation, description, style_tokens(title, text, raw.description))


def _text_label(raw: RawText) -> str:
    return f"the text of product {raw.productid}"
