"""Opening the raw files finds what users meet with real files; reading them joins titles and labels."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from rakuten.data import tables
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import CHALLENGE_NAMES, X_TEST, X_TRAIN, Y_TRAIN
from rakuten.errors import UserError

Damage = Callable[[Path], object]


def edit(name: str, old: str, new: str) -> Damage:
    def change(raw: Path) -> None:
        text = (raw / name).read_text(encoding="utf-8")
        assert old in text
        (raw / name).write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")

    return change


def rename(old: str, new: str) -> Damage:
    return lambda raw: (raw / old).rename(raw / new)


def write(name: str, data: bytes) -> Damage:
    return lambda raw: (raw / name).write_bytes(data)


def cut(name: str, end: int) -> Damage:
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[:end])


def save_shuffled(path: Path, seed: int) -> None:
    """What a notebook does that reads a file without index_col, changes it and saves it."""
    pd.read_csv(path).sample(frac=1, random_state=seed).reset_index(drop=True).to_csv(path)


FATAL: dict[str, tuple[Damage, str]] = {
    "X_train missing": (rename("X_train.csv", "gone"), r"X_train\.csv: no such file\. Put the challenge's file there"),
    "no file": (
        lambda raw: [path.unlink() for path in raw.glob("*.csv")],
        r"X_train\.csv: no such file\. .*or write a sample catalogue with `rakuten sample --out",
    ),
    "X_train under its published name": (
        rename("X_train.csv", "X_train_update.csv"),
        r"X_train\.csv: no such file\. .*X_train_update\.csv is there: rename it to X_train\.csv",
    ),
    "Y_train under its published name": (
        rename("Y_train.csv", "Y_train_CVw08PX.csv"),
        r"Y_train\.csv: no such file\. .*Y_train_CVw08PX\.csv is there: rename it to Y_train\.csv",
    ),
    "all under their published names": (
        lambda raw: [(raw / here).rename(raw / published) for here, published in CHALLENGE_NAMES.items()],
        r"X_train\.csv: no such file\. The challenge's own files are there: "
        r"rename X_train_update\.csv to X_train\.csv, Y_train_CVw08PX\.csv to Y_train\.csv, X_test_update\.csv to X",
    ),
    "a workbook in its place": (
        lambda raw: [(raw / "X_train.csv").unlink(), (raw / "X_train.xlsx").write_bytes(b"PK\3\4[Content_Types].xml")],
        r"X_train\.csv: no such file\. There is X_train\.xlsx: a workbook of Excel or LibreOffice; in .*CSV UTF-8",
    ),
    "an ending that Windows hides": (
        rename("Y_train.csv", "Y_train.csv.txt"),
        r"Y_train\.csv: no such file\. There is Y_train\.csv\.txt: rename it to Y_train\.csv",
    ),
    "an archive under its name": (
        write("X_test.csv", b"PK\3\4"),
        r"X_test\.csv: not a CSV file but a ZIP archive; unpack it",
    ),
    "columns to rename in two files": (
        lambda raw: [
            edit("X_train.csv", ",designation,description", ",Titre,Description")(raw),
            edit("X_test.csv", "productid,imageid", "product_id,image_id")(raw),
        ],
        r"X_train\.csv: line 1: .*'Titre' to 'designation', 'Description' to 'description'.*; "
        r".*X_test\.csv: line 1: .*'product_id' to 'productid', 'image_id' to 'imageid'",
    ),
    "X_test under its published name": (
        rename("X_test.csv", "X_test_update.csv"),
        r"X_test\.csv: no such file\. .*X_test_update\.csv is there: rename it to X_test\.csv",
    ),
    "column missing": (
        edit("Y_train.csv", "prdtypecode", "x"),
        r"Y_train\.csv: line 1: no column 'prdtypecode' \(columns found: '', 'x'\)",
    ),
    "column renamed": (
        edit("X_train.csv", "designation", "Designation"),
        r"X_train\.csv: line 1: no column 'designation'; rename 'Designation' to 'designation'",
    ),
    "column twice": (
        edit("X_test.csv", "description", "designation"),
        r"X_test\.csv: line 1: several columns are named 'designation'; keep one of each",
    ),
    "no index column": (
        edit("X_train.csv", ",designation", "nr,designation"),
        r"X_train\.csv: line 1: no column 'index'; the index, .*, must be the first column",
    ),
    "index named id": (
        edit("Y_train.csv", ",prdtypecode", "id,prdtypecode"),
        r"Y_train\.csv: line 1: no column 'index'; rename 'id' to 'index'",
    ),
    "saved again by pandas, rows in another order": (
        lambda raw: [save_shuffled(raw / "X_train.csv", 1), save_shuffled(raw / "Y_train.csv", 2)],
        r"X_train\.csv, .*Y_train\.csv: line 1: several index columns \('', 'Unnamed: 0'\): .*; delete all but the "
        "original one",
    ),
    "a quote broken in the header": (
        edit("X_train.csv", ",designation", ',"designation"x'),
        r"X_train\.csv: the record that begins on line 1 is broken",
    ),
    "indexes do not match": (
        edit("Y_train.csv", "\n3,", "\n7,"),
        r"1 only in X_train\.csv \(first: 3, line 5\) and 1 only in Y_train\.csv \(first: 7, line 5\)",
    ),
    "a label too few": (edit("Y_train.csv", "3,2705\n", ""), r"1 only in X_train\.csv \(first: 3, line 5\)"),
    "index is no number": (edit("X_test.csv", "\n5,", "\nfive,"), r"X_test\.csv: line 3: the index 'five'"),
    "index repeated": (
        edit("X_train.csv", "\n2,Pompe", "\n1,Pompe"),
        r"X_train\.csv: lines 3 and 4 have the same index 1",
    ),
    "ids repeated": (
        edit("X_train.csv", "14,24", "011,21"),
        r"X_train\.csv: lines 2 and 5 have the same \(productid, imageid\) 11, 21",
    ),
    "ids repeated in test": (edit("X_test.csv", "16,26", "15,25"), r"X_test\.csv: lines 2 and 3 have the same"),
    "not UTF-8": (
        lambda raw: (raw / "X_train.csv").write_bytes(
            (raw / "X_train.csv").read_text(encoding="utf-8").encode("latin-1")
        ),
        r"X_train\.csv: line 5 is not UTF-8 \(byte 0xe8\)",
    ),
    "a quote never closed": (
        edit("X_train.csv", '400 W"', "400 W"),
        r"X_train\.csv: the record that begins on line 4 is broken",
    ),
    "a quote in the middle": (
        edit("X_train.csv", "Piscine gonflable", '"Piscine" gonflable'),
        r"X_train\.csv: the record that begins on line 2 is broken",
    ),
    "a comma without quotes": (
        edit("X_train.csv", "Roman policier", "Roman, policier"),
        r"X_train\.csv: the record on lines 3-3 has 6 fields, the header has 5",
    ),
    "cut within a record": (
        cut("X_train.csv", -8),
        r"X_train\.csv: the record on lines 5-5 has 2 fields, .* cut short",
    ),
    "cut after a line break in a field": (
        write("X_test.csv", b',designation,description,productid,imageid\n4,Salon,"un\n'),
        r"X_test\.csv: the record that begins on line 2 is broken",
    ),
    "empty file": (write("X_test.csv", b""), r"X_test\.csv: the file is empty"),
    "header alone": (
        write("X_test.csv", b",designation,description,productid,imageid\n"),
        r"X_test\.csv: no rows below the header",
    ),
}


@pytest.mark.parametrize("fault", FATAL)
def test_a_fatal_fault_is_named_with_file_and_line(fault: str, raw: Path) -> None:
    damage, message = FATAL[fault]
    damage(raw)
    with pytest.raises(UserError, match=message):
        RawFiles.open(raw)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_files_as_excel_saves_them_are_read(raw: Path, encoding: str, separator: str) -> None:
    expected = pd.concat(RawFiles.open(raw).chunks(X_TRAIN))
    for name in (X_TRAIN, Y_TRAIN, X_TEST):
        table = pd.read_csv(raw / name, index_col=0)
        table.to_csv(raw / name, sep=separator, encoding=encoding, lineterminator="\r\n")
    pd.testing.assert_frame_equal(pd.concat(RawFiles.open(raw).chunks(X_TRAIN)), expected)


def test_a_last_line_without_its_end_and_a_missing_description_are_warnings(
    raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (raw / "Y_train.csv").write_bytes((raw / "Y_train.csv").read_bytes().removesuffix(b"\n"))
    pd.read_csv(raw / "X_test.csv", index_col=0).drop(columns="description").to_csv(raw / "X_test.csv")
    raw_files = RawFiles.open(raw)
    assert raw_files.n_rows == {X_TRAIN: 4, Y_TRAIN: 4, X_TEST: 2}
    (test,) = raw_files.chunks(X_TEST)
    assert test["description"].tolist() == ["", ""]
    assert caplog.messages == [
        f"{raw / 'Y_train.csv'}: the last line has no line end; if its last field is cut, fetch the file again",
        f"{raw / 'X_test.csv'}: no column 'description'; products are classified by their titles and images",
    ]


def test_rows_are_counted_per_file(raw: Path) -> None:
    assert RawFiles.open(raw).n_rows == {X_TRAIN: 4, Y_TRAIN: 4, X_TEST: 2}


@pytest.mark.parametrize("size", [1, 3, 100])
def test_labels_are_joined_by_index_in_chunks_of_any_size(
    raw: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    header, *rows = (raw / "Y_train.csv").read_text().splitlines()
    (raw / "Y_train.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    monkeypatch.setattr(tables, "CHUNK_ROWS", size)
    chunks = list(RawFiles.open(raw).chunks(X_TRAIN))
    assert max(len(chunk) for chunk in chunks) == min(size, 4)
    train = pd.concat(chunks)
    assert train["index"].tolist() == ["0", "1", "2", "3"]
    assert train["prdtypecode"].tolist() == ["2583", "2705", "2583", "2705"]


def test_ids_are_read_normalised_and_test_rows_without_labels(raw: Path) -> None:
    edit("X_test.csv", "15,25", "015,x")(raw)
    (test,) = RawFiles.open(raw).chunks(X_TEST)
    assert test[["productid", "imageid"]].values.tolist() == [["15", "x"], ["16", "26"]]
    assert "prdtypecode" not in test


def test_a_file_that_changes_after_it_was_opened_is_refused(raw: Path) -> None:
    raw_files = RawFiles.open(raw)
    with (raw / "X_train.csv").open("a") as stream:
        stream.write("100,t,,1,2\n")
    with pytest.raises(UserError, match="X_train.csv: changed while it was read"):
        list(raw_files.chunks(X_TRAIN))
