"""Late fusion: how far each view of a product is trusted, learnt from out-of-fold scores.

The views (words, meaning, picture) each score every class. A view speaks by two terms: its score,
and the probability that a cautious softmax makes of it, which keeps one loud view from drowning
the others and shapes the confidence (docs/model.md). The fused score of class k is

    prior_k + bias_k + sum over terms t of the views that the product has of (trust_t . context + own_tk) * term_tk

so trust depends on the context (is there a description, is there a picture, how long is the title)
and a little on the class. It is a multinomial logistic regression with shared coefficients: convex,
few parameters, each drawn to zero, so a view that does not help gets no weight. Fusing at decision
level is how the field's contests were won (SIGIR eCom'20 data challenge).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from rakuten.evaluation import metrics
from rakuten.evaluation.metrics import Floats, Ints

CONTEXT = ("always", "has_description", "has_image", "short_title", "no_text")
SHORT = 20.0  # characters: by 1/e a title of this length counts as short
# What the penalty takes for likely (standard deviations): of trust, of the class's own part, of bias.
TRUST, OWN, BIAS = 1.0, 0.1, 0.5
CAUTION = 2.0  # times the temperature that makes the view's own probabilities likeliest
SPREAD = 5.0  # brings probabilities to the size of scores, so that the penalty treats both alike
TERMS = 2  # of each view: score and cautious probability
STEPS, TOLERANCE = 200, 1e-6  # of the search for the weights: 1e-9 takes three times the steps for the same score

Scores = Mapping[str, Floats]  # view -> rows x classes; a row of NaN where the product lacks the view


def context(table: pd.DataFrame) -> Floats:
    """Rows x CONTEXT from the lengths, has_description and has_image."""
    title, description = (table[f"{name}_len"].to_numpy(dtype=np.float64) for name in ("designation", "description"))
    flags = [table[name].to_numpy(dtype=np.float64) for name in ("has_description", "has_image")]
    return np.stack([np.ones(len(table)), *flags, np.exp(-title / SHORT), title + description == 0], axis=1)


class Fusion(NamedTuple):
    """Learnt trust in each view; see the module."""

    views: tuple[str, ...]
    classes: Ints
    prior: Floats  # classes: log share of each
    bias: Floats  # classes
    temperature: Floats  # views
    trust: Floats  # views x TERMS x CONTEXT
    own: Floats  # views x TERMS x classes

    def arrays(self) -> dict[str, Floats | Ints]:
        fields = self._asdict()
        del fields["views"]
        return fields

    @classmethod
    def of(cls, views: Sequence[str], arrays: Mapping[str, Floats | Ints]) -> "Fusion":
        return cls(tuple(views), **arrays)  # type: ignore[arg-type]

    def parts(self, scores: Scores, where: Floats) -> dict[str, Floats]:
        """What each view adds to the fused score, rows x classes; zero where a product lacks the view.

        Args:
            scores: of each view in `views`.
            where: what `context` gives for the rows.
        """
        found: dict[str, Floats] = {}
        for at, view in enumerate(self.views):
            weighed = zip(terms(scores[view], self.temperature[at]), self.trust[at], self.own[at], strict=True)
            found[view] = np.zeros_like(scores[view])
            for term, trust, own in weighed:
                found[view] += term * ((where @ trust)[:, None] + own)
        return found

    def predict_proba(self, scores: Scores, where: Floats) -> Floats:
        """Calibrated probabilities, rows x classes; arguments as in `parts`."""
        likely: Floats = softmax(self.fused(scores, where), axis=1)
        return likely

    def fused(self, scores: Scores, where: Floats) -> Floats:
        """Log probabilities but for a constant of each row; arguments as in `parts`."""
        fused = np.tile(self.prior + self.bias, (len(where), 1))
        for part in self.parts(scores, where).values():
            fused += part
        return fused


def terms(score: Floats, temperature: float) -> tuple[Floats, Floats]:
    """A view's two terms, each less its mean over the classes; zero for a product that lacks the view."""
    cautious = SPREAD * softmax(score / (CAUTION * temperature), axis=1)
    return _centred(score / temperature), _centred(cautious)


