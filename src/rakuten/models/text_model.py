"""The n-gram model for any number of rows: trained on shards that fit into memory, and averaged.

Rows are split into as many shards as `train.shard_rows` asks for. The vocabulary is that of all rows. Each shard has a
linear SVM of its own, and the mean of their coefficients is the model (parameter mixing: McDonald, Hall and Mann
2010). Rows that fit into one shard give exactly what one SVM on all of them gives.

The steps pass their results on in files, so that any worker can do any step; memory grows with the size of a shard,
not with the number of rows:

    texts -> counts, terms -> vocabulary, kept -> aligned -> svm -> mean -> scores
"""

from collections.abc import Callable, Iterable, Sequence
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
from rakuten.compute import parallel_map
from rakuten.disk_array import DiskArray
from rakuten.evaluation.folds import assign_shards
from rakuten.features.ngrams import (
    FittedVocabulary,
    NgramBlock,
    NgramVectorizer,
    TfidfWeighter,
    count_ngrams,
    fit_vocabulary,
    remap_columns,
    select_columns,
)
from rakuten.models.fusion_selection import TrainingRows
from rakuten.models.linear import UNSEEN_CLASS_SCORE, LinearModel, fit_svm
from rakuten.types import FloatArray, IntArray

Step = TypeVar("Step")

CANDIDATES = 4  # times max_features: terms whose document frequency is followed from shard to shard
NO_FOLD = -1  # the fold of a row that has no text


class BlockStep(NamedTuple):
    """What is done once for each shard and each n-gram block."""

    shard: int
    block: int


class ModelStep(NamedTuple):
    """What is done once for each shard and each model. A model is named by the fold that it is not trained on."""

    shard: int
    held_out: int | None  # None: the model on all rows


class ShardFolder(NamedTuple):
    """The folder with the shards and all intermediate results, and the settings with which each shard is trained."""

    folder: Path  # every worker sees it
    n_shards: int
    n_folds: int
    blocks: tuple[NgramBlock, ...]
    classes: tuple[int, ...]  # prdtypecode of each class column
    svm_c: float
    seed: int

    @property
    def models(self) -> list[int | None]:
        """The fold that each model is not trained on; the model on all rows first, since it takes longest."""
        return [None, *range(self.n_folds)]

    def shard_of_row(self) -> Path:
        """The shard number of each row."""
        return self.folder / "shard.npy"

    def texts(self, shard: int) -> Path:
        """The text columns of a shard's rows."""
        return self.folder / f"texts-{shard}.parquet"

    def counts(self, step: BlockStep) -> Path:
        """Rows x terms of the shard."""
        return self.folder / f"counts-{step.shard}-{step.block}.npz"

    def terms(self, step: BlockStep) -> Path:
        """The terms of the shard, with their document frequency in each fold."""
        return self.folder / f"terms-{step.shard}-{step.block}.parquet"

    def vocabulary(self, block: int) -> Path:
        """The terms of all shards."""
        return self.folder / f"vocabulary-{block}.parquet"

    def kept_terms(self, held_out: int | None, block: int) -> Path:
        """Which terms of the vocabulary a model keeps, and their idf."""
        return self.folder / f"kept-{_model_name(held_out)}-{block}.npz"

    def aligned_counts(self, step: BlockStep) -> Path:
        """Rows x vocabulary."""
        return self.folder / f"aligned-{step.shard}-{step.block}.npz"

    def svm(self, step: ModelStep) -> Path:
        """The linear model of one shard."""
        return self.folder / f"svm-{_model_name(step.held_out)}-{step.shard}.npz"

    def mean(self, held_out: int | None) -> Path:
        """The mean of the linear models of all shards."""
        return self.folder / f"mean-{_model_name(held_out)}.npz"

    def rows(self, shard: int) -> IntArray:
        """The row numbers, in the whole table, of a shard's rows; ascending."""
        return np.flatnonzero(np.load(self.shard_of_row(), mmap_mode="r", allow_pickle=False) == shard)

    def labels(self, shard: int) -> tuple[IntArray, IntArray]:
        """prdtypecode and fold of a shard's rows."""
        rows = self.rows(shard)
        arrays = (np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("codes", "fold"))
        codes, fold = (np.array(array[rows]) for array in arrays)
        return codes, fold


