"""Stage train: the classifier, scored out of fold, recorded in MLflow."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others

# isort: split
from rakuten.cli import run_stage
from rakuten.config import CACHE, INTERIM, METRICS_FILE, MODELS, PROCESSED, REPORTS, SCORES_FILE, Params
from rakuten.data.ingestion import NONE_FILE
from rakuten.data.schema import is_synthetic
from rakuten.data.tables import read_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.evaluation.label_issues import label_issues_table
from rakuten.evaluation.learning_curves import LEARNING_CURVES_FILE, learning_curve_metrics, read_learning_curves
from rakuten.evaluation.model_card import model_card
from rakuten.evaluation.novelty_flag import flagged_share, is_novel
from rakuten.evaluation.report import Report, dvc_metrics, measure, mlflow_metrics
from rakuten.features.embedding import embed_texts
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.encoders.finetuned import NETWORKS_FOLDER, NetworkFolder, read_networks
from rakuten.features.feature_set import GROUPS_FILE, TRAIN, FeatureBatch, FeaturePaths, FeatureSet, finetuned_path
from rakuten.features.monitored_columns import reference_sample
from rakuten.features.text_features import raw_text_features, texts_to_embed
from rakuten.files import atomic_write, dump_json, scratch_folder
from rakuten.models.classifier import VECTORIZER_FILE
from rakuten.models.parents import fit_parents
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel, finetuned_scores
from rakuten.models.self_check import self_check_answers
from rakuten.models.training import fit
from rakuten.tracking import lineage, server, training_run

MAX_NONE_ROWS = 2_000  # of the products that no code fits: what more would teach is little


def train(params: Params, interim: Path, processed: Path, models: Path, reports: Path, cache: Path) -> str:
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
        none = none_of_the_codes(interim / NONE_FILE, params, networks, cache)
        classifier, out_of_fold = fit(features, params, encoder_fingerprints(params.features), scratch, networks, none)
        classifier.self_check_answers = self_check_answers(PyfuncModel(classifier))
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
        scores["novelty"]["none_of_the_codes"] = flagged_share(is_novel(out_of_fold.none_novelty, false_alarms))
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


def none_of_the_codes(path: Path, params: Params, networks: Mapping[str, NetworkFolder], cache: Path) -> FeatureBatch:
    """The features of the products that people said none of the codes fits, without their images.

    Args:
        path: the products, as ingest wrote them; of more than MAX_NONE_ROWS the last are taken.
        networks: the fine-tuned network of each fine-tuned view.
        cache: folder of the embedding caches.
    """
    texts: list[tuple[str, str]] = []
    if path.is_file():
        products = read_table(path).tail(MAX_NONE_ROWS)
        texts = list(zip(products["designation"], products["description"], strict=True))
    table = raw_text_features(texts, [0] * len(texts), params.features)
    to_embed = [(str(row), text) for row, text in enumerate(texts_to_embed(table))]
    embeddings = embed_texts(to_embed, params.features.text_encoder, cache, "texts that no code fits")
    return FeatureBatch(table, embeddings, None, finetuned_scores(networks, texts, [None] * len(texts)))


def _closing_line(scores: Mapping[str, Any], run_id: str) -> str:
    low, high = scores["interval"]["weighted_f1"]
    kind = " SYNTHETIC" if scores["synthetic"] else ""
    return (
        f"{len(scores['f1'])} classes learnt from {scores['rows']:,}{kind} products, out-of-fold weighted F1 "
        f"{scores['weighted_f1']:.4f} [{low:.4f}, {high:.4f}], MLflow run {run_id}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"interim": INTERIM, "processed": PROCESSED, "models": MODELS, "reports": REPORTS, "cache": CACHE}
    return run_stage("train", train, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
