"""Text features of products. Training, prediction and serving all compute them here."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, tee
from typing import NamedTuple

import pandas as pd

from rakuten.compute import parallel_map
from rakuten.config import FeatureParams
from rakuten.features.style import style_tokens
from rakuten.features.text import clean_cased_text, clean_text

CHUNK_ROWS = 2000  # products that are cleaned in one task


class RawText(NamedTuple):
    """The texts of a product before cleaning."""

    productid: str
    designation: str
    description: str


class CleanText(NamedTuple):
    """The cleaned texts of a product, and its style tokens."""

    designation: str
    description: str
    style: str  # of `style_tokens`


def text_feature_table(products: pd.DataFrame, params: FeatureParams) -> pd.DataFrame:
    """As `text_feature_chunks`, for products that are in memory."""
    return pd.concat(text_feature_chunks([products], params))


def text_feature_chunks(chunks: Iterable[pd.DataFrame], params: FeatureParams) -> Iterator[pd.DataFrame]:
    """Text features of products, in the order given; cleaned in parallel.

    Args:
        chunks: tables with the columns designation, description, productid, imageid, has_image ("True" or "False") and
            perhaps prdtypecode; all str.

    Yields:
        For each chunk a table with the same index and the columns productid, imageid, designation_clean,
        description_clean, their lengths in characters (designation_len, description_len), has_description and has_image
        (0 or 1), style (see `style_tokens`), and prdtypecode if the chunk has it.

    Raises:
        UserError: the text of a product kills the process that cleans it.
    """
    chunks, to_clean = tee(chunks)  # the second is ahead of the first by the rows that are being cleaned
    raw = (RawText(*row) for chunk in to_clean for row in _raw_texts(chunk))
    cleaned = parallel_map(partial(clean_product, params), raw, CHUNK_ROWS, _text_label)
    for chunk in chunks:
        yield _feature_table(chunk, list(islice(cleaned, len(chunk))))
    for _ in cleaned:  # nothing is left: this runs parallel_map to its end, so that it does not abort its processes
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
    """The table of `text_feature_chunks` without ids, for a few products, computed in this process.

    Args:
        texts: designation and description of each product.
        has_image: for each product, 1 if it has a usable image, else 0.
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
    """The input of a text encoder for each product: cleaned title and cleaned description, joined by a space."""
    pairs = zip(table["designation_clean"], table["description_clean"], strict=True)
    return [" ".join(filter(None, pair)) for pair in pairs]


def clean_product(params: FeatureParams, raw: RawText) -> CleanText:
    """The cleaned texts and the style tokens of a product."""
    # Style tokens need case and accents.
    cased_title, cased_description = clean_cased_text(raw.designation), clean_cased_text(raw.description)
    designation, description = (
        clean_text(text, lowercase=params.lowercase, strip_accents=params.strip_accents)
        for text in (cased_title, cased_description)
    )
    return CleanText(designation, description, style_tokens(cased_title, cased_description, raw.description))


def _text_label(raw: RawText) -> str:
    return f"the text of product {raw.productid}"
