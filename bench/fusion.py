"""What images and the fusion gain, out of fold: `python -m bench.fusion --processed FOLDER [--seeds 42 1 2]`.

Prints a table of ways to combine the views, and a table of the gain by the number of images that each class has.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from threadpoolctl import threadpool_limits

from bench.text_features import CountedTable
from rakuten.config import PARAMS, PROCESSED, Params, load_params
from rakuten.disk_array import Array2D, DiskArray, missing_rows
from rakuten.evaluation.metrics import classification_scores
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import TRAIN, FeatureSet
from rakuten.models.fusion import gating_context
from rakuten.models.fusion_selection import CrossFitter, select_fusion
from rakuten.models.linear import UNSEEN_CLASS_SCORE, fit_svm
from rakuten.models.training import (
    MIN_VIEW_ROWS,
    fit_embedding,
    fit_ngrams,
    moments_by_fold,
    ngram_blocks,
    training_rows,
)
from rakuten.types import IMAGE, NGRAMS, TEXT, BoolArray, FloatArray, IntArray

ALL = 10**9
IMAGES_PER_CLASS = (0, 5, 10, 20, 50, 200, 1000, ALL)  # kept at most
TEXT_COLUMNS = ("designation_clean", "description_clean", "style")
EMBEDDING_WEIGHT = 0.5  # of an embedding's block in the one linear model


class Views:
    """Out-of-fold scores of the views of one feature set under one seed."""

    def __init__(self, features: FeatureSet, params: Params, scratch: Path) -> None:
        self.features, self.params, self.scratch = features, params, scratch
        self.rows = training_rows(features, params)
        _, ngrams = fit_ngrams(features, self.rows, params, scratch)
        self.scores: dict[str, Array2D] = {NGRAMS: ngrams.scores} if ngrams else {}
        if (texts := features.text_embeddings) is not None:
            self.scores[TEXT] = self.embedding_scores(texts, ~missing_rows(texts), TEXT)

    def embedding_scores(self, embeddings: Array2D, mask: BoolArray, view: str) -> Array2D:
        """Out-of-fold scores of an embedding view, learnt from the rows of the mask."""
        moments = moments_by_fold(embeddings, mask, self.rows, view)
        return fit_embedding(embeddings, mask, self.rows, moments, self.scratch / f"scores-{view}.npy").scores

    def fuse(self, scores: Mapping[str, Array2D]) -> OutOfFold:
        """The cross-fitted predictions of the fusion that would be chosen, with its baselines."""
        fitter = CrossFitter(scores, gating_context(self.features.metadata), self.rows)
        proba = DiskArray.full(self.scratch / "proba.npy", (len(self.rows), len(self.rows.classes)), np.nan)
        return select_fusion(fitter, proba)[1]

    def weighted_f1(self, y_pred: IntArray, mask: BoolArray) -> float:
        return classification_scores(self.rows.y[mask], y_pred[mask])["weighted_f1"]


def combinations(views: Views) -> dict[str, float]:
    """Weighted F1 on the products that have text, by the way of combining the views."""
    images, mask, scores = views.features.image_embeddings, views.rows.has_text, dict(views.scores)
    if images is not None and (present := ~missing_rows(images)).sum() >= MIN_VIEW_ROWS:
        scores[IMAGE] = views.embedding_scores(images, present, IMAGE)
    fused = views.fuse(scores)
    results = {name: views.weighted_f1(each.y_pred, mask) for name, each in fused.baselines.items() if name != IMAGE}
    results["one linear model on all blocks"] = views.weighted_f1(single_model(views), mask)
    return {**results, "late fusion (this model)": views.weighted_f1(fused.y_pred, mask)}


def single_model(views: Views) -> IntArray:
    """Out-of-fold classes of one linear SVM on the n-grams and both embeddings side by side; missing is zeros."""
    rows, features = views.rows, views.features
    everything = np.arange(len(rows))
    counted = CountedTable(features.take_table(everything, TEXT_COLUMNS), ngram_blocks(views.params))
    dense = [
        _unit(array[everything]) for array in (features.text_embeddings, features.image_embeddings) if array is not None
    ]
    scores = np.full((len(rows), len(rows.classes)), UNSEEN_CLASS_SCORE)
    for fold in np.unique(rows.fold):
        train, test = np.flatnonzero(rows.fold != fold), np.flatnonzero(rows.fold == fold)
        train_features, test_features = (
            csr_matrix(hstack([ngrams, *(block[chosen] for block in dense)]))
            for ngrams, chosen in zip(counted.tfidf(train, train, test), (train, test), strict=True)
        )
        svm = fit_svm(train_features, rows.classes[rows.y[train]], views.params.train.svm_c, views.params.seed)
        scores[np.ix_(test, np.searchsorted(rows.classes, svm.classes))] = svm.decision_function(test_features)
    y_pred: IntArray = scores.argmax(axis=1)
    return y_pred


def _unit(embeddings: FloatArray) -> csr_matrix:
    present = ~np.isnan(embeddings[:, 0])
    filled = np.where(present[:, None], embeddings, 0).astype(np.float32)
    filled[present] -= filled[present].mean(axis=0)
    return csr_matrix(EMBEDDING_WEIGHT * filled / np.maximum(np.linalg.norm(filled, axis=1, keepdims=True), 1e-9))


class CurvePoint(NamedTuple):
    """The scores with at most so many images in each class."""

    images_per_class: str
    n_images: int
    text_f1: float
    fused_f1: float
    gain_with_image: float  # on the products that still have an image


def image_curve(views: Views) -> list[CurvePoint]:
    """The gain by the number of images that are kept in each class."""
    images, mask = views.features.image_embeddings, views.rows.has_text
    points: list[CurvePoint] = []
    if images is None:
        return points
    has_image = ~missing_rows(images)
    order = np.random.default_rng(views.params.seed).permutation(len(has_image))
    rank = pd.Series(has_image[order].astype(int)).groupby(views.rows.y[order]).cumsum().to_numpy()[np.argsort(order)]
    for limit in IMAGES_PER_CLASS:
        kept = has_image & (rank <= limit)
        if points and kept.sum() == points[-1].n_images:
            break
        scores = dict(views.scores)
        if kept.sum() >= MIN_VIEW_ROWS:
            scores[IMAGE] = views.embedding_scores(images, kept, IMAGE)
        fused = views.fuse(scores)
        text, both = fused.baselines["text alone"].y_pred, mask & kept
        gain = views.weighted_f1(fused.y_pred, both) - views.weighted_f1(text, both) if both.any() else 0.0
        text_f1, fused_f1 = views.weighted_f1(text, mask), views.weighted_f1(fused.y_pred, mask)
        points.append(CurvePoint("all" if limit == ALL else str(limit), int(kept.sum()), text_f1, fused_f1, gain))
    return points


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fusion", description=__doc__)
    parser.add_argument("--processed", type=Path, default=PROCESSED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--skip-combinations", action="store_true", help="the curve only")
    arguments = parser.parse_args(argv)
    features, params = FeatureSet.open(arguments.processed, TRAIN), load_params(PARAMS)
    tables: list[dict[str, float]] = []
    curves: list[list[CurvePoint]] = []
    with threadpool_limits(1):
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                views = Views(features, params.model_copy(update={"seed": seed}), Path(scratch))
                tables += [] if arguments.skip_combinations else [combinations(views)]
                curves.append(image_curve(views))
    lines = []
    if tables:
        lines += ["| combination | weighted F1 |", "| --- | --- |"]
        lines += [f"| {name} | {np.mean([table[name] for table in tables]):.4f} |" for name in tables[0]]
    lines += ["", "| images per class, at most | images | text alone | fused | gain where there is an image |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for points in zip(*curves, strict=False):
        text_f1, fused_f1, gain = np.mean([point[2:] for point in points], axis=0)
        first = points[0]
        lines.append(
            f"| {first.images_per_class} | {first.n_images:,} | {text_f1:.4f} | {fused_f1:.4f} | {gain:+.4f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
