"""The live precision of automatic decisions, from the audit sample of the review desk. Pure functions.

The desk mixes products that the model decided itself, drawn at random and unmarked, into what people see. The share of
them with the model's code is an estimate of the precision that `predict.target_precision` promises, without asking
anybody about all decided products. Only products of this sample count: people look at others because something is
doubted about them. Only decisions about the version that answers count: another version had another threshold.
"""

from dataclasses import dataclass

import pandas as pd
from scipy.stats import binomtest

from rakuten.evaluation.bootstrap import CONFIDENCE_LEVEL


@dataclass(frozen=True)
class LivePrecision:
    """The share of right ones among automatic decisions that people checked, and its interval."""

    precision: float
    interval: tuple[float, float]  # 95 %, Wilson
    n_labels: int
    promised: float

    def as_json(self) -> dict[str, float]:
        """The fields of /model and of the status file."""
        low, high = self.interval
        return {
            "precision": self.precision, "low": low, "high": high, "labels": self.n_labels, "promised": self.promised,
        }  # fmt: skip

    @property
    def is_below_promise(self) -> bool:
        """Whether the whole interval is below what is promised."""
        return self.interval[1] < self.promised

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"precision of automatic decisions {self.precision:.3f} [{low:.3f}, {high:.3f}] by {self.n_labels:,} "
            f"audited products, {self.promised:.3f} promised"
        )


def audited(reviewed: pd.DataFrame, model_version: str) -> pd.DataFrame:
    """The reviewed products that are of the audit sample of a model version.

    Args:
        reviewed: from `reviewed_products`.
    """
    return reviewed[reviewed["is_audit"] & (reviewed["model_version"] == model_version)]


def live_precision(products: pd.DataFrame, promised: float, min_labels: int) -> LivePrecision | None:
    """The precision and its interval; None if there are fewer than `min_labels` products.

    A product that none of the codes fits counts as wrong.

    Args:
        products: from `audited`.
        promised: `predict.target_precision`.
    """
    n_labels = len(products)
    if n_labels < max(1, min_labels):
        return None
    n_right = int((products["prdtypecode"] == products["predicted"]).sum())
    return LivePrecision(n_right / n_labels, wilson_interval(n_right, n_labels), n_labels, promised)


def wilson_interval(n_right: int, n_labels: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), which holds near 1 and for few products, where others do not.

    See Brown, Cai and DasGupta: Interval estimation for a binomial proportion (2001).
    """
    low, high = binomtest(n_right, n_labels).proportion_ci(CONFIDENCE_LEVEL, "wilson")
    return float(low), float(high)
