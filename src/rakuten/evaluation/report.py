"""The report on a training: scores as numbers, tables and plots. All of it is out of fold."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rakuten.config import Params
from rakuten.data.tables import write_table
from rakuten.evaluation import plots
from rakuten.evaluation.bootstrap import bootstrap_ci
from rakuten.evaluation.calibration import coverage_curve, reliability
from rakuten.evaluation.metrics import classification_scores, confusion_table, per_class_scores, per_class_table
from rakuten.evaluation.novelty_flag import flagged_share, is_novel
from rakuten.evaluation.out_of_fold import Baseline, OutOfFold
from rakuten.files import atomic_write
from rakuten.types import BoolArray, IntArray

REFERENCE_FILE = "reference.parquet"  # what live traffic is compared with
OUT_OF_FOLD_FILE = "out_of_fold.csv"  # the out-of-fold prediction of each train product
SHORT_TITLE_CHARS = 20  # a shorter title, with no description, is next to no text


def measure(out_of_fold: OutOfFold, threshold: float, metadata: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Scores with 95 % intervals: of all products, of each class, of parts of the catalogue, and of each baseline.

    These are the keys of models/scores.json, except `synthetic` and `label_issues`.

    Args:
        threshold: confidence from which a product is decided without review, unless it is novel.
        metadata: `FeatureSet.metadata` of the train products.
    """
    y_true, y_pred = out_of_fold.true_codes, out_of_fold.predicted_codes
    confidence, correct = out_of_fold.confidence, out_of_fold.correct
    intervals = bootstrap_ci(y_true, y_pred, params.train.bootstrap, params.seed)
    per_class = per_class_scores(y_true, y_pred)
    false_alarms = params.predict.novelty_false_alarms
    decided = out_of_fold.decided(threshold, false_alarms)
    known = ~np.isnan(out_of_fold.novelty)
    return {
        "rows": len(y_true),
        **classification_scores(y_true, y_pred),
        "interval": intervals.scores,
        "calibration_error": reliability(confidence, correct).error,
        "f1": {str(code): float(f1) for code, f1 in zip(per_class["prdtypecode"], per_class["f1"], strict=True)},
        "f1_interval": {str(code): list(interval) for code, interval in intervals.f1.items()},
        "compared": {name: _baseline_scores(out_of_fold, baseline) for name, baseline in out_of_fold.baselines.items()},
        "parts": {
            name: _part_scores(y_true[mask], y_pred[mask], params) for name, mask in _parts(metadata) if mask.any()
        },
        "decided": {
            "target_precision": params.predict.target_precision,
            "threshold": threshold,
            "coverage": float(decided.mean()),
            "precision": float(correct[decided].mean()) if decided.any() else 1.0,
        },
        "novelty": {
            "target_false_alarms": false_alarms,
            "false_alarms": flagged_share(is_novel(out_of_fold.novelty[known], false_alarms)),
        },
    }


def _baseline_scores(out_of_fold: OutOfFold, baseline: Baseline) -> dict[str, float]:
    y_true, y_pred = (out_of_fold.classes[columns[baseline.mask]] for columns in (out_of_fold.y, baseline.y_pred))
    return {"rows": int(baseline.mask.sum()), "weighted_f1": classification_scores(y_true, y_pred)["weighted_f1"]}


def _part_scores(y_true: IntArray, y_pred: IntArray, params: Params) -> dict[str, Any]:
    low, high = bootstrap_ci(y_true, y_pred, params.train.bootstrap, params.seed).scores["weighted_f1"]
    score = classification_scores(y_true, y_pred)["weighted_f1"]
    return {"rows": len(y_true), "weighted_f1": score, "weighted_f1_interval": [low, high]}


def _parts(metadata: pd.DataFrame) -> Iterator[tuple[str, BoolArray]]:
    """Parts of the catalogue that are scored separately: name, mask of the rows."""
    has_image = metadata["has_image"].to_numpy() == 1
    short = ((metadata["designation_len"] < SHORT_TITLE_CHARS) & (metadata["has_description"] == 0)).to_numpy()
    yield "no picture", ~has_image
    yield "picture", has_image
    yield "picture and next to no text", has_image & short
    has_near_duplicate = metadata["group"].duplicated(keep=False).to_numpy()
    yield "near-duplicate of another product", has_near_duplicate
    yield "no near-duplicate", ~has_near_duplicate
    for name in sorted(metadata["language"].unique()):
        yield f"title in {name}", (metadata["language"] == name).to_numpy()


