import csv
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from rakuten.config import DataParams
from rakuten.data.corrections import Corrections
from rakuten.data.images import ImageFiles, check_images
from rakuten.data.ingestion import InterimPaths, make_dataset
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import X_COLUMNS
from rakuten.data.synthetic import (
    SyntheticProduct,
    check_complete,
    check_free,
    proportional_codes,
    synthetic_products,
    vocabulary,
    write_catalogue,
)
from rakuten.data.tables import read_raw
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.files import digest

N_PRODUCTS = 20_000


@pytest.fixture(scope="module")
def products() -> list[SyntheticProduct]:
    return list(synthetic_products(proportional_codes(N_PRODUCTS, 3), 0, 3))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): digest(path) for path in folder.rglob("*") if path.is_file()}


def test_same_arguments_give_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    write_catalogue(300, 60, 7, tmp_path / "same")
    assert digests(tmp_path / "same") == digests(sample)
    write_catalogue(300, 60, 8, tmp_path / "other", images=False)
    assert (tmp_path / "other" / "X_train.csv").read_bytes() != (sample / "X_train.csv").read_bytes()


def test_files_are_in_the_challenges_format(sample: Path) -> None:
    with (sample / "X_train.csv").open(encoding="utf-8", newline="") as stream:
        assert next(csv.reader(stream)) == ["", "designation", "description", "productid", "imageid"]
    assert (sample / "Y_train.csv").read_text(encoding="utf-8").startswith(",prdtypecode\n0,")
    test = read_raw(sample / "X_test.csv", X_COLUMNS)
    assert test["index"].tolist() == [str(index) for index in range(300, 360)]


def test_ingestion_finds_no_fault_and_all_images(sample: Path, tmp_path: Path) -> None:
    images = check_images(ImageFiles(sample / "images"))
    params = DataParams(max_rejected=0.0, unknown_labels="reject")
    quality, _ = make_dataset(
        RawFiles.open(sample),
        Corrections.read(tmp_path, current_taxonomy()),
        images,
        params,
        current_taxonomy(),
        InterimPaths.of(tmp_path),
    )
    assert quality["synthetic"]
    assert quality["train"]["rows_out"] == 300
    assert quality["train"]["missing_picture"] == quality["test"]["missing_picture"] == 0
    assert quality["pictures"] == {"files": 360, "not_referenced": 0}
    assert images.count_errors() == images.unusual == {}


def test_a_catalogue_may_have_no_images(tmp_path: Path) -> None:
    write_catalogue(30, 5, 1, tmp_path, images=False)
    assert ImageFiles(tmp_path / "images") == {}
    assert len(read_raw(tmp_path / "X_train.csv", X_COLUMNS)) == 30


def test_codes_have_the_challenges_proportions() -> None:
    counts = Counter(proportional_codes(84_916, 1))
    assert counts == {int(code): spec["share"] for code, spec in vocabulary()["classes"].items()}


def test_few_codes_are_rounded_to_the_requested_number_and_cover_all_classes() -> None:
    counts = Counter(proportional_codes(1000, 1))
    assert set(counts) == current_taxonomy().codes
    assert counts[2583] == 120
    assert counts.total() == 1000


def test_the_order_of_codes_depends_on_the_seed() -> None:
    assert proportional_codes(1000, 1) != proportional_codes(1000, 2)


def test_descriptions_are_as_frequent_as_in_the_challenge(products: list[SyntheticProduct]) -> None:
    n_described = Counter(product.true_code for product in products if product.description)
    n_products = Counter(product.true_code for product in products)
    for code, spec in vocabulary()["classes"].items():
        assert n_described[int(code)] / n_products[int(code)] == pytest.approx(spec["described"], abs=0.09)


def test_some_titles_repeat_and_some_labels_are_wrong(products: list[SyntheticProduct]) -> None:
    n_titles = len({product.designation for product in products})
    assert 0.02 < 1 - n_titles / N_PRODUCTS < 0.08
    n_wrong = sum(product.prdtypecode != product.true_code for product in products)
    assert n_wrong / N_PRODUCTS == pytest.approx(0.03, abs=0.005)


def test_texts_have_html_entities_mojibake_and_three_languages(products: list[SyntheticProduct]) -> None:
    text = " ".join(product.description for product in products)
    assert all(expected in text for expected in ("<li>", "&eacute;", "&#39;", "é", "Color: as the picture", "Maße"))
    assert any("Ã" in product.designation for product in products)


def test_the_shares_of_languages_can_be_chosen() -> None:
    codes = proportional_codes(300, 1)
    german = " ".join(product.description for product in synthetic_products(codes, 0, 1, (0.0, 0.0, 1.0)))
    assert "Maße" in german
    assert "Color: as the picture" not in german


def test_ids_are_unique(products: list[SyntheticProduct]) -> None:
    assert len({product.productid for product in products}) == N_PRODUCTS
    assert len({product.imageid for product in products}) == N_PRODUCTS


def test_memory_does_not_grow_with_the_rows() -> None:
    codes = proportional_codes(8000, 1)
    tracemalloc.start()
    n_chars = sum(len(product.description) for product in synthetic_products(codes, 0, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n_chars / 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Y_train.csv", r"Y_train\.csv already exists; choose another --out"),
        ("X_test.csv.dvc", r"X_test\.csv is under DVC but not here; fetch it with `dvc pull`"),
        ("X_train_update.csv", r"X_train\.csv is missing\. .*rename it to X_train\.csv"),
        ("images/deep/image_1_product_2.jpg", "image_1_product_2.jpg is not an image of the sample"),
    ],
)
def test_no_catalogue_is_written_beside_other_data(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"theirs")
    with pytest.raises(UserError, match=message):
        write_catalogue(30, 3, 1, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_images_of_a_stopped_run_do_not_prevent_another(sample: Path, tmp_path: Path) -> None:
    image = next((sample / "images" / "image_train").iterdir())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
    check_free(tmp_path)


def test_a_catalogue_is_complete_with_its_three_tables(raw: Path) -> None:
    check_complete(raw)
    (raw / "Y_train.csv").rename(raw / "Y_train_CVw08PX.csv")
    with pytest.raises(UserError, match=r"Y_train\.csv: no such file\. .*rename it to Y_train\.csv"):
        check_complete(raw)
