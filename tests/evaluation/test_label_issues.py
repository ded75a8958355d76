"""Wrong labels that the tests put in are found."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from rakuten.evaluation.label_issues import label_issues_table
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.types import BoolArray, FloatArray, IntArray
from tests.support.features import feature_table

CLASSES = np.array([10, 40, 2583])


class LabelledProducts(NamedTuple):
    features: FeatureSet
    out_of_fold: OutOfFold
    mislabelled: BoolArray

    def issues(self, shard_rows: int = 10**6) -> pd.DataFrame:
        return label_issues_table(self.features, self.out_of_fold, shard_rows, seed=0)


def labelled(y: IntArray, proba: FloatArray, mislabelled: BoolArray | None = None) -> LabelledProducts:
    """Products with these labels (class columns) and out-of-fold probabilities."""
    classes = CLASSES[: proba.shape[1]]
    table = feature_table([f"titre {row}" for row in range(len(y))]).assign(prdtypecode=classes[y])
    out_of_fold = OutOfFold(
        classes, y, proba.argmax(axis=1), proba.max(axis=1), proba, proba.max(axis=1), np.zeros(len(y))
    )
    wrong = np.zeros(len(y), dtype=bool) if mislabelled is None else mislabelled
    return LabelledProducts(FeatureSet.from_batch(FeatureBatch(table)), out_of_fold, wrong)


@pytest.fixture(scope="module")
def products() -> LabelledProducts:
    """3,000 products, 3 % of them with a wrong label, and the probabilities of a fair model."""
    rng = np.random.default_rng(0)
    true_class = rng.integers(0, 3, 3000)
    scores = rng.normal(size=(3000, 3))
    scores[np.arange(3000), true_class] += 4
    proba = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    mislabelled = rng.random(3000) < 0.03
    return labelled(np.where(mislabelled, (true_class + 1) % 3, true_class), proba, mislabelled)


@pytest.fixture(scope="module")
def issues(products: LabelledProducts) -> pd.DataFrame:
    return products.issues()


def test_most_wrong_labels_are_found_and_most_found_labels_are_wrong(
    products: LabelledProducts, issues: pd.DataFrame
) -> None:
    rows = issues["productid"].to_numpy(dtype=int)
    assert products.mislabelled[rows].mean() > 0.6
    assert products.mislabelled[rows].sum() / products.mislabelled.sum() > 0.8


def test_the_least_probable_labels_come_first_with_the_code_that_is_suggested(
    products: LabelledProducts, issues: pd.DataFrame
) -> None:
    assert issues["probability"].is_monotonic_increasing
    rows = issues["productid"].to_numpy(dtype=int)
    out_of_fold = products.out_of_fold
    assert products.mislabelled[rows[0]]
    assert issues["imageid"].tolist() == rows.tolist()
    assert issues["prdtypecode"].tolist() == out_of_fold.true_codes[rows].tolist()
    assert issues["suggested_prdtypecode"].tolist() == out_of_fold.predicted_codes[rows].tolist()
    assert issues["probability"].tolist() == out_of_fold.proba[rows, out_of_fold.y[rows]].round(6).tolist()
    assert issues["suggested_probability"].tolist() == out_of_fold.confidence[rows].round(6).tolist()
    assert issues["designation_clean"].tolist() == [f"titre {row}" for row in rows]
    names = issues.set_index("prdtypecode")["label"].to_dict()
    assert names[2583] == "piscine et spa"
    assert issues["suggested_label"].tolist() == [names[code] for code in issues["suggested_prdtypecode"]]


def test_the_same_products_give_the_same_table(products: LabelledProducts, issues: pd.DataFrame) -> None:
    assert products.issues().equals(issues)


def test_examined_in_shards_nearly_the_same_labels_are_found(products: LabelledProducts, issues: pd.DataFrame) -> None:
    sharded = products.issues(shard_rows=1100)
    in_both = set(issues["productid"]) & set(sharded["productid"])
    assert len(in_both) > 0.9 * max(len(issues), len(sharded))
    assert products.mislabelled[sharded["productid"].to_numpy(dtype=int)].mean() > 0.6
    assert sharded["probability"].is_monotonic_increasing


def test_labels_of_the_same_probability_are_in_the_order_of_the_rows() -> None:
    y = np.array([0, 1] * 30)
    proba = np.where(y[:, None] == np.arange(2), 0.9, 0.1)
    for row in (50, 11, 4):
        proba[row] = proba[row, ::-1]
    assert labelled(y, proba).issues()["productid"].tolist() == [4, 11, 50]


def test_a_shard_of_one_class_has_no_issues() -> None:
    """Two classes, one of a single row: most shards have one class."""
    y = np.array([0] + [1] * 299)
    assert labelled(y, np.where(y[:, None] == np.arange(2), 0.9, 0.1)).issues(shard_rows=100).empty


def test_right_labels_give_an_empty_table_with_its_columns() -> None:
    issues = labelled(np.array([0, 1]), np.array([[0.9, 0.1], [0.1, 0.9]])).issues()
    assert issues.empty
    assert "suggested_prdtypecode" in issues.columns


def test_near_duplicates_with_different_codes_are_issues() -> None:
    """Five products of one group: three have the first code, two others one each; and a group whose codes agree."""
    y = np.array([0, 0, 1, 0, 2, 1, 1])
    products = labelled(y, np.eye(3)[y] * 0.9 + 0.1 / 3)
    products.features.metadata["group"] = np.array([7, 7, 7, 7, 7, 9, 9], dtype=np.uint64)
    issues = products.issues().set_index("productid").sort_index()
    assert issues.index.tolist() == [2, 4]
    assert issues["prdtypecode"].tolist() == [40, 2583]
    assert issues["suggested_prdtypecode"].tolist() == [10, 10]
    assert issues["reason"].tolist() == ["near-duplicate"] * 2
    assert issues["near_duplicate"].tolist() == ["0", "0"]


def test_of_two_near_duplicates_with_different_codes_both_are_issues() -> None:
    y = np.array([0, 1, 2])
    products = labelled(y, np.eye(3)[y] * 0.9 + 0.1 / 3)
    products.features.metadata["group"] = np.array([7, 7, 8], dtype=np.uint64)
    issues = products.issues().set_index("productid").sort_index()
    assert issues.index.tolist() == [0, 1]
    assert issues["suggested_prdtypecode"].tolist() == [40, 10]
    assert issues["near_duplicate"].tolist() == ["1", "0"]


def test_what_the_model_doubts_too_gets_its_suggestion(products: LabelledProducts) -> None:
    row = int(products.issues()["productid"].iloc[0])
    y = products.out_of_fold.y
    partner = int(np.flatnonzero((y != y[row]) & (y != products.out_of_fold.y_pred[row]) & ~products.mislabelled)[0])
    group = np.arange(len(y), dtype=np.uint64)
    group[partner] = row
    products.features.metadata["group"] = group
    issues = products.issues().set_index("productid")
    assert issues.loc[row, "reason"] == "both"
    assert issues.loc[row, "near_duplicate"] == str(partner)
    assert issues.loc[row, "suggested_prdtypecode"] == products.out_of_fold.predicted_codes[row]
    assert issues.loc[partner, "reason"] == "near-duplicate"
    assert issues.loc[partner, "suggested_prdtypecode"] == products.out_of_fold.true_codes[row]
