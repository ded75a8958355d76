"""The text model of any number of rows: learnt on shards that fit into memory, and averaged.

Rows are dealt out to as many shards as `train.shard_rows` asks for. The vocabulary is that
of all rows. Each shard has a linear SVM of its own, and the mean of their coefficients is the
model (parameter mixing: McDonald, Hall and Mann 2010). Rows that fit into one shard give what one
SVM on all of them gives. What passes between the steps lies in files, so that any worker can do
any step; nothing in memory but one shard grows with its rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from scipy.sparse import csr_matrix, hstack, load_npz, save_npz

from rakuten.cli import progress
from rakuten.compute.parallel import each
from rakuten.evaluation.metrics import Flags, Floats, Ints, deal
from rakuten.features.embedding import Rows
from rakuten.features.ngrams import Block, Learnt, NgramVectorizer, Weights, count, learn, renumber, take
from rakuten.models.linear import UNKNOWN, Linear, fit_svm

I = TypeVar("I")  # noqa: E741

CANDIDATES = 4  # times a block's limit: terms whose frequency is followed from shard to shard
ALL = -1  # instead of the number of a fold: the model on all rows
NO_FOLD = -1  # of a row that has no text
Step = tuple[int, int]  # a shard, and a block or a fold


class Shards(NamedTuple):
    """Where the shards lie, and how each is learnt."""

    folder: Path  # that every worker sees
    many: int
    folds: int
    blocks: tuple[Block, ...]
    classes: tuple[int, ...]
    svm_c: float
    seed: int

    def rows(self, shard: int) -> Ints:
        """The rows of the whole table that a shard has, in order."""
        return np.flatnonzero(np.load(self.folder / "shard.npy", mmap_mode="r", allow_pickle=False) == shard)

    def file(self, what: str, *numbers: int) -> Path:
        return self.folder / "-".join([what, *map(str, numbers)])

    def arrays(self, what: str, *numbers: int) -> Path:
        return self.folder / f"{self.file(what, *numbers).name}.npz"

    def load(self, what: str, shard: int) -> Ints:
        """A shard's rows of `codes` or `fold`."""
        whole: Ints = np.load(self.folder / f"{what}.npy", mmap_mode="r", allow_pickle=False)
        return np.array(whole[self.rows(shard)])


def out_of_fold(
    parts: Rows[pd.DataFrame], codes: Ints, fold: Ints, there: Flags, shards: Shards, scores: Floats
) -> tuple[NgramVectorizer, Linear]:
    """Fit the text model, and score each fold by one that saw neither its rows nor their titles.

    Args:
        parts: the table, with the columns of the blocks.
        codes, fold: of each row.
        there: which rows have text; the others are left out.
        scores: rows x classes, where the scores go.
    """
    np.save(shards.folder / "shard.npy", deal(len(codes), shards.many, shards.seed))
    np.save(shards.folder / "codes.npy", codes)
    np.save(shards.folder / "fold.npy", np.where(there, fold, NO_FOLD))
    write_texts(parts, shards)
    # Of each kind of step the largest first, so that no worker is left with one at the end.
    numbers, rows = range(len(shards.blocks)), np.bincount(fold[there], minlength=shards.folds)
    steps = [(shard, block) for block in numbers for shard in range(shards.many)]
    _all(partial(count_block, shards), steps, _named, "counting n-grams")
    _all(partial(vocabulary, shards, rows), numbers, "block {} of n-grams".format, "choosing n-grams")
    _all(partial(place_terms, shards), steps, _named, "placing n-grams")
    models = [ALL, *range(shards.folds)]
    steps = [(shard, number) for number in models for shard in range(shards.many)]
    _all(partial(fit, shards), steps, _named, "fitting text models, out of fold and on all rows")
    _all(partial(average, shards), models, "text model {}".format, "averaging text models")
    for path in shards.folder.glob("svm-*"):
        path.unlink()
    steps = [(shard, number) for shard in range(shards.many) for number in range(shards.folds)]
    found = each(partial(score, shards), steps, 1, _named)
    for (shard, number), part in zip(steps, progress(found, len(steps), "scoring out of fold"), strict=True):
        scores[shards.rows(shard)[shards.load("fold", shard) == number]] = part
    learnt = _learnt(shards, ALL)
    kept = [
        _terms(shards, block).take(pa.array(each_block.kept)).to_pylist() for block, each_block in enumerate(learnt)
    ]
    vectorizer = NgramVectorizer(shards.blocks, kept, [each_block.idf for each_block in learnt])
    return vectorizer, _mean(shards, ALL)


