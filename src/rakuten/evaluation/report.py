"""The report on a training: scores as numbers, tables and plots. All of it is out of fold."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rakuten.config import Params
from rakuten.data.tables import write_table
from rakuten.evaluation import plots
from rakuten.evaluation.bootstrap import bootstrap_ci
from rakuten.evaluation.calibration import coverage_curve, reliability
from rakuten.evaluation.metrics import classification_scores, per_class_scores
from rakuten.evaluation.out_of_fold import Baseline, OutOfFold
from rakuten.files import atomic_write
from rakuten.types import BoolArray, IntArray

REFERENCE_FILE = "reference.parquet"  # what live traffic is compared with
OUT_OF_FOLD_FILE = "out_of_fold.csv"  # the out-of-fold prediction of each train product
SHORT_TITLE_CHARS = 20  # a shorter title, with no description, is next to no text


def measure(out_of_fold: OutOfFold, threshold: float, metadata: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Scores with 95 % intervals: of all products, of each class, of parts of the catalogue, and of each baseline.

    These are the keys of models/metrics.json, except `synthetic` and `label_issues`.

    Args:
        threshold: confidence from which a product is decided without review.
        metadata: `FeatureSet.metadata` of the train products.
    """
    y_true, y_pred = out_of_fold.true_codes, out_of_fold.predicted_codes
    confidence, correct = out_of_fold.confidence, out_of_fold.correct
    intervals = bootstrap_ci(y_true, y_pred, params.train.bootstrap, params.seed)
    per_class = per_class_scores(y_true, y_pred)
    decided = confidence >= threshold
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


def flat_metrics(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number of nested metrics under one flat name, as MLflow needs them.

    An interval becomes two numbers, named _low and _high; names have underscores instead of spaces.

    Args:
        prefix: put before every name.
    """
    flat: dict[str, float] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}".replace(" ", "_")
        if isinstance(value, Mapping):
            flat |= flat_metrics(value, "" if key == "interval" else f"{name}_")
        elif isinstance(value, (list, tuple)):
            stem = name.replace("f1_interval", "f1")
            flat |= {f"{stem}_low": float(value[0]), f"{stem}_high": float(value[1])}
        elif not isinstance(value, bool):
            flat[name] = float(value)
    return flat


@dataclass(frozen=True)
class Report:
    """What is written about a training besides the scores."""

    out_of_fold: OutOfFold
    metadata: pd.DataFrame  # `FeatureSet.metadata` of the train products
    metrics: Mapping[str, Any]  # from `measure`, and synthetic
    label_issues: pd.DataFrame
    reference: pd.DataFrame  # sample of the train products that live traffic is compared with
    model_card: str

    def write(self, reports: Path) -> list[Path]:
        """Write every file: each result as the table that DVC plots and as a PNG, and the rest. Returns the paths."""
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
            predicted=self.out_of_fold.predicted_codes, confidence=self.out_of_fold.confidence.round(6)
        )

    def _plots(self) -> dict[str, Callable[[Path], object]]:
        y_true, y_pred = self.out_of_fold.true_codes, self.out_of_fold.predicted_codes
        confidence, correct = self.out_of_fold.confidence, self.out_of_fold.correct
        diagram, per_class = reliability(confidence, correct), per_class_scores(y_true, y_pred)
        coverage, decided = coverage_curve(confidence, correct), self.metrics["decided"]
        kind = "synthetic sample catalogue, out of fold" if self.metrics["synthetic"] else "out of fold"
        results = {
            "confusion_matrix": (
                plots.confusion_table(y_true, y_pred),
                plots.confusion_figure(y_true, y_pred, f"Confusion matrix in %, {kind}"),
            ),
            "per_class_f1": (per_class, plots.per_class_figure(per_class, f"F1 of each class, {kind}")),
            "reliability": (
                diagram.table,
                plots.reliability_figure(diagram.table, diagram.error, f"Reliability, {kind}"),
            ),
            "coverage": (coverage, plots.coverage_figure(coverage, decided, f"Decided automatically, {kind}")),
        }
        writers: dict[str, Callable[[Path], object]] = {}
        for name, (table, figure) in results.items():
            writers[f"{name}.csv"] = partial(write_table, table)
            writers[f"{name}.png"] = partial(plots.save_figure, figure)
        return writers