def _centred(score: Floats) -> Floats:
    centred: Floats = np.nan_to_num(score - score.mean(axis=1, keepdims=True))
    return centred


def fit(
    scores: Scores,
    where: Floats,
    index: Ints,
    classes: Ints,
    base: Fusion | None = None,
    last_resort: bool = False,
) -> Fusion:
    """Learn the trust in each view.

    Args:
        scores: out-of-fold scores of each view.
        where: what `context` gives for the rows.
        index: the true class's column of each row.
        classes: the codes, in the order of the columns.
        base: a fusion of some of the views that stays as it is: only the trust in the others is learnt.
        last_resort: the others count for products without text alone.
    """
    views = tuple(view for view in scores if base is None or view not in base.views)
    counts, rows = np.bincount(index, minlength=len(classes)), np.arange(len(index))
    prior = np.log((counts + 0.5) / (len(index) + 0.5 * len(classes)))
    temperature = np.array([_temperature(scores[view], index) for view in views])
    parts = [
        term.astype(np.float32)  # half the memory to go through at each step
        for view, t in zip(views, temperature, strict=True)
        for term in terms(scores[view], t)
    ]
    known = np.tile(prior, (len(index), 1)) if base is None else base.fused(scores, where)
    start, around = known.astype(np.float32), where.astype(np.float32)
    free = np.array([not last_resort or name == "no_text" for name in CONTEXT], dtype=np.float64)
    shapes = ((len(classes),), (len(parts), len(CONTEXT)), (len(parts), len(classes)))
    spread = [np.full(shape, sd) for shape, sd in zip(shapes, (BIAS, TRUST, OWN), strict=True)]
    spread[1] *= free
    if base is not None:
        spread[0][:] = 0.0
    if last_resort:
        spread[2][:] = 0.0
    likely_size = np.concatenate([part.ravel() for part in spread])
    cuts = np.cumsum([part.size for part in spread])[:-1]

    def unpack(unit: Floats) -> list[Floats]:
        pieces = np.split(unit * likely_size, cuts)
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def loss(unit: Floats) -> tuple[float, Floats]:
        bias, trust, own = (piece.astype(np.float32) for piece in unpack(unit))
        fused = start + bias
        for part, each, classes_own in zip(parts, trust, own, strict=True):
            fused += part * ((around @ each)[:, None] + classes_own)
        log_likely = log_softmax(fused, axis=1)
        value = -log_likely[rows, index].sum(dtype=np.float64) + 0.5 * np.square(unit).sum()
        pull = np.exp(log_likely)
        pull[rows, index] -= 1.0
        pieces = [
            pull.sum(axis=0, dtype=np.float64),
            *(around.T @ np.einsum("rk,rk->r", pull, part) for part in parts),
            *(np.einsum("rk,rk->k", pull, part) for part in parts),
        ]
        gradient = np.concatenate(pieces) * likely_size + unit
        return float(value) / len(rows), gradient / len(rows)

    options = {"maxiter": STEPS, "gtol": 1e-6, "ftol": TOLERANCE}
    found = minimize(loss, np.zeros(len(likely_size)), jac=True, method="L-BFGS-B", options=options)
    bias, trust, own = unpack(found.x)
    trust, own = trust.reshape(len(views), TERMS, len(CONTEXT)), own.reshape(len(views), TERMS, len(classes))
    if base is None:
        return Fusion(views, classes, prior, bias, temperature, trust, own)
    return base._replace(
        views=base.views + views,
        temperature=np.concatenate([base.temperature, temperature]),
        trust=np.concatenate([base.trust, trust]),
        own=np.concatenate([base.own, own]),
    )


def _temperature(score: Floats, index: Ints) -> float:
    there = ~np.isnan(score[:, 0])
    return metrics.fit_temperature(score[there], index[there])[0] if there.any() else 1.0
