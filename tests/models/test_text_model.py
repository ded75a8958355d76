"""The text model over shards: one is the plain model, several are close to it and need not be held together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, hstack

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
from rakuten.models.linear import UNSEEN_CLASS_SCORE, LinearModel, fit_svm
from rakuten.models.text_model import ShardFolder, average_shards, fit_out_of_fold, write_texts

BLOCKS = (
    NgramBlock(("designation_clean",), False, "word", 1, 2, 400, 1.0),
    NgramBlock(("designation_clean", "description_clean"), True, "char_wb", 2, 3, 300, 0.5),
)
CLASSES = (10, 40, 2583)
WORDS = {10: "roman livre poemes auteur", 40: "jeu console manette", 2583: "piscine pompe bache filtre"}
FOLDS = 3


class Rows:
    """A table that comes in parts of so many rows."""

    def __init__(self, table: pd.DataFrame, together: int) -> None:
        self.table, self.together = table, together

    def __iter__(self) -> "embeddings.Iterator[pd.DataFrame]":
        return (self.table[at : at + self.together] for at in range(0, len(self.table), self.together))

    def __len__(self) -> int:
        return len(self.table)


def made(rows: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A table sorted by class, as a catalogue may be, its codes and folds."""
    rng = np.random.default_rng(0)
    codes = np.sort(rng.choice(CLASSES, rows, p=[0.5, 0.3, 0.2]))
    shared = [f"mot{n}" for n in range(40)]
    titles = [" ".join([*rng.choice(WORDS[code].split(), 2), *rng.choice(shared, 3)]) for code in codes]
    table = pd.DataFrame({"designation_clean": titles, "description_clean": "", "style": ""})
    return table, codes, rng.integers(0, FOLDS, rows)


def run(
    folder: Path, table: pd.DataFrame, codes: np.ndarray, fold: np.ndarray, many: int, together: int = 7
) -> tuple[NgramVectorizer, LinearModel, np.ndarray]:
    folder.mkdir()
    scores = np.full((len(table), len(CLASSES)), np.nan)
    there = (table["designation_clean"] != "").to_numpy()
    shards = ShardFolder(folder, many, FOLDS, BLOCKS, CLASSES, 0.4, 0)
    return *fit_out_of_fold(Rows(table, together), codes, fold, there, shards, scores), scores


def plainly(
    table: pd.DataFrame, codes: np.ndarray, seen: np.ndarray
) -> tuple[LinearModel, list[np.ndarray], csr_matrix]:
    """The model by the book: all rows in memory; and features of every row."""
    learnt, counted = [], []
    for block in BLOCKS:
        matrix, terms = count_ngrams(table, block)
        matrix.sort_indices()
        each = fit_vocabulary(block, np.bincount(matrix[seen].indices, minlength=len(terms)), len(seen))
        learnt.append((each, terms[each.kept]))
        counted.append(select_columns(matrix, each.kept))
    weights = TfidfWeighter(BLOCKS, [each.idf for each, _ in learnt])
    features = weights.of(csr_matrix(hstack(counted, format="csr", dtype=np.float32)))
    return fit_svm(features[seen], codes[seen], 0.4, 0), [terms for _, terms in learnt], features


def test_one_shard_is_the_model_on_all_rows(tmp_path: Path) -> None:
    table, codes, fold = made(300)
    vectorizer, linear, scores = run(tmp_path / "a", table, codes, fold, 1)
    expected, terms, _ = plainly(table, codes, np.arange(300))
    assert [list(each) for each in terms] == list(vectorizer.terms)
    assert (linear.coef == expected.coef).all()
    assert (linear.intercept == expected.intercept).all()
    for number in range(FOLDS):
        model, _, features = plainly(table, codes, np.flatnonzero(fold != number))
        assert scores[fold == number] == pytest.approx(model.decision(features[fold == number]), abs=1e-6)


def test_a_step_may_be_done_twice_when_the_worker_died_that_had_done_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, codes, fold = made(300)
    _, once, scores = run(tmp_path / "once", table, codes, fold, 3)
    for name in ("count_block", "vocabulary", "place_terms", "fit", "average", "score"):
        monkeypatch.setattr(module, name, partial(_twice, getattr(module, name)))
    _, twice, again = run(tmp_path / "twice", table, codes, fold, 3)
    assert (twice.coef == once.coef).all()
    assert (again == scores).all()


def _twice(step: Callable[..., object], *arguments: object) -> object:
    step(*arguments)
    return step(*arguments)


def test_several_shards_learn_nearly_as_well_and_from_the_same_terms(tmp_path: Path) -> None:
    table, codes, fold = made(1200)
    one, _, alone = run(tmp_path / "a", table, codes, fold, 1)
    several, linear, scores = run(tmp_path / "b", table, codes, fold, 4)
    assert several.terms == one.terms
    assert all((a == b).all() for a, b in zip(several.idf, one.idf, strict=True))
    right, right_alone = ((np.array(CLASSES)[each.argmax(axis=1)] == codes).mean() for each in (scores, alone))
    assert right > 0.95 * right_alone
    assert linear.classes.tolist() == list(CLASSES)
    assert not np.isnan(scores).any()


