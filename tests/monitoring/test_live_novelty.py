"""The share of novel products, and that its alarm does not come by chance: exact computations."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import betabinom, binom

from rakuten.config import load_params
from rakuten.evaluation.novelty_flag import flagged_share
from rakuten.models.novelty import fit_novelty
from rakuten.monitoring.drift import FALSE_ALARM_RATE
from rakuten.monitoring.live_novelty import LiveNovelty, live_novelty

PARAMS = load_params()
PROMISED, MIN_ROWS, WINDOW = PARAMS.predict.novelty_false_alarms, PARAMS.monitor.min_rows, PARAMS.monitor.window
N_REFERENCE = 2000  # of the sample catalogue; of 20,000 train products or more, the reference has 20,000


def window(n_novel: int, n_ordinary: int, n_unknown: int = 0) -> pd.Series:
    return pd.Series([True] * n_novel + [False] * n_ordinary + [None] * n_unknown, dtype="boolean")


def found(n_novel: int, n_products: int, promised: float = PROMISED, n_reference: int = N_REFERENCE) -> LiveNovelty:
    novelty = live_novelty(window(n_novel, n_products - n_novel), promised, n_reference, 1)
    assert novelty is not None
    return novelty


def fewest_with_alarm(n_products: int, promised: float, n_reference: int) -> int:
    """The least number of novel products in a window that raises an alarm; one more raises one too."""
    limit = found(0, n_products, promised, n_reference).limit
    lows = [flagged_share(np.arange(n_products) < n)["interval"][0] for n in range(n_products + 1)]
    assert lows == sorted(lows)
    return int(np.argmax(np.array(lows) > limit))


@pytest.mark.parametrize("n_reference", [N_REFERENCE, 20_000])
@pytest.mark.parametrize("promised", [0.001, PROMISED, 0.05])
@pytest.mark.parametrize("n_products", [50, MIN_ROWS, WINDOW])
def test_ordinary_windows_raise_at_most_one_alarm_in_ten_thousand(
    n_products: int, promised: float, n_reference: int
) -> None:
    """If exactly the promised share is flagged, and over models, whose shares vary with their train products."""
    fewest = fewest_with_alarm(n_products, promised, n_reference)
    assert found(fewest, n_products, promised, n_reference).is_above_promise
    assert not found(fewest - 1, n_products, promised, n_reference).is_above_promise
    assert binom.sf(fewest - 1, n_products, promised) <= FALSE_ALARM_RATE
    # A product is flagged if it is above the order statistic `rank` of the reference, of which the share above is Beta.
    rank = int(np.ceil(np.round((1 - promised) * (n_reference + 1), 6)))
    assert betabinom.sf(fewest - 1, n_products, n_reference + 1 - rank, rank) <= FALSE_ALARM_RATE


def test_the_limit_is_no_higher_than_chance_asks_for() -> None:
    fewest = fewest_with_alarm(MIN_ROWS, PROMISED, 20_000)
    assert fewest == 16  # 3.2 % of the smallest window
    assert binom.sf(fewest - 2, MIN_ROWS, PROMISED) > FALSE_ALARM_RATE


@pytest.mark.parametrize("n_products", [MIN_ROWS, WINDOW])
def test_a_tenth_of_novel_products_raises_an_alarm(n_products: int) -> None:
    """Of windows with a tenth on average, hardly one has so few that it is missed."""
    assert found(n_products // 10, n_products).is_above_promise
    fewest = fewest_with_alarm(n_products, PROMISED, N_REFERENCE)
    assert binom.cdf(fewest - 1, n_products, 0.1) < 1e-7


def test_windows_of_a_fitted_model_are_as_computed() -> None:
    """The share flagged by each of many models varies as the limit takes it to: beta-binomial, not binomial."""
    rng = np.random.default_rng(0)
    n_models, n_reference, n_products = 2000, 200, 500
    flagged = []
    for _ in range(n_models):
        fitted = fit_novelty(rng.standard_normal(n_reference), np.ones((n_reference, 1)))
        novelty = fitted.novelty(rng.standard_normal(n_products), np.ones((n_products, 1)))
        flagged.append((novelty >= 0.95).sum())
    a, b = 0.05 * (n_reference + 1), 0.95 * (n_reference + 1)
    assert np.mean(flagged) == pytest.approx(betabinom.mean(n_products, a, b), rel=0.06)
    assert np.std(flagged) == pytest.approx(betabinom.std(n_products, a, b), rel=0.06)
    assert np.std(flagged) > 1.5 * binom.std(n_products, 0.05)


def test_a_share_is_of_the_products_of_which_it_is_known() -> None:
    novelty = live_novelty(window(30, 470, n_unknown=500), PROMISED, N_REFERENCE, MIN_ROWS)
    assert novelty is not None
    expected = flagged_share(np.arange(500) < 30)
    assert novelty.as_json() == {**expected, "promised": PROMISED, "limit": novelty.limit}
    assert (novelty.share, novelty.n_products) == (0.06, 500)
    assert PROMISED < novelty.limit < novelty.interval[0] < 0.06 < novelty.interval[1]
    assert str(novelty) == "6.0% [4.1%, 8.5%] of 500 products are novel, unlike all train products; 1.0% promised"


@pytest.mark.parametrize(
    ("is_novel", "promised"),
    [
        (window(0, 0, n_unknown=1000), PROMISED),  # a log of before
        (window(30, 469, n_unknown=1000), PROMISED),
        (window(30, 970), None),  # a model of before
        (window(0, 1000), 0.0),  # a model that flags nothing
    ],
)
def test_nothing_is_told_where_too_little_is_known(is_novel: pd.Series, promised: float | None) -> None:
    assert live_novelty(is_novel, promised, N_REFERENCE, MIN_ROWS) is None


def test_there_may_be_no_products() -> None:
    assert live_novelty(window(0, 0), PROMISED, N_REFERENCE, 0) is None
