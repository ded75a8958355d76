"""Late fusion: one probability for each class from the scores of every view of a product.

Each view (n-grams, text embedding, image embedding) scores every class. The fusion uses two terms of a view: its score,
and the probability that a softmax with a raised temperature makes of it. The second is bounded, which limits what one
extreme view can add, and it shapes the confidence (docs/notebook.md). The fused score of class k is

    prior_k + bias_k + sum over terms t of the views that the product has: (w_t . context + offset_tk) * term_tk

So the weight of a term depends on the context (is there a description, is there an image, how long is the title) and a
little on the class. This is a multinomial logistic regression with shared coefficients: convex, with few parameters,
each penalised towards zero, so that a view that does not help gets no weight. Fusing at decision level is how the
challenges of this field were won (SIGIR eCom'20 data challenge).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from rakuten.disk_array import missing_rows
from rakuten.evaluation import calibration
from rakuten.types import FloatArray, IntArray

CONTEXT = ("always", "has_description", "has_image", "short_title", "no_text")
SHORT_TITLE_CHARS = 20.0  # a title of so many characters counts as short by 1/e
# Standard deviations of the Gaussian priors (an L2 penalty) on view weights, per-class offsets and biases.
PRIOR_SD_WEIGHTS, PRIOR_SD_OFFSETS, PRIOR_SD_BIAS = 1.0, 0.1, 0.5
SOFTMAX_TEMPERATURE_FACTOR = 2.0  # times the temperature that fits the view's own probabilities best
PROBA_SCALE = 5.0  # brings probabilities to the size of scores, so that the penalty treats both alike
N_TERMS = 2  # of each view: score and softened probability
MAX_ITER, TOLERANCE = 200, 1e-6  # of L-BFGS: a tolerance of 1e-9 takes three times the steps for the same score

Scores = Mapping[str, FloatArray]  # view -> rows x classes; a row of NaN where the product lacks the view


def gating_context(table: pd.DataFrame) -> FloatArray:
    """What the view weights depend on: rows x CONTEXT, each between 0 and 1.

    Args:
        table: designation_len, description_len, has_description, has_image.
    """
    title, description = (table[f"{name}_len"].to_numpy(dtype=np.float64) for name in ("designation", "description"))
    flags = [table[name].to_numpy(dtype=np.float64) for name in ("has_description", "has_image")]
    short_title, no_text = np.exp(-title / SHORT_TITLE_CHARS), title + description == 0
    return np.stack([np.ones(len(table)), *flags, short_title, no_text], axis=1)


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fitted fusion; the module's docstring has the formula."""

    views: tuple[str, ...]
    classes: IntArray  # prdtypecode of each class column
    prior: FloatArray  # classes: log of each class's share
    bias: FloatArray  # classes
    temperature: FloatArray  # views
    view_weights: FloatArray  # views x N_TERMS x CONTEXT
    class_offsets: FloatArray  # views x N_TERMS x classes

    def contributions(self, scores: Scores, context: FloatArray) -> dict[str, FloatArray]:
        """What each view adds to the fused scores: rows x classes, zero where a product lacks the view.

        Args:
            scores: of each view in `views`.
            context: rows x CONTEXT, from `gating_context`.
        """
        return {view: self.contribution(view, scores[view], context) for view in self.views}

    def contribution(self, view: str, scores: FloatArray, context: FloatArray) -> FloatArray:
        """What one view adds to the fused scores; arguments and result as of `contributions`, for this view."""
        number, added = self.views.index(view), np.zeros_like(scores)
        terms = score_terms(scores, self.temperature[number])
        for term, weights, offsets in zip(terms, self.view_weights[number], self.class_offsets[number], strict=True):
            added += term * ((context @ weights)[:, None] + offsets)
        return added

    def decision_function(self, scores: Scores, context: FloatArray) -> FloatArray:
        """Fused scores, rows x classes: log probabilities up to a constant of each row. Arguments as above."""
        fused = np.tile(self.prior + self.bias, (len(context), 1))
        for added in self.contributions(scores, context).values():
            fused += added
        return fused

    def predict_proba(self, scores: Scores, context: FloatArray) -> FloatArray:
        """Calibrated probabilities, rows x classes. Arguments as above."""
        proba: FloatArray = softmax(self.decision_function(scores, context), axis=1)
        return proba


