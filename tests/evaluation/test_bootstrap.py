import numpy as np
import pytest
from scipy.stats import binom

from rakuten.evaluation.bootstrap import bootstrap_ci, paired_bootstrap
from rakuten.evaluation.metrics import classification_scores, per_class_scores
from rakuten.types import IntArray

SCORES = ("weighted_f1", "macro_f1", "accuracy")


@pytest.fixture(scope="module")
def y_true() -> IntArray:
    return np.random.default_rng(0).choice([10, 40, 50], 500, p=[0.7, 0.2, 0.1])


def noisy(y_true: IntArray, share_right: float, seed: int) -> IntArray:
    """Predictions that are right for about this share of the rows; 60 is no true code."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(y_true)) < share_right, y_true, rng.choice([10, 40, 60], len(y_true)))


def test_intervals_are_those_of_scores_on_resampled_rows(y_true: IntArray) -> None:
    y_pred = noisy(y_true, 0.7, 1)
    rng, resampled = np.random.default_rng(2), []
    for _ in range(800):
        rows = rng.integers(0, len(y_true), len(y_true))
        resampled.append(list(classification_scores(y_true[rows], y_pred[rows]).values()))
    expected = np.quantile(resampled, [0.025, 0.975], axis=0)
    intervals = bootstrap_ci(y_true, y_pred, 1500, 1).scores
    assert tuple(intervals) == SCORES
    for column, name in enumerate(SCORES):
        assert intervals[name] == pytest.approx(expected[:, column], abs=0.005), name


def test_an_interval_has_a_level_of_95_percent(y_true: IntArray) -> None:
    """The number of right rows in a resample has a binomial distribution."""
    y_pred = noisy(y_true, 0.7, 1)
    accuracy = float((y_pred == y_true).mean())
    expected = binom.ppf([0.025, 0.975], len(y_true), accuracy) / len(y_true)
    assert bootstrap_ci(y_true, y_pred, 4000, 1).scores["accuracy"] == pytest.approx(expected, abs=0.003)


def test_the_gain_over_a_model_that_is_always_wrong_has_the_interval_of_the_score(y_true: IntArray) -> None:
    y_pred = noisy(y_true, 0.7, 1)
    comparison = paired_bootstrap(y_true, y_pred, np.full_like(y_true, 60), 4000, 1)
    interval = bootstrap_ci(y_true, y_pred, 4000, 1).scores["weighted_f1"]
    assert comparison.interval == pytest.approx(interval, abs=0.003)


def test_every_true_code_has_an_interval_around_its_f1(y_true: IntArray) -> None:
    y_pred = noisy(y_true, 0.7, 1)
    intervals = bootstrap_ci(y_true, y_pred, 400, 1).f1
    assert list(intervals) == [10, 40, 50]
    per_class = per_class_scores(y_true, y_pred)
    for code, f1 in zip(per_class["prdtypecode"], per_class["f1"], strict=True):
        low, high = intervals[code]
        assert low < f1 < high


def test_intervals_depend_on_data_and_seed_alone(y_true: IntArray) -> None:
    y_pred = noisy(y_true, 0.7, 1)
    assert bootstrap_ci(y_true, y_pred, 50, 1) == bootstrap_ci(y_true, y_pred, 50, 1)
    assert bootstrap_ci(y_true, y_pred, 50, 1) != bootstrap_ci(y_true, y_pred, 50, 2)


def test_perfect_predictions_leave_no_doubt(y_true: IntArray) -> None:
    assert bootstrap_ci(y_true, y_true, 50, 1).scores == dict.fromkeys(SCORES, (1.0, 1.0))


def test_resamples_without_a_rare_code_do_not_count_for_it() -> None:
    """One row of a code is missing from a third of the resamples; in the others it is predicted right."""
    y_true = np.array([10] * 30 + [40])
    assert bootstrap_ci(y_true, y_true, 200, 1).f1[40] == (1.0, 1.0)
    assert paired_bootstrap(y_true, y_true, np.full(31, 10), 200, 1).f1_interval[40] == (1.0, 1.0)


def test_the_gain_is_the_difference_of_the_reported_scores(y_true: IntArray) -> None:
    challenger, champion = noisy(y_true, 0.8, 1), noisy(y_true, 0.7, 2)
    comparison = paired_bootstrap(y_true, challenger, champion, 400, 1)
    scores = [classification_scores(y_true, y_pred)["weighted_f1"] for y_pred in (challenger, champion)]
    assert comparison.gain == pytest.approx(scores[0] - scores[1])
    assert comparison.interval[0] < comparison.gain < comparison.interval[1]
    f1, champion_f1 = (per_class_scores(y_true, y_pred)["f1"].to_numpy() for y_pred in (challenger, champion))
    assert list(comparison.f1_gain) == [10, 40, 50]
    assert list(comparison.f1_gain.values()) == pytest.approx((f1 - champion_f1).tolist())
    assert list(comparison.f1_interval) == [10, 40, 50]


def test_the_same_predictions_gain_nothing_on_any_resample(y_true: IntArray) -> None:
    y_pred = noisy(y_true, 0.7, 1)
    comparison = paired_bootstrap(y_true, y_pred, y_pred, 50, 1)
    assert comparison.gain == 0
    assert comparison.interval == (0, 0)
    assert set(comparison.f1_interval.values()) == {(0.0, 0.0)}


def test_models_that_err_on_the_same_rows_are_compared_more_precisely(y_true: IntArray) -> None:
    """What the pairing is for: half of the rows are hard for both."""
    champion = noisy(y_true, 0.5, 1)
    challenger = champion.copy()
    wrong = np.flatnonzero(champion != y_true)[::10]
    challenger[wrong] = y_true[wrong]
    low, high = paired_bootstrap(y_true, challenger, champion, 400, 1).interval
    own_low, own_high = bootstrap_ci(y_true, challenger, 400, 1).scores["weighted_f1"]
    assert high - low < 0.7 * (own_high - own_low)
