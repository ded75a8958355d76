"""The share of live products that the model flags as novel, beside the share that it promises. Pure functions.

A model promises that at most a share `predict.novelty_false_alarms` of ordinary products is flagged. When a new kind of
product comes into the catalogue, more are. An alarm must not come by chance: its limit is what one of ten thousand
windows of ordinary products exceeds. The number flagged among n ordinary products varies because they are a sample,
and because the model's idea of what is ordinary rests on a sample of m train products too: it follows a beta-binomial
distribution with the parameters p (m + 1) and (1 - p) (m + 1) for a promised share p. Source: Bates et al. 2023,
"Testing for outliers with conformal p-values", on the false alarms of one calibration set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import betabinom

from rakuten.evaluation.novelty_flag import flagged_share
from rakuten.monitoring.drift import FALSE_ALARM_RATE


@dataclass(frozen=True)
class LiveNovelty:
    """The share of novel products among live ones, and its interval."""

    share: float
    interval: tuple[float, float]  # 95 %, Clopper-Pearson
    n_products: int  # of which it is known whether they are novel
    promised: float  # of ordinary products, the share that may be flagged
    limit: float  # see `alarm_limit`

    def as_json(self) -> dict[str, Any]:
        """The value of `novelty` in drift.json."""
        return {
            "rows": self.n_products,
            "share": self.share,
            "interval": list(self.interval),
            "promised": self.promised,
            "limit": self.limit,
        }

    @property
    def is_above_promise(self) -> bool:
        """Whether the whole interval is above what ordinary products reach by chance."""
        return self.interval[0] > self.limit

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.share:.1%} [{low:.1%}, {high:.1%}] of {self.n_products:,} products are novel, unlike all train "
            f"products; {self.promised:.1%} promised"
        )


def live_novelty(
    is_novel: pd.Series, promised: float | None, n_reference: int, min_products: int
) -> LiveNovelty | None:
    """The share of novel products, its interval and the limit of the alarm.

    Args:
        is_novel: whether each product of a window is novel, as `boolean`; missing: not known.
        promised: the model's `predict.novelty_false_alarms`; None: the model does not tell novel products.
        n_reference: train products that the model compares a product with.
        min_products: by fewer of which it is known, nothing is told.

    Returns:
        None if too little is known, or the model flags no product at all.
    """
    flagged = is_novel.dropna().to_numpy(dtype=bool)
    if not promised or len(flagged) < max(1, min_products):
        return None
    found = flagged_share(flagged)
    low, high = found["interval"]
    limit = alarm_limit(len(flagged), promised, n_reference)
    return LiveNovelty(found["share"], (low, high), len(flagged), promised, limit)


def alarm_limit(n_products: int, promised: float, n_reference: int) -> float:
    """What the lower end of the interval exceeds in at most one of ten thousand windows of ordinary products.

    It is the lower end for the largest number of novel products that is left to chance, see above.

    Args:
        n_products: in the window.
        promised: above 0.
        n_reference: train products that the model compares a product with.
    """
    size = n_reference + 1
    n_by_chance = int(betabinom.isf(FALSE_ALARM_RATE, n_products, promised * size, (1 - promised) * size))
    low: float = flagged_share(np.arange(n_products) < n_by_chance)["interval"][0]
    return low
