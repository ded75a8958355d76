"""Word and character n-gram TF-IDF over columns of text.

scikit-learn's TfidfVectorizer does not fit here: its max_features ranks terms by term frequency, not by document
frequency; it cannot share counts between folds and shards; and for one product it is slower than all other steps of a
prediction together.

Counting is the slow part and fits nothing, so it is done once (`count_ngrams`). Vocabulary and idf depend only on the
document frequencies (`fit_vocabulary`), so the vectorizer of a fold equals one that is fitted on the texts of the other
folds.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from rakuten.types import IntArray

TOKEN_PATTERN = r"(?u)\b\w+\b"  # with words of one letter, which scikit-learn drops: sizes, volumes, model names
DIGIT_MASK = str.maketrans("123456789", "000000000")


class NgramBlock(NamedTuple):
    """One set of n-grams: an item of `train.blocks` in params.yaml."""

    columns: tuple[str, ...]  # joined by a space
    mask_digits: bool  # replace every digit by 0: the shape of a number is more informative than its value
    analyzer: str  # word, char or char_wb, as in scikit-learn
    ngram_range: tuple[int, int]  # shortest and longest n-gram
    max_features: int  # number of terms kept, by document frequency
    weight: float  # Euclidean norm of each row

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NgramBlock":
        """A block from its fields as params.yaml gives them."""
        return cls(**{**values, "columns": tuple(values["columns"]), "ngram_range": tuple(values["ngram_range"])})

    def to_stored(self) -> dict[str, Any]:
        """The fields under their names in vectorizer.json, which are those of the first model format."""
        shortest, longest = self.ngram_range
        limits = {"shortest": shortest, "longest": longest, "limit": self.max_features}
        return {
            "columns": self.columns, "mask_digits": self.mask_digits, "analyzer": self.analyzer, **limits,
            "weight": self.weight,
        }  # fmt: skip

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "NgramBlock":
        """The block that `to_stored` was called on, from its JSON."""
        fields = {name: stored[name] for name in ("columns", "mask_digits", "analyzer", "weight")}
        ngram_range = (stored["shortest"], stored["longest"])
        return cls.from_dict(fields | {"ngram_range": ngram_range, "max_features": stored["limit"]})

    def texts(self, table: pd.DataFrame) -> list[str]:
        """For each row of a table, the text that n-grams are counted in."""
        texts = (" ".join(parts) for parts in zip(*(table[column] for column in self.columns), strict=True))
        return [text.translate(DIGIT_MASK) for text in texts] if self.mask_digits else list(texts)

    def count_vectorizer(self) -> CountVectorizer:
        """An unfitted CountVectorizer of this block's n-grams."""
        return CountVectorizer(
            analyzer=self.analyzer,
            ngram_range=self.ngram_range,
            token_pattern=TOKEN_PATTERN if self.analyzer == "word" else None,
            lowercase=False,  # the cleaned text is lowercase if it should be
            dtype=np.float32,
        )


class CountMatrix(NamedTuple):
    """Counts of every term of a block, rows x terms, and the terms in alphabetical order."""

    matrix: csr_matrix
    terms: NDArray[Any]


def count_ngrams(table: pd.DataFrame, block: NgramBlock) -> CountMatrix:
    """Count every n-gram of the block's columns."""
    counter = block.count_vectorizer()
    try:
        matrix = counter.fit_transform(block.texts(table))
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return CountMatrix(csr_matrix((len(table), 0), dtype=np.float32), np.array([], dtype=object))
    return CountMatrix(matrix, counter.get_feature_names_out())


class FittedVocabulary(NamedTuple):
    """The terms of a block that are kept."""

    kept: NDArray[np.intp]  # their indices among all terms, ascending
    idf: NDArray[np.float32]  # smoothed inverse document frequency of each kept term


def fit_vocabulary(block: NgramBlock, frequency: IntArray, n_rows: int) -> FittedVocabulary:
    """Keep the `max_features` terms of highest document frequency; no term that occurs in no row.

    Args:
        frequency: document frequency of each term: the number of rows that contain it. Terms in alphabetical order.
        n_rows: number of rows.
    """
    # A stable sort, so that ties are broken by alphabetical order on every machine.
    kept = np.sort(np.argsort(-frequency, kind="stable")[: block.max_features])
    kept = kept[frequency[kept] > 0]
    return FittedVocabulary(kept, (np.log((1 + n_rows) / (1 + frequency[kept])) + 1).astype(np.float32))


