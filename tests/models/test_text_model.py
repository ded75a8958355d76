"""The n-gram model over shards: one shard gives the plain model, several come close to it."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, hstack

from rakuten.disk_array import DiskArray, row_chunks
from rakuten.evaluation.folds import assign_shards
from rakuten.features.ngrams import (
    NgramBlock,
    NgramVectorizer,
    TfidfWeighter,
    count_ngrams,
    fit_vocabulary,
    select_columns,
)
from rakuten.models import text_model as module
from rakuten.models.fusion_selection import TrainingRows
from rakuten.models.linear import UNSEEN_CLASS_SCORE, LinearModel, fit_svm
from rakuten.models.text_model import ModelStep, ShardFolder, average_shards, fit_out_of_fold, write_texts
from rakuten.types import FloatArray, IntArray

BLOCKS = (
    NgramBlock(("designation_clean",), False, "word", (1, 2), 400, 1.0),
    NgramBlock(("designation_clean", "description_clean"), True, "char_wb", (2, 3), 300, 0.5),
)
CLASSES = np.array([10, 40, 2583])
VOCABULARY = ("roman livre poemes auteur", "jeu console manette", "piscine pompe bache filtre")  # of each class
N_FOLDS, SVM_C, SEED = 3, 0.4, 0


class TextRows(NamedTuple):
    """Titles, and the class column and fold of each."""

    table: pd.DataFrame
    y: IntArray
    fold: IntArray

    def chunks(self, size: int) -> Iterator[pd.DataFrame]:
        return (self.table[rows] for rows in row_chunks(len(self.table), size))

    def training_rows(self) -> TrainingRows:
        has_text = (self.table["designation_clean"] != "").to_numpy()
        return TrainingRows(CLASSES, self.y, self.fold, has_text, SEED)


class Fitted(NamedTuple):
    vectorizer: NgramVectorizer
    linear: LinearModel
    scores: FloatArray  # out of fold

    def accuracy(self, y: IntArray) -> float:
        return float((self.scores.argmax(axis=1) == y).mean())


def make_rows(n_rows: int) -> TextRows:
    """A table that is sorted by class, as a catalogue may be."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.choice(3, n_rows, p=[0.5, 0.3, 0.2]))
    common = [f"mot{number}" for number in range(40)]
    titles = [" ".join([*rng.choice(VOCABULARY[k].split(), 2), *rng.choice(common, 3)]) for k in y]
    table = pd.DataFrame({"designation_clean": titles, "description_clean": "", "style": ""})
    return TextRows(table, y, rng.integers(0, N_FOLDS, n_rows))


def make_shards(folder: Path, n_shards: int, n_folds: int = N_FOLDS) -> ShardFolder:
    return ShardFolder(folder, n_shards, n_folds, BLOCKS, tuple(CLASSES.tolist()), SVM_C, SEED)


def fit_shards(folder: Path, rows: TextRows, n_shards: int, chunk_size: int = 7) -> Fitted:
    shards = make_shards(folder / "shards", n_shards)
    shards.folder.mkdir(parents=True)
    scores = DiskArray.full(folder / "scores.npy", (len(rows.table), len(CLASSES)), np.nan)
    vectorizer, linear = fit_out_of_fold(rows.chunks(chunk_size), rows.training_rows(), shards, scores)
    return Fitted(vectorizer, linear, scores[:])


def fit_in_memory(rows: TextRows, train: IntArray) -> tuple[LinearModel, list[list[str]], csr_matrix]:
    """The same model on the rows `train` without shards: model, terms of each block, features of every row."""
    vocabularies, terms, counts = [], [], []
    for block in BLOCKS:
        matrix, block_terms = count_ngrams(rows.table, block)
        matrix.sort_indices()
        frequency = np.bincount(matrix[train].indices, minlength=len(block_terms))
        vocabulary = fit_vocabulary(block, frequency, len(train))
        vocabularies.append(vocabulary)
        terms.append(block_terms[vocabulary.kept].tolist())
        counts.append(select_columns(matrix, vocabulary.kept))
    weighter = TfidfWeighter(BLOCKS, [vocabulary.idf for vocabulary in vocabularies])
    features = weighter.transform(csr_matrix(hstack(counts, format="csr", dtype=np.float32)))
    return fit_svm(features[train], CLASSES[rows.y[train]], SVM_C, SEED), terms, features


