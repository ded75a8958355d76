"""The challenge's data format: files, columns, ids, image names; how synthetic rows are marked."""

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from rakuten.errors import UserError

X_TRAIN, Y_TRAIN, X_TEST = "X_train.csv", "Y_train.csv", "X_test.csv"  # names that the raw files have here
CHALLENGE_NAMES = {  # and under which the challenge publishes them
    X_TRAIN: "X_train_update.csv",
    Y_TRAIN: "Y_train_CVw08PX.csv",
    X_TEST: "X_test_update.csv",
}
INDEX = "index"  # without a name in the challenge's files
X_COLUMNS = (INDEX, "designation", "description", "productid", "imageid")
X_OPTIONAL = ("description",)  # of X_COLUMNS
Y_COLUMNS = (INDEX, "prdtypecode")

MAX_TEXT = 50_000  # characters of a title or description that are read; the challenge's longest has 12,451
INTEGER_PATTERN = re.compile(r"[0-9]{1,18}")  # fits int64
_NORMAL_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_WHOLE_NUMBER = re.compile(r"([0-9]{1,18})(\.0+)?")


def image_name(imageid: str | int, productid: str | int) -> str:
    """Name of a product's image file."""
    return f"image_{imageid}_product_{productid}.jpg"


def image_names(products: pd.DataFrame) -> list[str]:
    """Name of the image file of each row (columns productid, imageid)."""
    return [image_name(*ids) for ids in zip(products["imageid"], products["productid"], strict=True)]


def text_of(value: Any) -> str:
    """The text of a cell of any type: "" where it is missing, "7" for 7.0.

    Raises:
        UserError: the value is a list or the like, or bytes that are not UTF-8.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError("a text is bytes that are not UTF-8; decode them first") from None
    if isinstance(value, Collection):
        raise UserError(f"a text is of type {type(value).__name__}; give a string")
    if pd.isna(value):
        return ""
    is_whole = isinstance(value, float | np.floating) and value.is_integer()
    return str(int(value) if is_whole else value)


def normalise_id(text: str) -> str:
    """An integer without leading zeros, fraction or spaces around it, "7" for "007" and "7.0"; other texts unchanged.

    pandas writes the integers of a column in which one is missing with ".0".
    """
    if _NORMAL_INTEGER.fullmatch(text):  # nearly all, in a third of the time
        return text
    match = _WHOLE_NUMBER.fullmatch(text.strip())
    return str(int(match[1])) if match else text


def id_of(value: Any) -> str:
    """The normalised id in a cell of any type, "" where it is missing."""
    try:
        return normalise_id(text_of(value))
    except UserError:  # no image has such an id
        return str(value)


def normalise_ids(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their index, ids and labels, as far as they have these columns, normalised; see `normalise_id`."""
    names = rows.columns.intersection([INDEX, "productid", "imageid", "prdtypecode"])
    return rows.assign(**{name: pd.Series(map(normalise_id, rows[name]), rows.index, dtype="str") for name in names})


def has_valid_ids(products: pd.DataFrame) -> pd.Series:
    """Boolean per row: productid and imageid are both integers."""
    return products["productid"].str.fullmatch(INTEGER_PATTERN) & products["imageid"].str.fullmatch(INTEGER_PATTERN)


# Synthetic products are recognised by their ids alone, so that scores on them are called synthetic wherever the rows
# are copied to: imageid = OFFSET + productid * MULTIPLIER % MODULUS. A real row satisfies this with probability 1e-9.
_OFFSET, _MULTIPLIER, _MODULUS = 1_000_000_000, 48_271, 999_999_937  # the modulus is prime: the map is one to one
_SYNTHETIC_IMAGE_NAME = re.compile(r"image_([0-9]{1,18})_product_([0-9]{1,9})\.jpg")


def synthetic_imageid(productid: int) -> int:
    """The imageid of the synthetic product with this productid, which is below 999,999,937 (one to one)."""
    return _OFFSET + productid * _MULTIPLIER % _MODULUS


def is_synthetic(products: pd.DataFrame) -> bool:
    """Whether any row (columns productid, imageid) has the ids of a synthetic product."""
    ids = products[["productid", "imageid"]].apply(pd.to_numeric, errors="coerce").dropna().astype("int64")
    ids = ids[ids["productid"].between(0, _MODULUS - 1)]
    return bool((ids["imageid"] == _OFFSET + ids["productid"] * _MULTIPLIER % _MODULUS).any())


def is_synthetic_image(name: str) -> bool:
    """Whether an image has the file name of a synthetic product's image."""
    ids = _SYNTHETIC_IMAGE_NAME.fullmatch(name)
    return ids is not None and int(ids[1]) == synthetic_imageid(int(ids[2]))
