from pathlib import Path

import pytest

from rakuten.commands.sample import main
from rakuten.data.schema import image_name
from rakuten.data.synthetic import proportional_codes, synthetic_products


def test_the_catalogue_is_written_and_its_size_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "30", "--test-rows", "5", "--seed", "2", "--out", str(tmp_path)]) == 0
    assert "wrote the synthetic sample there (30 + 5 products)" in capsys.readouterr().err
    first = next(synthetic_products(proportional_codes(30, 2), 0, 2))
    assert (tmp_path / "images" / "image_train" / image_name(first.imageid, first.productid)).is_file()


def test_images_can_be_left_out(tmp_path: Path) -> None:
    assert main(["--rows", "30", "--test-rows", "5", "--out", str(tmp_path), "--no-images"]) == 0
    assert (tmp_path / "X_train.csv").is_file()
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("flag", ["--rows", "--test-rows"])
def test_a_table_needs_a_row(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag, "0", "--out", str(tmp_path)]) == 1
    assert "--rows and --test-rows must be at least 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_data_is_left_alone(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (raw / "X_train.csv").read_bytes()
    assert main(["--out", str(raw), "--if-absent"]) == 0
    assert "X_train.csv exists, nothing written" in capsys.readouterr().err
    assert main(["--out", str(raw)]) == 1
    assert "already exists" in capsys.readouterr().err
    assert (raw / "X_train.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "published"), [("Y_train.csv", "Y_train_CVw08PX.csv"), ("X_train.csv", "X_train_update.csv")]
)
def test_an_incomplete_catalogue_is_an_error_with_the_file_to_rename(
    name: str, published: str, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in {"X_train.csv", "Y_train.csv", "X_test.csv"} - {name, "X_train.csv"}:
        (raw / other).unlink()
    (raw / name).rename(raw / published)
    files = sorted(raw.iterdir())
    assert main(["--out", str(raw), "--if-absent"]) == 1
    assert f"rename it to {name}" in capsys.readouterr().err
    assert sorted(raw.iterdir()) == files
