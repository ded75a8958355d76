"""Choice of the fusion of the views, and its score, by cross-fitting on the out-of-fold scores of the views."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from rakuten.disk_array import Array2D, DiskArray, missing_rows, row_chunks
from rakuten.evaluation import calibration
from rakuten.evaluation.metrics import classification_scores
from rakuten.evaluation.out_of_fold import Baseline, OutOfFold
from rakuten.models import fusion
from rakuten.models.fusion import Fusion
from rakuten.types import FINETUNED_VIEWS, IMAGE_VIEWS, BoolArray, FloatArray, IntArray

log = logging.getLogger(__name__)

FUSION_ROWS = 10_000  # enough for the few hundred coefficients of the fusion


class ImageStrategy(Enum):
    """How the views of images come into the fusion."""

    NONE = "left out"
    JOINT = "weighed together with the text"  # all weights are learnt at once
    ADDITIVE = "added to the text"  # the fusion of the text views stays as it is, image weights are learnt on top
    NO_TEXT_ONLY = "for products without text only"  # the others are predicted as without images


IMAGE_STRATEGIES = (ImageStrategy.JOINT, ImageStrategy.ADDITIVE, ImageStrategy.NO_TEXT_ONLY)  # in order of preference


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Labels and folds, which the training of every view needs besides its features."""

    classes: IntArray  # the prdtypecode of each class column, ascending
    y: IntArray  # class column of each row
    fold: IntArray
    has_text: BoolArray
    seed: int

    def __len__(self) -> int:
        return len(self.y)


class CrossFitted(NamedTuple):
    """What is predicted for every row by the fusion that is not fitted to its fold."""

    y_pred: IntArray  # most probable class column
    evidence: FloatArray  # highest fused score; NaN for a row without any view


class CrossFitter:
    """Fits fusions to out-of-fold scores; the fusion that predicts a fold is not fitted to it."""

    def __init__(self, scores: Mapping[str, Array2D], context: FloatArray, rows: TrainingRows) -> None:
        """
        Args:
            scores: for each view, out-of-fold scores (rows x classes; a row of NaN where a product lacks the view).
            context: rows x `fusion.CONTEXT`, from `fusion.gating_context`.
        """
        self.scores, self.context, self.rows = scores, context, rows
        self.sample = np.random.default_rng(rows.seed).permutation(len(rows))[:FUSION_ROWS]

    def without(self, views: Collection[str]) -> "CrossFitter":
        """The same without some of the views."""
        scores = {view: scores for view, scores in self.scores.items() if view not in views}
        return CrossFitter(scores, self.context, self.rows)

    def fit(self, strategy: ImageStrategy, held_out: int | None = None) -> Fusion:
        """The fusion fitted to a sample of the rows, without those of the fold `held_out`."""
        sample = self.sample if held_out is None else self.sample[self.rows.fold[self.sample] != held_out]
        scores = {view: self.scores[view][sample] for view in self.scores}
        text = {view: scores[view] for view in scores if view not in IMAGE_VIEWS}
        arguments = self.context[sample], self.rows.y[sample], self.rows.classes
        if strategy is ImageStrategy.JOINT:
            return fusion.fit_fusion(scores, *arguments)
        text_fusion = fusion.fit_fusion(text, *arguments)
        if strategy is ImageStrategy.NONE:
            return text_fusion
        return fusion.fit_fusion(scores, *arguments, text_fusion, strategy is ImageStrategy.NO_TEXT_ONLY)

    def predict(self, strategy: ImageStrategy, proba: Array2D) -> CrossFitted:
        """Predict every row by the fusion that is not fitted to its fold.

        Args:
            proba: rows x classes, where the probabilities are written.
        """
        fusions = {number: self.fit(strategy, number) for number in np.unique(self.rows.fold).tolist()}
        y_pred, evidence = np.empty(len(self.rows), dtype=np.int64), np.full(len(self.rows), np.nan)
        for chunk in row_chunks(len(self.rows)):
            scores = {view: self.scores[view][chunk] for view in self.scores}
            context, fold = self.context[chunk], self.rows.fold[chunk]
            fused_scores = np.empty((len(fold), len(self.rows.classes)))
            for number, fused in fusions.items():
                mask = fold == number
                fused_scores[mask] = fused.decision_function(
                    {view: scores[view][mask] for view in fused.views}, context[mask]
                )
            chunk_proba = softmax(fused_scores, axis=1)
            proba[chunk], y_pred[chunk] = chunk_proba, chunk_proba.argmax(axis=1)
            has_any = np.any([~missing_rows(scores[view]) for view in scores], axis=0)
            evidence[chunk] = np.where(has_any, fused_scores.max(axis=1), np.nan)
        return CrossFitted(y_pred, evidence)

    def weighted_f1(self, y_pred: IntArray) -> float:
        """Weighted F1 on the products that have text; 0 where none has."""
        mask = self.rows.has_text
        return classification_scores(self.rows.y[mask], y_pred[mask])["weighted_f1"] if mask.any() else 0.0


