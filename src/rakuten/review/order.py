"""In which order products are shown: by what a decision teaches the model. Pure functions of arrays."""

import numpy as np

from rakuten.types import FloatArray, HashArray


def review_priority(uncertainty: FloatArray, group: HashArray) -> FloatArray:
    """The priority of each product in the queue: its uncertainty, less one for each near-duplicate before it.

    A decision about a product says much about its near-duplicates, so the second of a group comes after the first of
    every other group.

    Args:
        uncertainty: of each product, from 0 to 1.
        group: of near-duplicates; 0 for a product without any.
    """
    order = np.lexsort((np.arange(len(group)), -uncertainty, group))
    sorted_group = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_group[1:] != sorted_group[:-1]]) if len(group) else np.array([], int)
    rank = np.empty(len(group))
    rank[order] = np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    priority: FloatArray = uncertainty - np.where(group == 0, 0, rank)
    return priority