def _all(task: Callable[[I], None], items: Sequence[I], name: Callable[[I], str], what: str) -> None:
    for _ in progress(each(task, items, 1, name), len(items), what):
        pass


def _named(step: Step) -> str:
    return f"shard {step[0]} of the train rows, step {step[1]}"


def write_texts(parts: Rows[pd.DataFrame], shards: Shards) -> None:
    """Write each shard's texts, in order."""
    dealt = np.load(shards.folder / "shard.npy", mmap_mode="r", allow_pickle=False)
    columns = sorted({column for block in shards.blocks for column in block.columns})
    schema = pa.schema([(name, pa.string()) for name in columns])
    writers = [pq.ParquetWriter(shards.file("texts", shard), schema) for shard in range(shards.many)]
    try:
        start = 0
        for part in parts:
            own = dealt[start : start + len(part)]
            for shard, writer in enumerate(writers):
                rows = part.loc[own == shard, columns]
                writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
            start += len(part)
    finally:
        for writer in writers:
            writer.close()


def count_block(shards: Shards, step: Step) -> None:
    """Count a block's n-grams in a shard, and in how many rows of each fold each term stands."""
    shard, number = step
    block, fold = shards.blocks[number], shards.load("fold", shard)
    with pq.ParquetFile(shards.file("texts", shard)) as file:
        matrix, terms = count(file.read(list(block.columns)).to_pandas(), block)
    matrix.sort_indices()
    found = [
        np.bincount(matrix[fold == part].indices, minlength=len(terms)).astype(np.int64) for part in range(shards.folds)
    ]
    save_npz(shards.arrays("counts", shard, number), matrix, compressed=False)
    table = {"term": pa.array(terms, pa.large_string()), **{f"fold_{at}": part for at, part in enumerate(found)}}
    pq.write_table(pa.table(table), shards.file("terms", shard, number))


def vocabulary(shards: Shards, rows: Ints, number: int) -> None:
    """Add up a block's terms over the shards, in alphabetical order, and note which of them each model keeps.

    Of the terms so far, CANDIDATES times the limit are followed on, those of most rows: one that falls out and
    comes back has lost what it had (lossy counting: Manku and Motwani 2002). That never happens in a single shard
    of few terms, and hardly to one that would be kept.

    Args:
        rows: with text, in each fold.
    """
    block, folds = shards.blocks[number], [f"fold_{at}" for at in range(shards.folds)]
    known: pa.Table | None = None
    for shard in range(shards.many):
        added = pq.read_table(shards.file("terms", shard, number), partitioning=None)
        if known is not None:
            both = pa.concat_tables([known, added]).group_by("term").aggregate([(name, "sum") for name in folds])
            added = both.rename_columns(["term", *folds])
        known = _most_frequent(added, folds, CANDIDATES * block.limit)
    assert known is not None
    pq.write_table(known.select(["term"]), shards.file("vocabulary", number))
    frequency = np.stack([known[name].to_numpy() for name in folds])
    for model in (*range(shards.folds), ALL):
        own = frequency[model] if model != ALL else 0
        learnt = learn(block, frequency.sum(axis=0) - own, int(rows.sum() - (rows[model] if model != ALL else 0)))
        np.savez(shards.arrays("learnt", model, number), **learnt._asdict())


def _terms(shards: Shards, *numbers: int) -> pa.Array:
    """Of a block of all shards, or of a shard and a block: the terms, in alphabetical order."""
    path = shards.file("vocabulary" if len(numbers) == 1 else "terms", *numbers)
    return pq.read_table(path, columns=["term"], partitioning=None)["term"].combine_chunks()


