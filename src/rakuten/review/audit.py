"""The audit sample: products that the model has decided, drawn at random, that nobody can tell from the others.

Whoever can tell waves the model's word through, and the sample says nothing. A product of the sample would stand out by
its confidence, in what is shown and by its place in an order or a filter by confidence. So people see the mean of the
confidences of two products that need review in place of its own, and its place follows from these. The database keeps
the true ones, which every decision records.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rakuten.types import BoolArray

Top = list[list[float]]  # [prdtypecode, confidence] of a product's likeliest codes, the likeliest first


def draw_audit(needs_review: BoolArray, share: float, seed: int) -> BoolArray:
    """A random sample of the products that need no review: `share` of all that are shown, or all if there are fewer."""
    decided = np.flatnonzero(~needs_review)
    number = min(len(decided), round(share / (1 - share) * int(needs_review.sum()))) if share < 1 else len(decided)
    is_audit = np.zeros(len(needs_review), dtype=bool)
    is_audit[np.random.default_rng(seed).choice(decided, number, replace=False)] = True
    return is_audit


def shown_tops(tops: Sequence[Top], is_audit: BoolArray, seed: int) -> list[Top]:
    """The likeliest codes of each product with the confidences that people see.

    Args:
        tops: of each product, as the model gave them.
        is_audit: whether a product is of the audit sample.
        seed: of the draw of the products whose confidences are shown with one of the sample.
    """
    unsure = [top for top, audit in zip(tops, is_audit, strict=True) if not audit]
    if not unsure:
        return list(tops)
    pairs = np.random.default_rng(seed).integers(len(unsure), size=(len(tops), 2))
    return [
        mixed_confidences(top, unsure[first], unsure[second]) if audit else top
        for top, audit, (first, second) in zip(tops, is_audit, pairs.tolist(), strict=True)
    ]


def mixed_confidences(top: Top, first: Top, second: Top) -> Top:
    """The codes of one product with the mean of the confidences of two others, rank by rank.

    The mean, and not those of one: two products with the same confidences side by side would be noticed.
    """
    n = min(len(top), len(first), len(second))
    return [
        [code, round((one + other) / 2, 6)]
        for (code, _), (_, one), (_, other) in zip(top[:n], first[:n], second[:n], strict=True)
    ]


def uncertainty_of(top: Sequence[Sequence[Any]]) -> float:
    """1 minus the distance between the confidences of the two likeliest codes, from 0 to 1."""
    return float(1 - top[0][1] + (top[1][1] if len(top) > 1 else 0.0))