def test_one_shard_gives_the_model_on_all_rows(tmp_path: Path) -> None:
    rows = make_rows(300)
    fitted = fit_shards(tmp_path, rows, 1)
    linear, terms, _ = fit_in_memory(rows, np.arange(300))
    assert list(fitted.vectorizer.terms) == terms
    assert (fitted.linear.coef == linear.coef).all()
    assert (fitted.linear.intercept == linear.intercept).all()


def test_a_fold_is_scored_by_a_model_of_the_other_folds(tmp_path: Path) -> None:
    """Also its vocabulary and its idf are those of the other folds."""
    rows = make_rows(300)
    scores = fit_shards(tmp_path, rows, 1).scores
    for fold in range(N_FOLDS):
        linear, _, features = fit_in_memory(rows, np.flatnonzero(rows.fold != fold))
        held_out = rows.fold == fold
        assert scores[held_out] == pytest.approx(linear.decision_function(features[held_out]), abs=1e-6)


def test_several_shards_learn_nearly_as_well_and_from_the_same_terms(tmp_path: Path) -> None:
    rows = make_rows(1200)
    one, several = fit_shards(tmp_path / "1", rows, 1), fit_shards(tmp_path / "4", rows, 4)
    assert several.vectorizer.terms == one.vectorizer.terms
    assert all((a == b).all() for a, b in zip(several.vectorizer.idf, one.vectorizer.idf, strict=True))
    assert several.accuracy(rows.y) > 0.95 * one.accuracy(rows.y)
    assert several.linear.classes.tolist() == CLASSES.tolist()
    assert not np.isnan(several.scores).any()


def test_a_step_may_be_repeated_after_the_worker_that_did_it_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(300)
    once = fit_shards(tmp_path / "once", rows, 3)
    for name in ("count_block", "merge_vocabulary", "align_counts", "fit_shard", "average_shards", "score_shard"):
        monkeypatch.setattr(module, name, partial(_twice, getattr(module, name)))
    twice = fit_shards(tmp_path / "twice", rows, 3)
    assert (twice.linear.coef == once.linear.coef).all()
    assert (twice.scores == once.scores).all()


def _twice(step: Callable[..., object], *arguments: object) -> object:
    step(*arguments)
    return step(*arguments)


def test_the_size_of_the_chunks_of_the_table_changes_nothing(tmp_path: Path) -> None:
    rows = make_rows(200)
    first, *others = (fit_shards(tmp_path / str(size), rows, 3, size) for size in (1, 7, 200))
    for other in others:
        assert other.vectorizer.terms == first.vectorizer.terms
        assert (other.linear.coef == first.linear.coef).all()
        assert (other.scores == first.scores).all()


def test_each_shard_has_the_texts_of_its_rows_in_order(tmp_path: Path) -> None:
    rows, shards = make_rows(23), make_shards(tmp_path, 4)
    np.save(shards.shard_of_row(), assign_shards(23, 4, SEED))
    write_texts(rows.chunks(5), shards)
    for shard in range(4):
        titles = pd.read_parquet(shards.texts(shard))["designation_clean"].tolist()
        assert titles == rows.table["designation_clean"].iloc[shards.rows(shard)].tolist()


@pytest.mark.parametrize("order", ["sorted", "alternating"])
def test_no_order_of_the_table_makes_a_shard_of_one_class(order: str, tmp_path: Path) -> None:
    rows = make_rows(900)
    if order == "alternating":  # as many classes as shards, one after the other
        number_in_class = np.concatenate([np.arange(count) for count in np.bincount(rows.y)])
        sequence = np.argsort(number_in_class, kind="stable")
        rows = rows._replace(table=rows.table.iloc[sequence].reset_index(drop=True), y=rows.y[sequence])
    shard_of_row = assign_shards(900, 3, SEED)
    assert all(len(np.unique(rows.y[shard_of_row == shard])) == 3 for shard in range(3))
    assert fit_shards(tmp_path, rows, 3).accuracy(rows.y) > 0.9


