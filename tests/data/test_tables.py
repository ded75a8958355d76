from pathlib import Path

import pandas as pd
import pytest

from rakuten.data.schema import (
    LABELS,
    X_COLUMNS,
    Y_COLUMNS,
    image_name,
    is_synthetic,
    is_synthetic_image,
    label_of,
    synthetic_imageid,
)
from rakuten.data.tables import read_raw, read_table, write_table
from rakuten.errors import UserError


def test_the_27_codes_have_names() -> None:
    assert len(LABELS) == 27
    assert label_of(2583) == "piscine et spa"
    assert label_of(1) == ""


def test_only_the_sample_is_synthetic() -> None:
    real = pd.DataFrame({"productid": ["3929890128", "x", ""], "imageid": ["1265209491", "1", ""]})
    assert not is_synthetic(real)
    made = pd.DataFrame({"productid": ["77"], "imageid": [str(synthetic_imageid(77))]})
    assert is_synthetic(pd.concat([real, made]))


def test_ids_of_the_sample_are_one_to_one() -> None:
    assert len({synthetic_imageid(product) for product in range(50_000)}) == 50_000


def test_the_samples_pictures_are_told_by_name() -> None:
    assert is_synthetic_image(image_name(str(synthetic_imageid(77)), "77"))
    assert not is_synthetic_image(image_name("1265209491", "3929890128"))
    assert not is_synthetic_image("stray.jpg")


def test_raw_files_are_read_as_they_stand(tmp_path: Path) -> None:
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


def test_a_decoding_error_names_the_line_beyond_the_first_block(tmp_path: Path) -> None:
    path = tmp_path / "Y_train.csv"
    path.write_bytes(b",prdtypecode\n" + b"".join(b"%d,10\n" % n for n in range(50_000)) + b"50000,\xe9\n")
    with pytest.raises(UserError, match=r"line 50002 is not UTF-8 \(byte 0xe9\)"):
        read_raw(path, Y_COLUMNS)


def test_tables_come_back_as_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["NA", "", 'a "b"\nc', "é", "x\ry", "p\r\nq", '"z\r'], "n": range(7)})
    write_table(table, tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv", integers=("n",)).equals(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; run `dvc repro`"),
        ("n\nx\n", "not what the earlier stage"),
        ("m\n1\n", "not what"),
        ("", "not what"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_table(path, integers=("n",))