def dvc_metrics(scores: Mapping[str, Any]) -> dict[str, float | bool]:
    """The scores that `dvc metrics show` lists, as models/metrics.json holds them: few, so that they fit a terminal.

    Args:
        scores: what models/scores.json holds.
    """
    names = ("rows", "weighted_f1", "macro_f1", "synthetic")
    return {"coverage": scores["decided"]["coverage"], **{name: scores[name] for name in names}}


def mlflow_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that a run shows as metrics; its artifact models/scores.json has all of them.

    Args:
        scores: what models/scores.json holds.
    """
    decided, (low, high) = scores["decided"], scores["interval"]["weighted_f1"]
    names = ("rows", "weighted_f1", "macro_f1", "accuracy", "calibration_error", "label_issues")
    return {
        **{name: float(scores[name]) for name in names},
        "weighted_f1_low": low,
        "weighted_f1_high": high,
        "coverage": decided["coverage"],
        "decided_precision": decided["precision"],
        "threshold": decided["threshold"],
    }


@dataclass(frozen=True)
class Report:
    """What is written about a training besides the scores."""

    out_of_fold: OutOfFold
    metadata: pd.DataFrame  # `FeatureSet.metadata` of the train products
    scores: Mapping[str, Any]  # what models/scores.json holds
    label_issues: pd.DataFrame
    reference: pd.DataFrame  # sample of the train products that live traffic is compared with
    learning_curves: pd.DataFrame  # of the networks that were fine-tuned: LEARNING_CURVE_COLUMNS
    model_card: str

    def write(self, reports: Path) -> list[Path]:
        """Write every file: each result as a table and as a PNG, and the rest. Returns the paths."""
        writers = self._plots() | {
            REFERENCE_FILE: lambda path: self.reference.to_parquet(path, index=False),
            OUT_OF_FOLD_FILE: lambda path: write_table(self._predictions(), path),
            "label_issues.csv": lambda path: write_table(self.label_issues, path),
            "model_card.md": lambda path: path.write_text(self.model_card, encoding="utf-8", newline="\n"),
        }
        paths = [reports / name for name in writers]
        with atomic_write(*paths) as partial_paths:
            for write, path in zip(writers.values(), partial_paths, strict=True):
                write(path)
        return paths

    def _predictions(self) -> pd.DataFrame:
        return self.metadata[["productid", "imageid", "prdtypecode"]].assign(
            predicted=self.out_of_fold.predicted_codes,
            confidence=self.out_of_fold.confidence.round(6),
            novelty=self.out_of_fold.novelty,
        )

    def _plots(self) -> dict[str, Callable[[Path], object]]:
        y_true, y_pred = self.out_of_fold.true_codes, self.out_of_fold.predicted_codes
        confidence, correct = self.out_of_fold.confidence, self.out_of_fold.correct
        diagram = reliability(confidence, correct)
        # A novel product is reviewed whatever its confidence, so it is the last to be decided.
        novel = is_novel(self.out_of_fold.novelty, self.scores["novelty"]["target_false_alarms"])
        coverage, decided = coverage_curve(np.where(novel, 0.0, confidence), correct), self.scores["decided"]
        confusion = confusion_table(y_true, y_pred)
        per_class = per_class_table(per_class_scores(y_true, y_pred), self.scores["f1_interval"])
        catalogue = ", synthetic sample catalogue" if self.scores["synthetic"] else ""
        kind = f"{catalogue}, out of fold"
        results = {
            "confusion_matrix": (confusion, plots.confusion_figure(confusion, f"Confusion matrix in %{kind}")),
            "per_class_f1": (per_class, plots.per_class_figure(per_class, f"F1 of each class{kind}")),
            "reliability": (
                diagram.table,
                plots.reliability_figure(diagram.table, diagram.error, decided, f"Reliability{kind}"),
            ),
            "coverage": (coverage, plots.coverage_figure(coverage, decided, f"Decided automatically{kind}")),
        }
        writers: dict[str, Callable[[Path], object]] = {}
        for name, (table, figure) in results.items():
            writers[f"{name}.csv"] = partial(write_table, table)
            writers[f"{name}.png"] = partial(plots.save_figure, figure)
        curves = plots.learning_curves_figure(self.learning_curves, f"Fine-tuned networks{catalogue}")
        return writers | {"learning_curves.png": partial(plots.save_figure, curves)}
