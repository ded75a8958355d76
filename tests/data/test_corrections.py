from pathlib import Path

import pandas as pd
import pytest

from rakuten.data import corrections
from rakuten.data.corrections import Corrections
from rakuten.data.schema import X_COLUMNS
from rakuten.data.taxonomy import Names, Taxonomy
from rakuten.errors import UserError

HEADER = "productid,imageid,old_prdtypecode,prdtypecode,decisions,decided_at,designation,description\n"
AT = "2026-01-02T03:04:05+00:00"
CODES = (10, 20, 40, 50, 60, 2583, 2705)
TAXONOMY = Taxonomy(
    names={code: Names("nom", "name") for code in CODES}, parents={}, parent_of={}, merged_into={20: 10}
)


@pytest.fixture
def chunk() -> pd.DataFrame:
    """Train rows as `RawFiles.chunks` gives them."""
    rows = [
        ["0", "Piscine", "", "11", "21", "2583"],
        ["1", "Roman", "", "12", "22", "2705"],
        ["2", "Bon", "", "13", "23", "10"],
    ]
    return pd.DataFrame(rows, columns=[*X_COLUMNS, "prdtypecode"], dtype="str")


def read(folder: Path, *lines: str, min_products: int = 1) -> Corrections:
    (folder / "corrections.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Corrections.read(folder, TAXONOMY, min_products)


def outcomes(found: Corrections) -> list[tuple[str, ...]]:
    return [tuple(row) for row in found.outcome_table()[["index", "productid", "decisions", "outcome"]].to_numpy()]


def test_labels_are_replaced_and_rows_that_no_code_fits_are_removed(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, f"12,22,2705,10,4;5,{AT},,", f"13,23,10,,6,{AT},,")
    corrected = found.apply(chunk)
    assert corrected[["productid", "prdtypecode"]].to_numpy().tolist() == [["11", "2583"], ["12", "10"]]
    assert corrected["designation"].tolist() == ["Piscine", "Roman"]
    assert outcomes(found) == [("1", "12", "4;5", corrections.REPLACED), ("2", "13", "6", corrections.REMOVED)]
    assert found.counts() == {corrections.REPLACED: 1, corrections.REMOVED: 1}


def test_a_correction_is_not_applied_twice(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, f"12,22,10,2705,4,{AT},,")
    assert found.apply(chunk).equals(chunk)
    assert outcomes(found) == [("1", "12", "4", corrections.APPLIED_BEFORE)]


def test_a_row_that_was_changed_since_or_is_gone_is_reported(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, f"12,22,50,60,4,{AT},,", f"99,98,50,60,5,{AT},,", f"11,21,,40,7,{AT},Text,")
    assert found.apply(chunk).equals(chunk)
    assert found.added_rows(3).empty
    assert outcomes(found) == [
        ("0", "11", "7", corrections.CHANGED_SINCE),  # it had no label when it was decided, and has one now
        ("1", "12", "4", corrections.CHANGED_SINCE),
        ("", "99", "5", corrections.GONE),
    ]


def test_new_products_are_added_with_their_text(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, f"31,41,,40,7,{AT},Jeu vidéo,Neuf", f"32,42,,,8,{AT},Bon cadeau,")
    found.apply(chunk)
    added = found.added_rows(3)
    assert added.to_dict("records") == [
        {
            "index": "3", "designation": "Jeu vidéo", "description": "Neuf", "productid": "31", "imageid": "41",
            "prdtypecode": "40",
        }
    ]  # fmt: skip
    assert outcomes(found) == [("3", "31", "7", corrections.ADDED)]


def test_merged_codes_are_followed_and_counted(chunk: pd.DataFrame, tmp_path: Path) -> None:
    """A label that was corrected, and a decision, of before the merger of 20 into 10."""
    found = read(tmp_path, f"12,22,2705,20,4,{AT},,", f"13,23,20,40,5,{AT},,", f"31,41,,20,6,{AT},Bon,")
    assert found.merged == {"20": 2}
    assert found.apply(chunk)["prdtypecode"].tolist() == ["2583", "10", "40"]
    assert found.added_rows(3)["prdtypecode"].tolist() == ["10"]
    assert found.counts() == {corrections.REPLACED: 2, corrections.ADDED: 1}
    assert (found.proposed, found.new_codes) == ({}, frozenset())


def test_a_decision_that_the_merger_makes_the_label_is_not_applied(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, f"13,23,10,20,5,{AT},,")
    assert found.apply(chunk).equals(chunk)
    assert found.counts() == {corrections.APPLIED_BEFORE: 1}


PROPOSALS = (
    f"11,21,2583,3000,1,{AT},,",
    f"12,22,10,3000,2,{AT},,",  # its label was changed since
    f"13,23,60,10,3,{AT},,",
    f"31,41,,3000,4,{AT},Guitare,",
    f"99,98,50,3000,5,{AT},,",
)


def test_products_of_a_proposed_code_are_kept_out_until_there_are_enough(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, *PROPOSALS, min_products=5)
    assert (found.proposed, found.new_codes) == ({"3000": 4}, frozenset())
    assert found.apply(chunk)["productid"].tolist() == ["12", "13"]
    assert found.added_rows(3).empty
    assert outcomes(found) == [
        ("0", "11", "1", corrections.PROPOSED),
        ("1", "12", "2", corrections.CHANGED_SINCE),
        ("2", "13", "3", corrections.APPLIED_BEFORE),
        ("", "31", "4", corrections.PROPOSED),
        ("", "99", "5", corrections.GONE),
    ]


def test_a_proposed_code_with_enough_products_is_a_class(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = read(tmp_path, *PROPOSALS, min_products=4)
    assert found.new_codes == {3000}
    assert found.apply(chunk)["prdtypecode"].tolist() == ["3000", "2705", "10"]
    assert found.added_rows(3)["prdtypecode"].tolist() == ["3000"]
    assert corrections.PROPOSED not in found.counts()


def test_a_row_that_has_a_proposed_code_already_is_kept_out_too(chunk: pd.DataFrame, tmp_path: Path) -> None:
    """Else it would be rejected for its unknown label."""
    found = read(tmp_path, f"11,21,10,3000,1,{AT},,", min_products=2)
    assert found.apply(chunk.replace({"prdtypecode": {"2583": "3000"}}))["productid"].tolist() == ["12", "13"]
    assert found.counts() == {corrections.PROPOSED: 1}


def test_products_that_no_code_fits_are_kept_aside(chunk: pd.DataFrame, tmp_path: Path) -> None:
    gone = chunk.iloc[[0]]
    ids = ",".join(gone[["productid", "imageid", "prdtypecode"]].iloc[0])
    found = read(tmp_path, f"{ids},,7,{AT},,", f"31,41,,40,8,{AT},Jeu,", f"32,42,,,9,{AT},Bon cadeau,A offrir")
    found.apply(chunk)
    found.added_rows(3)
    none = found.none_of_the_codes()
    assert none["productid"].tolist() == [gone["productid"].iloc[0], "32"]
    assert none["designation"].tolist() == [gone["designation"].iloc[0], "Bon cadeau"]
    assert none["index"].tolist() == [gone["index"].iloc[0], ""]
    assert Corrections.read(tmp_path / "nothing", TAXONOMY).none_of_the_codes().empty


def test_without_a_file_there_is_nothing_to_correct(chunk: pd.DataFrame, tmp_path: Path) -> None:
    found = Corrections.read(tmp_path, TAXONOMY)
    assert found.apply(chunk) is chunk
    assert found.added_rows(3).empty
    assert found.outcome_table().empty
    assert found.counts() == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x,22,10,40,1,,,"], r"corrections.csv: line 2: productid is no integer: 'x'"),
        (["12,22,10,forty,1,,,"], r"line 2: prdtypecode is no integer: 'forty'"),
        (["12,22,10,40,1,,,", "12.0,22,10,50,2,,,"], r"line 3: productid 12 and imageid 22 are there already"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, *lines)
