from pathlib import Path

import pandas as pd
import pytest

from rakuten.data.schema import X_COLUMNS, Y_COLUMNS
from rakuten.data.tables import read_raw, read_raw_chunks, read_records, read_table, read_table_chunks, write_table
from rakuten.errors import UserError


def test_cells_of_raw_files_are_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "X_train.csv"
    path.write_bytes(
        "\ufeffUnnamed: 0,productid,designation,extra,description,imageid\r\n"
        '0,007,NA,e,"a ""b"",\r\nc",1.0\r\n\r\n1,8,,e,null,2\r\n'.encode()
    )
    frame = read_raw(path, X_COLUMNS)
    assert frame.to_dict("records") == [
        {
            "index": "0",
            "designation": "NA",
            "description": 'a "b",\r\nc',
            "productid": "007",
            "imageid": "1.0",
            "line": 3,
        },
        {"index": "1", "designation": "", "description": "null", "productid": "8", "imageid": "2", "line": 5},
    ]


def test_a_raw_file_is_read_in_chunks_whose_lines_continue(tmp_path: Path) -> None:
    path = tmp_path / "Y_train.csv"
    path.write_text(",prdtypecode\n" + "".join(f"{n},10\n" for n in range(5)))
    chunks = list(read_raw_chunks(path, Y_COLUMNS, 2))
    assert [chunk["line"].tolist() for chunk in chunks] == [[2, 3], [4, 5], [6]]


def test_records_come_with_the_line_they_end_on(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text('a,b\n1,"two\nlines"\n\n3,4\n')
    assert list(read_records(path)) == [(1, ["a", "b"]), (3, ["1", "two\nlines"]), (5, ["3", "4"])]


def test_a_decoding_error_names_the_line_beyond_the_first_block(tmp_path: Path) -> None:
    path = tmp_path / "Y_train.csv"
    path.write_bytes(b",prdtypecode\n" + b"".join(b"%d,10\n" % n for n in range(50_000)) + b"50000,\xe9\n")
    with pytest.raises(
        UserError, match=r"line 50002 is not UTF-8 \(byte 0xe9\); if it reads '50000,é', the file is in Win"
    ):
        read_raw(path, Y_COLUMNS)


def test_a_written_table_is_read_back_unchanged(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["NA", "", 'a "b"\nc', "é", "x\ry", "p\r\nq", '"z\r'], "n": range(7)})
    write_table(table, tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv", integers=("n",)).equals(table)


def test_chunks_of_a_table_continue_its_index(tmp_path: Path) -> None:
    table = pd.DataFrame({"n": range(5)})
    write_table(table, tmp_path / "t.csv")
    chunks = list(read_table_chunks(tmp_path / "t.csv", ("n",), 2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert pd.concat(chunks).equals(table)


def test_a_table_without_rows_is_one_empty_chunk(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"a": []}), tmp_path / "t.csv")
    (chunk,) = read_table_chunks(tmp_path / "t.csv")
    assert list(chunk.columns) == ["a"]
    assert chunk.empty


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; run `dvc repro`"),
        ("n\nx\n", "not what the earlier stage"),
        ("m\n1\n", "not what"),
        ("", "not what"),
    ],
)
def test_the_error_names_a_missing_or_broken_table(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_table(path, integers=("n",))
