"""Controls at ingestion: what stops it, what rejects a row, what is only reported.

Frames here are rows as `catalog.raw_chunks` gives them: every cell a str, "" where nothing stands.
What has to be known of every row at once are `Keys`, sixteen bytes a row; only to say what is
wrong with them is a file read again.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ftfy.badness import is_bad
from numpy.typing import NDArray

from rakuten.data.schema import INDEX, INTEGER_PATTERN, LABELS, image_name, normalise_id
from rakuten.errors import UserError
from rakuten.types import HashArray

# TODO merged docs: ['"""What is counted of a table that is read a part at a time."""\n']
SMALL_CLASS_ROWS = 5
MISSING = "missing"


class RowKeys(NamedTuple):
    """Of each row of a file."""

    indexes: NDArray[np.int64]
    pair: NDArray[np.uint64]  # a hash of productid and imageid; none of rows whose ids are no numbers


def read_row_keys(parts: Iterable[pd.DataFrame], file: str) -> RowKeys:
    """What the rows are known by.

    Raises:
        UserError: an index is not a number.
    """
    index, pair = array("q"), array("Q")
    for part in parts:
        check_index(part, file)
        index.frombytes(part[INDEX].astype("int64").to_numpy().tobytes())
        if "productid" in part:
            pair.frombytes(hash_texts(_id_pairs(part)).tobytes())
    return RowKeys(np.frombuffer(index, dtype=np.int64), np.frombuffer(pair, dtype=np.uint64))


def _id_pairs(part: pd.DataFrame) -> pd.Series:
    sound = normalise_ids(part[has_valid_ids(part)])
    return sound["productid"] + ", " + sound["imageid"]


def check_index(frame: pd.DataFrame, file: str) -> None:
    """Raise UserError unless every index is a number."""
    wrong = frame[~frame[INDEX].str.fullmatch(INTEGER_PATTERN)]
    if len(wrong):
        first = wrong.iloc[0]
        raise UserError(f"{file}: line {first['line']}: the index {first[INDEX]!r} is not a number")


def check_unique(known: RowKeys, parts: Callable[[], Iterable[pd.DataFrame]], file: str) -> None:
    """Raise UserError if an index, or a pair (productid, imageid) of numbers, stands twice; `parts` reads the file."""
    if _has_duplicates(known.indexes):
        _raise_duplicate(((part["line"], part[INDEX].astype("int64")) for part in parts()), file, "index")
    if _has_duplicates(known.pair):
        _raise_duplicate(((part["line"], _id_pairs(part)) for part in parts()), file, "(productid, imageid)")


def _has_duplicates(values: NDArray[Any]) -> bool:
    ordered = np.sort(values)
    return bool((ordered[1:] == ordered[:-1]).any())


def _raise_duplicate(parts: Iterable[tuple[pd.Series, pd.Series]], file: str, what: str) -> None:
    found = pd.concat([values.rename("key").to_frame().assign(line=line) for line, values in parts])
    again = found["key"].duplicated()
    if again.any():  # or else two keys had one hash
        key = found.loc[again, "key"].iloc[0]
        both = found.loc[found["key"] == key, "line"].head(2).tolist()
        raise UserError(
            f"{file}: lines {both[0]} and {both[1]} have the same {what} {key} "
            f"({int(again.sum())} repeated in all); remove one of each"
        )


def check_join(x: RowKeys, y: RowKeys, read: Callable[[str], Iterable[pd.DataFrame]]) -> None:
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


def hash_texts(texts: pd.Series) -> NDArray[np.uint64]:
    """Sixty-four bits of each text: two of a hundred million fall together by a chance of one in four thousand."""
    hashed: NDArray[np.uint64] = pd.util.hash_array(texts.to_numpy(dtype=object), categorize=False)
    return hashed


def has_valid_ids(frame: pd.DataFrame) -> pd.Series:
    """Boolean per row: productid and imageid are both integers."""
    return frame["productid"].str.fullmatch(INTEGER_PATTERN) & frame["imageid"].str.fullmatch(INTEGER_PATTERN)


def normalise_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """Integer ids in their plain spelling ("007" is 7), others as they stand."""
    ids = ("productid", "imageid")
    return frame.assign(**{name: pd.Series(map(normalise_id, frame[name]), frame.index, dtype="str") for name in ids})


def image_errors(frame: pd.DataFrame, pictures: Mapping[str, str]) -> pd.Series:
    """What is wrong with each row's picture: "" if nothing, "missing", or why it cannot be used."""
    names = (image_name(*ids) for ids in zip(frame["imageid"], frame["productid"], strict=True))
    return pd.Series([pictures.get(name, MISSING) for name in names], index=frame.index, dtype="str")


