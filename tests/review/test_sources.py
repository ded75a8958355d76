from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.errors import UserError
from rakuten.models.classifier import CHOICE_COLUMNS
from rakuten.review.audit import draw_audit
from rakuten.review.sources import from_label_issues, from_scored, title_groups
from tests.review.conftest import MERGED


@pytest.fixture
def scored() -> pd.DataFrame:
    """Two products to review, and twenty that the model has decided."""
    confidence = [0.4, 0.5] + [0.97] * 20
    return pd.DataFrame(
        {
            "designation": ["Les chaises du jardin", "The used book of tales", *(f"Livre {n}" for n in range(20))],
            "description": ["<p>Bois</p>", *[None] * 21],
            "productid": range(100, 122),
            "imageid": range(200, 222),
            "predicted_prdtypecode": 2582,
            "confidence": confidence,
            "second_prdtypecode": 1560,
            "second_confidence": [0.35, 0.1] + [0.01] * 20,
            "needs_review": [True, True] + [False] * 20,
            "model_version": "abc",
        }
    )


def test_products_to_review_come_with_what_the_model_said(scored: pd.DataFrame) -> None:
    images = {"image_200_product_100.jpg": Path("/data/image_200_product_100.jpg")}
    first, second = from_scored(scored, images, audit_share=0, seed=1, taxonomy=MERGED)
    assert first["key"] == "200_100"
    assert (first["productid"], first["imageid"], first["prdtypecode"]) == (100, 200, None)
    assert (first["designation"], first["description"]) == ("Les chaises du jardin", "<p>Bois</p>")
    assert first["image"] == "/data/image_200_product_100.jpg"
    assert first["top"] == [[2582, 0.4], [1560, 0.35]]
    assert (first["language"], second["language"]) == ("french", "english")
    assert first["priority"] == pytest.approx(1 - 0.4 + 0.35)
    assert second["priority"] == pytest.approx(1 - 0.5 + 0.1)
    assert (second["description"], second["image"], second["is_audit"]) == ("", None, False)


def test_a_product_has_as_many_likeliest_codes_as_its_file(scored: pd.DataFrame) -> None:
    """Five; three in a file of an older version; fewer from a model with fewer classes, whose cells are empty."""
    top = [[2582, 0.4], [1560, 0.35], [10, 0.1], [40, 0.05], [50, 0.01]]
    names = [name for choice in CHOICE_COLUMNS for name in choice]
    five = scored.assign(**dict(zip(names, sum(top, []), strict=True)))
    products = from_scored(five, {}, audit_share=0.5, seed=1, taxonomy=MERGED)
    assert [product["top"] for product in products] == [top] * len(products)
    assert {len(product["shown_top"]) for product in products} == {5}  # of the audit sample too
    assert from_scored(five.drop(columns=names[6:]), {}, audit_share=0, seed=1, taxonomy=MERGED)[0]["top"] == top[:3]
    missing = {"in a CSV file": "", "in a Parquet file": pd.NA}
    for value in missing.values():
        fewer = five.astype(dict.fromkeys(names[4:], object))
        fewer.loc[0, names[4:]] = value
        few, many = from_scored(fewer, {}, audit_share=0, seed=1, taxonomy=MERGED)
        assert (few["top"], many["top"]) == (top[:2], top)
        fewer[names[4:]] = value
        assert from_scored(fewer, {}, audit_share=0, seed=1, taxonomy=MERGED)[0]["top"] == top[:2]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("second_confidence", "0,35", "column 'second_confidence': '0,35' is not a number; score the file again"),
        ("predicted_prdtypecode", "", "column 'predicted_prdtypecode' is empty in some rows"),
    ],
)
def test_what_is_no_number_is_named(scored: pd.DataFrame, column: str, value: str, message: str) -> None:
    damaged = scored.astype({column: object})
    damaged.loc[1, column] = value
    with pytest.raises(UserError, match=message):
        from_scored(damaged, {}, audit_share=0, seed=1, taxonomy=MERGED)


def test_a_novel_product_comes_first_however_sure_the_model_is(scored: pd.DataFrame) -> None:
    novel = scored.assign(is_novel=[False] * 21 + [True], needs_review=[True, True] + [False] * 19 + [True])
    products = from_scored(novel, {}, audit_share=0, seed=1, taxonomy=MERGED)
    first = max(products, key=lambda product: product["priority"])
    assert (first["productid"], first["priority"]) == (121, 1.0)
    assert {product["priority"] for product in products[:2]} == {
        product["priority"] for product in from_scored(scored, {}, audit_share=0, seed=1, taxonomy=MERGED)
    }


