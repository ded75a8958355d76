import numpy as np
import pytest
from scipy.special import softmax

from rakuten.evaluation.calibration import (
    NO_THRESHOLD,
    coverage_curve,
    fit_temperature,
    mean_proba_baseline,
    reliability,
    single_view_proba,
    threshold_at_precision,
)


def test_temperature_makes_overconfident_scores_calibrated() -> None:
    rng = np.random.default_rng(0)
    calibrated_scores = rng.normal(size=(20_000, 4)) * 2
    proba = softmax(calibrated_scores, axis=1)
    y = np.array([rng.choice(4, p=row) for row in proba])
    scores = calibrated_scores * 7
    temperature, loss = fit_temperature(scores, y)
    assert temperature == pytest.approx(7, rel=0.05)
    assert loss == pytest.approx(-np.log(proba[np.arange(20_000), y]).mean(), abs=1e-3)

    def calibration_error(proba: np.ndarray) -> float:
        return reliability(proba.max(axis=1), proba.argmax(axis=1) == y).error

    assert calibration_error(softmax(scores / temperature, axis=1)) < 0.02
    assert calibration_error(softmax(scores, axis=1)) > 0.1


def test_a_missing_view_has_the_shares_of_the_classes() -> None:
    scores = np.array([[np.nan, np.nan], [3.0, -3.0], [-3.0, 3.0]])
    proba = single_view_proba(scores, 2.0, np.array([0.75, 0.25]))
    assert proba[0].tolist() == [0.75, 0.25]
    assert proba[1:] == pytest.approx(softmax(scores[1:] / 2, axis=1))


def test_the_mean_baseline_is_over_the_views_that_a_product_has() -> None:
    proba = {"a": np.array([[0.9, 0.1]] * 4), "b": np.array([[0.5, 0.5]] * 4)}
    present = {"a": np.array([True, True, False, False]), "b": np.array([True, False, True, False])}
    expected = [[0.7, 0.3], [0.9, 0.1], [0.5, 0.5], [0.7, 0.3]]  # a product without any view: the mean of both
    assert mean_proba_baseline(proba, present) == pytest.approx(np.array(expected))


def test_the_calibration_error_is_weighted_by_the_rows_of_a_bin() -> None:
    confidence, correct = np.array([0.95, 0.95, 0.95, 1.0, 0.55]), np.array([True, True, True, True, False])
    result = reliability(confidence, correct)
    assert result.table["rows"].tolist() == [1, 4]
    assert result.table["confidence"].tolist() == pytest.approx([0.55, 0.9625])
    assert result.table["accuracy"].tolist() == [0, 1]
    assert result.error == pytest.approx((0.55 * 1 + 0.0375 * 4) / 5)


def test_a_bin_of_the_reliability_diagram_is_a_tenth_wide() -> None:
    confidence = np.array([0.0, 0.09, 0.1, 0.19, 0.2, 0.91, 1.0])
    assert reliability(confidence, np.ones(7, dtype=bool)).table["rows"].tolist() == [2, 2, 1, 2]


def test_the_coverage_curve_goes_from_the_most_confident_row_to_all() -> None:
    curve = coverage_curve(np.array([0.9, 0.2, 0.8, 0.4]), np.array([True, False, True, True]))
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert curve["precision"].tolist() == [1, 1, 1, 0.75]
    assert curve["threshold"].tolist() == [0.9, 0.8, 0.4, 0.2]


def test_the_coverage_curve_of_many_rows_has_a_hundred_points() -> None:
    confidence = np.random.default_rng(0).random(5000)
    curve = coverage_curve(confidence, np.ones(5000, dtype=bool))
    assert len(curve) == 100
    assert curve["coverage"].iloc[[0, -1]].tolist() == [1 / 5000, 1]
    assert curve["threshold"].iloc[-1] == confidence.min()


CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5])
CORRECT = np.array([True, True, False, True, True, False])


@pytest.mark.parametrize(("target", "threshold"), [(0.8, 0.6), (0.9, 0.8), (1.0, 0.8), (0.0, 0.5)])
def test_the_threshold_is_the_lowest_that_reaches_the_precision(target: float, threshold: float) -> None:
    order = np.random.default_rng(0).permutation(6)
    assert threshold_at_precision(CONFIDENCE[order], CORRECT[order], target) == threshold


def test_there_is_no_threshold_where_no_confidence_reaches_the_precision() -> None:
    assert threshold_at_precision(CONFIDENCE, ~CORRECT, 0.7) == NO_THRESHOLD > 1


def test_rows_of_the_same_confidence_are_on_the_same_side_of_the_threshold() -> None:
    assert threshold_at_precision(np.array([0.9, 0.9]), np.array([True, False]), 0.9) == NO_THRESHOLD
