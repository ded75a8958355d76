"""What users meet with real files: one clear line, exit code 1, nothing written."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rakuten.data.make_dataset import main

Break = Callable[[Path], object]


def edit(name: str, old: str, new: str) -> Break:
    def change(raw: Path) -> None:
        text = (raw / name).read_text(encoding="utf-8")
        assert old in text
        (raw / name).write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")

    return change


def rename(old: str, new: str) -> Break:
    return lambda raw: (raw / old).rename(raw / new)


def write(name: str, data: bytes) -> Break:
    return lambda raw: (raw / name).write_bytes(data)


def cut(name: str, end: int) -> Break:
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[:end])


FATAL: dict[str, tuple[Break, str]] = {
    "X_train missing": (rename("X_train.csv", "gone"), r"X_train\.csv: no such file\. Put the challenge's file there"),
    "nothing there": (
        lambda raw: [path.unlink() for path in raw.glob("*.csv")],
        r"X_train\.csv: no such file\. .*or write a sample catalogue with `python -m src\.data\.sample",
    ),
    "X_train under its published name": (
        rename("X_train.csv", "X_train_update.csv"),
        r"X_train\.csv: no such file\. .*X_train_update\.csv is there: rename it to X_train\.csv",
    ),
    "Y_train under its published name": (
        rename("Y_train.csv", "Y_train_CVw08PX.csv"),
        r"Y_train\.csv: no such file\. .*Y_train_CVw08PX\.csv is there: rename it to Y_train\.csv",
    ),
    "X_test under its published name": (
        rename("X_test.csv", "X_test_update.csv"),
        r"X_test\.csv: no such file\. .*X_test_update\.csv is there: rename it to X_test\.csv",
    ),
    "column missing": (
        edit("Y_train.csv", "prdtypecode", "x"),
        r"Y_train\.csv: line 1: no column 'prdtypecode' \(columns there: '', 'x'\)",
    ),
    "column renamed": (
        edit("X_train.csv", "designation", "Designation"),
        r"X_train\.csv: line 1: no column 'designation'; rename 'Designation' to it",
    ),
    "column twice": (edit("X_test.csv", "description", "designation"), r"X_test\.csv: line 1: column 'designation'"),
    "no index column": (
        edit("X_train.csv", ",designation", "nr,designation"),
        r"X_train\.csv: line 1: the first column must be the nameless index",
    ),
    "a quote broken in the header": (
        edit("X_train.csv", ",designation", ',"designation"x'),
        r"X_train\.csv: the record that begins on line 1 is broken",
    ),
    "semicolons": (
        lambda raw: (raw / "Y_train.csv").write_text(";prdtypecode\n0;10\n1;1,0\n"),
        r"Y_train\.csv: line 1: columns are not parted by commas",
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
    "cut in mid-record": (cut("X_train.csv", -8), r"X_train\.csv: the last line has no line end"),
    "cut after a line break in a field": (
        lambda raw: (raw / "X_test.csv").write_bytes(b',designation,description,productid,imageid\n4,Salon,"un\n'),
        r"X_test\.csv: the record that begins on line 2 is broken",
    ),
    "empty file": (write("X_test.csv", b""), r"X_test\.csv: the file is empty"),
    "header alone": (
        write("X_test.csv", b",designation,description,productid,imageid\n"),
        r"X_test\.csv: no rows below the header",
    ),
    "single class": (
        lambda raw: [edit("Y_train.csv", ",2705", ",2583")(raw) for _ in range(2)],
        r"Y_train\.csv: every usable row has the label 2583",
    ),
    "too many rows rejected": (
        edit("Y_train.csv", "1,2705", "1,"),
        r"1 of 4 rows are unusable, more than data\.max_rejected \(5\.0%\) .*label missing: 1; first rows by index: 1",
    ),
}


@pytest.mark.parametrize("case", FATAL)
def test_fatal(case: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = FATAL[case]
    damage(raw)
    interim, reports = tmp_path / "interim", tmp_path / "reports"
    assert main(["--raw", str(raw), "--interim", str(interim), "--reports", str(reports)]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(f"ERROR ingest: .*{message}.*\n", said), said
    assert not interim.exists()
    assert not reports.exists()


def test_the_script_fails_the_same_way(
    raw: Path, tmp_path: Path, run_script: Callable[..., "CompletedProcess[str]"]
) -> None:
    (raw / "Y_train.csv").unlink()
    done = run_script("src/data/make_dataset.py", "--raw", raw, "--interim", tmp_path / "interim", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"ERROR ingest: .*Y_train\.csv: no such file\..*\n", done.stderr)
    assert done.stdout == ""


def test_earlier_results_stay_when_ingest_fails(raw: Path, tmp_path: Path) -> None:
    paths = ["--raw", str(raw), "--interim", str(tmp_path / "interim"), "--reports", str(tmp_path / "reports")]
    assert main(paths) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "interim").iterdir()}
    (raw / "Y_train.csv").unlink()
    assert main(paths) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "interim").iterdir()} == before