def _model_name(held_out: int | None) -> str:
    return "all" if held_out is None else f"without{held_out}"


def fit_out_of_fold(
    table: Iterable[pd.DataFrame], rows: TrainingRows, shards: ShardFolder, scores: DiskArray
) -> tuple[NgramVectorizer, LinearModel]:
    """Learn the n-gram model, and score each fold by a model that saw neither its rows nor their titles.

    Args:
        table: the feature table in chunks, in order, with the text columns of the blocks.
        rows: rows without text are left out.
        scores: rows x classes, where the out-of-fold scores are written.

    Returns:
        The vectorizer and the linear model, both learnt from all rows.
    """
    fold = np.where(rows.has_text, rows.fold, NO_FOLD)
    np.save(shards.shard_of_row(), assign_shards(len(rows), shards.n_shards, shards.seed))
    np.save(shards.folder / "codes.npy", rows.classes[rows.y])
    np.save(shards.folder / "fold.npy", fold)
    write_texts(table, shards)
    # The longest steps of each kind come first, so that no worker is left with one at the end.
    blocks, fold_rows = range(len(shards.blocks)), np.bincount(rows.fold[rows.has_text], minlength=shards.n_folds)
    block_steps = [BlockStep(shard, block) for block in blocks for shard in range(shards.n_shards)]
    _run_steps(partial(count_block, shards), block_steps, _block_label, "counting n-grams")
    _run_steps(partial(merge_vocabulary, shards, fold_rows), blocks, "block {} of n-grams".format, "choosing n-grams")
    _run_steps(partial(align_counts, shards), block_steps, _block_label, "aligning n-grams")
    model_steps = [ModelStep(shard, held_out) for held_out in shards.models for shard in range(shards.n_shards)]
    _run_steps(partial(fit_shard, shards), model_steps, _model_label, "fitting n-gram models")
    _run_steps(partial(average_shards, shards), shards.models, _mean_label, "averaging n-gram models")
    for path in shards.folder.glob("svm-*"):
        path.unlink()
    _score_out_of_fold(shards, scores)
    return _fitted(shards)


def _score_out_of_fold(shards: ShardFolder, scores: DiskArray) -> None:
    steps = [ModelStep(shard, fold) for shard in range(shards.n_shards) for fold in range(shards.n_folds)]
    results = parallel_map(partial(score_shard, shards), steps, 1, _model_label)
    for step, step_scores in zip(steps, progress(results, len(steps), "scoring out of fold"), strict=True):
        _, fold = shards.labels(step.shard)
        scores[shards.rows(step.shard)[fold == step.held_out]] = step_scores


def _fitted(shards: ShardFolder) -> tuple[NgramVectorizer, LinearModel]:
    """The vectorizer and the linear model on all rows."""
    vocabularies = _read_vocabularies(shards, None)
    terms = [
        _read_terms(shards.vocabulary(block)).take(pa.array(vocabulary.kept)).to_pylist()
        for block, vocabulary in enumerate(vocabularies)
    ]
    vectorizer = NgramVectorizer(shards.blocks, terms, [vocabulary.idf for vocabulary in vocabularies])
    return vectorizer, _read_linear_model(shards.mean(None))


def _run_steps(task: Callable[[Step], None], steps: Sequence[Step], label: Callable[[Step], str], what: str) -> None:
    for _ in progress(parallel_map(task, steps, 1, label), len(steps), what):
        pass


def _block_label(step: BlockStep) -> str:
    return f"shard {step.shard} of the train rows, n-gram block {step.block}"


def _model_label(step: ModelStep) -> str:
    return f"shard {step.shard} of the train rows, {_mean_label(step.held_out)}"


def _mean_label(held_out: int | None) -> str:
    return "the n-gram model on all rows" if held_out is None else f"the n-gram model without fold {held_out}"


