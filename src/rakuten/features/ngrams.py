"""Word and character n-gram TF-IDF over columns of text.

Counting is the slow part and learns nothing, so it is done once (`count`). What is learnt, the
vocabulary and the idf, hangs on how many rows have each term (`learn`): a fold's vectorizer is
exactly the one that fitting on the fold's texts alone would give.
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

Rows = NDArray[np.int64]
TOKEN = r"(?u)\b\w+\b"  # one-letter words too: sizes, tomes and models are told by them

MASK = str.maketrans("123456789", "000000000")


class Block(NamedTuple):
    """One set of n-grams: which columns, how they are cut, how many are kept, how much they weigh."""

    columns: tuple[str, ...]  # joined by a space
    mask_digits: bool  # every digit as 0: the shape of a number tells more than its value
    analyzer: str
    shortest: int
    longest: int
    limit: int  # terms kept
    weight: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Block":
        """A block from its fields as YAML and JSON give them."""
        return cls(**{**values, "columns": tuple(values["columns"])})

    def texts(self, table: pd.DataFrame) -> list[str]:
        texts = (" ".join(parts) for parts in zip(*(table[column] for column in self.columns), strict=True))
        return [text.translate(MASK) for text in texts] if self.mask_digits else list(texts)

    def counter(self) -> CountVectorizer:
        return CountVectorizer(
            analyzer=self.analyzer,
            ngram_range=(self.shortest, self.longest),
            token_pattern=TOKEN if self.analyzer == "word" else None,
            lowercase=False,  # clean_text has seen to case
            dtype=np.float32,
        )


class Counts(NamedTuple):
    """Occurrences (rows x terms) of every term of a block in a table, and the terms."""

    matrix: csr_matrix
    terms: NDArray[Any]


def count(table: pd.DataFrame, block: Block) -> Counts:
    """Count every n-gram of the block's columns."""
    counter = block.counter()
    try:
        matrix = counter.fit_transform(block.texts(table))
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return Counts(csr_matrix((len(table), 0), dtype=np.float32), np.array([], dtype=object))
    return Counts(matrix, counter.get_feature_names_out())


class Learnt(NamedTuple):
    """Of one block: which of its terms are kept (places among them, in order), and their idf."""

    kept: NDArray[np.intp]
    idf: NDArray[np.float32]


def learn(block: Block, frequency: Rows, rows: int) -> Learnt:
    """Keep the terms of most rows, up to the block's limit.

    Args:
        frequency: in how many rows each term stands; the terms are in alphabetical order.
        rows: how many rows there are.
    """
    # Stable, so that ties fall the same way on every machine.
    kept = np.sort(np.argsort(-frequency, kind="stable")[: block.limit])
    kept = kept[frequency[kept] > 0]
    return Learnt(kept, (np.log((1 + rows) / (1 + frequency[kept])) + 1).astype(np.float32))


def renumber(counts: csr_matrix, place: NDArray[np.integer[Any]], width: int) -> csr_matrix:
    """Counts in columns of another numbering: `place` has the new number of each column, -1 to leave it out."""
    columns = place[counts.indices]
    kept = columns >= 0
    ends = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
    return csr_matrix((counts.data[kept], columns[kept], ends), shape=(counts.shape[0], width))


def take(counts: csr_matrix, kept: NDArray[np.intp]) -> csr_matrix:
    """Some columns of counts, in their order; much faster than to index by them."""
    place = np.full(counts.shape[1], -1, dtype=np.int32)
    place[kept] = np.arange(len(kept))
    return renumber(counts, place, len(kept))


class Weights:
    """Sublinear TF-IDF of all blocks in one pass: each row of each block gets the block's weight as its length.

    As sklearn's TfidfTransformer, without its checks, which for one product take longer than all the rest.
    """

    def __init__(self, blocks: Sequence[Block], idf: Sequence[NDArray[np.float32]]) -> None:
        """`idf` has that of the kept terms of each block."""
        self._blocks = [block.weight for block in blocks]
        self._idf = np.concatenate(idf)
        self._of_column = np.repeat(np.arange(len(blocks)), [len(values) for values in idf])  # its block's number

    def of(self, counts: csr_matrix) -> csr_matrix:
        """Rows x kept terms of all blocks side by side, from how often each stands in each row."""
        blocks, rows = len(self._blocks), counts.shape[0]
        values = (np.log(counts.data) + 1) * self._idf[counts.indices]
        row = np.repeat(np.arange(rows), np.diff(counts.indptr))
        part = row * blocks + self._of_column[counts.indices]
        length = np.sqrt(np.bincount(part, weights=np.square(values), minlength=rows * blocks))
        values *= (np.tile(self._blocks, rows) / np.maximum(length, 1e-12)).astype(np.float32)[part]
        return csr_matrix((values.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


class NgramVectorizer:
    """TF-IDF of several blocks side by side, each row of each block of length `weight`."""

    def __init__(self, blocks: Sequence[Block], terms: Sequence[Sequence[str]], idf: Sequence[NDArray[Any]]) -> None:
        self.blocks = tuple(blocks)
        self.terms = tuple(list(block_terms) for block_terms in terms)
        self.idf = tuple(values.astype(np.float32) for values in idf)

    def transform(self, table: pd.DataFrame) -> csr_matrix:
        """Rows x features, float32, of a table with the columns of the blocks."""
        columns: list[int] = []
        occurrences: list[int] = []
        ends = [0]
        for texts in zip(*(block.texts(table) for block in self.blocks), strict=True):
            for text, (analyze, column_of) in zip(texts, self._lookups, strict=True):
                found = Counter(map(column_of.get, analyze(text)))
                found.pop(None, None)
                known = sorted(found)  # type: ignore[type-var]  # None has just gone
                columns += known  # type: ignore[arg-type]
                occurrences += map(found.__getitem__, known)
            ends.append(len(columns))
        shape = (len(table), sum(map(len, self.terms)))
        counts = csr_matrix((np.array(occurrences, dtype=np.float32), columns, ends), shape=shape)
        return self._weights.of(counts)

    @cached_property
    def _lookups(self) -> list[tuple[Callable[[str], list[str]], dict[str, int]]]:
        """Of each block: what cuts a text into n-grams, and the column of each. Made once, for a table of hundreds
        of thousands of terms is slow to build; sklearn's own counter takes longer over one product than all else."""
        starts = np.cumsum([0, *map(len, self.terms)])[:-1].tolist()
        return [
            (block.counter().build_analyzer(), {term: at for at, term in enumerate(terms, start)})
            for block, terms, start in zip(self.blocks, self.terms, starts, strict=True)
        ]

    def names(self, columns: Sequence[int]) -> list[tuple[str, str, str]]:
        """Of each column of `transform`: the table's columns it counts in, the analyzer, the n-gram."""
        ends = np.cumsum([len(terms) for terms in self.terms])
        found = []
        for column in columns:
            at = int(np.searchsorted(ends, column, side="right"))
            block, first = self.blocks[at], int(ends[at]) - len(self.terms[at])
            found.append((" ".join(block.columns), block.analyzer, self.terms[at][column - first]))
        return found

    @cached_property
    def _weights(self) -> Weights:
        return Weights(self.blocks, self.idf)
