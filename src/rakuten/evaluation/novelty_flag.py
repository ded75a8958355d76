"""From the novelty of products to the flag, and how often it is raised. Pure functions of arrays."""

from typing import Any

from scipy.stats import beta

from rakuten.evaluation.bootstrap import CONFIDENCE_LEVEL
from rakuten.types import BoolArray, FloatArray

NOVELTY_DIGITS = 6  # of a novelty that is stored or shown


def is_novel(novelty: FloatArray, false_alarms: float) -> BoolArray:
    """For each product, whether it counts as unlike all that the model was trained on.

    Args:
        novelty: see `models.novelty`; NaN: not known, so not flagged.
        false_alarms: share of ordinary products that may be flagged.
    """
    flagged: BoolArray = novelty >= round(1 - false_alarms, NOVELTY_DIGITS)
    return flagged


def flagged_share(flagged: BoolArray) -> dict[str, Any]:
    """How many products there are, the share that is flagged, and its 95 % interval (Clopper and Pearson 1934)."""
    rows, count, tail = len(flagged), int(flagged.sum()), (1 - CONFIDENCE_LEVEL) / 2
    low = float(beta.ppf(tail, count, rows - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, rows - count)) if count < rows else 1.0
    return {"rows": rows, "share": count / rows if rows else None, "interval": [low, high]}
