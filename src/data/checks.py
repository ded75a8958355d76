"""Controls at ingestion: what stops it, what rejects a row, what is only reported.

Frames here are those of `catalog.read_raw`: every cell a str, "" where nothing stands.
"""

from collections.abc import Mapping

import pandas as pd
from ftfy.badness import is_bad

from src.data.catalog import INDEX, LABELS, picture_name
from src.data.pictures import Inspection, counts
from src.errors import UserError

INTEGER = r"[0-9]{1,18}"
SMALL_CLASS = 5
MISSING = "missing"


def check_index(frame: pd.DataFrame, file: str) -> None:
    """Raise UserError unless every index is a number that stands once."""
    wrong = frame[~frame[INDEX].str.fullmatch(INTEGER)]
    if len(wrong):
        first = wrong.iloc[0]
        raise UserError(f"{file}: line {first['line']}: the index {first[INDEX]!r} is not a number")
    _check_repeats(frame, frame[INDEX].astype("int64"), file, "index")


def check_ids_unique(frame: pd.DataFrame, file: str) -> None:
    """Raise UserError if a pair (productid, imageid) stands twice; ids that are no numbers do not count."""
    sound = frame[valid_ids(frame)]
    pairs = sound["productid"] + ", " + sound["imageid"]
    _check_repeats(sound, pairs, file, "(productid, imageid)")


def _check_repeats(frame: pd.DataFrame, keys: pd.Series, file: str, what: str) -> None:
    again = keys.duplicated()
    if again.any():
        key = keys[again].iloc[0]
        both = frame.loc[keys == key, "line"].head(2).tolist()
        raise UserError(
            f"{file}: lines {both[0]} and {both[1]} have the same {what} {key} "
            f"({int(again.sum())} repeated in all); remove one of each"
        )


def check_join(x: pd.DataFrame, y: pd.DataFrame) -> None:
    """Raise UserError unless X_train.csv and Y_train.csv have the same indexes."""
    in_x, in_y = (frame[INDEX].astype("int64") for frame in (x, y))
    only_x, only_y = in_x[~in_x.isin(in_y)], in_y[~in_y.isin(in_x)]
    found = [
        f"{len(only):,} only in {file} (first: {only.iloc[0]}, line {frame.loc[only.index[0], 'line']})"
        for only, file, frame in ((only_x, "X_train.csv", x), (only_y, "Y_train.csv", y))
        if len(only)
    ]
    if found:
        raise UserError(
            f"X_train.csv and Y_train.csv do not belong together: indexes {' and '.join(found)}; "
            "take both from the same download"
        )


def valid_ids(frame: pd.DataFrame) -> pd.Series:
    """Boolean per row: productid and imageid are both integers."""
    return frame["productid"].str.fullmatch(INTEGER) & frame["imageid"].str.fullmatch(INTEGER)


def picture_state(frame: pd.DataFrame, pictures: Mapping[str, Inspection]) -> pd.Series:
    """What is wrong with each row's picture: "" if nothing, "missing", or why it cannot be used."""
    names = [picture_name(*ids) for ids in zip(frame["imageid"], frame["productid"], strict=True)]
    states = [pictures[name].bad if name in pictures else MISSING for name in names]
    return pd.Series(states, index=frame.index, dtype="str")


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


def check_rejected(rejected: pd.DataFrame, rows: int, allowed: float) -> None:
    """Raise UserError if more than the allowed share of the train rows was rejected."""
    if len(rejected) > allowed * rows:
        counts = rejected["reason"].value_counts()
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.items())
        first = ", ".join(rejected["row"].head(3))
        raise UserError(
            f"X_train.csv and Y_train.csv: {len(rejected):,} of {rows:,} rows are unusable, more than "
            f"data.max_rejected ({allowed:.1%}) allows ({reasons}; first rows by index: {first}); "
            "mend the files or raise data.max_rejected in params.yaml"
        )


def check_classes(codes: pd.Series) -> None:
    """Raise UserError if there is nothing to tell apart."""
    if codes.nunique() < 2:
        raise UserError(
            f"Y_train.csv: every usable row has the label {codes.iloc[0]}; at least two classes are needed"
            if len(codes)
            else "X_train.csv: no usable row is left; mend the files"
        )


def describe(frame: pd.DataFrame) -> dict[str, int | dict[str, int]]:
    """Counts that are reported and change nothing."""
    title, description, picture = frame["designation"], frame["description"], frame["picture"]
    named = title[~blank(title)]
    return {
        "missing_title": int(blank(title).sum()),
        "missing_description": int(blank(description).sum()),
        "missing_picture": int((picture == MISSING).sum()),
        "unusable_picture": counts(picture[picture != MISSING].tolist()),
        "suspected_mojibake": sum(is_bad(a) or is_bad(b) for a, b in zip(title, description, strict=True)),
        "repeated_title": int(named.duplicated().sum()),
    }


def small_classes(codes: pd.Series) -> dict[str, int]:
    """Rows of each class that has under five."""
    counts = codes.value_counts().sort_index()
    return {str(code): int(count) for code, count in counts.items() if count < SMALL_CLASS}