def reject_reasons(train: pd.DataFrame, unknown_labels: str) -> pd.Series:
    """Why each row of the joined train table (X, prdtypecode, has_image) cannot be used; "" if it can."""
    label = train["prdtypecode"].str.strip()
    number = label.str.fullmatch(INTEGER_PATTERN)
    known = label.isin([str(code) for code in LABELS])
    found = {
        "no title, no description and no picture": is_empty(train),
        "productid is not an integer": ~train["productid"].str.fullmatch(INTEGER_PATTERN),
        "imageid is not an integer": ~train["imageid"].str.fullmatch(INTEGER_PATTERN),
        "label missing": label == "",
        "label is not a number": (label != "") & ~number,
    }
    if unknown_labels == "reject":
        found["label is not a known code"] = number & ~known
    reasons = pd.DataFrame(found)
    return reasons.apply(lambda row: "; ".join(row.index[row]), axis=1) if len(train) else label


def is_empty(frame: pd.DataFrame) -> pd.Series:
    """Boolean per row: nothing to classify by."""
    return is_blank(frame["designation"]) & is_blank(frame["description"]) & ~frame["has_image"]


def is_blank(text: pd.Series) -> pd.Series:
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


def count_quality_issues(frame: pd.DataFrame) -> Counter[str]:
    """Counts that are reported and change nothing."""
    title, description, picture = frame["designation"], frame["description"], frame["picture"]
    found = {
        "missing_title": int(is_blank(title).sum()),
        "missing_description": int(is_blank(description).sum()),
        "missing_picture": int((picture == MISSING).sum()),
        "suspected_mojibake": sum(is_bad(a) or is_bad(b) for a, b in zip(title, description, strict=True)),
    }
    return Counter(found)


def small_classes(rows: Mapping[int, int]) -> dict[str, int]:
    """Rows of each class that has under five."""
    return {str(code): count for code, count in sorted(rows.items()) if count < SMALL_CLASS_ROWS}


class QualityCounts:
    """What is counted of the rows of one table, a part at a time."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.unusable = Counter[str]()
        self._titles = array("Q")

    def add(self, part: pd.DataFrame) -> None:
        self.counts += count_quality_issues(part)
        self.unusable.update(word for word in part["picture"] if word not in ("", MISSING))
        titles = part.loc[~is_blank(part["designation"]), "designation"]
        self._titles.frombytes(hash_texts(titles).tobytes())

    def titles(self) -> HashArray:
        """The different titles, in order."""
        return sorted_unique(np.frombuffer(self._titles, dtype=np.uint64))

    def told(self) -> dict[str, int | dict[str, int]]:
        zero = dict.fromkeys(("missing_title", "missing_description", "missing_picture", "suspected_mojibake"), 0)
        repeated = len(self._titles) - len(self.titles())
        return {
            **zero,
            **self.counts,
            "unusable_picture": dict(sorted(self.unusable.items())),
            "repeated_title": repeated,
        }


def sorted_unique(values: HashArray) -> HashArray:
    """The different values, in order; numpy's own `unique` makes a hash table of several times their size."""
    ordered = np.sort(values)
    first: HashArray = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return first