def select_fusion(fitter: CrossFitter, proba: DiskArray) -> tuple[Fusion, OutOfFold]:
    """Choose which fine-tuned views are fused, by weighted F1: a view that lowers it is left out.

    Args and returns as of `select_image_strategy`. The other choices are among the baselines.
    """
    finetuned = [view for view in fitter.scores if view in FINETUNED_VIEWS]
    choices = [left_out for size in range(len(finetuned) + 1) for left_out in combinations(finetuned, size)]
    choices = [left_out for left_out in choices if fitter.without(left_out).scores] or [()]
    if len(choices) == 1:
        return select_image_strategy(fitter, proba)
    y, everywhere = fitter.rows.y, np.ones(len(fitter.rows), dtype=bool)
    results = {left_out: select_image_strategy(fitter.without(left_out), proba)[1] for left_out in choices}
    scores = {left_out: classification_scores(y, found.y_pred)["weighted_f1"] for left_out, found in results.items()}
    for left_out, score in scores.items():
        log.info("weighted F1 out of fold %.4f %s", score, _choice_name(left_out, finetuned))
    chosen = max(scores, key=scores.__getitem__)  # of equal ones the first, which leaves out least
    if chosen:
        log.warning("%s does not help out of fold and is left out", " and ".join(chosen))
    fused, result = select_image_strategy(fitter.without(chosen), proba)
    alone = {view: results[()].baselines[view] for view in finetuned}
    others = {
        _choice_name(left_out, finetuned): Baseline(found.y_pred, everywhere)
        for left_out, found in results.items()
        if left_out != chosen
    }
    return fused, replace(result, baselines={**result.baselines, **alone, **others})


def _choice_name(left_out: Sequence[str], finetuned: Sequence[str]) -> str:
    return f"without {' and '.join(left_out)}" if left_out else f"with {' and '.join(finetuned)}"


def select_image_strategy(fitter: CrossFitter, proba: DiskArray) -> tuple[Fusion, OutOfFold]:
    """Choose the first of IMAGE_STRATEGIES whose weighted F1 on products with text is no lower than that of text alone.

    Args:
        proba: rows x classes, where the cross-fitted probabilities are written.

    Returns:
        The fusion learnt from all folds, and the cross-fitted predictions with the baselines they are compared with.
    """
    rows = fitter.rows
    chosen = fitter.predict(ImageStrategy.NONE, proba)
    text_only = chosen.y_pred
    baselines = score_baselines(fitter)
    baselines["text alone"] = Baseline(text_only, np.ones(len(rows), dtype=bool))
    strategy, candidates = ImageStrategy.NONE, IMAGE_STRATEGIES if set(IMAGE_VIEWS) & set(fitter.scores) else ()
    for strategy in candidates:
        chosen = fitter.predict(strategy, proba)
        if fitter.weighted_f1(chosen.y_pred) >= fitter.weighted_f1(text_only):
            break
        log.info("with the images %s, the out-of-fold score is below that of text alone", strategy.value)
    if strategy is ImageStrategy.NO_TEXT_ONLY:
        log.warning("images do not help out of fold: they are used only for products without text")
    confidence = np.concatenate([proba[chunk].max(axis=1) for chunk in row_chunks(len(rows))])
    result = OutOfFold(rows.classes, rows.y, chosen.y_pred, confidence, proba, chosen.evidence, baselines=baselines)
    return fitter.fit(strategy), result


def score_baselines(fitter: CrossFitter) -> dict[str, Baseline]:
    """Predictions of each view alone, and of the plain mean of the probabilities of the views that a product has."""
    rows, scores = fitter.rows, fitter.scores
    if not scores:
        return {}
    class_shares = np.bincount(rows.y, minlength=len(rows.classes)) / len(rows)
    sample = np.sort(fitter.sample)
    temperature = {view: fusion.fit_view_temperature(scores[view][sample], rows.y[sample]) for view in scores}
    names = (*scores, "equal average")
    y_pred: dict[str, list[IntArray]] = {name: [] for name in names}
    for chunk in row_chunks(len(rows)):
        parts = {view: scores[view][chunk] for view in scores}
        present = {view: ~missing_rows(parts[view]) for view in scores}
        proba = {view: calibration.single_view_proba(parts[view], temperature[view], class_shares) for view in scores}
        for view in scores:
            y_pred[view].append(proba[view].argmax(axis=1))
        y_pred["equal average"].append(calibration.mean_proba_baseline(proba, present).argmax(axis=1))
    masks = {view: ~missing_rows(scores[view]) for view in scores}
    everywhere = np.ones(len(rows), dtype=bool)
    return {name: Baseline(np.concatenate(y_pred[name]), masks.get(name, everywhere)) for name in names}
