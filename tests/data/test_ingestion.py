import csv
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakuten.config import DataParams
from rakuten.data import tables
from rakuten.data.corrections import Corrections
from rakuten.data.ingestion import InterimPaths, make_dataset
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import INDEX, image_name
from rakuten.data.tables import read_table
from rakuten.data.taxonomy import Taxonomy, current_taxonomy
from rakuten.errors import UserError

LENIENT = DataParams(max_rejected=1.0, unknown_labels="reject")
KEEP = DataParams(max_rejected=1.0, unknown_labels="keep")
NO_IMAGES: Mapping[str, str] = {}


class Dataset(NamedTuple):
    train: pd.DataFrame
    test: pd.DataFrame
    rejected: pd.DataFrame
    corrections: pd.DataFrame
    none_of_the_codes: pd.DataFrame
    quality: dict[str, Any]
    examples: dict[str, str]


def ingest(
    raw: Path,
    params: DataParams = LENIENT,
    error_by_image: Mapping[str, str] = NO_IMAGES,
    taxonomy: Taxonomy | None = None,
) -> Dataset:
    taxonomy = taxonomy or current_taxonomy()
    with tempfile.TemporaryDirectory() as folder:
        paths = InterimPaths.of(Path(folder))
        quality, examples = make_dataset(
            RawFiles.open(raw), Corrections.read(raw, taxonomy, 2), error_by_image, params, taxonomy, paths
        )
        return Dataset(*map(read_table, paths), quality, examples)


def add_rows(raw: Path, rows: list[tuple[str, str, str, str, str]]) -> None:
    """Add train rows 100, 101, ...: designation, description, productid, imageid, prdtypecode."""
    with (raw / "X_train.csv").open("a") as x, (raw / "Y_train.csv").open("a") as y:
        for index, (*texts, code) in enumerate(rows, start=100):
            x.write(",".join([str(index), *texts]) + "\n")
            y.write(f"{index},{code}\n")


def test_a_rejected_row_is_written_with_the_file_of_its_fault(raw: Path) -> None:
    add_rows(raw, [("", "", "1", "2", "10"), ("t", "", "3", "4", "ten"), ("t", "", "x", "5", "")])
    dataset = ingest(raw)
    assert dataset.rejected.to_dict("records") == [
        {"row": "100", "file": "X_train.csv", "reason": "no title, no description and no picture", "value": ""},
        {"row": "101", "file": "Y_train.csv", "reason": "label is not a number", "value": "ten"},
        {"row": "102", "file": "X_train.csv", "reason": "productid is not an integer; label missing", "value": "x"},
    ]
    assert dataset.examples["label is not a number"] == "for example index 101 with 'ten'"
    assert dataset.train[INDEX].tolist() == ["0", "1", "2", "3"]
    assert dataset.quality["train"]["rejected"] == {
        "no title, no description and no picture": 1,
        "label is not a number": 1,
        "productid is not an integer; label missing": 1,
    }


def test_corrections_are_applied_and_can_be_traced(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "corrections.csv").write_text(
        "productid,imageid,old_prdtypecode,prdtypecode,decisions,decided_at,designation,description\n"
        "11,21,2583,40,1,2026-01-01,,\n"  # replaced
        "12,22,2705,,2,2026-01-01,,\n"  # removed
        "77,88,,50,3;4,2026-01-01,Manette,Neuve\n"  # added
        "15,25,,2583,5,2026-01-01,Bâche à bulles,\n"  # a test product, which is learnt from now on
        "99,99,10,40,6,2026-01-01,,\n",  # gone
        encoding="utf-8",
    )
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    dataset = ingest(raw, error_by_image={image_name("88", "77"): ""})
    assert dataset.train[["index", "productid", "prdtypecode"]].to_numpy().tolist() == [
        ["0", "11", "40"], ["2", "13", "2583"], ["3", "14", "2705"], ["6", "77", "50"], ["7", "15", "2583"],
    ]  # fmt: skip
    assert dataset.train["designation"].tolist()[-2:] == ["Manette", "Bâche à bulles"]
    assert dataset.train["has_image"].tolist()[-2:] == ["True", "False"]
    assert dataset.corrections[["index", "decisions", "outcome"]].to_numpy().tolist() == [
        ["0", "1", "label replaced"],
        ["1", "2", "row removed"],
        ["6", "3;4", "row added"],
        ["7", "5", "row added"],
        ["", "6", "there is no such row"],
    ]
    assert dataset.quality["corrections"] == {
        "label replaced": 1, "row added": 2, "row removed": 1, "there is no such row": 1,
    }  # fmt: skip
    assert dataset.quality["train"]["rows_out"] == 5


