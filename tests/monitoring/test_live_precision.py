"""The live precision of automatic decisions: who counts, and whether its interval holds."""

import numpy as np
import pandas as pd
import pytest

from rakuten.monitoring.live_precision import LivePrecision, audited, live_precision, wilson_interval
from rakuten.review.reviewed import COLUMNS


def reviewed(*rows: tuple[str, int, int, bool]) -> pd.DataFrame:
    """Reviewed products, given as model version, predicted, answer, whether of the audit sample."""
    return pd.DataFrame(
        [(str(number), None, version, predicted, answer, is_audit)
         for number, (version, predicted, answer, is_audit) in enumerate(rows)],
        columns=list(COLUMNS),
    )  # fmt: skip


def test_the_audit_sample_of_the_version_alone_counts() -> None:
    products = reviewed(("one", 10, 10, True), ("one", 10, 40, False), ("two", 10, 40, True), ("one", 40, 10, True))
    assert audited(products, "one")["key"].tolist() == ["0", "3"]


def test_the_share_of_right_ones_with_wilson_s_interval() -> None:
    """45 of 50, and one of the five wrong ones is none of the codes. The interval is that of Wilson's formula."""
    products = reviewed(*[("one", 10, 10, True)] * 45, *[("one", 10, 40, True)] * 4, ("one", 10, 0, True))
    found = live_precision(products, 0.95, 50)
    assert found is not None
    z, n, p = 1.959963984540054, 50, 0.9
    center, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * np.sqrt(p * 0.1 / n + z**2 / (4 * n**2))
    assert (found.precision, found.n_labels, found.promised) == (0.9, 50, 0.95)
    assert found.interval == pytest.approx((center - half, center + half))
    assert found.interval == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert not found.is_below_promise
    assert found.as_json() == {
        "precision": 0.9, "low": found.interval[0], "high": found.interval[1], "labels": 50, "promised": 0.95,
    }  # fmt: skip


@pytest.mark.parametrize("min_labels", [2, 50])
def test_the_precision_by_too_few_products_is_not_told(min_labels: int) -> None:
    assert live_precision(reviewed(("one", 10, 10, True)), 0.95, min_labels) is None
    assert live_precision(reviewed(), 0.95, 1) is None


def test_it_is_below_the_promise_if_its_whole_interval_is() -> None:
    assert LivePrecision(0.9, (0.85, 0.949), 150, 0.95).is_below_promise
    assert not LivePrecision(0.9, (0.85, 0.95), 150, 0.95).is_below_promise


@pytest.mark.parametrize("n_products", [50, 200, 1000])
@pytest.mark.parametrize("error_rate", [0.01, 0.05, 0.1, 0.3])
def test_the_interval_holds_the_planted_precision_as_often_as_it_says(n_products: int, error_rate: float) -> None:
    """20,000 audits of a model that is wrong at this rate."""
    n_right = np.random.default_rng(0).binomial(n_products, 1 - error_rate, 20_000)
    counts, frequency = np.unique(n_right, return_counts=True)
    low, high = np.array([wilson_interval(int(count), n_products) for count in counts]).T
    coverage = np.average((low <= 1 - error_rate) & (1 - error_rate <= high), weights=frequency)
    assert 0.91 <= coverage <= 0.99  # of so few wrong ones the coverage comes in steps


def test_a_model_that_keeps_its_promise_rarely_alarms_and_a_worse_one_does() -> None:
    def alarm_share(precision: float) -> float:
        n_right = np.random.default_rng(1).binomial(200, precision, 20_000)
        counts, frequency = np.unique(n_right, return_counts=True)
        highs = [wilson_interval(int(count), 200)[1] for count in counts]
        return float(np.average(np.array(highs) < 0.95, weights=frequency))

    assert alarm_share(0.95) < 0.04
    assert alarm_share(0.85) > 0.95
