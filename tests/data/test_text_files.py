import zipfile
from pathlib import Path

import pandas as pd
import pytest

from rakuten.data.tables import read_records
from rakuten.data.text_files import csv_format, other_kind
from rakuten.errors import UserError


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("designation", ","),
        ("a,b", ","),
        ("a;b", ";"),
        ("a\tb", "\t"),
        ('"a;b;c",d', ","),
        ("a;b,c;d", ";"),
        ("a;b,c", ","),
        ('a,"b\n;;;;",c', ","),
        ("a,b\n;;;;", ","),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["", "\n", "\r", "\r\n"])
def test_encoding_separator_and_last_line_end_are_recognised(
    tmp_path: Path, header: str, separator: str, encoding: str, end: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes((header + end).encode(encoding))
    assert csv_format(path) == (encoding, separator, bool(end))


def test_letters_of_any_language_are_read_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("designation\tn\r\n" + "水泳プール é ਊ\t1\r\n" * 9000, encoding="utf-16", newline="")
    assert [record for _, record in read_records(path)] == [["designation", "n"], *[["水泳プール é ਊ", "1"]] * 9000]


def test_what_is_not_utf_8_is_named_with_a_remedy_for_each_system(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("designation;n\nRoman;1\nRecueil de poèmes;2\n".encode("cp1252"))
    with pytest.raises(UserError) as error:
        list(read_records(path))
    assert str(error.value) == (
        f"{path}: line 3 is not UTF-8 (byte 0xe8); if it reads 'ecueil de poèmes;2', the file is in Windows-1252: "
        'in Excel or LibreOffice, save it as "CSV UTF-8"; in an editor such as Notepad, with the encoding UTF-8; on '
        "Linux, `iconv -f WINDOWS-1252 -t UTF-8`. If not, the line is damaged: correct it or fetch the file again"
    )


def test_utf_16_that_was_cut_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a\tb\r\n1\t2\r\n".encode("utf-16")[:-1])
    with pytest.raises(UserError, match="broken UTF-16: the file is damaged or was cut short"):
        list(read_records(path))


def write_zip(path: Path, entry: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "a")


def write_parts(path: Path, *names: str) -> None:
    path.mkdir()
    for name in ("_SUCCESS", *names):
        (path / name).touch()


KINDS = {
    "a workbook of Excel or LibreOffice; in Excel": lambda path: write_zip(path, "[Content_Types].xml"),
    "a workbook of Excel": lambda path: write_zip(path, "xl/workbook.xml"),
    "an Excel workbook; in Excel": lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    "a ZIP archive; unpack it": lambda path: write_zip(path, "X_train.csv"),
    "a compressed file; unpack it": lambda path: pd.DataFrame({"a": [1]}).to_csv(path, compression="gzip"),
    "a Parquet file; if it is to be classified": lambda path: pd.DataFrame({"a": [1]}).to_parquet(path),
    "a web page, such as a site's login": lambda path: path.write_text("\n<!DOCTYPE html>\n<html>"),
    "a folder; give the file in it": Path.mkdir,
    "a folder of 1 files as Spark writes it (first: part-0.csv); give it": lambda path: write_parts(path, "part-0.csv"),
    "a folder of 2 files as Spark writes it (first: part-0.csv); write one with df.coalesce(1)": (
        lambda path: write_parts(path, "part-1.csv", "part-0.csv")
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_file_is_named_with_a_remedy(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "X_train.csv"
    KINDS[kind](path)
    assert other_kind(path).startswith(kind)
    with pytest.raises(UserError, match="X_train.csv: not a CSV file but a"):
        list(read_records(path))


def test_a_text_is_no_other_kind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("PK,PAR1\n")
    assert other_kind(tmp_path / "a.csv") == ""


def test_the_line_that_tells_excel_the_separator_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\na;b\n1;2\n")
    with pytest.raises(UserError, match=r"line 1 is a hint for Excel \('sep=;'\); delete this line"):
        list(read_records(tmp_path / "a.csv"))