def test_a_product_without_ids_is_named_by_its_text(scored: pd.DataFrame) -> None:
    without = scored.drop(columns=["productid", "imageid"])
    first, second = from_scored(without, {}, audit_share=0, seed=1, taxonomy=MERGED)
    assert first["key"] != second["key"]
    assert first["productid"] is None
    again = from_scored(without, {}, audit_share=0, seed=1, taxonomy=MERGED)
    assert [product["key"] for product in again] == [first["key"], second["key"]]


def test_a_random_share_of_the_decided_products_is_mixed_in_where_nobody_can_tell(scored: pd.DataFrame) -> None:
    products = from_scored(scored, {}, audit_share=0.5, seed=1, taxonomy=MERGED)
    assert [product["is_audit"] for product in products] == [False, False, True, True]
    for product in products[2:]:
        assert product["confidence"] == 0.97  # the true one stays in the database
        assert 0.4 <= product["shown_confidence"] <= 0.5
        assert product["shown_top"][0] == [2582, product["shown_confidence"]]
        assert 0.6 <= product["priority"] <= 0.95
    others = [from_scored(scored, {}, audit_share=0.5, seed=seed, taxonomy=MERGED)[2]["key"] for seed in range(8)]
    assert len(set(others)) > 1


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.1, 10), (0.5, 90), (0.9, 100)])
def test_the_audit_sample_has_its_share_of_what_is_shown(share: float, expected: int) -> None:
    needs_review = np.arange(190) < 90
    is_audit = draw_audit(needs_review, share, seed=1)
    assert is_audit.sum() == expected
    assert not (is_audit & needs_review).any()


def test_doubted_labels_come_with_the_code_that_is_suggested(scored: pd.DataFrame) -> None:
    issues = pd.DataFrame(
        {
            "productid": [100, 101],
            "imageid": [200, 201],
            "designation": ["Chaise", "Livre"],
            "description": ["", "Broché"],
            "prdtypecode": [10, 2582],
            "probability": [0.01, 0.2],
            "suggested_prdtypecode": [2582, 10],
            "suggested_probability": [0.9, 0.5],
        }
    )
    first, second = from_label_issues(issues, {}, "abc", MERGED)
    assert (first["source"], first["prdtypecode"], first["predicted"], first["confidence"]) == (
        "label-issues", 10, 2582, 0.9,
    )  # fmt: skip
    assert first["top"] == [[2582, 0.9], [10, 0.01]]
    assert first["priority"] > second["priority"]
    assert second["description"] == "Broché"


def test_titles_that_differ_by_a_number_or_a_word_are_a_group() -> None:
    titles = ["Bâche de piscine ronde 360 cm", "Bâche de piscine ronde 450 cm", "Livre", "Livre", "Chaise"]
    groups = title_groups(pd.Series(titles)).tolist()
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert groups[4] == 0 and groups[0] and groups[2]
    assert title_groups(pd.Series([], dtype=str)).tolist() == []


def test_codes_that_were_merged_since_a_file_was_scored_are_one(scored: pd.DataFrame) -> None:
    """2582 has 0.3, 30 has 0.25 and 10, which 30 was merged into, 0.2: together they are the likeliest."""
    codes = {"second_prdtypecode": 30, "second_confidence": 0.25, "third_prdtypecode": 10, "third_confidence": 0.2}
    first, *_ = from_scored(scored.assign(confidence=0.3, **codes), {}, audit_share=0, seed=1, taxonomy=MERGED)
    assert first["top"] == [[10, 0.45], [2582, 0.3]]
    assert (first["predicted"], first["confidence"], first["shown_confidence"]) == (10, 0.45, 0.45)
    alone, *_ = from_scored(scored.assign(predicted_prdtypecode=30), {}, audit_share=0, seed=1, taxonomy=MERGED)
    assert (alone["predicted"], alone["top"]) == (10, [[10, 0.4], [1560, 0.35]])


def test_a_label_that_was_merged_into_the_suggested_one_is_not_doubted() -> None:
    issues = pd.DataFrame(
        {
            "designation": ["Livre", "Roman", "Jeu"],
            "description": "",
            "productid": [1, 2, 3],
            "imageid": [4, 5, 6],
            "prdtypecode": [30, 30, 10],
            "probability": 0.1,
            "suggested_prdtypecode": [10, 40, 30],
            "suggested_probability": 0.8,
        }
    )
    (product,) = from_label_issues(issues, {}, "abc", MERGED)
    assert (product["designation"], product["prdtypecode"], product["predicted"]) == ("Roman", 10, 40)
    assert product["top"] == [[40, 0.8], [10, 0.1]]