def write_texts(table: Iterable[pd.DataFrame], shards: ShardFolder) -> None:
    """Write the text columns of each shard's rows, in order."""
    shard_of_row = np.load(shards.shard_of_row(), mmap_mode="r", allow_pickle=False)
    columns = sorted({column for block in shards.blocks for column in block.columns})
    schema = pa.schema([(name, pa.string()) for name in columns])
    writers = [pq.ParquetWriter(shards.texts(shard), schema) for shard in range(shards.n_shards)]
    try:
        start = 0
        for chunk in table:
            shard_of_chunk = shard_of_row[start : start + len(chunk)]
            for shard, writer in enumerate(writers):
                texts = chunk.loc[shard_of_chunk == shard, columns]
                writer.write_table(pa.Table.from_pandas(texts, schema, preserve_index=False))
            start += len(chunk)
    finally:
        for writer in writers:
            writer.close()


def count_block(shards: ShardFolder, step: BlockStep) -> None:
    """Count the n-grams of a block in a shard, and the rows of each fold that have each term."""
    block, (_, fold) = shards.blocks[step.block], shards.labels(step.shard)
    with pq.ParquetFile(shards.texts(step.shard)) as file:
        counts, terms = count_ngrams(file.read(list(block.columns)).to_pandas(), block)
    counts.sort_indices()
    frequency = {
        _fold_column(number): np.bincount(counts[fold == number].indices, minlength=len(terms)).astype(np.int64)
        for number in range(shards.n_folds)
    }
    save_npz(shards.counts(step), counts, compressed=False)
    pq.write_table(pa.table({"term": pa.array(terms, pa.large_string()), **frequency}), shards.terms(step))


def _fold_column(fold: int) -> str:
    return f"fold_{fold}"


def merge_vocabulary(shards: ShardFolder, fold_rows: IntArray, block: int) -> None:
    """Add up the document frequencies of a block's terms over the shards, and note which terms each model keeps.

    After each shard only the CANDIDATES * max_features most frequent terms are kept. A term that is dropped and seen
    again later starts from zero, so its document frequency may be too low (lossy counting: Manku and Motwani 2002).
    That cannot happen in a single shard, and hardly to a term that would be kept.

    Args:
        fold_rows: number of rows with text in each fold.
    """
    columns = [_fold_column(fold) for fold in range(shards.n_folds)]
    n_candidates = CANDIDATES * shards.blocks[block].max_features
    merged: pa.Table | None = None
    for shard in range(shards.n_shards):
        table = pq.read_table(shards.terms(BlockStep(shard, block)), partitioning=None)
        if merged is not None:
            both = pa.concat_tables([merged, table]).group_by("term").aggregate([(name, "sum") for name in columns])
            table = both.rename_columns(["term", *columns])
        merged = _most_frequent(table, columns, n_candidates)
    assert merged is not None
    pq.write_table(merged.select(["term"]), shards.vocabulary(block))
    frequency = np.stack([merged[name].to_numpy() for name in columns])
    for held_out in shards.models:
        train_folds = [fold for fold in range(shards.n_folds) if fold != held_out]
        n_rows = int(fold_rows[train_folds].sum())
        vocabulary = fit_vocabulary(shards.blocks[block], frequency[train_folds].sum(axis=0), n_rows)
        np.savez(shards.kept_terms(held_out, block), **vocabulary._asdict())


def _most_frequent(terms: pa.Table, columns: Sequence[str], limit: int) -> pa.Table:
    """The terms that stand in most rows, at most `limit` of them, in alphabetical order."""
    terms = terms.sort_by("term")
    if len(terms) <= limit:
        return terms
    total = np.sum([terms[name].to_numpy() for name in columns], axis=0)
    return terms.take(pa.array(np.sort(np.argsort(-total, kind="stable")[:limit])))


def _read_terms(path: Path) -> pa.Array:
    """The terms in alphabetical order."""
    return pq.read_table(path, columns=["term"], partitioning=None)["term"].combine_chunks()


