"""How unlike all that the model was trained on a product is: novelty detection, also called open-set recognition.

The evidence for a product is its highest fused score. Unlike the probability, which says how sure the model is of this
code among those it knows, the score of a product of an unknown kind is low for every code. How high it can be depends
on what the product has (a description, an image, a long title), so it is compared with that of train products that
have the same. docs/notebook.md has the alternatives that were measured.

The novelty of a product is the share of train products with less unusual evidence, each judged by a model that was not
trained on it. 1 - novelty is a conformal p-value: among products like the train products, at most a share of a has a
novelty of 1 - a or more. Source: Bates et al. 2023, "Testing for outliers with conformal p-values".
"""

from dataclasses import dataclass

import numpy as np

from rakuten.evaluation.novelty_flag import NOVELTY_DIGITS
from rakuten.types import FloatArray, IntArray

MAX_REFERENCE = 20_000  # train products that a product is compared with; of more, evenly spaced order statistics
MIN_SCALE = 0.2  # of the mean absolute residual: the least that is taken for the spread of any kind of product


@dataclass(frozen=True, eq=False)
class Novelty:
    """The fitted score. Its arrays are saved with the model."""

    location: FloatArray  # CONTEXT: the evidence to be expected is `context @ location`
    scale: FloatArray  # CONTEXT: its mean absolute deviation is `context @ scale`
    min_scale: FloatArray  # one number: the least deviation
    reference: FloatArray  # unusualness of train products, out of fold, ascending

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

    def novelty(self, evidence: FloatArray, context: FloatArray) -> FloatArray:
        """The novelty of each product, from 0 to below 1; NaN for one without any view. Arguments as above."""
        unusual = self.unusualness(evidence, context)
        less = np.searchsorted(self.reference, unusual, side="left") / (len(self.reference) + 1)
        return np.where(np.isnan(unusual), np.nan, less).round(NOVELTY_DIGITS)


def fit_novelty(evidence: FloatArray, context: FloatArray) -> Novelty:
    """Learn from out-of-fold evidence of train products what is to be expected; arguments as of `Novelty.unusualness`.

    Location and scale are fitted by least squares, the scale to the absolute residuals.
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
    reference = np.sort(novelty.unusualness(evidence, context))
    if len(reference) > MAX_REFERENCE:
        reference = reference[np.linspace(0, len(reference) - 1, MAX_REFERENCE).round().astype(np.int64)]
    return Novelty(location, scale, novelty.min_scale, reference)


def _least_squares(context: FloatArray, values: FloatArray) -> FloatArray:
    return np.linalg.lstsq(context, values, rcond=None)[0].astype(np.float64)


def cross_fit_novelty(evidence: FloatArray, context: FloatArray, fold: IntArray) -> FloatArray:
    """The novelty of each train product, by what was learnt from the other folds.

    Args:
        evidence, context: as of `Novelty.unusualness`, out of fold.
        fold: number of each product's fold.
    """
    novelty = np.full(len(evidence), np.nan)
    for number in np.unique(fold):
        held_out = fold == number
        fitted = fit_novelty(evidence[~held_out], context[~held_out])
        novelty[held_out] = fitted.novelty(evidence[held_out], context[held_out])
    return novelty
