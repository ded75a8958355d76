"""Stage train: the classifier, scored out of fold, recorded in MLflow."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others

# isort: split
import numpy as np

from rakuten.cli import run_stage
from rakuten.config import INTERIM, METRICS_FILE, MODELS, PROCESSED, REPORTS, SCORES_FILE, Params
from rakuten.data.ingestion import NONE_FILE
from rakuten.data.schema import is_synthetic
from rakuten.data.tables import read_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.evaluation.label_issues import label_issues_table
from rakuten.evaluation.learning_curves import LEARNING_CURVES_FILE, learning_curve_metrics, read_learning_curves
from rakuten.evaluation.model_card import model_card
from rakuten.evaluation.novelty_flag import flagged_share, is_novel
from rakuten.evaluation.report import Report, dvc_metrics, measure, mlflow_metrics
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.encoders.finetuned import NETWORKS_FOLDER, read_networks
from rakuten.features.feature_set import GROUPS_FILE, TRAIN, FeaturePaths, FeatureSet, finetuned_path
from rakuten.features.monitored_columns import reference_sample
from rakuten.files import atomic_write, dump_json, scratch_folder
from rakuten.models.classifier import VECTORIZER_FILE
from rakuten.models.parents import fit_parents
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel
from rakuten.models.self_check import self_check_answers
from rakuten.models.training import fit
from rakuten.tracking import lineage, server, training_run
from rakuten.types import BoolArray

MAX_NONE_ROWS = 2_000  # of the products that no code fits: enough for the share of them that is flagged


def train(params: Params, interim: Path, processed: Path, models: Path, reports: Path) -> str:
    """Learn the classifier and record its out-of-fold scores, model and reports as one MLflow run."""
    server.check_server()
    sources = [*FeaturePaths.of(processed, TRAIN), processed / GROUPS_FILE]
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
        model = PyfuncModel(classifier)
        classifier.self_check_answers = self_check_answers(model)
        threshold, false_alarms = classifier.config.threshold, params.predict.novelty_false_alarms
        decided = out_of_fold.decided(threshold, false_alarms)
        classifier.parents, parent_scores = fit_parents(
            out_of_fold,
            ~decided & ~is_novel(out_of_fold.novelty, false_alarms),
            params.predict.target_precision,
            current_taxonomy().parent_of,
        )
        issues = label_issues_table(features, out_of_fold, params.train.shard_rows, params.seed)
        scores = measure(out_of_fold, threshold, features.metadata, params)
        scores |= {"synthetic": synthetic, "label_issues": len(issues), "parents": parent_scores}
        scores["novelty"]["none_of_the_codes"] = flagged_share(flag_none_of_the_codes(model, interim / NONE_FILE))
        reference = reference_sample(
            features, out_of_fold.predicted_codes, out_of_fold.confidence.round(6), ~decided, params.seed
        )
        curves = read_learning_curves(reports / LEARNING_CURVES_FILE)
        card = model_card(scores, params, classifier.config.encoders, lineage.data_digests(sources))
        classifier.save(models)
        files = [models / SCORES_FILE, models / METRICS_FILE]
        with atomic_write(*files) as (scores_file, metrics_file):
            dump_json(scores, scores_file)
            dump_json(dvc_metrics(scores), metrics_file)
        files += Report(out_of_fold, features.metadata, scores, issues, reference, curves, card).write(reports)
        files += [models / VECTORIZER_FILE]
        used = [network.path for network in classifier.networks.values()]
        run.log(mlflow_metrics(scores), OUTPUTS, files, used, learning_curve_metrics(curves))
    return _closing_line(scores, run.run_id)


def flag_none_of_the_codes(model: PyfuncModel, path: Path) -> BoolArray:
    """Whether the model calls each product novel that people said no code fits; judged by its texts, not trained on.

    Args:
        path: the products, as ingest wrote them; of more than MAX_NONE_ROWS the last.
    """
    if not path.is_file():
        return np.zeros(0, dtype=bool)
    products = read_table(path)[["designation", "description"]].tail(MAX_NONE_ROWS)
    flagged: BoolArray = model.predict(products)["is_novel"].to_numpy(dtype=bool)
    return flagged


def _closing_line(scores: Mapping[str, Any], run_id: str) -> str:
    low, high = scores["interval"]["weighted_f1"]
    kind = " SYNTHETIC" if scores["synthetic"] else ""
    return (
        f"{len(scores['f1'])} classes learnt from {scores['rows']:,}{kind} products, out-of-fold weighted F1 "
        f"{scores['weighted_f1']:.4f} [{low:.4f}, {high:.4f}], MLflow run {run_id}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"interim": INTERIM, "processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    return run_stage("train", train, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
