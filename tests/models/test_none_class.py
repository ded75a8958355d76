from typing import NamedTuple

import numpy as np
import pytest

from rakuten.features.feature_set import FeatureBatch
from rakuten.models.linear import Moments, fit_lda
from rakuten.models.none_class import MIN_NONE_ROWS, fit_none_class
from rakuten.types import EmbeddingArray, IntArray
from tests.support.features import feature_table

WIDTH = 8


class Rows(NamedTuple):
    embeddings: EmbeddingArray
    y: IntArray
    fold: IntArray

    def moments(self) -> list[Moments]:
        folds = (np.flatnonzero((self.fold == number) & self.present()) for number in range(3))
        return [Moments.from_rows(self.embeddings, rows, self.y[rows], 2) for rows in folds]

    def present(self) -> np.ndarray:
        return ~np.isnan(self.embeddings[:, 0])


@pytest.fixture
def rows() -> Rows:
    """90 products of two codes around two centres, in three folds; the first has no text."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    embeddings = (rng.normal(size=(90, WIDTH)) + 4 * np.eye(WIDTH)[y]).astype(np.float16)
    embeddings[0] = np.nan
    return Rows(embeddings, y, np.arange(90) // 30)


def none_products(n_rows: int, seed: int = 1) -> FeatureBatch:
    """Products around a third centre, each with a text of its own."""
    embeddings = np.random.default_rng(seed).normal(size=(n_rows, WIDTH)) + 4 * np.eye(WIDTH)[2]
    return FeatureBatch(feature_table([f"objet {row}" for row in range(n_rows)]), embeddings.astype(np.float16))


def test_products_like_those_that_no_code_fits_score_higher(rows: Rows) -> None:
    found = fit_none_class(rows.embeddings, rows.present(), rows.fold, rows.moments(), none_products(12))
    assert found is not None
    assert np.isnan(found.train_scores).tolist() == [True] + [False] * 89
    assert found.none_scores.min() > np.nanmax(found.train_scores)
    new = none_products(50, seed=2).text_embeddings
    assert new is not None
    assert (new @ found.coef + found.intercept > np.nanquantile(found.train_scores, 0.99)).mean() > 0.9


def test_a_product_is_scored_by_a_model_without_its_fold(rows: Rows) -> None:
    none = none_products(12)
    found = fit_none_class(rows.embeddings, rows.present(), rows.fold, rows.moments(), none)
    assert found is not None
    assert none.text_embeddings is not None
    embeddings, y = np.vstack([rows.embeddings, none.text_embeddings]), np.concatenate([rows.y, np.full(12, 2)])
    train = np.flatnonzero(np.r_[rows.present() & (rows.fold != 1), np.ones(12, dtype=bool)])
    lda = fit_lda(Moments.from_rows(embeddings, train, y[train], 3), np.arange(3))
    expected = lda.decision_function(rows.embeddings[rows.fold == 1].astype(np.float32))[:, 2]
    assert found.train_scores[rows.fold == 1] == pytest.approx(expected, rel=1e-5)


def test_products_with_the_same_text_do_not_score_each_other(rows: Rows) -> None:
    """One far from all others would, next to its copy, score high; alone it does not."""
    none = none_products(12)
    assert none.text_embeddings is not None
    none.text_embeddings[:2] = -9 * np.eye(WIDTH)[5]
    copied = FeatureBatch(
        none.table.assign(designation_clean=["copie", "copie", *map(str, range(10))]), none.text_embeddings
    )
    apart = FeatureBatch(none.table, none.text_embeddings)
    scores = [
        fit_none_class(rows.embeddings, rows.present(), rows.fold, rows.moments(), batch) for batch in (copied, apart)
    ]
    together, separate = (found.none_scores[0] for found in scores if found is not None)
    assert separate > together + 1


def test_few_products_or_none_with_text_teach_nothing(rows: Rows) -> None:
    few, nothing = none_products(MIN_NONE_ROWS - 1), none_products(20)
    assert nothing.text_embeddings is not None
    nothing.text_embeddings[:] = np.nan
    for none in (few, nothing, FeatureBatch(none_products(20).table)):
        assert fit_none_class(rows.embeddings, rows.present(), rows.fold, rows.moments(), none) is None