def _most_frequent(table: pa.Table, folds: Sequence[str], limit: int) -> pa.Table:
    """The terms of most rows, in alphabetical order."""
    table = table.sort_by("term")
    if len(table) <= limit:
        return table
    total = np.sum([table[name].to_numpy() for name in folds], axis=0)
    return table.take(pa.array(np.sort(np.argsort(-total, kind="stable")[:limit])))


def place_terms(shards: Shards, step: Step) -> None:
    """Count a shard's n-grams by the terms of all shards."""
    if not shards.arrays("counts", *step).is_file():  # done, by a worker that died before it could say so
        return
    known, own = _terms(shards, step[1]), _terms(shards, *step)
    place = pc.index_in(own, value_set=known).fill_null(-1).to_numpy(zero_copy_only=False)
    placed = renumber(load_npz(shards.arrays("counts", *step)), place, len(known))
    save_npz(shards.arrays("placed", *step), placed, compressed=False)
    shards.arrays("counts", *step).unlink()


def fit(shards: Shards, step: Step) -> None:
    """The linear SVM of a shard without the rows of a fold."""
    shard, number = step
    fold = shards.load("fold", shard)
    rows = np.flatnonzero((fold != NO_FOLD) & (fold != number))
    codes = shards.load("codes", shard)[rows]
    if len(np.unique(codes)) < 2:  # nothing to tell apart
        return
    linear = fit_svm(_features(shards, shard, number, rows), codes, shards.svm_c, shards.seed)
    np.savez(shards.arrays("svm", number, shard), **linear._asdict())


def _learnt(shards: Shards, number: int) -> list[Learnt]:
    """What a model keeps of each block."""
    found = []
    for block in range(len(shards.blocks)):
        with np.load(shards.arrays("learnt", number, block), allow_pickle=False) as stored:
            found.append(Learnt(stored["kept"], stored["idf"]))
    return found


def _features(shards: Shards, shard: int, number: int, rows: Ints) -> csr_matrix:
    """TF-IDF of some rows of a shard, as the model of a fold has it."""
    learnt, parts = _learnt(shards, number), []
    for block, (kept, _) in enumerate(learnt):
        counts = load_npz(shards.arrays("placed", shard, block))
        parts.append(take(counts[rows], kept))
    together = csr_matrix(hstack(parts, format="csr", dtype=np.float32))
    return Weights(shards.blocks, [each_block.idf for each_block in learnt]).of(together)


def average(shards: Shards, number: int) -> None:
    """The mean of the shards' models; a class is averaged over the shards that know it."""
    classes = np.array(shards.classes)
    width = sum(len(learnt.kept) for learnt in _learnt(shards, number))
    coef, intercept = np.zeros((len(classes), width)), np.zeros(len(classes))
    models = np.zeros(len(classes), dtype=np.int64)
    for shard in range(shards.many):
        path = shards.arrays("svm", number, shard)
        if path.is_file():
            linear = _read_linear(path)
            known = np.searchsorted(classes, linear.classes)
            coef[known] += linear.coef
            intercept[known] += linear.intercept
            models[known] += 1
    if models.any():
        coef /= np.maximum(models, 1)[:, None]
        intercept = np.where(models > 0, intercept / np.maximum(models, 1), UNKNOWN)
    mean = Linear(classes, coef.astype(np.float32, order="F"), intercept.astype(np.float32))
    np.savez(shards.arrays("mean", number), **mean._asdict())


def _mean(shards: Shards, number: int) -> Linear:
    return _read_linear(shards.arrays("mean", number))


def _read_linear(path: Path) -> Linear:
    with np.load(path, allow_pickle=False) as stored:
        return Linear(stored["classes"], np.asfortranarray(stored["coef"]), stored["intercept"])


def score(shards: Shards, step: Step) -> Floats:
    """Scores of a fold's rows of a shard by the fold's model."""
    shard, number = step
    rows = np.flatnonzero(shards.load("fold", shard) == number)
    return _mean(shards, number).decision(_features(shards, shard, number, rows))