def remap_columns(counts: csr_matrix, new_column: NDArray[np.integer[Any]], n_columns: int) -> csr_matrix:
    """Counts with their columns renumbered.

    Args:
        counts: rows x columns.
        new_column: for each column its new number, or -1 to drop it. The order of columns must stay.
        n_columns: number of columns of the result.
    """
    columns = new_column[counts.indices]
    kept = columns >= 0
    ends = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
    return csr_matrix((counts.data[kept], columns[kept], ends), shape=(counts.shape[0], n_columns))


def select_columns(counts: csr_matrix, kept: NDArray[np.intp]) -> csr_matrix:
    """The columns with these numbers, which are ascending. Much faster than scipy's indexing by columns."""
    new_column = np.full(counts.shape[1], -1, dtype=np.int32)
    new_column[kept] = np.arange(len(kept))
    return remap_columns(counts, new_column, len(kept))


class TfidfWeighter:
    """Sublinear TF-IDF of all blocks in one pass; each row of each block has the Euclidean norm `weight`.

    Equals scikit-learn's TfidfTransformer on each block, without its input checks, which take longer than the rest of
    the prediction of one product.
    """

    def __init__(self, blocks: Sequence[NgramBlock], idf: Sequence[NDArray[np.float32]]) -> None:
        """
        Args:
            idf: for each block, the idf of its kept terms.
        """
        self._weights = [block.weight for block in blocks]
        self._idf = np.concatenate(idf)
        self._block_of_column = np.repeat(np.arange(len(blocks)), [len(values) for values in idf])

    def transform(self, counts: csr_matrix) -> csr_matrix:
        """TF-IDF from counts of the same shape: rows x kept terms of all blocks side by side."""
        n_blocks, n_rows = len(self._weights), counts.shape[0]
        values = (np.log(counts.data) + 1) * self._idf[counts.indices]
        row = np.repeat(np.arange(n_rows), np.diff(counts.indptr))
        row_block = row * n_blocks + self._block_of_column[counts.indices]
        length = np.sqrt(np.bincount(row_block, weights=np.square(values), minlength=n_rows * n_blocks))
        values *= (np.tile(self._weights, n_rows) / np.maximum(length, 1e-12)).astype(np.float32)[row_block]
        return csr_matrix((values.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


class NgramVectorizer:
    """TF-IDF of several blocks of n-grams side by side; each row of each block has the Euclidean norm `weight`."""

    def __init__(
        self, blocks: Sequence[NgramBlock], terms: Sequence[Sequence[str]], idf: Sequence[NDArray[Any]]
    ) -> None:
        self.blocks = tuple(blocks)
        self.terms = tuple(list(block_terms) for block_terms in terms)
        self.idf = tuple(values.astype(np.float32) for values in idf)

    def transform(self, table: pd.DataFrame) -> csr_matrix:
        """TF-IDF, rows x terms, float32, of a table with the text columns of the blocks."""
        columns: list[int] = []
        occurrences: list[int] = []
        ends = [0]
        for texts in zip(*(block.texts(table) for block in self.blocks), strict=True):
            for text, (analyze, column_of) in zip(texts, self._lookups, strict=True):
                counts_of_text = Counter(map(column_of.get, analyze(text)))
                counts_of_text.pop(None, None)  # terms that are not in the vocabulary
                text_columns = sorted(counts_of_text)  # type: ignore[type-var]  # None has just gone
                columns += text_columns  # type: ignore[arg-type]
                occurrences += map(counts_of_text.__getitem__, text_columns)
            ends.append(len(columns))
        shape = (len(table), sum(map(len, self.terms)))
        counts = csr_matrix((np.array(occurrences, dtype=np.float32), columns, ends), shape=shape)
        return self._weighter.transform(counts)

    @cached_property
    def _lookups(self) -> list[tuple[Callable[[str], list[str]], dict[str, int]]]:
        """For each block, the function that splits a text into n-grams, and the column of each term. Built once,
        because a dictionary of hundreds of thousands of terms is slow to build."""
        starts = np.cumsum([0, *map(len, self.terms)])[:-1].tolist()
        return [
            (block.count_vectorizer().build_analyzer(), {term: column for column, term in enumerate(terms, start)})
            for block, terms, start in zip(self.blocks, self.terms, starts, strict=True)
        ]

    def get_feature_names(self, columns: Sequence[int]) -> list[tuple[str, str, str]]:
        """For each of these columns of `transform`: the text columns of its block, the analyzer, and the n-gram."""
        ends = np.cumsum([len(terms) for terms in self.terms])
        names = []
        for column in columns:
            number = int(np.searchsorted(ends, column, side="right"))
            block, terms = self.blocks[number], self.terms[number]
            names.append((" ".join(block.columns), block.analyzer, terms[column - int(ends[number]) + len(terms)]))
        return names

    @cached_property
    def _weighter(self) -> TfidfWeighter:
        return TfidfWeighter(self.blocks, self.idf)