def test_how_the_table_comes_in_parts_changes_nothing(tmp_path: Path) -> None:
    table, codes, fold = made(200)
    results = [run(tmp_path / str(size), table, codes, fold, 3, size) for size in (1, 7, 200)]
    for vectorizer, linear, scores in results[1:]:
        assert vectorizer.terms == results[0][0].terms
        assert (linear.coef == results[0][1].coef).all()
        assert (scores == results[0][2]).all()


def test_each_shard_has_its_own_rows_texts_in_order(tmp_path: Path) -> None:
    table, *_ = made(23)
    shards = ShardFolder(tmp_path, 4, FOLDS, BLOCKS, CLASSES, 0.4, 0)
    np.save(tmp_path / "shard.npy", assign_shards(23, 4, 0))
    write_texts(Rows(table, 5), shards)
    for shard in range(4):
        texts = pd.read_parquet(shards.file("texts", shard))
        assert texts["designation_clean"].tolist() == table["designation_clean"].iloc[shards.rows(shard)].tolist()


@pytest.mark.parametrize("order", ["sorted", "in turn"])
def test_no_order_of_the_table_makes_a_shard_of_one_class(order: str, tmp_path: Path) -> None:
    table, codes, fold = made(900)
    if order == "in turn":  # as many classes as shards, one after the other
        rows = np.argsort(
            np.concatenate([np.arange(count) for count in np.unique(codes, return_counts=True)[1]]), kind="stable"
        )
        table, codes = table.iloc[rows].reset_index(drop=True), codes[rows]
    _, _, scores = run(tmp_path / "a", table, codes, fold, 3)
    for shard in range(3):
        assert len(np.unique(codes[assign_shards(900, 3, 0) == shard])) == 3
    assert (np.array(CLASSES)[scores.argmax(axis=1)] == codes).mean() > 0.9


def test_rows_without_text_are_left_out(tmp_path: Path) -> None:
    table, codes, fold = made(300)
    empty = np.arange(300) % 10 == 0
    table.loc[empty, ["designation_clean", "description_clean"]] = ""
    _, linear, scores = run(tmp_path / "a", table, codes, fold, 2)
    assert np.isnan(scores[empty]).all()
    assert not np.isnan(scores[~empty]).any()
    kept = table[~empty].reset_index(drop=True)
    _, without, _ = run(tmp_path / "b", kept, codes[~empty], fold[~empty], 1)
    assert linear.coef.shape == without.coef.shape


def test_rare_terms_fall_out_where_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", 1)
    table, codes, fold = made(1200)
    _, _, whole = run(tmp_path / "a", table, codes, fold, 1)
    vectorizer, _, scores = run(tmp_path / "b", table, codes, fold, 4)
    assert [len(terms) for terms in vectorizer.terms] == [
        min(block.limit, len(count_ngrams(table, block).terms)) for block in BLOCKS
    ]
    assert vectorizer.terms[0] == sorted(vectorizer.terms[0])
    assert (scores.argmax(axis=1) == whole.argmax(axis=1)).mean() > 0.9


def test_a_class_is_averaged_over_the_shards_that_know_it(tmp_path: Path) -> None:
    block = BLOCKS[:1]
    shards = ShardFolder(tmp_path, 2, 1, block, CLASSES, 0.4, 0)
    np.savez(shards.arrays("learnt", 0, 0), kept=np.array([0]), idf=np.ones(1, np.float32))
    for shard, (classes, values) in enumerate([([10, 40], [1.0, -1.0]), ([10, 2583], [3.0, 5.0])]):
        coef, intercept = np.array(values, np.float32)[:, None], np.array(values, np.float32)
        np.savez(shards.arrays("svm", 0, shard), **LinearModel(np.array(classes), coef, intercept)._asdict())
    average_shards(shards, 0)
    mean = module._averaged_model(shards, 0)
    assert mean.classes.tolist() == list(CLASSES)
    assert mean.coef.tolist() == [[2.0], [-1.0], [5.0]]
    assert mean.intercept.tolist() == [2.0, -1.0, 5.0]
    shards.arrays("svm", 0, 1).unlink()
    np.savez(shards.arrays("svm", 0, 0), **LinearModel(np.array([10, 40]), mean.coef[:2], mean.intercept[:2])._asdict())
    average_shards(shards, 0)
    assert module._averaged_model(shards, 0).intercept.tolist() == [2.0, -1.0, UNSEEN_CLASS_SCORE]


def test_a_fold_with_nothing_to_tell_apart_scores_alike(tmp_path: Path) -> None:
    table, codes, fold = made(60)
    fold[codes == 10] = 0
    fold[codes != 10] = 1
    codes = np.where(codes == 10, 10, 40)
    _, linear, scores = run(tmp_path / "a", table, codes, fold, 1)
    assert (scores[:, 0] == scores[0, 0]).all()
    assert linear.coef.any()
