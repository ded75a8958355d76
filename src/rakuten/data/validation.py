"""Controls at ingestion: what stops it, what rejects a row, what is only reported.

Frames here are rows as `catalog.raw_chunks` gives them: every cell a str, "" where nothing stands.
What has to be known of every row at once are `Keys`, sixteen bytes a row; only to say what is
wrong with them is a file read again.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ftfy.badness import is_bad
from numpy.typing import NDArray

from rakuten.data.tables import INDEX, LABELS, picture_name
from rakuten.errors import UserError

INTEGER = r"[0-9]{1,18}"
SMALL_CLASS = 5
MISSING = "missing"


class Keys(NamedTuple):
    """Of each row of a file."""

    indexes: NDArray[np.int64]
    pair: NDArray[np.uint64]  # a hash of productid and imageid; none of rows whose ids are no numbers


def keys(parts: Iterable[pd.DataFrame], file: str) -> Keys:
    """What the rows are known by.

    Raises:
        UserError: an index is not a number.
    """
    index, pair = array("q"), array("Q")
    for part in parts:
        check_index(part, file)
        index.frombytes(part[INDEX].astype("int64").to_numpy().tobytes())
        if "productid" in part:
            pair.frombytes(hashes(_pairs(part)).tobytes())
    return Keys(np.frombuffer(index, dtype=np.int64), np.frombuffer(pair, dtype=np.uint64))


def _pairs(part: pd.DataFrame) -> pd.Series:
    sound = plain_ids(part[valid_ids(part)])
    return sound["productid"] + ", " + sound["imageid"]


def check_index(frame: pd.DataFrame, file: str) -> None:
    """Raise UserError unless every index is a number."""
    wrong = frame[~frame[INDEX].str.fullmatch(INTEGER)]
    if len(wrong):
        first = wrong.iloc[0]
        raise UserError(f"{file}: line {first['line']}: the index {first[INDEX]!r} is not a number")


def check_unique(known: Keys, parts: Callable[[], Iterable[pd.DataFrame]], file: str) -> None:
    """Raise UserError if an index, or a pair (productid, imageid) of numbers, stands twice; `parts` reads the file."""
    if _repeated(known.indexes):
        _say_repeated(((part["line"], part[INDEX].astype("int64")) for part in parts()), file, "index")
    if _repeated(known.pair):
        _say_repeated(((part["line"], _pairs(part)) for part in parts()), file, "(productid, imageid)")


def _repeated(values: NDArray[Any]) -> bool:
    ordered = np.sort(values)
    return bool((ordered[1:] == ordered[:-1]).any())


def _say_repeated(parts: Iterable[tuple[pd.Series, pd.Series]], file: str, what: str) -> None:
    found = pd.concat([values.rename("key").to_frame().assign(line=line) for line, values in parts])
    again = found["key"].duplicated()
    if again.any():  # or else two keys had one hash
        key = found.loc[again, "key"].iloc[0]
        both = found.loc[found["key"] == key, "line"].head(2).tolist()
        raise UserError(
            f"{file}: lines {both[0]} and {both[1]} have the same {what} {key} "
            f"({int(again.sum())} repeated in all); remove one of each"
        )


def check_join(x: Keys, y: Keys, read: Callable[[str], Iterable[pd.DataFrame]]) -> None:
    """Raise UserError unless X_train.csv and Y_train.csv have the same indexes; `read` reads one of them."""
    if np.array_equal(np.sort(x.indexes), np.sort(y.indexes)):
        return
    found = []
    for one, other, file in ((x.indexes, y.indexes, "X_train.csv"), (y.indexes, x.indexes, "Y_train.csv")):
        only = one[~np.isin(one, other)]
        if len(only):
            lines = (part.loc[part[INDEX].astype("int64") == only[0], "line"] for part in read(file))
            line = next(int(where.iloc[0]) for where in lines if len(where))
            found.append(f"{len(only):,} only in {file} (first: {only[0]}, line {line})")
    raise UserError(
        f"X_train.csv and Y_train.csv do not belong together: indexes {' and '.join(found)}; "
        "take both from the same download"
    )


def hashes(texts: pd.Series) -> NDArray[np.uint64]:
    """Sixty-four bits of each text: two of a hundred million fall together by a chance of one in four thousand."""
    hashed: NDArray[np.uint64] = pd.util.hash_array(texts.to_numpy(dtype=object), categorize=False)
    return hashed


def valid_ids(frame: pd.DataFrame) -> pd.Series:
    """Boolean per row: productid and imageid are both integers."""
    return frame["productid"].str.fullmatch(INTEGER) & frame["imageid"].str.fullmatch(INTEGER)


def plain_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """Integer ids in their plain spelling ("007" is 7), others as they stand."""
    ids = ("productid", "imageid")
    return frame.assign(**{name: pd.Series(map(plain_id, frame[name]), frame.index, dtype="str") for name in ids})


def plain_id(text: str) -> str:
    return str(int(text)) if re.fullmatch(INTEGER, text) else text


def picture_state(frame: pd.DataFrame, pictures: Mapping[str, str]) -> pd.Series:
    """What is wrong with each row's picture: "" if nothing, "missing", or why it cannot be used."""
    names = (picture_name(*ids) for ids in zip(frame["imageid"], frame["productid"], strict=True))
    return pd.Series([pictures.get(name, MISSING) for name in names], index=frame.index, dtype="str")


