"""What is said of a training: scores as numbers, tables and pictures. All of it is out of fold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rakuten.config import Params
from rakuten.data.tables import write_table
from rakuten.evaluation import metrics, plots
from rakuten.evaluation.metrics import Ints
from rakuten.features.feature_set import Catalogue
from rakuten.features.monitored_columns import reference
from rakuten.files import writing
from rakuten.models.training import Fit, Rival

REFERENCE = "reference.parquet"  # what live traffic is compared with
OUT_OF_FOLD = "out_of_fold.csv"  # each train product's code by a model that never saw its title
FEW_CHARACTERS = 20  # a title below it, with no description, is next to no text


def measure(fitted: Fit, facts: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Scores with 95 % intervals: of all products, each class, each part of them, and each thing compared."""
    classes = fitted.classifier.classes
    true, predicted = classes[fitted.true_index], classes[fitted.predicted]
    confidence, right = fitted.confidence, true == predicted
    bounds = metrics.intervals(true, predicted, params.train.bootstrap, params.seed)
    per_class = metrics.per_class(true, predicted)
    threshold = fitted.classifier.settings.threshold
    decided = confidence >= threshold
    return {
        "rows": len(true),
        **metrics.scores(true, predicted),
        "interval": bounds.scores,
        "calibration_error": metrics.reliability(confidence, right).error,
        "f1": {str(code): float(f1) for code, f1 in zip(per_class["prdtypecode"], per_class["f1"], strict=True)},
        "f1_interval": {str(code): list(interval) for code, interval in bounds.f1.items()},
        "compared": {name: _rival(rival, true, classes) for name, rival in fitted.compared.items()},
        "parts": {name: _part(true[rows], predicted[rows], params) for name, rows in _parts(facts) if rows.any()},
        "decided": {
            "target_precision": params.predict.target_precision,
            "threshold": threshold,
            "coverage": float(decided.mean()),
            "precision": float(right[decided].mean()) if decided.any() else 1.0,
        },
    }


def _rival(rival: Rival, true: Ints, classes: Ints) -> dict[str, float]:
    predicted = classes[rival.predicted]
    score = metrics.scores(true[rival.rows], predicted[rival.rows])["weighted_f1"]
    return {"rows": int(rival.rows.sum()), "weighted_f1": score}


def _part(true: Ints, predicted: Ints, params: Params) -> dict[str, Any]:
    low, high = metrics.intervals(true, predicted, params.train.bootstrap, params.seed).scores["weighted_f1"]
    score = metrics.scores(true, predicted)["weighted_f1"]
    return {"rows": len(true), "weighted_f1": score, "weighted_f1_interval": [low, high]}


def _parts(facts: pd.DataFrame) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.bool_]]]]:
    picture = facts["has_image"].to_numpy() == 1
    bare = ((facts["designation_len"] < FEW_CHARACTERS) & (facts["has_description"] == 0)).to_numpy()
    yield "no picture", ~picture
    yield "picture", picture
    yield "picture and next to no text", picture & bare
    for name in sorted(facts["language"].unique()):
        yield f"title in {name}", (facts["language"] == name).to_numpy()


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers by one name each, as MLflow wants them; an interval becomes _low and _high."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}".replace(" ", "_")
        if isinstance(value, dict):
            found |= flat(value, "" if key == "interval" else f"{name}_")
        elif isinstance(value, (list, tuple)):
            stem = name.replace("f1_interval", "f1")
            found |= {f"{stem}_low": float(value[0]), f"{stem}_high": float(value[1])}
        elif not isinstance(value, bool):
            found[name] = float(value)
    return found


def write_reports(
    fitted: Fit,
    catalogue: Catalogue,
    metrics: dict[str, Any],
    issues: pd.DataFrame,
    card: str,
    seed: int,
    reports: Path,
) -> list[Path]:
    """Write each result as the table that DVC plots and as a picture, what was predicted out of fold, what live
    traffic is compared with, doubted labels, the card; return the files."""
    classes = fitted.classifier.classes
    true, predicted = classes[fitted.true_index], classes[fitted.predicted]
    confidence, right = fitted.confidence, true == predicted
    bins, per_class = metrics.reliability(confidence, right), metrics.per_class(true, predicted)
    coverage = metrics.coverage_curve(confidence, right)
    kind = "synthetic sample catalogue, out of fold" if metrics["synthetic"] else "out of fold"
    results = {
        "confusion_matrix": (
            plots.confusion_table(true, predicted),
            plots.confusion_figure(true, predicted, f"Confusion matrix in %, {kind}"),
        ),
        "per_class_f1": (per_class, plots.per_class_figure(per_class, f"F1 of each class, {kind}")),
        "reliability": (bins.table, plots.reliability_figure(bins.table, bins.error, f"Reliability, {kind}")),
        "coverage": (coverage, plots.coverage_figure(coverage, metrics["decided"], f"Decided automatically, {kind}")),
    }
    files = [reports / f"{name}{ending}" for name in results for ending in (".csv", ".png")]
    files += [reports / name for name in (REFERENCE, OUT_OF_FOLD, "label_issues.csv", "model_card.md")]
    kept = reference(catalogue, predicted, confidence.round(6), fitted.classifier.settings.threshold, seed)
    judged = catalogue.facts[["productid", "imageid", "prdtypecode"]].assign(
        predicted=predicted, confidence=confidence.round(6)
    )
    with writing(*files) as parts:
        for (frame, figure), table_part, picture_part in zip(
            results.values(), parts[:-4:2], parts[1:-4:2], strict=True
        ):
            write_table(frame, table_part)
            plots.save(figure, picture_part)
        kept.to_parquet(parts[-4], index=False)
        write_table(judged, parts[-3])
        write_table(issues, parts[-2])
        parts[-1].write_text(card, encoding="utf-8", newline="\n")
    return files
