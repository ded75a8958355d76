"""How unlike all that the model was trained on a product is: novelty detection, also called open-set recognition.

The evidence for a product is its highest fused score. Unlike the probability, which says how sure the model is of this
code among those it knows, the score of a product of an unknown kind is low for every code. How high it can be depends
on what the product has (a description, an image, a long title), so it is compared with that of train products that
have the same. docs/notebook.md has the alternatives that were measured.

Where people said of some products that none of the codes fits, how like these a product is counts as well
(`models.none_class`). Both are compared with train products, and joined as Fisher joins two p-values.

The novelty of a product is the share of train products with less unusual evidence, each judged by a model that was not
trained on it. 1 - novelty is a conformal p-value: among products like the train products, at most a share of a has a
novelty of 1 - a or more. Source: Bates et al. 2023, "Testing for outliers with conformal p-values".
"""

from dataclasses import dataclass, field, replace

import numpy as np

from rakuten.evaluation.novelty_flag import NOVELTY_DIGITS
from rakuten.models.none_class import NoneClass
from rakuten.types import EmbeddingArray, FloatArray, IntArray

MAX_REFERENCE = 20_000  # train products that a product is compared with; of more, evenly spaced order statistics
MIN_SCALE = 0.2  # of the mean absolute residual: the least that is taken for the spread of any kind of product


@dataclass(frozen=True, eq=False)
class Novelty:
    """The fitted score. Its arrays are saved with the model."""

    location: FloatArray  # CONTEXT: the evidence to be expected is `context @ location`
    scale: FloatArray  # CONTEXT: its mean absolute deviation is `context @ scale`
    min_scale: FloatArray  # one number: the least deviation
    reference: FloatArray  # unusualness of train products, out of fold, ascending
    # Of the class "none of the codes"; empty where it was not learnt.
    none_coef: FloatArray = field(default_factory=lambda: np.empty(0))  # see `NoneClass`
    none_intercept: FloatArray = field(default_factory=lambda: np.zeros(1))
    none_reference: FloatArray = field(default_factory=lambda: np.empty(0))  # its scores of train products, likewise
    joint_reference: FloatArray = field(default_factory=lambda: np.empty(0))  # `_joint` of train products, ascending

    def unusualness(self, evidence: FloatArray, context: FloatArray) -> FloatArray:
        """How far the evidence of each product is below what is to be expected, in mean absolute deviations.

        Args:
            evidence: highest fused score of each product; NaN for one without any view.
            context: products x `fusion.CONTEXT`.
        """
        spread = np.maximum(context @ self.scale, self.min_scale[0])
        # Rounded, so that ranks do not depend on a platform's last bit.
        unusual: FloatArray = ((context @ self.location - evidence) / spread).round(NOVELTY_DIGITS)
        return unusual

    def none_score(self, text_embeddings: EmbeddingArray | None) -> FloatArray | None:
        """The score of the class "none of the codes" of each product; NaN without text; None where it was not learnt.

        Args:
            text_embeddings: products x width; None where the model has no such view.
        """
        if text_embeddings is None or not len(self.none_coef):
            return None
        # In 64 bits the score of a product does not depend on how many are scored at once.
        score: FloatArray = text_embeddings.astype(np.float64) @ self.none_coef + self.none_intercept[0]
        return score

    def novelty(self, evidence: FloatArray, context: FloatArray, none_score: FloatArray | None = None) -> FloatArray:
        """The novelty of each product, from 0 to below 1; NaN for one without any view.

        Args:
            evidence, context: as of `unusualness`.
            none_score: from `Novelty.none_score`; None where the class was not learnt.
        """
        unusual = self.unusualness(evidence, context)
        less = _less(self.reference, unusual)
        if none_score is not None:
            less = _less(self.joint_reference, self._joint(less, none_score))
        return np.where(np.isnan(unusual), np.nan, less).round(NOVELTY_DIGITS)

    def _joint(self, less: FloatArray, none_score: FloatArray) -> FloatArray:
        """Fisher's sum of the logarithms of two p-values; where the second is missing, what it is on average."""
        none_less = _less(self.none_reference, none_score.round(NOVELTY_DIGITS))
        joint = -np.log1p(-less) + np.where(np.isnan(none_score), 1.0, -np.log1p(-none_less))
        rounded: FloatArray = joint.round(NOVELTY_DIGITS)
        return rounded


def _less(reference: FloatArray, values: FloatArray) -> FloatArray:
    """For each value, the share of products of the reference with a lower one; the product itself is counted too."""
    share: FloatArray = np.searchsorted(reference, values, side="left") / (len(reference) + 1)
    return share


def fit_novelty(evidence: FloatArray, context: FloatArray, none_class: NoneClass | None = None) -> Novelty:
    """Learn from out-of-fold evidence of train products what is to be expected.

    Location and scale are fitted by least squares, the scale to the absolute residuals.

    Args:
        evidence, context: as of `Novelty.unusualness`, of train products.
        none_class: with the scores of the same train products; None where it was not learnt.
    """
    present = np.isfinite(evidence)
    evidence, context = evidence[present], context[present]
    if not len(evidence):
        zeros = np.zeros(context.shape[1])
        return Novelty(zeros, zeros, np.ones(1), np.empty(0))
    location = _least_squares(context, evidence)
    deviation = np.abs(context @ location - evidence)
    scale = _least_squares(context, deviation)
    min_scale = max(MIN_SCALE * float(deviation.mean()), 1e-9)
    novelty = Novelty(location, scale, np.array([min_scale]), np.empty(0))
    unusual = novelty.unusualness(evidence, context)
    novelty = replace(novelty, reference=_reference(unusual))
    if none_class is None:
        return novelty
    none_score = none_class.train_scores[present]
    novelty = replace(
        novelty,
        none_coef=none_class.coef,
        none_intercept=none_class.intercept,
        none_reference=_reference(none_score[~np.isnan(none_score)].round(NOVELTY_DIGITS)),
    )
    joint = novelty._joint(_less(novelty.reference, unusual), none_score)
    return replace(novelty, joint_reference=_reference(joint))


def _reference(values: FloatArray) -> FloatArray:
    values = np.sort(values)
    if len(values) > MAX_REFERENCE:
        values = values[np.linspace(0, len(values) - 1, MAX_REFERENCE).round().astype(np.int64)]
    return values


def _least_squares(context: FloatArray, values: FloatArray) -> FloatArray:
    return np.linalg.lstsq(context, values, rcond=None)[0].astype(np.float64)


def cross_fit_novelty(
    evidence: FloatArray, context: FloatArray, fold: IntArray, none_class: NoneClass | None = None
) -> FloatArray:
    """The novelty of each train product, by what was learnt from the other folds.

    Args:
        evidence, context: as of `Novelty.unusualness`, out of fold.
        fold: number of each product's fold.
        none_class: as of `fit_novelty`.
    """
    novelty = np.full(len(evidence), np.nan)
    for number in np.unique(fold):
        held_out = fold == number
        others, none_score = None, None
        if none_class is not None:
            others = none_class._replace(train_scores=none_class.train_scores[~held_out])
            none_score = none_class.train_scores[held_out]
        fitted = fit_novelty(evidence[~held_out], context[~held_out], others)
        novelty[held_out] = fitted.novelty(evidence[held_out], context[held_out], none_score)
    return novelty