def reject_reasons(train: pd.DataFrame, unknown_labels: str) -> pd.Series:
    """Why each row of the joined train table (X, prdtypecode, has_image) cannot be used; "" if it can."""
    label = train["prdtypecode"].str.strip()
    number = label.str.fullmatch(INTEGER)
    known = label.isin([str(code) for code in LABELS])
    found = {
        "no title, no description and no picture": empty(train),
        "productid is not an integer": ~train["productid"].str.fullmatch(INTEGER),
        "imageid is not an integer": ~train["imageid"].str.fullmatch(INTEGER),
        "label missing": label == "",
        "label is not a number": (label != "") & ~number,
    }
    if unknown_labels == "reject":
        found["label is not a known code"] = number & ~known
    reasons = pd.DataFrame(found)
    return reasons.apply(lambda row: "; ".join(row.index[row]), axis=1) if len(train) else label


def empty(frame: pd.DataFrame) -> pd.Series:
    """Boolean per row: nothing to classify by."""
    return blank(frame["designation"]) & blank(frame["description"]) & ~frame["has_image"]


def blank(text: pd.Series) -> pd.Series:
    return text.str.strip() == ""


def check_rejected(reasons: Mapping[str, int], rows: int, allowed: float, first: Sequence[str]) -> None:
    """Raise UserError if more than the allowed share of the train rows was rejected.

    Args:
        reasons: how many rows each reason rejected.
        first: indexes of the first of them.
    """
    rejected = sum(reasons.values())
    if rejected > allowed * rows:
        often = sorted(reasons.items(), key=lambda item: -item[1])
        said = ", ".join(f"{reason}: {count:,}" for reason, count in often)
        raise UserError(
            f"X_train.csv and Y_train.csv: {rejected:,} of {rows:,} rows are unusable, more than "
            f"data.max_rejected ({allowed:.1%}) allows ({said}; first rows by index: {', '.join(first)}); "
            "mend the files or raise data.max_rejected in params.yaml"
        )


def check_classes(rows: Mapping[int, int]) -> None:
    """Raise UserError if there is nothing to tell apart; `rows` has how many each code has."""
    if len(rows) < 2:
        raise UserError(
            f"Y_train.csv: every usable row has the label {next(iter(rows))}; at least two classes are needed"
            if rows
            else "X_train.csv: no usable row is left; mend the files"
        )


def describe(frame: pd.DataFrame) -> Counter[str]:
    """Counts that are reported and change nothing."""
    title, description, picture = frame["designation"], frame["description"], frame["picture"]
    found = {
        "missing_title": int(blank(title).sum()),
        "missing_description": int(blank(description).sum()),
        "missing_picture": int((picture == MISSING).sum()),
        "suspected_mojibake": sum(is_bad(a) or is_bad(b) for a, b in zip(title, description, strict=True)),
    }
    return Counter(found)


def small_classes(rows: Mapping[int, int]) -> dict[str, int]:
    """Rows of each class that has under five."""
    return {str(code): count for code, count in sorted(rows.items()) if count < SMALL_CLASS}