def align_counts(shards: ShardFolder, step: BlockStep) -> None:
    """Move the counts of a shard from its own terms to the columns of the vocabulary."""
    if not shards.counts(step).is_file():  # done already, by a worker that died before it could report
        return
    vocabulary, terms = _read_terms(shards.vocabulary(step.block)), _read_terms(shards.terms(step))
    new_column = pc.index_in(terms, value_set=vocabulary).fill_null(-1).to_numpy(zero_copy_only=False)
    aligned = remap_columns(load_npz(shards.counts(step)), new_column, len(vocabulary))
    save_npz(shards.aligned_counts(step), aligned, compressed=False)
    shards.counts(step).unlink()


def fit_shard(shards: ShardFolder, step: ModelStep) -> None:
    """The linear SVM on the rows of a shard that have text and are not in the held-out fold."""
    codes, fold = shards.labels(step.shard)
    rows = np.flatnonzero((fold != NO_FOLD) & (fold != step.held_out))
    if len(np.unique(codes[rows])) < 2:  # nothing to separate
        return
    linear = fit_svm(_tfidf(shards, step, rows), codes[rows], shards.svm_c, shards.seed)
    np.savez(shards.svm(step), **linear._asdict())


def _read_vocabularies(shards: ShardFolder, held_out: int | None) -> list[FittedVocabulary]:
    """What a model keeps of each block."""
    vocabularies = []
    for block in range(len(shards.blocks)):
        with np.load(shards.kept_terms(held_out, block), allow_pickle=False) as stored:
            vocabularies.append(FittedVocabulary(stored["kept"], stored["idf"]))
    return vocabularies


def _tfidf(shards: ShardFolder, step: ModelStep, rows: IntArray) -> csr_matrix:
    """TF-IDF of some rows of a shard by the vocabulary of a model: rows x features."""
    vocabularies = _read_vocabularies(shards, step.held_out)
    parts = [
        select_columns(load_npz(shards.aligned_counts(BlockStep(step.shard, block)))[rows], vocabulary.kept)
        for block, vocabulary in enumerate(vocabularies)
    ]
    counts = csr_matrix(hstack(parts, format="csr", dtype=np.float32))
    return TfidfWeighter(shards.blocks, [vocabulary.idf for vocabulary in vocabularies]).transform(counts)


def average_shards(shards: ShardFolder, held_out: int | None) -> None:
    """The mean of the shards' models; a class is averaged over the shards that have rows of it."""
    classes = np.array(shards.classes)
    n_features = sum(len(vocabulary.kept) for vocabulary in _read_vocabularies(shards, held_out))
    coef, intercept = np.zeros((len(classes), n_features)), np.zeros(len(classes))
    n_models = np.zeros(len(classes), dtype=np.int64)
    for shard in range(shards.n_shards):
        path = shards.svm(ModelStep(shard, held_out))
        if path.is_file():
            linear = _read_linear_model(path)
            columns = np.searchsorted(classes, linear.classes)
            coef[columns] += linear.coef
            intercept[columns] += linear.intercept
            n_models[columns] += 1
    if n_models.any():
        coef /= np.maximum(n_models, 1)[:, None]
        intercept = np.where(n_models > 0, intercept / np.maximum(n_models, 1), UNSEEN_CLASS_SCORE)
    mean = LinearModel(classes, coef.astype(np.float32, order="F"), intercept.astype(np.float32))
    np.savez(shards.mean(held_out), **mean._asdict())


def _read_linear_model(path: Path) -> LinearModel:
    with np.load(path, allow_pickle=False) as stored:
        return LinearModel(stored["classes"], np.asfortranarray(stored["coef"]), stored["intercept"])


def score_shard(shards: ShardFolder, step: ModelStep) -> FloatArray:
    """Scores (rows x classes) of the held-out fold's rows of a shard, by the model that did not see the fold."""
    _, fold = shards.labels(step.shard)
    rows = np.flatnonzero(fold == step.held_out)
    return _read_linear_model(shards.mean(step.held_out)).decision_function(_tfidf(shards, step, rows))
