"""Which files `rakuten score` takes. What it writes: tests/models/test_score_file.py."""

from pathlib import Path

import pytest

from rakuten.commands import score
from rakuten.commands.score import check_paths
from rakuten.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with inputs, a link to one, other kinds of files, and an empty folder."""
    (tmp_path / "in.csv").write_text("designation\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    (tmp_path / "in.tsv").write_text("designation\tn\n")
    (tmp_path / "in.json").write_text("{}")
    (tmp_path / "in.xlsx").write_bytes(b"PK\3\4[Content_Types].xml")
    (tmp_path / "in.parquet").mkdir()
    (tmp_path / "in.parquet" / "part-00000.parquet").touch()
    (tmp_path / "folder.csv").mkdir()
    return tmp_path


@pytest.mark.parametrize("source", ["in.csv", "in.tsv"])
@pytest.mark.parametrize("output", ["out.csv", "out.CSV", "out.parquet"])
def test_an_output_beside_the_input_is_taken(source: str, output: str, folder: Path) -> None:
    check_paths(folder / source, folder / output, folder / "folder.csv")


@pytest.mark.parametrize(
    ("source", "output", "images", "message"),
    [
        ("in.json", "out.csv", None, "in.json: must be a .csv or .parquet file"),
        ("in.xlsx", "out.csv", None, "in.xlsx: a workbook of Excel or LibreOffice; in Excel .*, save it as"),
        (
            "in.parquet",
            "out.csv",
            None,
            r"in.parquet: a folder of 1 files as Spark writes it \(first: part-00000.parquet",
        ),
        ("in.csv", "out", None, "out: must be a .csv or .parquet file"),
        ("none.csv", "out.csv", None, "none.csv: no such file"),
        ("in.csv", "none/out.csv", None, "none: no such folder for out.csv"),
        ("in.csv", "folder.csv", None, "folder.csv: is a folder"),
        ("in.csv", "in.csv", None, "in.csv: is the input file"),
        ("in.csv", "folder.csv/../in.csv", None, "in.csv: is the input file"),
        ("in.csv", "link.csv", None, "link.csv: is the input file"),
        ("in.csv", "out.csv", "none", "none: no such folder of images"),
    ],
)
def test_other_paths_are_refused(source: str, output: str, images: str | None, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        check_paths(folder / source, folder / output, folder / images if images else None)


def test_a_refused_path_is_an_error_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(folder / "none.csv"), "--output", str(folder / "out.csv")]
    assert score.main(arguments) == 1
    assert "ERROR score: " in capsys.readouterr().err