def test_any_one_of_title_description_image_keeps_a_row(raw: Path) -> None:
    add_rows(raw, [("t", "", "1", "2", "10"), ("", "d", "3", "4", "10"), ("", "", "5", "6", "10")])
    dataset = ingest(raw, error_by_image={image_name("6", "5"): ""})
    assert dataset.rejected.empty
    assert dataset.train["has_image"].tolist() == ["False"] * 6 + ["True"]


def test_numbers_that_pandas_wrote_as_floats_are_whole_numbers(raw: Path) -> None:
    for name in ("X_train.csv", "Y_train.csv", "X_test.csv"):
        table = pd.read_csv(raw / name, index_col=0)
        numbers = [column for column in table if column.endswith(("id", "code"))]
        table.set_index(table.index.astype("float64")).astype(dict.fromkeys(numbers, "float64")).to_csv(raw / name)
    assert "0.0,2583.0" in (raw / "Y_train.csv").read_text()
    dataset = ingest(raw, error_by_image={image_name("21", "11"): "", image_name("26", "16"): ""})
    assert dataset.rejected.empty
    assert dataset.train[[INDEX, "productid", "imageid", "has_image", "prdtypecode"]].values.tolist()[0] == [
        "0", "11", "21", "True", "2583"
    ]  # fmt: skip
    assert dataset.train["prdtypecode"].tolist() == ["2583", "2705", "2583", "2705"]
    assert dataset.test[[INDEX, "has_image"]].values.tolist() == [["4", "False"], ["5", "True"]]


def test_unknown_codes_are_kept_on_request(raw: Path) -> None:
    add_rows(raw, [("t", "", "1", "2", " 9999 ")])
    assert ingest(raw, KEEP).train["prdtypecode"].tolist()[-1] == "9999"


def test_test_rows_are_never_rejected(raw: Path) -> None:
    with (raw / "X_test.csv").open("a") as test:
        test.write("6,,,,\n7,titre,,abc,1.5\n")
    dataset = ingest(raw)
    assert dataset.test[INDEX].tolist() == ["4", "5", "6", "7"]
    assert dataset.test["productid"].tolist() == ["15", "16", "", "abc"]
    assert dataset.quality["test"]["ids_not_integers"] == 2
    assert dataset.quality["test"]["nothing_to_classify_by"] == 2


def test_the_report_counts_the_kept_rows(raw: Path) -> None:
    kept = [("Roman policier", "", "1", "2", "2705"), ("Jeu dâ€™Ã©checs", "", "3", "4", "1281")]
    add_rows(raw, [*kept, ("Roman policier", "", "5", "6", "")])
    with (raw / "X_test.csv").open("a") as test:
        test.write("6,Roman policier,,17,27\n")
    error_by_image = {
        image_name("21", "11"): "",
        image_name("22", "12"): "truncated",
        image_name("25", "15"): "",
        "stray.jpg": "not an image",
    }
    quality = ingest(raw, error_by_image=error_by_image).quality
    assert quality == {
        "synthetic": False,
        "train": {
            "rows_in": 7,
            "rows_out": 6,
            "rows_rejected": 1,
            "rejected": {"label missing": 1},
            "classes": 3,
            "small_classes": {"1281": 1, "2583": 2, "2705": 3},
            "missing_title": 0,
            "missing_description": 4,
            "missing_picture": 4,
            "unusable_picture": {"truncated": 1},
            "suspected_mojibake": 1,
            "text_cut": 0,
            "repeated_title": 1,
        },
        "corrections": {},
        "merged_codes": {"train": {}, "corrections": {}},
        "proposed_codes": {},
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
            "text_cut": 0,
            "repeated_title": 0,
        },
        "pictures": {"files": 4, "not_referenced": 1},
    }


