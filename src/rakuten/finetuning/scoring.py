"""Scores of a written network for many products, computed in several processes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.disk_array import row_chunks
from rakuten.types import Float32Array

Content = TypeVar("Content")


def score_chunks(
    task: Callable[[Sequence[Content]], Float32Array],
    contents: Sequence[Content],
    size: int,
    label: Callable[[Sequence[Content]], str],
    description: str,
) -> Float32Array:
    """The scores of products: rows x classes.

    Args:
        task: scores a chunk; called once with an empty one, which says how many classes there are.
        contents: what the network reads of each product.
        size: products in a chunk.
        label: names a chunk in an error.
        description: for the log.
    """
    chunks = [contents[rows] for rows in row_chunks(len(contents), size)]
    scored = parallel_map(task, chunks, 1, label, new_processes=True)
    return np.concatenate([task(contents[:0]), *progress(scored, len(chunks), description)])
