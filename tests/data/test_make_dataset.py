"""The script src/data/make_dataset.py: the files that it writes, its log, its exit code."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from rakuten.data.schema import X_COLUMNS, image_name
from rakuten.data.tables import read_table
from rakuten.data.taxonomy import current_taxonomy
from tests.support.project import load_script

MakeDataset = Callable[[Path], "CompletedProcess[str]"]


@pytest.fixture
def interim(tmp_path: Path) -> Path:
    return tmp_path / "interim"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture
def make_dataset(
    run_script: Callable[..., "CompletedProcess[str]"], tmp_path: Path, interim: Path, reports: Path
) -> MakeDataset:
    """Run the script on raw files, outside of the project's folder."""

    def run(raw: Path) -> "CompletedProcess[str]":
        paths = ("--raw", raw, "--interim", interim, "--reports", reports)
        return run_script("src/data/make_dataset.py", *paths, cwd=tmp_path)

    return run


def test_tables_and_report_are_written_and_findings_logged(
    raw: Path, make_dataset: MakeDataset, interim: Path, reports: Path
) -> None:
    with (raw / "X_train.csv").open("a") as x, (raw / "Y_train.csv").open("a") as y:
        for n in range(200, 230):
            x.write(f"{n},NA {n},null,{n},{n}\n")
            y.write(f"{n},10\n")
        x.write("130,t,,1,2\n")
        y.write("130,0\n")
    run = make_dataset(raw)
    assert run.returncode == 0, run.stderr
    train = read_table(interim / "merged_train.csv", integers=("prdtypecode",))
    assert list(train.columns) == [*X_COLUMNS, "has_image", "prdtypecode"]
    assert train["designation"].tolist()[4] == "NA 200"
    assert train["description"].tolist()[:5] == ["<p>Avec pompe</p>", "", "Filtre, 400 W", "", "null"]
    assert len(read_table(interim / "merged_test.csv")) == 2
    assert read_table(interim / "rejected.csv").to_dict("records") == [
        {"row": "130", "file": "Y_train.csv", "reason": "label is not a known code", "value": "0"}
    ]
    assert json.loads((reports / "data_quality.json").read_text())["train"]["rows_in"] == 35
    assert run.stdout == ""
    *warnings, closing = run.stderr.splitlines()
    assert warnings == [
        "WARNING ingest: no file under images/: every product is used without an image",
        "WARNING ingest: 1 train rows rejected: label is not a known code, for example index 130 with '0' "
        "(see rejected.csv)",
        "WARNING ingest: class 2583 has only 2 rows",
        "WARNING ingest: class 2705 has only 2 rows",
    ]
    assert closing.startswith("INFO ingest: 35 train rows read, 34 kept, 1 rejected; 2 test rows kept (")


def test_what_becomes_of_merged_and_proposed_codes_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    taxonomy = replace(current_taxonomy(), merged_into={2705: 10})
    quality = {
        "merged_codes": {"train": {"2705": 1200}, "corrections": {}},
        "proposed_codes": {"3000": 25, "3001": 4},
    }
    with caplog.at_level("INFO"):
        load_script("src/data/make_dataset.py").log_codes(quality, taxonomy, {3000}, 20)
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3
    assert caplog.messages == [
        "1,200 labels (train) of code 2705, merged into 10",
        "the proposed code 3000 is a class: 25 products; data/taxonomy.csv can name it",
        "the proposed code 3001 has 4 products; from 20 on it is a class (review.new_code_rows in params.yaml)",
    ]


def test_missing_and_unusable_images_are_logged_and_counted(
    raw: Path, make_dataset: MakeDataset, interim: Path, reports: Path
) -> None:
    (raw / "images" / "image_train" / image_name("21", "11")).write_bytes(b"jpeg")
    Image.new("L", (30, 30)).save(raw / "images" / image_name("22", "12"))
    run = make_dataset(raw)
    assert run.returncode == 0, run.stderr
    assert "4 products have no image file" in run.stderr
    assert "1 image files cannot be used (not an image); only the texts" in run.stderr
    assert read_table(interim / "merged_train.csv")["has_image"].tolist() == ["False", "True", "False", "False"]
    assert json.loads((reports / "data_quality.json").read_text())["pictures"] == {
        "files": 2,
        "not_referenced": 0,
        "unusable": {"not an image": 1},
        "unusual": {"grayscale": 1},
    }


def test_a_link_to_a_folder_of_images_is_refused_because_dvc_would_not_follow_it(
    raw: Path, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    nas, link = tmp_path / "nas", raw / "images" / "image_test"
    nas.mkdir()
    Image.new("RGB", (30, 30)).save(nas / image_name("21", "11"))
    link.symlink_to(nas)
    run = make_dataset(raw)
    assert run.returncode == 1
    expected = f"ERROR ingest: {link}: DVC does not follow links to folders below {raw / 'images'}, "
    assert run.stderr.startswith(expected)
    assert run.stderr.count("\n") == 1
    subprocess.run(run.stderr.partition("link each file: ")[2], shell=True, check=True)  # as the message says
    run = make_dataset(raw)
    assert run.returncode == 0, run.stderr
    assert "5 products have no image file" in run.stderr
    shutil.rmtree(raw / "images")
    (raw / "images").symlink_to(nas)
    run = make_dataset(raw)
    assert run.returncode == 0, run.stderr
    assert "5 products have no image file" in run.stderr


def test_images_of_other_products_are_refused(raw: Path, make_dataset: MakeDataset) -> None:
    Image.new("RGB", (30, 30)).save(raw / "images" / image_name("11", "21"))
    run = make_dataset(raw)
    assert run.returncode == 1
    assert run.stderr == (
        f"ERROR ingest: {raw / 'images'}: no file is the image of a product: found 'image_11_product_21.jpg', expected "
        "names such as 'image_21_product_11.jpg'; productid and imageid are swapped in one of them\n"
    )


def test_a_fatal_fault_is_one_line_and_nothing_is_written(
    raw: Path, make_dataset: MakeDataset, interim: Path, reports: Path
) -> None:
    labels = (raw / "Y_train.csv").read_text()
    (raw / "Y_train.csv").write_text(labels.replace("1,2705", "1,"))  # found only after tables have been begun
    run = make_dataset(raw)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("ERROR ingest: X_train.csv and Y_train.csv: 1 of 4 rows are unusable")
    assert run.stderr.count("\n") == 1
    assert not interim.exists()
    assert not reports.exists()


def test_earlier_results_stay_if_the_stage_fails(
    raw: Path, make_dataset: MakeDataset, interim: Path, reports: Path
) -> None:
    assert make_dataset(raw).returncode == 0
    files = [*interim.iterdir(), *reports.iterdir()]
    before = {path: path.read_bytes() for path in files}
    (raw / "Y_train.csv").unlink()
    run = make_dataset(raw)
    assert run.returncode == 1
    assert "Y_train.csv: no such file." in run.stderr
    assert {path: path.read_bytes() for path in [*interim.iterdir(), *reports.iterdir()]} == before