def score_terms(scores: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
    """The two terms of a view, each rows x classes and centred over the classes; zero where the view is missing."""
    softened = PROBA_SCALE * softmax(scores / (SOFTMAX_TEMPERATURE_FACTOR * temperature), axis=1)
    return _centred(scores / temperature), _centred(softened)


def _centred(scores: FloatArray) -> FloatArray:
    centred: FloatArray = np.nan_to_num(scores - scores.mean(axis=1, keepdims=True))
    return centred


def fit_fusion(
    scores: Scores,
    context: FloatArray,
    y: IntArray,
    classes: IntArray,
    frozen: Fusion | None = None,
    only_without_text: bool = False,
) -> Fusion:
    """Learn the weights of the views from out-of-fold scores.

    Args:
        scores: out-of-fold scores of each view.
        context: rows x CONTEXT, from `gating_context`.
        y: true class column of each row.
        classes: prdtypecode of each class column.
        frozen: a fusion of some of the views, whose weights are kept: only those of the other views are learnt.
        only_without_text: the other views are used for products without text only.
    """
    views = tuple(view for view in scores if frozen is None or view not in frozen.views)
    class_rows = np.bincount(y, minlength=len(classes))
    prior = np.log((class_rows + 0.5) / (len(y) + 0.5 * len(classes)))
    temperature = np.array([fit_view_temperature(scores[view], y) for view in views])
    start = np.tile(prior, (len(y), 1)) if frozen is None else frozen.decision_function(scores, context)
    problem = _Problem(
        [
            term.astype(np.float32)  # half the memory to go through at each step
            for view, t in zip(views, temperature, strict=True)
            for term in score_terms(scores[view], t)
        ],
        context.astype(np.float32),
        start.astype(np.float32),
        y,
        _prior_sd(len(views), len(classes), frozen is not None, only_without_text),
    )
    bias, weights, offsets = problem.solve()
    view_weights = weights.reshape(len(views), N_TERMS, len(CONTEXT))
    class_offsets = offsets.reshape(len(views), N_TERMS, len(classes))
    if frozen is None:
        return Fusion(views, classes, prior, bias, temperature, view_weights, class_offsets)
    return replace(
        frozen,
        views=frozen.views + views,
        temperature=np.concatenate([frozen.temperature, temperature]),
        view_weights=np.concatenate([frozen.view_weights, view_weights]),
        class_offsets=np.concatenate([frozen.class_offsets, class_offsets]),
    )


def fit_view_temperature(scores: FloatArray, y: IntArray) -> float:
    """The temperature of a view, learnt from the products that have it; 1 where none has."""
    mask = ~missing_rows(scores)
    return calibration.fit_temperature(scores[mask], y[mask])[0] if mask.any() else 1.0


def _prior_sd(n_views: int, n_classes: int, frozen: bool, only_without_text: bool) -> list[FloatArray]:
    """Standard deviations of the priors on biases, view weights and class offsets. Zero holds a parameter at zero."""
    n_terms = n_views * N_TERMS
    bias = np.full(n_classes, 0.0 if frozen else PRIOR_SD_BIAS)
    weights = np.full((n_terms, len(CONTEXT)), PRIOR_SD_WEIGHTS)
    offsets = np.full((n_terms, n_classes), 0.0 if only_without_text else PRIOR_SD_OFFSETS)
    if only_without_text:
        weights *= np.array([name == "no_text" for name in CONTEXT], dtype=np.float64)
    return [bias, weights, offsets]


@dataclass(frozen=True, eq=False)
class _Problem:
    """The penalised likelihood of the fusion's parameters, measured in standard deviations of their priors."""

    terms: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]  # each rows x classes
    context: np.ndarray[tuple[int, ...], np.dtype[np.float32]]  # rows x CONTEXT
    start: np.ndarray[tuple[int, ...], np.dtype[np.float32]]  # rows x classes: scores before any term
    y: IntArray
    prior_sd: Sequence[FloatArray]  # of biases, view weights and class offsets

    def solve(self) -> list[FloatArray]:
        """The most probable biases (classes), view weights (terms x CONTEXT) and class offsets (terms x classes)."""
        size = sum(sd.size for sd in self.prior_sd)
        options = {"maxiter": MAX_ITER, "gtol": 1e-6, "ftol": TOLERANCE}
        result = minimize(self._loss, np.zeros(size), jac=True, method="L-BFGS-B", options=options)
        return self._unpack(result.x)

    def _unpack(self, unit: FloatArray) -> list[FloatArray]:
        ends = np.cumsum([sd.size for sd in self.prior_sd])[:-1]
        parts = np.split(unit * self._flat_sd(), ends)
        return [part.reshape(sd.shape) for part, sd in zip(parts, self.prior_sd, strict=True)]

    def _flat_sd(self) -> FloatArray:
        return np.concatenate([sd.ravel() for sd in self.prior_sd])

    def _loss(self, unit: FloatArray) -> tuple[float, FloatArray]:
        """Mean negative log posterior, and its gradient."""
        rows = np.arange(len(self.y))
        bias, weights, offsets = (part.astype(np.float32) for part in self._unpack(unit))
        fused = self.start + bias
        for term, term_weights, term_offsets in zip(self.terms, weights, offsets, strict=True):
            fused += term * ((self.context @ term_weights)[:, None] + term_offsets)
        log_proba = log_softmax(fused, axis=1)
        loss = -log_proba[rows, self.y].sum(dtype=np.float64) + 0.5 * np.square(unit).sum()
        residual = np.exp(log_proba)
        residual[rows, self.y] -= 1.0
        parts = [
            residual.sum(axis=0, dtype=np.float64),
            *(self.context.T @ np.einsum("rk,rk->r", residual, term) for term in self.terms),
            *(np.einsum("rk,rk->k", residual, term) for term in self.terms),
        ]
        gradient = np.concatenate(parts) * self._flat_sd() + unit
        return float(loss) / len(rows), gradient / len(rows)
