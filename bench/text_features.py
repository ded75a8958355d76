"""N-gram features in memory, for measurements: counted once, then learnt from any set of rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack

from rakuten.features.ngrams import CountMatrix, NgramBlock, TfidfWeighter, count_ngrams, fit_vocabulary, select_columns
from rakuten.types import IntArray


class CountedTable:
    """The n-gram counts of a table."""

    def __init__(self, table: pd.DataFrame, blocks: Sequence[NgramBlock]) -> None:
        self.blocks = blocks
        self.counts: list[CountMatrix] = [count_ngrams(table, block) for block in blocks]

    def tfidf(self, train: IntArray, *row_sets: IntArray) -> list[csr_matrix]:
        """TF-IDF of each set of rows, by the vocabulary and idf of the rows `train`."""
        vocabularies = [
            fit_vocabulary(block, np.bincount(matrix[train].indices, minlength=len(terms)), len(train))
            for block, (matrix, terms) in zip(self.blocks, self.counts, strict=True)
        ]
        weighter = TfidfWeighter(self.blocks, [vocabulary.idf for vocabulary in vocabularies])
        features = []
        for rows in row_sets:
            parts = [
                select_columns(matrix[rows], vocabulary.kept)
                for (matrix, _), vocabulary in zip(self.counts, vocabularies, strict=True)
            ]
            features.append(weighter.transform(csr_matrix(hstack(parts, format="csr", dtype=np.float32))))
        return features
