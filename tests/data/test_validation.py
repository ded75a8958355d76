from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from rakuten.data import validation
from rakuten.data.schema import MAX_TEXT, image_name
from rakuten.data.validation import (
    MISSING,
    QualityCounts,
    RowKeys,
    check_classes,
    check_join,
    check_rejected,
    check_unique,
    count_quality_issues,
    example,
    find_unusable,
    image_errors,
    read_row_keys,
    small_classes,
)
from rakuten.errors import UserError

COLUMNS = ("designation", "description", "productid", "imageid", "prdtypecode")
REASONS = {
    ("t", "", "1", "2", "10"): "",
    ("", "d", "1", "2", "10"): "",
    ("", " ", "1", "2", "10"): "no title, no description and no picture = ",
    ("t", "", "x1", "2", "10"): "productid is not an integer = x1",
    ("t", "", "1", "2.5", "10"): "imageid is not an integer = 2.5",
    ("t", "", "1", "2", ""): "label missing = ",
    ("t", "", "1", "2", " "): "label missing = ",
    ("t", "", "1", "2", "ten"): "label is not a number = ten",
    ("t", "", "1", "2", "a" * 41): "label is not a number = " + "a" * 40 + "…",
    ("t", "", "1", "2", "9999"): "label is not a known code = 9999",
    ("t", "", "x1", "", "9999"): (
        "productid is not an integer; imageid is not an integer; label is not a known code = x1; 9999"
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", REASONS)
def test_a_row_is_rejected_for_each_of_its_faults(row: tuple[str, ...]) -> None:
    train = pd.DataFrame([row], columns=COLUMNS).assign(has_image=False)
    unusable = find_unusable(train, {10, 40})
    assert list(unusable["reason"] + " = " + unusable["value"]) == ([REASONS[row]] if REASONS[row] else [])


def test_unknown_codes_are_kept_on_request() -> None:
    train = pd.DataFrame([("t", "", "1", "2", "9999")], columns=COLUMNS).assign(has_image=False)
    assert find_unusable(train, None).empty


def test_an_image_alone_keeps_a_row() -> None:
    train = pd.DataFrame([("", "", "1", "2", "10")] * 2, columns=COLUMNS).assign(has_image=[True, False])
    assert find_unusable(train, {10, 40})["reason"].to_dict() == {1: "no title, no description and no picture"}


def frame(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Index, productid, imageid; the first row is on line 2."""
    return pd.DataFrame(rows, columns=["index", "productid", "imageid"]).assign(line=range(2, len(rows) + 2))


def test_keys_are_collected_over_chunks_without_ids_that_are_no_integers() -> None:
    keys = read_row_keys([frame([("3", "1", "5"), ("4", "x", "5")]), frame([("7", "1", "5")])], "X_test.csv")
    assert keys.row_ids.tolist() == [3, 4, 7]
    assert len(keys.id_pairs) == 2
    assert keys.id_pairs[0] == keys.id_pairs[1]


def test_different_ids_with_equal_hashes_are_no_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "hash_texts", lambda texts: np.zeros(len(texts), dtype=np.uint64))
    rows = frame([("1", "1", "1"), ("2", "2", "2")])
    check_unique(read_row_keys([rows], "X_train.csv"), lambda: [rows], "X_train.csv")
    repeated = frame([("1", "1", "1"), ("2", "2", "2"), ("3", "2", "2")])
    with pytest.raises(UserError, match=r"lines 3 and 4 have the same \(productid, imageid\) 2, 2 \(1 repeated"):
        check_unique(read_row_keys([repeated], "X_train.csv"), lambda: [repeated], "X_train.csv")


def test_files_that_do_not_join_are_read_again_for_the_first_line() -> None:
    frames = {
        "X_train.csv": frame([("1", "", ""), ("2", "", ""), ("3", "", "")]),
        "Y_train.csv": frame([("2", "", "")]),
    }

    def read(file: str) -> Iterator[pd.DataFrame]:
        yield from (frames[file][:1], frames[file][1:])

    def keys(file: str) -> RowKeys:
        return read_row_keys(read(file), file)

    check_join(keys("X_train.csv"), keys("X_train.csv"), read)
    message = r"indexes 2 only in X_train.csv \(first: 1, line 2\); take both from the same download"
    with pytest.raises(UserError, match=message):
        check_join(keys("X_train.csv"), keys("Y_train.csv"), read)


def test_more_rejected_rows_than_allowed_are_an_error() -> None:
    examples = {"label missing": example("7", ""), "imageid is not an integer": example("9", "2.5")}
    check_rejected({"label missing": 1, "imageid is not an integer": 4}, 100, 0.05, examples)
    check_rejected({}, 100, 0.0, {})
    message = (
        r"6 of 100 rows are unusable, more than data.max_rejected \(5.0%\) allows \(4: imageid is not an integer, "
        r"for example index 9 with '2.5'; 2: label missing, for example index 7\); fix"
    )
    with pytest.raises(UserError, match=message):
        check_rejected({"label missing": 2, "imageid is not an integer": 4}, 100, 0.05, examples)


def test_two_classes_are_needed() -> None:
    check_classes({10: 1, 40: 1})
    with pytest.raises(UserError, match="every usable row has the label 10"):
        check_classes({10: 5})
    with pytest.raises(UserError, match="no usable row is left"):
        check_classes({})


def test_classes_below_five_rows_are_small() -> None:
    assert small_classes({2583: 5, 60: 4, 10: 1}) == {"10": 1, "60": 4}


def test_image_errors_are_those_of_the_named_files() -> None:
    products = pd.DataFrame({"productid": ["1", "2", "3"], "imageid": ["4", "5", "6"]}, [7, 8, 9])
    errors = image_errors(products, {image_name(4, 1): "", image_name(5, 2): "truncated"})
    assert errors.to_dict() == {7: "", 8: "truncated", 9: MISSING}


def issues(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["designation", "description", "image_error"])


def test_quality_issues_are_counted_per_row() -> None:
    long_text = "a" * MAX_TEXT + "Ã©"  # what is not read is not judged either
    table = issues(
        (" ", "", ""),
        ("Jeu dâ€™Ã©checs", "", MISSING),
        ("a", "dâ€™Ã©checs", "empty"),
        ("a", long_text, ""),
        ("a" * MAX_TEXT, "", ""),
    )
    assert count_quality_issues(table) == {
        "missing_title": 1,
        "missing_description": 3,
        "missing_picture": 1,
        "suspected_mojibake": 2,
        "text_cut": 1,
    }


def test_counts_do_not_depend_on_the_chunks() -> None:
    rows = issues(("a", "", "empty"), ("b", "x", MISSING), ("a", "", ""), (" ", "", "truncated"), ("", "", "empty"))
    quality = QualityCounts()
    for start in range(len(rows)):
        quality.add(rows[start : start + 1])
    assert quality.as_dict() == {
        "missing_title": 2,
        "missing_description": 4,
        "missing_picture": 1,
        "suspected_mojibake": 0,
        "text_cut": 0,
        "unusable_picture": {"empty": 2, "truncated": 1},
        "repeated_title": 1,
    }
    assert len(quality.title_hashes()) == 2


def test_a_table_without_issues_has_zero_counts() -> None:
    assert QualityCounts().as_dict() == {
        "missing_title": 0,
        "missing_description": 0,
        "missing_picture": 0,
        "suspected_mojibake": 0,
        "text_cut": 0,
        "unusable_picture": {},
        "repeated_title": 0,
    }