CELL = st.sampled_from(["", " ", "titre", "NA", "<p>x</p>", "null"])
IDS = st.sampled_from(["7", "x", "", "1.0"])
CODES = st.sampled_from(["10", "40", "9999", "", "dix", " 10 "])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(CELL, CELL, IDS, CODES), min_size=1, max_size=12), st.integers(1, 5))
def test_tables_and_report_do_not_depend_on_the_chunk_size(rows: list[tuple[str, str, str, str]], size: int) -> None:
    rows = [("a", "", "1", "10"), ("b", "", "2", "40"), *rows]  # two classes
    x_header = ("", "designation", "description", "productid", "imageid")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        raw = Path(folder)
        x_rows = [(i, title, text, productid, i) for i, (title, text, productid, _) in enumerate(rows)]
        write_csv(raw / "X_train.csv", [x_header, *x_rows])
        write_csv(raw / "Y_train.csv", [("", "prdtypecode"), *((i, code) for i, (*_, code) in enumerate(rows))])
        write_csv(raw / "X_test.csv", [x_header, (0, "a", "", "1", "0")])
        in_one_chunk = ingest(raw)
        patch.setattr(tables, "CHUNK_ROWS", size)
        dataset = ingest(raw)
    assert dataset.train.equals(in_one_chunk.train)
    assert dataset.test.equals(in_one_chunk.test)
    assert dataset.rejected.equals(in_one_chunk.rejected)
    assert dataset.quality == in_one_chunk.quality
    assert sorted([*dataset.train[INDEX], *dataset.rejected["row"]], key=int) == [str(i) for i in range(len(rows))]
    assert dataset.quality["train"]["rows_in"] == len(rows)


def write_csv(path: Path, rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def test_more_rejected_rows_than_allowed_stop_ingestion_with_an_example(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    add_rows(raw, [("t", "", str(n), "2", "") for n in range(4)])
    assert len(ingest(raw, DataParams(max_rejected=0.5, unknown_labels="reject")).rejected) == 4
    with pytest.raises(UserError, match=r"4 of 8 rows are unusable.*\(4: label missing, for example index 100\)"):
        ingest(raw, DataParams(max_rejected=0.49, unknown_labels="reject"))


def test_labels_of_merged_codes_become_the_code_that_is_left(raw: Path) -> None:
    taxonomy = current_taxonomy()
    taxonomy = replace(taxonomy, merged_into={2705: 10})
    (raw / "corrections.csv").write_text(
        "productid,imageid,old_prdtypecode,prdtypecode,decisions,decided_at,designation,description\n"
        "12,22,2705,40,1,2026-01-02T03:04:05+00:00,,\n13,23,2583,2705,2,2026-01-02T03:04:05+00:00,,\n"
    )
    dataset = ingest(raw, taxonomy=taxonomy)
    assert dataset.train["prdtypecode"].tolist() == ["2583", "40", "10", "10"]
    assert dataset.quality["merged_codes"] == {"train": {"2705": 2}, "corrections": {"2705": 1}}
    assert dataset.quality["train"]["rows_rejected"] == 0


@pytest.mark.parametrize(("codes", "rows"), [((3000, 3001), 2), ((3000, 3000), 4)])
def test_a_proposed_code_is_learnt_once_it_has_enough_products(codes: tuple[int, int], rows: int, raw: Path) -> None:
    (raw / "corrections.csv").write_text(
        "productid,imageid,old_prdtypecode,prdtypecode,decisions,decided_at,designation,description\n"
        f"12,22,2705,{codes[0]},1,2026-01-02T03:04:05+00:00,,\n"
        f"13,23,2583,{codes[1]},2,2026-01-02T03:04:05+00:00,,\n"
    )
    dataset = ingest(raw)
    assert len(dataset.train) == dataset.quality["train"]["rows_in"] == rows
    assert (dataset.train["prdtypecode"] == "3000").sum() == rows - 2
    assert dataset.quality["proposed_codes"] == Counter(map(str, codes))
    assert dataset.rejected.empty


def test_a_single_class_stops_ingestion(raw: Path) -> None:
    labels = (raw / "Y_train.csv").read_text().replace(",2705", ",2583")
    (raw / "Y_train.csv").write_text(labels)
    with pytest.raises(UserError, match=r"Y_train\.csv: every usable row has the label 2583"):
        ingest(raw)
