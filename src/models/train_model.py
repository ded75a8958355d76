"""Stage train: the classifier, judged out of fold, recorded in MLflow."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rakuten.cli import run_stage
from rakuten.config import MODELS, PROCESSED, REPORTS, Params
from rakuten.data.tables import is_synthetic, table_chunks
from rakuten.evaluation.label_issues import label_issues
from rakuten.evaluation.model_card import model_card
from rakuten.evaluation.report import flat, measure, write_reports
from rakuten.features.embedding import Reread, read_embeddings
from rakuten.features.feature_set import NUMBERS, Catalogue
from rakuten.files import dump_json, writing
from rakuten.models.classifier import VECTORIZER
from rakuten.models.pyfunc_model import OUTPUTS, encoder_identities
from rakuten.models.training import fit
from rakuten.scratch import scratch_folder
from rakuten.tracking import lineage, server, training_run

EXAMPLE = pd.DataFrame(
    {"designation": ["Piscine gonflable ronde 360 cm"], "description": ["<p>Avec pompe de filtration</p>"]}
)


def train(params: Params, processed: Path, models: Path, reports: Path) -> str:
    """Fit the classifier and record its out-of-fold scores, model and reports as one MLflow run."""
    server.check_server()
    sources = [processed / f"train_{part}" for part in ("features.csv", "texts.npy", "images.npy")]
    parts = Reread(partial(table_chunks, sources[0], NUMBERS), 0)
    catalogue = Catalogue.of(parts)
    rows = len(catalogue.facts)
    texts, pictures = (read_embeddings(source, rows) for source in sources[1:])
    catalogue = catalogue._replace(texts=texts, pictures=pictures)
    synthetic = is_synthetic(catalogue.facts)
    tags = {"synthetic": str(synthetic).lower()}
    with (
        scratch_folder(processed.parent / "scratch") as scratch,
        training_run.training_run(params.flat(), sources, tags, models) as training,
    ):
        fitted = fit(catalogue, params, encoder_identities(params.features), scratch)
        issues = label_issues(
            catalogue,
            fitted.classifier.classes,
            fitted.true_index,
            fitted.predicted,
            fitted.likely,
            params.train.shard_rows,
            params.seed,
        )
        metrics = measure(fitted, catalogue.facts, params) | {"synthetic": synthetic, "label_issues": len(issues)}
        fitted.classifier.save(models)
        with writing(models / "metrics.json") as (part,):
            dump_json(metrics, part)
        card = model_card(metrics, params, fitted.classifier.settings, lineage.data_digests(sources))
        written = [models / "metrics.json", models / VECTORIZER]
        written += write_reports(fitted, catalogue, metrics, issues, card, params.seed, reports)
        training.finish(flat(metrics), EXAMPLE, OUTPUTS, written)
    return _closing(metrics, training.run_id)


def _closing(metrics: dict[str, Any], run: str) -> str:
    low, high = metrics["interval"]["weighted_f1"]
    return (
        f"{len(metrics['f1'])} classes learnt from {metrics['rows']:,}{' SYNTHETIC' if metrics['synthetic'] else ''} "
        f"products, out-of-fold weighted F1 {metrics['weighted_f1']:.4f} [{low:.4f}, {high:.4f}], MLflow run {run},"
    )


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    return run_stage("train", __file__, train, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
