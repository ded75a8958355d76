import csv
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rakuten.data.make_dataset import TABLES, main, make_dataset

from rakuten.config import DataParams
from rakuten.data import tables
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import INDEX, X_COLUMNS, image_name
from rakuten.data.tables import read_table
from rakuten.errors import UserError

LENIENT = DataParams(max_rejected=1.0, unknown_labels="reject")
KEEP = DataParams(max_rejected=1.0, unknown_labels="keep")
EMPTY: Mapping[str, str] = {}


class Dataset(NamedTuple):
    train: pd.DataFrame
    test: pd.DataFrame
    rejected: pd.DataFrame
    quality: dict[str, Any]


def dataset(raw: Path, params: DataParams = LENIENT, pictures: Mapping[str, str] = EMPTY) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        tables = [Path(folder) / name for name in TABLES]
        quality = make_dataset(RawFiles.of(raw), pictures, params, tables)
        train, test, rejected = (read_table(table) for table in tables)
    return Dataset(train, test, rejected, quality)


def add_rows(raw: Path, rows: list[tuple[str, str, str, str, str]]) -> None:
    """Train rows 100, 101, ...: designation, description, productid, imageid, prdtypecode."""
    with (raw / "X_train.csv").open("a") as x, (raw / "Y_train.csv").open("a") as y:
        for index, (*texts, code) in enumerate(rows, start=100):
            x.write(",".join([str(index), *texts]) + "\n")
            y.write(f"{index},{code}\n")


REJECTED = {
    ("", " ", "1", "2", "10"): ("X_train.csv", "no title, no description and no picture"),
    ("t", "", "x1", "2", "10"): ("X_train.csv", "productid is not an integer"),
    ("t", "", "1", "2.0", "10"): ("X_train.csv", "imageid is not an integer"),
    ("t", "", "1", "2", ""): ("Y_train.csv", "label missing"),
    ("t", "", "1", "2", "ten"): ("Y_train.csv", "label is not a number"),
    ("t", "", "1", "2", "10.0"): ("Y_train.csv", "label is not a number"),
    ("t", "", "1", "2", "9999"): ("Y_train.csv", "label is not a known code"),
    ("t", "", "", "", "9999"): (
        "X_train.csv",
        "productid is not an integer; imageid is not an integer; label is not a known code",
    ),
}


@pytest.mark.parametrize("row", REJECTED)
def test_a_bad_row_is_rejected_with_its_reason(raw: Path, row: tuple[str, str, str, str, str]) -> None:
    add_rows(raw, [row])
    data = dataset(raw)
    assert data.rejected.to_dict("records") == [
        dict(zip(("row", "file", "reason"), ("100", *REJECTED[row]), strict=True))
    ]
    assert len(data.train) == 4
    assert data.quality["train"]["rejected"] == {REJECTED[row][1]: 1}


def test_any_one_of_title_description_picture_keeps_a_row(raw: Path) -> None:
    add_rows(raw, [("t", "", "1", "2", "10"), ("", "d", "3", "4", "10"), ("", "", "5", "6", "10")])
    data = dataset(raw, pictures={image_name("6", "5"): ""})
    assert data.rejected.empty
    assert data.train["has_image"].tolist() == ["False"] * 6 + ["True"]


def test_unknown_codes_are_kept_on_request(raw: Path) -> None:
    add_rows(raw, [("t", "", "1", "2", "9999")])
    assert dataset(raw, KEEP).train["prdtypecode"].tolist()[-1] == "9999"


