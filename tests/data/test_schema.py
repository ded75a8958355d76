from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from rakuten.data.schema import (
    has_valid_ids,
    id_of,
    image_name,
    image_names,
    is_synthetic,
    is_synthetic_image,
    normalise_id,
    normalise_ids,
    synthetic_imageid,
)


def test_an_image_is_named_after_imageid_and_productid() -> None:
    products = pd.DataFrame({"productid": ["3", "x"], "imageid": ["7", ""]})
    assert image_names(products) == ["image_7_product_3.jpg", "image__product_x.jpg"]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("007", "7"), ("0", "0"), ("000", "0"), ("7.0", "7"), ("07.00", "7"), (" 7\n", "7"),
        ("9" * 18 + ".0", "9" * 18), ("7.5", "7.5"), ("7.", "7."), ("1,000", "1,000"), ("7e0", "7e0"), ("x1", "x1"),
        ("", ""), (" x", " x"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_only_whole_numbers_are_normalised(text: str, normalised: str) -> None:
    assert normalise_id(text) == normalised


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (7.0, "7"), (np.float32(7), "7"), (Decimal("7.00"), "7"), ("7.0", "7"), (b"7.0", "7"), (7.5, "7.5"),
     (None, ""), (float("nan"), ""), (pd.NA, ""), (b"\xe9", "b'\\xe9'"), ([7], "[7]")],
)  # fmt: skip
def test_an_id_may_have_any_type(value: object, text: str) -> None:
    assert id_of(value) == text


def test_ids_of_a_table_are_normalised_and_its_other_columns_kept() -> None:
    products = pd.DataFrame({"designation": ["007", "a"], "productid": ["007", "x"], "imageid": ["1.0", "02"]}, [5, 9])
    expected = pd.DataFrame({"designation": ["007", "a"], "productid": ["7", "x"], "imageid": ["1", "2"]}, [5, 9])
    pd.testing.assert_frame_equal(normalise_ids(products), expected)
    labels = pd.DataFrame({"index": ["0.0", "1.0"], "prdtypecode": ["2583.0", " 10 "]})
    assert normalise_ids(labels).to_dict("list") == {"index": ["0", "1"], "prdtypecode": ["2583", "10"]}


def test_ids_are_valid_if_both_are_integers_that_fit_64_bits() -> None:
    products = pd.DataFrame({"productid": ["1", "x", "1", "9" * 18, "9" * 19], "imageid": ["2", "2", "", "0", "0"]})
    assert has_valid_ids(products).tolist() == [True, False, False, True, False]


def test_only_rows_of_the_synthetic_catalogue_are_synthetic() -> None:
    real = pd.DataFrame({"productid": ["3929890128", "x", ""], "imageid": ["1265209491", "1", ""]})
    assert not is_synthetic(real)
    synthetic = pd.DataFrame({"productid": ["77"], "imageid": [str(synthetic_imageid(77))]})
    assert is_synthetic(pd.concat([real, synthetic]))


def test_synthetic_imageids_are_unique() -> None:
    assert len({synthetic_imageid(productid) for productid in range(50_000)}) == 50_000


def test_synthetic_images_are_recognised_by_name() -> None:
    assert is_synthetic_image(image_name(synthetic_imageid(77), 77))
    assert not is_synthetic_image(image_name("1265209491", "3929890128"))
    assert not is_synthetic_image("stray.jpg")
