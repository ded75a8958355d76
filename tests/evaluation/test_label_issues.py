"""Planted wrong labels are found; the sample catalogue knows which they are."""

import numpy as np
import pandas as pd

from rakuten.evaluation.label_issues import label_issues_table
from rakuten.features.feature_set import FeatureSet

CLASSES = np.array([10, 40, 2583])


def catalogue(rows: int, wrong: float) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Products, the labels given (columns), probabilities of a fair model, and which labels are wrong."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, rows)
    scores = rng.normal(size=(rows, 3))
    scores[np.arange(rows), truth] += 4
    likely = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    planted = rng.random(rows) < wrong
    given = np.where(planted, (truth + 1) % 3, truth)
    ids = [str(n) for n in range(rows)]
    table = pd.DataFrame({"productid": ids, "imageid": ids, "designation_clean": [f"titre {n}" for n in ids]})
    return table, given, likely, planted


def issues(
    table: pd.DataFrame, classes: np.ndarray, given: np.ndarray, likely: np.ndarray, rows: int = 10**6
) -> pd.DataFrame:
    return label_issues_table(FeatureSet([table], table), classes, given, likely.argmax(axis=1), likely, rows, 0)


def test_most_of_the_planted_are_found_and_most_of_the_found_are_planted() -> None:
    table, given, likely, planted = catalogue(3000, 0.03)
    found = issues(table, CLASSES, given, likely)
    places = found["productid"].astype(int).to_numpy()
    assert planted[places].mean() > 0.6
    assert planted[places].sum() / planted.sum() > 0.8


def test_judged_in_parts_nearly_the_same_are_found() -> None:
    table, given, likely, planted = catalogue(3000, 0.03)
    whole, parts = issues(table, CLASSES, given, likely), issues(table, CLASSES, given, likely, 1100)
    both = set(whole["productid"]) & set(parts["productid"])
    assert len(both) > 0.9 * max(len(whole), len(parts))
    assert planted[parts["productid"].astype(int)].mean() > 0.6
    assert parts["probability"].is_monotonic_increasing


def test_a_part_of_one_class_has_nothing_to_doubt() -> None:
    """Two classes, one of a single row: most parts have one class."""
    given = np.array([0] + [1] * 299)
    likely = np.where(given[:, None] == np.arange(2), 0.9, 0.1)
    ids = [str(n) for n in range(300)]
    table = pd.DataFrame({"productid": ids, "imageid": ids, "designation_clean": ids})
    assert issues(table, CLASSES[:2], given, likely, 100).empty


def test_the_worst_come_first_with_what_they_should_be() -> None:
    table, given, likely, planted = catalogue(3000, 0.03)
    found = issues(table, CLASSES, given, likely)
    assert found["probability"].is_monotonic_increasing
    first = int(found["productid"].iloc[0])
    assert planted[first]
    assert found["prdtypecode"].iloc[0] == CLASSES[given[first]]
    assert found["suggested_prdtypecode"].iloc[0] == CLASSES[likely[first].argmax()]
    assert found["designation_clean"].iloc[0] == f"titre {first}"
    assert issues(table, CLASSES, given, likely).equals(found)


def test_sound_labels_leave_an_empty_table() -> None:
    table = pd.DataFrame({"productid": ["1", "2"], "imageid": "1", "designation_clean": "a"})
    found = issues(table, np.array([10, 40]), np.array([0, 1]), np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert found.empty
    assert "suggested_prdtypecode" in found.columns