def test_rows_without_text_are_left_out(tmp_path: Path) -> None:
    rows = make_rows(300)
    empty = np.arange(300) % 10 == 0
    rows.table.loc[empty, "designation_clean"] = ""
    fitted = fit_shards(tmp_path / "all", rows, 1)
    assert np.isnan(fitted.scores[empty]).all()
    assert not np.isnan(fitted.scores[~empty]).any()
    with_text = TextRows(rows.table[~empty].reset_index(drop=True), rows.y[~empty], rows.fold[~empty])
    expected = fit_shards(tmp_path / "with-text", with_text, 1)
    assert fitted.vectorizer.terms == expected.vectorizer.terms
    assert all((a == b).all() for a, b in zip(fitted.vectorizer.idf, expected.vectorizer.idf, strict=True))
    assert (fitted.linear.coef == expected.linear.coef).all()


def test_rare_terms_are_dropped_where_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", 1)
    monkeypatch.setattr(module, "parallel_map", lambda task, items, *_: map(task, items))  # in this process
    rows = make_rows(1200)
    one, several = fit_shards(tmp_path / "1", rows, 1), fit_shards(tmp_path / "4", rows, 4)
    n_terms = [min(block.max_features, len(count_ngrams(rows.table, block).terms)) for block in BLOCKS]
    assert [len(terms) for terms in several.vectorizer.terms] == n_terms
    assert several.vectorizer.terms[0] == sorted(several.vectorizer.terms[0])
    shards = make_shards(tmp_path / "4" / "shards", 4)
    assert [len(pd.read_parquet(shards.vocabulary(block))) for block in range(len(BLOCKS))] == n_terms
    assert (several.scores.argmax(axis=1) == one.scores.argmax(axis=1)).mean() > 0.9


def average(folder: Path, models: dict[int, LinearModel], n_shards: int) -> LinearModel:
    """The mean of these models of shards, of one feature, for the model that is not trained on fold 0."""
    shards = make_shards(folder, n_shards)._replace(blocks=BLOCKS[:1], n_folds=1)
    np.savez(shards.kept_terms(0, 0), kept=np.array([0]), idf=np.ones(1, np.float32))
    for shard, model in models.items():
        np.savez(shards.svm(ModelStep(shard, 0)), **model._asdict())
    average_shards(shards, 0)
    with np.load(shards.mean(0)) as stored:
        return LinearModel(stored["classes"], stored["coef"], stored["intercept"])


def one_feature_model(classes: list[int], values: list[float]) -> LinearModel:
    coefficients = np.array(values, np.float32)
    return LinearModel(np.array(classes), coefficients[:, None], coefficients)


def test_a_class_is_averaged_over_the_shards_that_have_rows_of_it(tmp_path: Path) -> None:
    models = {0: one_feature_model([10, 40], [1, -1]), 1: one_feature_model([10, 2583], [3, 5])}
    mean = average(tmp_path, models, 2)
    assert mean.classes.tolist() == CLASSES.tolist()
    assert mean.coef.tolist() == [[2], [-1], [5]]
    assert mean.intercept.tolist() == [2, -1, 5]


def test_a_class_without_rows_in_any_shard_has_a_low_score(tmp_path: Path) -> None:
    """Shard 1 has no model: its rows are of one class."""
    mean = average(tmp_path, {0: one_feature_model([10, 40], [1, -1])}, 2)
    assert mean.intercept.tolist() == [1, -1, UNSEEN_CLASS_SCORE]
    assert mean.coef.tolist() == [[1], [-1], [0]]


def test_a_fold_whose_model_has_one_class_has_constant_scores(tmp_path: Path) -> None:
    rows = make_rows(60)
    y = np.minimum(rows.y, 1)
    fitted = fit_shards(tmp_path, rows._replace(y=y, fold=y), 1)
    assert (fitted.scores == fitted.scores[0, 0]).all()
    assert fitted.linear.coef.any()
