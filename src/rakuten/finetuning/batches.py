"""The order in which a network sees its training rows, known before the training begins."""

from typing import NamedTuple

import numpy as np

from rakuten.types import IntArray

POOL_BATCHES = 50  # batches whose rows are sorted by length together, so that little of a batch is padding


class Batches(NamedTuple):
    """The batches of all epochs in order; row numbers are positions in the training rows."""

    rows: list[IntArray]
    steps_per_epoch: int


def plan_batches(lengths: IntArray, size: int, epochs: int, seed: int) -> Batches:
    """Shuffled batches in which rows of similar length stand together.

    Args:
        lengths: of each training row: its tokens.
        size: rows in a batch; the last one of an epoch may have fewer.
    """
    batches: list[IntArray] = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(lengths))
        of_epoch: list[IntArray] = []
        for start in range(0, len(order), size * POOL_BATCHES):
            pool = order[start : start + size * POOL_BATCHES]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            of_epoch += [pool[first : first + size] for first in range(0, len(pool), size)]
        batches += [of_epoch[number] for number in rng.permutation(len(of_epoch))]
    return Batches(batches, len(batches) // epochs)
