"""Word and character n-gram TF-IDF over columns of text.

scikit-learn's TfidfVectorizer does not fit here: it ranks terms by how often they occur, not by the rows they occur in;
it cannot share its counts between folds and shards; and it takes longer over one product than everything else does.

Counting is the slow part and learns nothing, so it is done once (`count_ngrams`). What is learnt, the vocabulary and
the idf, depends only on the document frequencies (`fit_vocabulary`): the vectorizer of a fold is exactly the one that
fitting on the other folds' texts would give.
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

TOKEN_PATTERN = r"(?u)\b\w+\b"  # one-letter words too: they name sizes, volumes and models

DIGIT_MASK = str.maketrans("123456789", "000000000")


class NgramBlock(NamedTuple):
    """One set of n-grams, as params.yaml describes it in `train.blocks`."""

    columns: tuple[str, ...]  # read together, joined by a space
    mask_digits: bool  # every digit as 0: the shape of a number tells more than its value
    analyzer: str  # word, char or char_wb, as in scikit-learn
    ngram_range: tuple[int, int]  # shortest and longest n-gram
    max_features: int  # terms kept, those of most rows
    weight: float  # length of each row's vector

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NgramBlock":
        """A block from its fields as params.yaml gives them."""
        return cls(**{**values, "columns": tuple(values["columns"]), "ngram_range": tuple(values["ngram_range"])})

    def to_stored(self) -> dict[str, Any]:
        """The fields under the names that vectorizer.json has had since the first model format."""
        shortest, longest = self.ngram_range
        limits = {"shortest": shortest, "longest": longest, "limit": self.max_features}
        return {
            "columns": self.columns, "mask_digits": self.mask_digits, "analyzer": self.analyzer, **limits,
            "weight": self.weight,
        }  # fmt: skip

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "NgramBlock":
        """What `to_stored` gave, read back from JSON."""
        fields = {name: stored[name] for name in ("columns", "mask_digits", "analyzer", "weight")}
        ngram_range = (stored["shortest"], stored["longest"])
        return cls.from_dict(fields | {"ngram_range": ngram_range, "max_features": stored["limit"]})

    def texts(self, table: pd.DataFrame) -> list[str]:
        """The text that is cut into n-grams, one for each row."""
        texts = (" ".join(parts) for parts in zip(*(table[column] for column in self.columns), strict=True))
        return [text.translate(DIGIT_MASK) for text in texts] if self.mask_digits else list(texts)

    def count_vectorizer(self) -> CountVectorizer:
        """scikit-learn's counter of this block's n-grams, not fitted."""
        return CountVectorizer(
            analyzer=self.analyzer,
            ngram_range=self.ngram_range,
            token_pattern=TOKEN_PATTERN if self.analyzer == "word" else None,
            lowercase=False,  # clean_text has done that
            dtype=np.float32,
        )


class CountMatrix(NamedTuple):
    """Occurrences (rows x terms) of every term of a block in a table, and the terms."""

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
    """The terms of a block that a model keeps."""

    kept: NDArray[np.intp]  # their positions among all terms, ascending
    idf: NDArray[np.float32]  # smoothed inverse document frequency of each


def fit_vocabulary(block: NgramBlock, frequency: IntArray, n_rows: int) -> FittedVocabulary:
    """Keep the terms that stand in most rows, at most `max_features` of them.

    Args:
        frequency: document frequency of each term, that is, in how many rows it stands. Terms in alphabetical order.
        n_rows: number of rows.
    """
    # A stable sort breaks ties in the same way on every machine.
    kept = np.sort(np.argsort(-frequency, kind="stable")[: block.max_features])
    kept = kept[frequency[kept] > 0]
    return FittedVocabulary(kept, (np.log((1 + n_rows) / (1 + frequency[kept])) + 1).astype(np.float32))


def remap_columns(counts: csr_matrix, new_column: NDArray[np.integer[Any]], n_columns: int) -> csr_matrix:
    """Counts with their columns moved.

    Args:
        counts: rows x columns.
        new_column: for each column its new number, or -1 to leave it out. Must not change the order of columns.
        n_columns: number of columns of the result.
    """
    columns = new_column[counts.indices]
    kept = columns >= 0
    ends = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
    return csr_matrix((counts.data[kept], columns[kept], ends), shape=(counts.shape[0], n_columns))


def select_columns(counts: csr_matrix, kept: NDArray[np.intp]) -> csr_matrix:
    """Some columns of counts, by ascending number. Much faster than scipy's indexing by columns."""
    new_column = np.full(counts.shape[1], -1, dtype=np.int32)
    new_column[kept] = np.arange(len(kept))
    return remap_columns(counts, new_column, len(kept))


class TfidfWeighter:
    """Sublinear TF-IDF of all blocks in one pass; each row of each block is scaled to the length `weight`.

    The same as scikit-learn's TfidfTransformer for each block, without its checks, which for one product take longer
    than everything else.
    """

    def __init__(self, blocks: Sequence[NgramBlock], idf: Sequence[NDArray[np.float32]]) -> None:
        """
        Args:
            idf: of the kept terms of each block.
        """
        self._weights = [block.weight for block in blocks]
        self._idf = np.concatenate(idf)
        self._block_of_column = np.repeat(np.arange(len(blocks)), [len(values) for values in idf])

    def transform(self, counts: csr_matrix) -> csr_matrix:
        """TF-IDF, rows x kept terms of all blocks side by side, from counts of the same shape."""
        n_blocks, n_rows = len(self._weights), counts.shape[0]
        values = (np.log(counts.data) + 1) * self._idf[counts.indices]
        row = np.repeat(np.arange(n_rows), np.diff(counts.indptr))
        row_block = row * n_blocks + self._block_of_column[counts.indices]
        length = np.sqrt(np.bincount(row_block, weights=np.square(values), minlength=n_rows * n_blocks))
        values *= (np.tile(self._weights, n_rows) / np.maximum(length, 1e-12)).astype(np.float32)[row_block]
        return csr_matrix((values.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


class NgramVectorizer:
    """TF-IDF of several blocks of n-grams side by side; each row of each block has the length `weight`."""

    def __init__(
        self, blocks: Sequence[NgramBlock], terms: Sequence[Sequence[str]], idf: Sequence[NDArray[Any]]
    ) -> None:
        self.blocks = tuple(blocks)
        self.terms = tuple(list(block_terms) for block_terms in terms)
        self.idf = tuple(values.astype(np.float32) for values in idf)

    def transform(self, table: pd.DataFrame) -> csr_matrix:
        """Rows x features, float32, from a table with the text columns of the blocks."""
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
        """For each block, the function that cuts a text into n-grams, and the column of each term. Made once, since a
        dictionary of hundreds of thousands of terms is slow to build."""
        starts = np.cumsum([0, *map(len, self.terms)])[:-1].tolist()
        return [
            (block.count_vectorizer().build_analyzer(), {term: column for column, term in enumerate(terms, start)})
            for block, terms, start in zip(self.blocks, self.terms, starts, strict=True)
        ]

    def get_feature_names(self, columns: Sequence[int]) -> list[tuple[str, str, str]]:
        """For each of these columns of `transform`: the text columns it counts in, the analyzer, the n-gram."""
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
