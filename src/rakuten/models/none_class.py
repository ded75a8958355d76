"""What is learnt from products that people said none of the codes fits: one more class in the analysis of the text.

Such products are no train rows: the model must never answer with "none of the codes". The score of this class is only
used for the novelty of a product, see `models.novelty`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rakuten.disk_array import MAPPED_ROWS, Array2D, missing_rows
from rakuten.features.feature_set import FeatureBatch
from rakuten.features.text_features import texts_to_embed
from rakuten.models.linear import LinearModel, Moments, fit_lda
from rakuten.types import BoolArray, FloatArray, IntArray

MIN_NONE_ROWS = 10  # products from which on the class is learnt; docs/notebook.md has what so few are worth


class NoneClass(NamedTuple):
    """The class "none of the codes". A score is that of the discriminant analysis; the higher, the more like it."""

    train_scores: FloatArray  # of each train row, by a model without its fold; NaN for one without an embedding
    none_scores: FloatArray  # of each product that no code fits, likewise
    coef: FloatArray  # width: the score is `embedding @ coef + intercept`
    intercept: FloatArray  # one number


def fit_none_class(
    embeddings: Array2D, present: BoolArray, fold: IntArray, moments: Sequence[Moments], none: FeatureBatch
) -> NoneClass | None:
    """Fit the discriminant analysis with one class more; None where there are fewer than MIN_NONE_ROWS products.

    Args:
        embeddings: those of the texts of the train rows, rows x width.
        present: the train rows that have an embedding.
        fold: number of each train row's fold.
        moments: of each fold's rows, in the order of the numbers.
        none: the products that no code fits.
    """
    if none.text_embeddings is None or (has_text := ~missing_rows(none.text_embeddings)).sum() < MIN_NONE_ROWS:
        return None
    numbers = np.unique(fold)
    none_fold = _fold_of_texts(none, len(numbers))
    total, none_total = Moments.total(moments), _moments(none.text_embeddings, has_text)
    train_scores, none_scores = np.full(len(fold), np.nan), np.full(len(none), np.nan)
    for number, fold_moments in zip(numbers, moments, strict=True):
        model = _fit(total - fold_moments, none_total)
        for rows in _parts(np.flatnonzero(present & (fold == number))):
            train_scores[rows] = _score(model, embeddings, rows)
    for number in np.unique(none_fold):
        held_out = has_text & (none_fold == number)
        if held_out.any():
            model = _fit(total, none_total - _moments(none.text_embeddings, held_out))
            none_scores[held_out] = _score(model, none.text_embeddings, np.flatnonzero(held_out))
    final = _fit(total, none_total)
    return NoneClass(train_scores, none_scores, final.coef[0].astype(np.float64), final.intercept.astype(np.float64))


def _fold_of_texts(none: FeatureBatch, n_folds: int) -> IntArray:
    """A fold for each product; the same text is never in two."""
    _, first = np.unique(texts_to_embed(none.table), return_inverse=True)
    fold: IntArray = first % n_folds
    return fold


def _moments(embeddings: Array2D, mask: BoolArray) -> Moments:
    rows = np.flatnonzero(mask)
    return Moments.from_rows(embeddings, rows, np.zeros(len(rows), dtype=np.int64), 1)


def _fit(codes: Moments, none: Moments) -> LinearModel:
    """The class alone, of the analysis of it and all codes."""
    both = Moments(
        np.concatenate([codes.rows, none.rows]), np.vstack([codes.sums, none.sums]), codes.products + none.products
    )
    model = fit_lda(both, np.arange(len(both.rows)))
    return LinearModel(model.classes[-1:], model.coef[-1:], model.intercept[-1:])


def _parts(rows: IntArray) -> Iterator[IntArray]:
    yield from np.array_split(rows, len(rows) // MAPPED_ROWS + 1)


def _score(model: LinearModel, embeddings: Array2D, rows: IntArray) -> FloatArray:
    return model.decision_function(np.asarray(embeddings[rows], dtype=np.float32))[:, 0]
