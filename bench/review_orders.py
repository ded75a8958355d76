"""The orders of the review queue that bench.review compares: the desk's own, and others that were tried.

Each gives the priority of the products of a queue: the highest comes first.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from rakuten.data.taxonomy import current_taxonomy
from rakuten.review.sources import from_scored
from rakuten.types import EmbeddingArray, FloatArray, IntArray

N_NEIGHBOURS = 10  # whose mean similarity is the density around a product


class Queue(NamedTuple):
    """The products that wait, as the latest model sees them."""

    scored: pd.DataFrame  # what `from_scored` takes
    proba: FloatArray  # products x classes
    embeddings: EmbeddingArray  # products x width, of the texts
    class_rows: IntArray  # classes: rows that are labelled so far
    size: int  # decisions until the next training
    rng: np.random.Generator


def desk(queue: Queue) -> FloatArray:
    """What `rakuten review add` gives the products of a scored file."""
    return np.array(
        [row["priority"] for row in from_scored(queue.scored, {}, 0.0, 0, current_taxonomy())], dtype=np.float64
    )


def random(queue: Queue) -> FloatArray:
    return queue.rng.random(len(queue.proba))


def least_confidence(queue: Queue) -> FloatArray:
    uncertainty: FloatArray = 1 - queue.proba.max(axis=1)
    return uncertainty


def entropy(queue: Queue) -> FloatArray:
    negative: FloatArray = (queue.proba * np.log(np.maximum(queue.proba, 1e-12))).sum(axis=1)
    return -negative


def margin(queue: Queue) -> FloatArray:
    """The desk's order but for near-duplicates."""
    second, first = np.sort(queue.proba, axis=1)[:, -2:].T
    uncertainty: FloatArray = 1 - first + second
    return uncertainty


def code_by_code(queue: Queue) -> FloatArray:
    """The smallest margin of each predicted code, then the second smallest of each, and so on."""
    uncertainty = pd.Series(margin(queue))
    rank = uncertainty.groupby(queue.proba.argmax(axis=1)).rank(ascending=False, method="first")
    return (uncertainty - rank).to_numpy()


def rare_first(queue: Queue) -> FloatArray:
    """The margin, divided by the square root of the number of labelled rows of the predicted code."""
    weight = 1 / np.sqrt(1 + queue.class_rows)
    rare: FloatArray = margin(queue) * weight[queue.proba.argmax(axis=1)]
    return rare


def dense(queue: Queue) -> FloatArray:
    """The margin, times the mean similarity of the nearest products of the queue."""
    unit = _unit(queue.embeddings)
    # The most similar one is the product itself.
    nearest = np.sort(unit @ unit.T, axis=1)[:, -N_NEIGHBOURS - 1 : -1]
    weighted: FloatArray = margin(queue) * np.maximum(nearest.mean(axis=1), 0)
    return weighted


def spread(queue: Queue) -> FloatArray:
    """One after the other, the product with the largest margin's uncertainty times distance to those before it."""
    unit, uncertainty = _unit(queue.embeddings), margin(queue)
    distance = np.ones(len(unit))
    chosen: list[int] = []
    for _ in range(min(queue.size, len(unit))):
        gain = uncertainty * distance
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        distance = np.minimum(distance, 1 - unit @ unit[chosen[-1]])
    return _in_order(chosen, len(unit))


def badge(queue: Queue) -> FloatArray:
    """k-means++ on the gradients of the last layer (Ash et al. 2020): uncertain products, unlike each other."""
    residual = queue.proba.copy()
    residual[np.arange(len(residual)), residual.argmax(axis=1)] -= 1
    unit = _unit(queue.embeddings)
    kernel = (residual @ residual.T) * (unit @ unit.T)
    norm = np.diag(kernel)
    chosen = [int(norm.argmax())]
    distance = norm + norm[chosen[0]] - 2 * kernel[chosen[0]]
    while len(chosen) < min(queue.size, len(unit)):
        weight = np.maximum(distance, 0)
        weight[chosen] = 0
        chosen.append(int(queue.rng.choice(len(unit), p=weight / weight.sum())))
        distance = np.minimum(distance, norm + norm[chosen[-1]] - 2 * kernel[chosen[-1]])
    return _in_order(chosen, len(unit))


def _unit(embeddings: EmbeddingArray) -> FloatArray:
    centred = np.nan_to_num(embeddings.astype(np.float64) - np.nanmean(embeddings, axis=0))
    unit: FloatArray = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return unit


def _in_order(chosen: list[int], n_products: int) -> FloatArray:
    priority = np.zeros(n_products)
    priority[chosen] = np.arange(len(chosen), 0, -1)
    return priority


ORDERS: Mapping[str, Callable[[Queue], FloatArray]] = {
    "random": random,
    "least confidence": least_confidence,
    "the desk's": desk,
    "entropy": entropy,
    "code by code": code_by_code,
    "rare codes first": rare_first,
    "margin and density": dense,
    "margin, spread out": spread,
    "BADGE": badge,
}
