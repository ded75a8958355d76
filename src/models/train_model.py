"""Stage train: the classifier, scored out of fold, recorded in MLflow."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others
from rakuten.cli import run_stage
from rakuten.config import MODELS, PROCESSED, REPORTS, Params
from rakuten.data.schema import is_synthetic
from rakuten.evaluation.label_issues import label_issues_table
from rakuten.evaluation.learning_curves import LEARNING_CURVES_FILE, learning_curve_metrics
from rakuten.evaluation.model_card import model_card
from rakuten.evaluation.report import Report, flat_metrics, measure
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.encoders.finetuned import NETWORKS_FOLDER, read_networks
from rakuten.features.feature_set import TRAIN, FeaturePaths, FeatureSet, finetuned_path
from rakuten.features.monitored_columns import reference_sample
from rakuten.files import atomic_write, dump_json, scratch_folder
from rakuten.models.classifier import VECTORIZER_FILE
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel
from rakuten.models.self_check import self_check_answers
from rakuten.models.training import fit
from rakuten.tracking import lineage, server, training_run


def train(params: Params, processed: Path, models: Path, reports: Path) -> str:
    """Learn the classifier and record its out-of-fold scores, model and reports as one MLflow run."""
    server.check_server()
    sources = list(FeaturePaths.of(processed, TRAIN))
    features = FeatureSet.open(processed, TRAIN)
    sources += [finetuned_path(processed, TRAIN, view) for view in features.finetuned]
    networks = read_networks(models / NETWORKS_FOLDER)
    synthetic = is_synthetic(features.metadata)
    tags = {"synthetic": str(synthetic).lower()}
    for network in networks.values():
        tags["finetune_device"] = str(network.settings()["device"])  # the same for all
    with (
        scratch_folder(processed.parent / "scratch") as scratch,
        training_run.training_run(params.flat(), sources, tags, models) as run,
    ):
        classifier, out_of_fold = fit(features, params, encoder_fingerprints(params.features), scratch, networks)
        classifier.self_check_answers = self_check_answers(PyfuncModel(classifier))
        threshold = classifier.config.threshold
        issues = label_issues_table(features, out_of_fold, params.train.shard_rows, params.seed)
        metrics = measure(out_of_fold, threshold, features.metadata, params)
        metrics |= {"synthetic": synthetic, "label_issues": len(issues)}
        reference = reference_sample(
            features, out_of_fold.predicted_codes, out_of_fold.confidence.round(6), threshold, params.seed
        )
        card = model_card(metrics, params, classifier.config.encoders, lineage.data_digests(sources))
        classifier.save(models)
        with atomic_write(models / "metrics.json") as (partial,):
            dump_json(metrics, partial)
        files = [models / "metrics.json", models / VECTORIZER_FILE]
        files += Report(out_of_fold, features.metadata, metrics, issues, reference, card).write(reports)
        used = [network.path for network in classifier.networks.values()]
        run.log(flat_metrics(metrics), OUTPUTS, files, used, learning_curve_metrics(reports / LEARNING_CURVES_FILE))
    return _closing_line(metrics, run.run_id)


def _closing_line(metrics: Mapping[str, Any], run_id: str) -> str:
    low, high = metrics["interval"]["weighted_f1"]
    kind = " SYNTHETIC" if metrics["synthetic"] else ""
    return (
        f"{len(metrics['f1'])} classes learnt from {metrics['rows']:,}{kind} products, out-of-fold weighted F1 "
        f"{metrics['weighted_f1']:.4f} [{low:.4f}, {high:.4f}], MLflow run {run_id}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    return run_stage("train", train, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
