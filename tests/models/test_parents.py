"""Which parent is shown, and how the threshold is learnt."""

import numpy as np
import pytest

from rakuten.evaluation.calibration import NO_THRESHOLD
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.models.parents import ParentFallback, fit_parents

CLASSES = np.array([10, 20, 30, 40])
PARENT_OF = {10: "books", 20: "books", 30: "toys"}  # 40 has none
THRESHOLD = 0.8  # of the codes


Row = tuple[int, tuple[float, ...]]  # true class column, probabilities


def fitted(
    rows: list[Row], target: float, parent_of: dict[int, str] = PARENT_OF
) -> tuple[ParentFallback, dict[str, float]]:
    y, proba = np.array([y for y, _ in rows]), np.array([proba for _, proba in rows])
    confidence = proba.max(axis=1)
    unknown = np.full(len(y), np.nan)
    out_of_fold = OutOfFold(CLASSES, y, proba.argmax(axis=1), confidence, proba, evidence=unknown, novelty=unknown)
    return fit_parents(out_of_fold, confidence < THRESHOLD, target, parent_of)


def test_the_parent_of_a_product_is_shown_where_its_codes_are_probable_together() -> None:
    proba = np.array(
        [
            [0.5, 0.45, 0.05, 0.0],
            [0.5, 0.35, 0.15, 0.0],  # not sure enough
            [0.9, 0.05, 0.05, 0.0],  # needs no review
            [0.04, 0.05, 0.9, 0.01],
            [0.0, 0.05, 0.0, 0.95],  # the code has no parent
        ]
    )
    is_unsure = np.array([True, True, False, True, True])
    fallback = ParentFallback(PARENT_OF, 0.9)
    assert fallback.predict(CLASSES, proba, is_unsure) == ["books", "", "", "toys", ""]


def test_a_sum_that_is_the_threshold_but_for_its_last_bit_is_shown() -> None:
    assert 0.1 + 0.7 < 0.8
    proba = np.array([[0.1, 0.7, 0.2, 0.0]])
    assert ParentFallback(PARENT_OF, 0.8).predict(CLASSES, proba, np.array([True])) == ["books"]


def test_without_parents_none_is_shown() -> None:
    assert ParentFallback().predict(CLASSES, np.ones((2, 4)) / 4, np.array([True, True])) == ["", ""]
    found, scores = fitted([(0, (0.5, 0.5, 0.0, 0.0))], 0.5, {99: "x"})
    assert found == ParentFallback()
    assert scores["coverage"] == 0


@pytest.mark.parametrize(
    ("target", "threshold", "coverage", "precision"), [(0.75, 0.96, 2 / 5, 1.0), (0.6, 0.6, 1.0, 3 / 5)]
)
def test_the_threshold_reaches_the_target_among_the_products_to_review(
    target: float, threshold: float, coverage: float, precision: float
) -> None:
    rows = [
        (2, (0.9, 0.1, 0.0, 0.0)),  # wrong with a sum of 1, but decided: not counted
        (1, (0.6, 0.38, 0.02, 0.0)),  # books is right, though the code is wrong
        (0, (0.5, 0.46, 0.04, 0.0)),
        (2, (0.02, 0.02, 0.6, 0.36)),
        (3, (0.5, 0.45, 0.05, 0.0)),  # no parent is right
        (2, (0.3, 0.3, 0.3, 0.1)),
    ]
    found, scores = fitted(rows, target)
    assert found == ParentFallback(PARENT_OF, threshold)
    assert scores == {"threshold": threshold, "coverage": coverage, "precision": precision}


def test_a_target_that_is_not_reached_shows_no_parent() -> None:
    found, scores = fitted([(2, (0.5, 0.5, 0.0, 0.0))], 0.9)
    assert found.threshold == NO_THRESHOLD
    assert scores == {"threshold": NO_THRESHOLD, "coverage": 0.0, "precision": 1.0}


def test_nothing_to_review_is_no_fault() -> None:
    found, scores = fitted([(0, (0.9, 0.1, 0.0, 0.0))], 0.9)
    assert (found.threshold, scores["coverage"]) == (NO_THRESHOLD, 0.0)


def test_it_is_stored_and_read_again() -> None:
    fallback = ParentFallback(PARENT_OF, 0.9)
    assert ParentFallback.from_stored(fallback.to_stored(), CLASSES.tolist()) == fallback
    with pytest.raises(ValueError, match="is no class"):
        ParentFallback.from_stored(fallback.to_stored(), [10, 20])
