"""Stage train: the classifier, judged out of fold, recorded in MLflow."""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from src import tracking
from src.cli import progress, run_stage
from src.config import MODELS, PROCESSED, REPORTS, Params, TrainParams
from src.data.catalog import is_synthetic, read_table, write_table
from src.features.ngrams import Block, Counts, NgramVectorizer, count
from src.files import dump_json, writing
from src.models import evaluation, plots
from src.models.classifier import VECTORIZER, ProductClassifier, align, fit_linear
from src.models.evaluation import Floats, Ints
from src.models.raw_model import OUTPUTS

log = logging.getLogger(__name__)

NUMBERS = ("designation_len", "description_len", "has_description", "has_image", "prdtypecode")
EXAMPLE = pd.DataFrame(
    {"designation": ["Piscine gonflable ronde 360 cm"], "description": ["<p>Avec pompe de filtration</p>"]}
)


class Training(NamedTuple):
    """A classifier fitted on every row, and what is known of it from out-of-fold predictions."""

    classifier: ProductClassifier
    true: Ints
    predicted: Ints
    confidence: Floats
    metrics: dict[str, Any]


def train(params: Params, processed: Path, models: Path, reports: Path) -> str:
    """Fit the classifier and record its out-of-fold scores, model and plots as one MLflow run."""
    tracking.check_server()
    source = processed / "train_features.csv"
    table = read_table(source, integers=NUMBERS)
    synthetic = is_synthetic(table)
    with tracking.training_run(params.flat(), [source], {"synthetic": str(synthetic).lower()}) as run:
        training = fit(table, params)
        training.metrics["synthetic"] = synthetic
        training.classifier.save(models)
        with writing(models / "metrics.json") as (part,):
            dump_json(training.metrics, part)
        written = [models / "metrics.json", models / VECTORIZER, *write_reports(training, reports)]
        with tempfile.TemporaryDirectory() as folder:
            training.classifier.save(Path(folder))
            tracking.log_training(_flat(training.metrics), Path(folder), EXAMPLE, OUTPUTS, written)
    low, high = training.metrics["interval"]["weighted_f1"]
    return (
        f"{len(training.classifier.classes)} classes learnt from {len(table):,}{' SYNTHETIC' if synthetic else ''} "
        f"products, out-of-fold weighted F1 {training.metrics['weighted_f1']:.4f} [{low:.4f}, {high:.4f}], "
        f"MLflow run {run},"
    )


def fit(table: pd.DataFrame, params: Params) -> Training:
    """Fit on all rows, with temperature and scores from out-of-fold decisions.

    Args:
        table: train features (designation_clean, description_clean, productid, imageid, prdtypecode).
    """
    true = table["prdtypecode"].to_numpy(dtype=np.int64)
    classes = np.unique(true)
    fold = evaluation.assign_folds(table, true, params.train.folds, params.seed)
    blocks = blocks_of(params.train)
    counts = [count(table, block) for block in progress(blocks, len(blocks), "counting n-grams")]
    decision = out_of_fold(counts, true, fold, params)
    temperature = evaluation.fit_temperature(decision, np.searchsorted(classes, true))
    likely = evaluation.probabilities(decision, temperature)
    predicted, confidence = classes[likely.argmax(axis=1)], likely.max(axis=1)

    log.info("fitting on all %s rows", f"{len(table):,}")
    everything = np.arange(len(table))
    vectorizer = NgramVectorizer.fit(blocks, counts, everything)
    linear = fit_linear(vectorizer.transform_counts(counts, everything), true, params.train.svm_c, params.seed)
    return Training(
        ProductClassifier(vectorizer, linear, temperature, params.features, params.predict.min_confidence),
        true,
        predicted,
        confidence,
        _metrics(true, predicted, confidence, params),
    )


def blocks_of(params: TrainParams) -> list[Block]:
    return [Block.of(block.model_dump()) for block in params.blocks]


def out_of_fold(counts: Sequence[Counts], true: Ints, fold: Ints, params: Params) -> Floats:
    """Scores (rows x classes) of each row by a model that saw neither it nor its title."""
    classes = np.unique(true)
    numbers = np.unique(fold)
    # Processes, not threads: the solver's random numbers are global to a process.
    jobs = (delayed(_held_out)(counts, true, fold, number, params) for number in numbers)
    decision = np.empty((len(true), len(classes)))
    done = Parallel(n_jobs=-1, return_as="generator")(jobs)
    for number, scores in zip(numbers, progress(done, len(numbers), "out-of-fold models"), strict=True):
        decision[fold == number] = scores
    return decision


def _held_out(counts: Sequence[Counts], true: Ints, fold: Ints, number: int, params: Params) -> Floats:
    seen, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
    known = np.unique(true[seen])
    if len(known) == 1:  # of two classes, one has all its rows in this fold: nothing to tell apart
        return align(np.zeros((len(held_out), 1)), np.unique(true), known)
    vectorizer = NgramVectorizer.fit(blocks_of(params.train), counts, seen)
    linear = fit_linear(vectorizer.transform_counts(counts, seen), true[seen], params.train.svm_c, params.seed)
    decision = linear.decision(vectorizer.transform_counts(counts, held_out))
    return align(decision, np.unique(true), linear.classes)


def _metrics(true: Ints, predicted: Ints, confidence: Floats, params: Params) -> dict[str, Any]:
    per_class = evaluation.per_class(true, predicted)
    return {
        "rows": len(true),
        **evaluation.scores(true, predicted),
        "interval": evaluation.intervals(true, predicted, params.train.bootstrap, params.seed),
        "calibration_error": evaluation.reliability(confidence, true == predicted).error,
        "f1": {str(code): float(f1) for code, f1 in zip(per_class["prdtypecode"], per_class["f1"], strict=True)},
    }


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if name == "interval":
            for score, (low, high) in value.items():
                flat |= {f"{score}_low": low, f"{score}_high": high}
        elif isinstance(value, dict):
            flat |= {f"{name}_{key}": number for key, number in value.items()}
        elif not isinstance(value, bool):
            flat[name] = float(value)
    return flat


def write_reports(training: Training, reports: Path) -> list[Path]:
    """Write each out-of-fold result as the table that DVC plots and as a picture; return the files."""
    right = training.true == training.predicted
    bins = evaluation.reliability(training.confidence, right)
    per_class = evaluation.per_class(training.true, training.predicted)
    coverage = evaluation.coverage_curve(training.confidence, right)
    kind = "synthetic sample catalogue, out of fold" if training.metrics["synthetic"] else "out of fold"
    results = {
        "confusion_matrix": (
            plots.confusion_table(training.true, training.predicted),
            plots.confusion_figure(training.true, training.predicted, f"Confusion matrix in %, {kind}"),
        ),
        "per_class_f1": (per_class, plots.per_class_figure(per_class, f"F1 of each class, {kind}")),
        "reliability": (bins.table, plots.reliability_figure(bins.table, bins.error, f"Reliability, {kind}")),
        "coverage": (coverage, plots.coverage_figure(coverage, f"Decided automatically, {kind}")),
    }
    files = [reports / f"{name}{ending}" for name in results for ending in (".csv", ".png")]
    with writing(*files) as parts:
        for (frame, figure), table_part, picture_part in zip(results.values(), parts[::2], parts[1::2], strict=True):
            write_table(frame, table_part)
            plots.save(figure, picture_part)
    return files


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    return run_stage("train", __file__, train, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