def test_labels_are_joined_by_index_not_by_place(raw: Path) -> None:
    lines = (raw / "Y_train.csv").read_text().splitlines()
    (raw / "Y_train.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    data = dataset(raw)
    assert data.train[INDEX].tolist() == ["0", "1", "2", "3"]
    assert data.train["prdtypecode"].tolist() == ["2583", "2705", "2583", "2705"]


def test_a_file_that_changes_while_it_is_read_is_refused(raw: Path, tmp_path: Path) -> None:
    source = RawFiles.of(raw)
    add_rows(raw, [("t", "", "1", "2", "10")])
    with pytest.raises(UserError, match="X_train.csv: changed while it was read"):
        make_dataset(source, EMPTY, LENIENT, [tmp_path / name for name in TABLES])


def test_test_rows_are_never_rejected(raw: Path) -> None:
    with (raw / "X_test.csv").open("a") as test:
        test.write("6,,,,\n7,titre,,abc,1.5\n")
    data = dataset(raw)
    assert data.test[INDEX].tolist() == ["4", "5", "6", "7"]
    assert data.test["productid"].tolist() == ["15", "16", "", "abc"]
    assert data.quality["test"]["ids_not_integers"] == 2
    assert data.quality["test"]["nothing_to_classify_by"] == 2


def test_the_report_counts_what_is_kept(raw: Path) -> None:
    add_rows(raw, [("Roman policier", "", "1", "2", "2705"), ("Jeu dâ€™Ã©checs", "", "3", "4", "1281")])
    with (raw / "X_test.csv").open("a") as test:
        test.write("6,Roman policier,,17,27\n")
    pictures = {
        image_name("21", "11"): "",
        image_name("22", "12"): "truncated",
        image_name("25", "15"): "",
        "stray.jpg": "not an image",
    }
    quality = dataset(raw, pictures=pictures).quality
    assert quality == {
        "synthetic": False,
        "train": {
            "rows_in": 6,
            "rows_out": 6,
            "rows_rejected": 0,
            "rejected": {},
            "classes": 3,
            "small_classes": {"1281": 1, "2583": 2, "2705": 3},
            "missing_title": 0,
            "missing_description": 4,
            "missing_picture": 4,
            "unusable_picture": {"truncated": 1},
            "suspected_mojibake": 1,
            "repeated_title": 1,
        },
        "test": {
            "rows_in": 3,
            "rows_out": 3,
            "ids_not_integers": 0,
            "nothing_to_classify_by": 1,
            "title_in_train": 1,
            "missing_title": 1,
            "missing_description": 3,
            "missing_picture": 2,
            "unusable_picture": {},
            "suspected_mojibake": 0,
            "repeated_title": 0,
        },
        "pictures": {"files": 4, "not_referenced": 1},
    }


CELL = st.sampled_from(["", " ", "titre", "NA", "<p>x</p>", "null"])
IDS = st.sampled_from(["7", "x", "", "1.0"])
CODES = st.sampled_from(["10", "40", "9999", "", "dix", " 10 "])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELL, CELL, IDS, CODES), min_size=1, max_size=12), st.integers(1, 5))
def test_rows_in_are_rows_out_and_rows_rejected(rows: list[tuple[str, str, str, str]], together: int) -> None:
    """However many rows are in memory at a time, what comes out is the same."""
    sound = [("a", "", "1", "10"), ("b", "", "2", "40")]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        raw = Path(folder)
        write(raw / "X_train.csv", [("", "designation", "description", "productid", "imageid")] + [
            (i, title, text, product, i) for i, (title, text, product, _) in enumerate([*sound, *rows])
        ])  # fmt: skip
        write(raw / "Y_train.csv", [("", "prdtypecode"), *((i, row[3]) for i, row in enumerate([*sound, *rows]))])
        write(raw / "X_test.csv", [("", "designation", "description", "productid", "imageid"), (0, "a", "", "1", "0")])
        whole = dataset(raw)
        patch.setattr(tables, "ROWS", together)
        data = dataset(raw)
    assert sorted([*data.train[INDEX], *data.rejected["row"]], key=int) == [str(i) for i in range(len(rows) + 2)]
    assert data.quality["train"]["rows_in"] == len(data.train) + len(data.rejected)
    assert all(one.equals(other) for one, other in zip(data[:3], whole[:3], strict=True))
    assert data.quality == whole.quality


def write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def test_more_rejected_rows_than_allowed_stop_ingest(raw: Path) -> None:
    add_rows(raw, [("t", "", "1", "2", "")])
    assert len(dataset(raw, DataParams(max_rejected=0.2, unknown_labels="reject")).rejected) == 1
    with pytest.raises(UserError, match="1 of 5 rows are unusable"):
        dataset(raw, DataParams(max_rejected=0.19, unknown_labels="reject"))


def test_the_script_writes_its_four_files(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_rows(raw, [(f"NA {n}", "null", str(n), str(n), "10") for n in range(200, 230)] + [("t", "", "1", "2", "0")])
    interim, reports = tmp_path / "interim", tmp_path / "reports"
    assert main(["--raw", str(raw), "--interim", str(interim), "--reports", str(reports)]) == 0
    train = read_table(interim / "merged_train.csv", integers=("prdtypecode",))
    assert list(train.columns) == [*X_COLUMNS, "has_image", "prdtypecode"]
    assert train["designation"].tolist()[4] == "NA 200"
    assert train["description"].tolist()[:5] == ["<p>Avec pompe</p>", "", "Filtre, 400 W", "", "null"]
    assert len(read_table(interim / "merged_test.csv")) == 2
    assert read_table(interim / "rejected.csv").to_dict("records") == [
        {"row": "130", "file": "Y_train.csv", "reason": "label is not a known code"}
    ]
    quality: dict[str, Any] = json.loads((reports / "data_quality.json").read_text())
    assert quality["train"]["rows_in"] == 35
    said = capsys.readouterr().err
    assert "WARNING ingest: no file under images/" in said
    assert "WARNING ingest: 1 train rows rejected: label is not a known code (see rejected.csv)" in said
    assert "INFO ingest: 35 train rows read, 34 kept, 1 rejected; 2 test rows kept in" in said


def test_missing_and_broken_pictures_are_said(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "images" / "image_train" / image_name("21", "11")).write_bytes(b"jpeg")
    Image.new("L", (30, 30)).save(raw / "images" / image_name("22", "12"))
    assert main(["--raw", str(raw), "--interim", str(tmp_path / "i"), "--reports", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().err
    assert "4 products have no picture on disk" in said
    assert "1 picture files are not an image; their products go on with their text" in said
    assert read_table(tmp_path / "i" / "merged_train.csv")["has_image"].tolist() == ["False", "True", "False", "False"]
    quality = json.loads((tmp_path / "r" / "data_quality.json").read_text())
    assert quality["pictures"] == {
        "files": 2, "not_referenced": 0, "unusable": {"not an image": 1}, "unusual": {"grayscale": 1},
    }  # fmt: skip
