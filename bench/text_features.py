"""The text model's features in memory, for measurements: counted once, learnt from some rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack

from rakuten.features.ngrams import CountMatrix, NgramBlock, TfidfWeighter, count_ngrams, fit_vocabulary, select_columns
from rakuten.types import IntArray


class Counted:
    """A table's n-grams."""

    def __init__(self, table: pd.DataFrame, blocks: Sequence[NgramBlock]) -> None:
        self.blocks = blocks
        self.counts: list[CountMatrix] = [count_ngrams(table, block) for block in blocks]

    def features(self, seen: IntArray, *asked: IntArray) -> list[csr_matrix]:
        """TF-IDF, learnt from the rows `seen`, of each set of rows that is asked."""
        learnt = [
            fit_vocabulary(block, np.bincount(matrix[seen].indices, minlength=len(terms)), len(seen))
            for block, (matrix, terms) in zip(self.blocks, self.counts, strict=True)
        ]
        weights = TfidfWeighter(self.blocks, [each.idf for each in learnt])
        found = []
        for rows in asked:
            parts = [
                select_columns(matrix[rows], each.kept) for (matrix, _), each in zip(self.counts, learnt, strict=True)
            ]
            found.append(weights.of(csr_matrix(hstack(parts, format="csr", dtype=np.float32))))
        return found
