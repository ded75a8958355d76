"""What the order of the review queue gains: `python -m bench.review --raw FOLDER [--seeds 1 2 3 4 5]`.

FOLDER has a catalogue in the challenge's format and Y_test.csv, the codes of its test products. One fold of the train
rows is held out. A third of the others is labelled at the start, near-duplicates together. The rest waits in the queue,
and its labels stand for the answers of a person who is always right. After each tenth of the queue the model is trained
again and what waits is scored again, until 60 % are decided; a last training has all. So for each fold and each seed.
Three scores, all weighted F1, each the average over the folds but for the first:

- out of fold: the held-out products of all folds together. They never wait in the queue: of a product that is chosen
  because the model is not sure, the label would help every product like it but that one, and a score on the train rows
  would count against the order that chose it;
- test: the products of X_test;
- queue: the products that waited at the start, with the person's answer where there is one, else the model's.

To be quick, the model is the fusion of n-grams and text embedding only, fitted on three folds: no image.

Then the labels that are wrong in the synthetic sample catalogue: how many are among the first products of the queue
that label_issues.csv makes. A run that was killed goes on where it stopped.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bench.measure import run
from bench.review_orders import ORDERS, Queue
from bench.review_report import (
    CONFIDENCE,
    DESK,
    LABEL,
    RANDOM,
    SHARES,
    curve_tables,
    label_table,
    review_figure,
    save_small,
)
from bench.text_features import CountedTable
from rakuten.config import PARAMS, ROOT, Params, load_params
from rakuten.data.synthetic import proportional_codes, synthetic_products, write_catalogue
from rakuten.data.tables import read_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.evaluation.folds import assign_folds
from rakuten.evaluation.label_issues import label_issues_table
from rakuten.evaluation.metrics import classification_scores
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.feature_set import TEST, TRAIN, FeatureSet
from rakuten.files import dump_json
from rakuten.models.classifier import CHOICE_COLUMNS
from rakuten.models.fusion import fit_fusion, gating_context
from rakuten.models.linear import UNSEEN_CLASS_SCORE, Moments, fit_lda, fit_svm
from rakuten.models.training import fit, ngram_blocks
from rakuten.review.sources import from_label_issues
from rakuten.types import NGRAMS, TEXT, BoolArray, FloatArray, HashArray, IntArray

START = 1 / 3  # of the train rows outside the fold is labelled before the first decision
STEP, END = 0.1, 0.6  # of the queue: decisions between two trainings, and at the end
SAMPLE_ROWS = 2000
FUSION_FOLDS = 3  # whose scores the fusion is fitted to
ID_COLUMNS = ("productid", "imageid")
TEXT_COLUMNS = [*ID_COLUMNS, "designation", "description"]


class Catalogue:
    """The text features of a catalogue in memory. Rows are the train products, then the test products."""

    def __init__(self, folder: Path, truth: Path, params: Params) -> None:
        train, test = (FeatureSet.open(folder / "processed", name) for name in (TRAIN, TEST))
        both = [part.take(np.arange(part.n_rows)) for part in (train, test)]
        table = pd.concat([part.table for part in both], ignore_index=True)
        self.params, self.n_train, self.metadata = params, train.n_rows, train.metadata
        self.codes = train.y()
        self.classes, self.y = np.unique(self.codes, return_inverse=True)
        self.test_codes = pd.read_csv(truth)["prdtypecode"].to_numpy(dtype=np.int64)
        self.context = gating_context(pd.concat([train.metadata, test.metadata], ignore_index=True))
        self.counts = CountedTable(table, ngram_blocks(params))
        self.embeddings = np.concatenate([np.asarray(part.text_embeddings, dtype=np.float32) for part in both])
        # The desk is given the texts as they came.
        self.texts = read_table(folder / "interim" / "merged_train.csv")[TEXT_COLUMNS]

    def scores(self, train: IntArray, rows: IntArray) -> dict[str, FloatArray]:
        """Scores of each view, rows x classes, of models of the rows `train`."""
        train_features, features = self.counts.tfidf(train, train, rows)
        params, n_classes = self.params, len(self.classes)
        svm = fit_svm(train_features, self.classes[self.y[train]], params.train.svm_c, params.seed)
        ngrams = np.full((len(rows), n_classes), UNSEEN_CLASS_SCORE)
        ngrams[:, np.searchsorted(self.classes, svm.classes)] = svm.decision_function(features)
        lda = fit_lda(Moments.from_rows(self.embeddings, train, self.y[train], n_classes), self.classes)
        return {NGRAMS: ngrams, TEXT: lda.decision_function(self.embeddings[rows])}

    def fit(self, labelled: IntArray) -> FloatArray:
        """Train on these train rows. Returns the probabilities of every row, rows x classes."""
        metadata = self.metadata.iloc[labelled]
        # A group is named by one of its titles, which may not be among these rows.
        metadata = metadata.assign(group=metadata.groupby("group")["title_hash"].transform("min"))
        parts = assign_folds(metadata, self.codes[labelled], FUSION_FOLDS, self.params.seed)
        scores = {view: np.empty((len(labelled), len(self.classes))) for view in (NGRAMS, TEXT)}
        for number in range(FUSION_FOLDS):
            part = parts == number
            for view, found in self.scores(labelled[~part], labelled[part]).items():
                scores[view][part] = found
        fused = fit_fusion(scores, self.context[labelled], self.y[labelled], self.classes)
        return fused.predict_proba(self.scores(labelled, np.arange(len(self.context))), self.context)

    def scored(self, rows: IntArray, proba: FloatArray) -> pd.DataFrame:
        """The table that `rakuten score` would write of these train rows, all for review."""
        likeliest = np.argsort(-proba, axis=1, kind="stable")[:, : len(CHOICE_COLUMNS)]
        table = self.texts.iloc[rows].reset_index(drop=True).assign(needs_review=True, model_version="")
        for (code, confidence), column in zip(CHOICE_COLUMNS, likeliest.T, strict=True):
            table[code], table[confidence] = self.classes[column], proba[np.arange(len(rows)), column]
        return table


def first_labelled(group: HashArray, rows: IntArray, seed: int) -> IntArray:
    """Which of the rows are labelled at the start: groups of near-duplicates, drawn until START of them is reached."""
    groups, counts = np.unique(group[rows], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(groups))
    n_groups = int(np.searchsorted(counts[order].cumsum(), START * len(rows))) + 1
    return rows[np.isin(group[rows], groups[order[:n_groups]])]


class Point(NamedTuple):
    """After one training."""

    share: float  # of the queue that is decided
    predicted: IntArray  # class column of each row of the catalogue
    queue_f1: float


def simulate(
    catalogue: Catalogue, order: str, held_out: BoolArray, seed: int, shared: dict[float, FloatArray]
) -> list[Point]:
    """Decide about the queue in one order.

    Args:
        held_out: of each train row, whether it is neither labelled nor in the queue.
        shared: the probabilities of the trainings that are the same for every order, by their share of the queue.
    """
    rows = np.flatnonzero(~held_out)
    first = first_labelled(catalogue.metadata["group"].to_numpy(), rows, seed)
    queue = np.setdiff1d(rows, first)
    rng = np.random.default_rng(seed)

    def point(share: float, waiting: IntArray) -> Point:
        predicted = proba.argmax(axis=1)
        answered = np.where(np.isin(queue, waiting), predicted[queue], catalogue.y[queue])
        return Point(share, predicted, weighted_f1(catalogue.y[queue], answered))

    shared[0.0] = proba = shared[0.0] if 0.0 in shared else catalogue.fit(first)
    points, waiting = [point(0.0, queue)], queue
    for step in range(1, round(END / STEP) + 1):
        size = len(waiting) - round((1 - step * STEP) * len(queue))
        class_rows = np.bincount(catalogue.y[np.setdiff1d(rows, waiting)], minlength=len(catalogue.classes))
        table, embeddings = catalogue.scored(waiting, proba[waiting]), catalogue.embeddings[waiting]
        priority = ORDERS[order](Queue(table, proba[waiting], embeddings, class_rows, size, rng))
        waiting = np.sort(waiting[np.argsort(-priority, kind="stable")[size:]])
        proba = catalogue.fit(np.setdiff1d(rows, waiting))
        points.append(point(step * STEP, waiting))
    shared[1.0] = proba = shared[1.0] if 1.0 in shared else catalogue.fit(rows)
    return [*points, point(1.0, queue[:0])]


def curve(catalogue: Catalogue, order: str, seed: int, shared: list[dict[float, FloatArray]]) -> list[list[float]]:
    """Simulate with each fold held out. For each training the share of the queue that is decided, and the scores."""
    fold = assign_folds(catalogue.metadata, catalogue.codes, catalogue.params.train.folds, seed)
    simulated = [simulate(catalogue, order, fold == number, seed, known) for number, known in enumerate(shared)]
    n_train, found = catalogue.n_train, []
    for points in zip(*simulated, strict=True):
        predicted = np.array([point.predicted for point in points])
        tests = [weighted_f1(catalogue.test_codes, catalogue.classes[each[n_train:]]) for each in predicted]
        out_of_fold = weighted_f1(catalogue.y, predicted[fold, np.arange(n_train)])
        queue = float(np.mean([point.queue_f1 for point in points]))
        found.append([points[0].share, out_of_fold, float(np.mean(tests)), queue])
    return found


def weighted_f1(y_true: IntArray, y_pred: IntArray) -> float:
    return classification_scores(y_true, y_pred)["weighted_f1"]


def wrong_labels(folder: Path, seed: int, params: Params) -> dict[str, list[float]]:
    """Share of the planted wrong labels of a synthetic catalogue that is found, for each of SHARES, by order."""
    if not (folder / "raw" / "X_train.csv").is_file():
        write_catalogue(SAMPLE_ROWS, 1, seed, folder / "raw", images=False)
    make_features(folder / "raw", folder)
    products = synthetic_products(proportional_codes(SAMPLE_ROWS, seed), 0, seed)
    planted = {product.productid for product in products if product.prdtypecode != product.true_code}
    features = FeatureSet.open(folder / "processed", TRAIN)
    with tempfile.TemporaryDirectory() as scratch:
        _, found = fit(features, params, encoder_fingerprints(params.features), Path(scratch))
        issues = label_issues_table(features, found, params.train.shard_rows, params.seed)
        given = found.proba[:][np.arange(len(found.y)), found.y]
    texts = read_table(folder / "interim" / "merged_train.csv", integers=ID_COLUMNS)[TEXT_COLUMNS]
    rows = from_label_issues(issues.merge(texts, on=list(ID_COLUMNS), how="left"), {}, "", current_taxonomy())
    rows.sort(key=lambda row: -row["priority"])
    queues = {
        DESK: [row["productid"] for row in rows],
        LABEL: features.metadata["productid"].to_numpy()[np.argsort(given, kind="stable")].tolist(),
    }
    sizes = [round(share * len(planted)) for share in SHARES]
    curves = {name: [len(planted & set(ids[:n])) / len(planted) for n in sizes] for name, ids in queues.items()}
    return {**curves, RANDOM: [n / SAMPLE_ROWS for n in sizes], "planted": [len(planted)], "queue": [len(rows)]}


def make_features(raw: Path, folder: Path) -> None:
    """Run the stages ingest and features on raw files, unless they have run."""
    if (folder / "processed").is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {"data/make_dataset.py": ("corrections",), "features/build_features.py": ("processed", "cache")}
    for script, names in scripts.items():
        paths = {name: folder / name for name in ("interim", "reports", *names)}
        flags = [part for name, path in {"raw": raw, **paths}.items() for part in (f"--{name}", path)]
        run([sys.executable, ROOT / "src" / script, *flags], {}, folder / f"{Path(script).stem}.log")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.review", description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="X_train.csv, Y_train.csv, X_test.csv, images/")
    parser.add_argument("--truth", type=Path, help="default: Y_test.csv in the folder of --raw")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-review")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=[RANDOM, CONFIDENCE, DESK])
    parser.add_argument("--plot", type=Path, help="default: review-curve.png in --folder")
    arguments = parser.parse_args(argv)
    params, folder = load_params(PARAMS), arguments.folder
    make_features(arguments.raw, folder)
    results = folder / "results.json"
    found = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {"curves": {}, "labels": {}}
    with threadpool_limits(1):
        catalogue = Catalogue(folder, arguments.truth or arguments.raw / "Y_test.csv", params)
        for seed in arguments.seeds:
            shared: list[dict[float, FloatArray]] = [{} for _ in range(params.train.folds)]
            for order in dict.fromkeys([RANDOM, *arguments.orders]):
                if str(seed) not in found["curves"].setdefault(order, {}):
                    found["curves"][order][str(seed)] = curve(catalogue, order, seed, shared)
                    dump_json(found, results)
            if str(seed) not in found["labels"]:
                found["labels"][str(seed)] = wrong_labels(folder / f"sample-{seed}", seed, params)
                dump_json(found, results)
    curves = {order: np.array(list(by_seed.values())) for order in ORDERS if (by_seed := found["curves"].get(order))}
    catalogues = list(found["labels"].values())
    labels = {order: np.array([each[order] for each in catalogues]) for order in (RANDOM, LABEL, DESK)}
    lines = [
        *curve_tables(curves),
        "",
        "Synthetic: share of the wrong labels among the first products; N: all that are",
    ]
    lines += ["planted", "", *label_table(labels), ""]
    lines += [f"{name}: {[each[name][0] for each in catalogues]}" for name in ("planted", "queue")]
    sys.stdout.write("\n".join(lines) + "\n")
    save_small(review_figure(curves, labels), arguments.plot or folder / "review-curve.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
