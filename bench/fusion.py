"""What pictures and fusion give, out of fold: `python -m bench.fusion --processed FOLDER [--seeds 42 1 2]`.

Prints one table of ways to combine the views, and one of gain by the number of pictures a class has.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.sparse import csr_matrix, hstack
from threadpoolctl import threadpool_limits

from bench.words import Counted
from rakuten.config import PARAMS, PROCESSED, Params, load_params
from rakuten.data.tables import read_table
from rakuten.evaluation import folds, metrics
from rakuten.features.feature_set import INTEGER_COLUMNS, FeatureSet, read_embeddings
from rakuten.models import fusion
from rakuten.models.fusion_selection import Baseline, select_fusion
from rakuten.models.linear import UNSEEN_CLASS_SCORE, Moments, fit_svm
from rakuten.models.training import MIN_VIEW_ROWS, fit_embedding, fit_ngrams, ngram_blocks
from rakuten.types import IMAGE, NGRAMS, TEXT, BoolArray, FloatArray, IntArray

ALL = 10**9
PER_CLASS = (0, 5, 10, 20, 50, 200, 1000, ALL)  # pictures kept
TEXTS = ("designation_clean", "description_clean", "style")
DENSE = 0.5  # weight of an embedding's block in the one linear model


class Views:
    """Out-of-fold scores of the views of one catalogue under one seed."""

    def __init__(self, catalogue: FeatureSet, params: Params, scratch: Path) -> None:
        self.catalogue, self.params = catalogue, params
        self.codes = catalogue.codes()
        self.classes, self.index = np.unique(self.codes, return_inverse=True)
        group = catalogue.facts["group"].to_numpy()
        self.fold = folds.assign_folds(group, self.codes, params.train.folds, params.seed)
        _, words = fit_ngrams(catalogue, self.codes, self.fold, params, scratch)
        self.scores = {NGRAMS: words.scores} if words else {}
        if catalogue.texts is not None:
            self.scores[TEXT] = self.embedded(catalogue.texts, ~np.isnan(catalogue.texts[:, 0]))

    def embedded(self, vectors: np.ndarray, there: BoolArray) -> FloatArray:
        parts = [np.flatnonzero(there & (self.fold == number)) for number in np.unique(self.fold)]
        moments = [Moments.of(vectors, part, self.index[part], len(self.classes)) for part in parts]
        room = np.full((len(self.codes), len(self.classes)), np.nan)
        return fit_embedding(vectors, there, self.classes, self.fold, moments, room).scores

    def fuse(self, scores: Mapping[str, FloatArray]) -> tuple[IntArray, dict[str, Baseline]]:
        where, seed, room = (
            fusion.gating_context(self.catalogue.facts),
            self.params.seed,
            np.empty(next(iter(scores.values())).shape),
        )
        has_text = self.catalogue.has_text()
        _, predicted, _, compared = select_fusion(
            scores, where, self.index, self.classes, self.fold, has_text, seed, room
        )
        return predicted, compared

    def f1(self, predicted: IntArray, rows: BoolArray) -> float:
        return metrics.classification_scores(self.index[rows], predicted[rows])["weighted_f1"]


def ways(views: Views) -> dict[str, float]:
    """Weighted F1 over the products that have text, by the way of combining."""
    pictures, rows = views.catalogue.pictures, views.catalogue.has_text()
    scores = dict(views.scores)
    if pictures is not None and (there := ~np.isnan(pictures[:, 0])).sum() >= MIN_VIEW_ROWS:
        scores[IMAGE] = views.embedded(pictures, there)
    predicted, compared = views.fuse(scores)
    found = {name: views.f1(rival.predicted, rows) for name, rival in compared.items() if name != IMAGE}
    found["one linear model on all blocks"] = views.f1(one_model(views), rows)
    return {**found, "late fusion (this model)": views.f1(predicted, rows)}


def one_model(views: Views) -> IntArray:
    """One linear SVM on the n-grams and both embeddings side by side; a missing embedding is zeros."""
    counted = Counted(views.catalogue.rows(np.arange(len(views.codes)), TEXTS), ngram_blocks(views.params))
    dense = [_unit(part) for part in (views.catalogue.texts, views.catalogue.pictures) if part is not None]

    def held_out(number: int) -> tuple[IntArray, FloatArray]:
        seen, out = np.flatnonzero(views.fold != number), np.flatnonzero(views.fold == number)
        left, right = (
            csr_matrix(hstack([words, *(part[rows] for part in dense)]))
            for words, rows in zip(counted.features(seen, seen, out), (seen, out), strict=True)
        )
        svm = fit_svm(left, views.codes[seen], views.params.train.svm_c, views.params.seed)
        scores = np.full((len(out), len(views.classes)), UNSEEN_CLASS_SCORE)
        scores[:, np.searchsorted(views.classes, svm.classes)] = svm.decision(right)
        return out, scores

    scores = np.empty((len(views.codes), len(views.classes)))
    for rows, part in Parallel(n_jobs=1)(delayed(held_out)(number) for number in np.unique(views.fold)):
        scores[rows] = part
    predicted: IntArray = scores.argmax(axis=1)
    return predicted


def _unit(vectors: np.ndarray) -> csr_matrix:
    there = ~np.isnan(vectors[:, 0])
    filled = np.where(there[:, None], vectors, 0).astype(np.float32)
    filled[there] -= filled[there].mean(axis=0)
    return csr_matrix(DENSE * filled / np.maximum(np.linalg.norm(filled, axis=1, keepdims=True), 1e-9))


def curve(views: Views) -> list[tuple[str, int, float, float, float]]:
    """Gain by pictures kept per class: pictures, text alone, fused, and the gain on products that still have one."""
    pictures, rows = views.catalogue.pictures, views.catalogue.has_text()
    found: list[tuple[str, int, float, float, float]] = []
    if pictures is None:
        return found
    has = ~np.isnan(pictures[:, 0])
    order = np.random.default_rng(views.params.seed).permutation(len(has))
    rank = pd.Series(has[order].astype(int)).groupby(views.index[order]).cumsum().to_numpy()[np.argsort(order)]
    before = -1
    for most in PER_CLASS:
        there = has & (rank <= most)
        if there.sum() == before:
            break
        before = int(there.sum())
        scores = dict(views.scores)
        if there.sum() >= MIN_VIEW_ROWS:
            scores[IMAGE] = views.embedded(pictures, there)
        predicted, compared = views.fuse(scores)
        text = compared["text alone"].predicted
        both = rows & there
        gain = views.f1(predicted, both) - views.f1(text, both) if both.any() else 0.0
        found.append(
            ("all" if most == ALL else str(most), before, views.f1(text, rows), views.f1(predicted, rows), gain)
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fusion", description=__doc__)
    parser.add_argument("--processed", type=Path, default=PROCESSED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--skip-ways", action="store_true", help="the curve only")
    arguments = parser.parse_args(argv)
    table = read_table(arguments.processed / "train_features.csv", integers=INTEGER_COLUMNS)
    parts = (read_embeddings(arguments.processed / f"train_{name}.npy", len(table)) for name in ("texts", "images"))
    catalogue, params = FeatureSet.of([table], *parts), load_params(PARAMS)
    tables: list[dict[str, float]] = []
    curves: list[list[tuple[str, int, float, float, float]]] = []
    with threadpool_limits(1):
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                views = Views(catalogue, params.model_copy(update={"seed": seed}), Path(scratch))
                tables += [] if arguments.skip_ways else [ways(views)]
                curves.append(curve(views))
    lines = []
    if tables:
        lines += ["| combination | weighted F1 |", "| --- | --- |"]
        lines += [f"| {name} | {np.mean([each[name] for each in tables]):.4f} |" for name in tables[0]]
    lines += ["", "| pictures per class, at most | pictures | text alone | fused | gain where there is a picture |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for steps in zip(*curves, strict=False):
        means = np.mean([step[2:] for step in steps], axis=0)
        lines.append(f"| {steps[0][0]} | {steps[0][1]:,} | {means[0]:.4f} | {means[1]:.4f} | {means[2]:+.4f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
