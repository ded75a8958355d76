"""Stage predict: a code, a confidence and four alternatives for every test product; and the challenge's submission."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others
from rakuten.cli import progress, run_stage
from rakuten.commands import score
from rakuten.compute import parallel_map
from rakuten.config import INTERIM, MODELS, PROCESSED, REPORTS, Params
from rakuten.data.submission import check_submission, read_index, read_submission, submission_writer
from rakuten.data.tables import read_table_chunks, table_writer
from rakuten.errors import UserError
from rakuten.features.feature_set import TEST, FeatureSet
from rakuten.files import atomic_write, dump_json
from rakuten.models.classifier import ProductClassifier
from rakuten.models.score_features import CHUNK_ROWS, chunk_label, score_chunk
from rakuten.tracking import dvc_lock, lineage


def predict(params: Params, interim: Path, processed: Path, models: Path, reports: Path) -> str:
    """Classify the test products, in their order, every one of them."""
    features = FeatureSet.open(processed, TEST)
    n_rows, to_review = features.n_rows, 0
    classifier, version = ProductClassifier.load(models), lineage.model_version(models)
    if classifier.config.features != params.features:
        raise UserError(f"{models}: trained on features made with other parameters; run `dvc repro`")
    rows = interim / f"merged_{TEST}.csv"
    outputs = (processed / "predictions.csv", processed / "submission.csv", reports / "decisions.json")
    with atomic_write(*outputs) as (predictions, submission, decisions):
        with table_writer(predictions) as write, submission_writer(submission) as submit:
            chunks = features.table_chunks(CHUNK_ROWS)
            scored = parallel_map(partial(score_chunk, models, version, features), chunks, 1, chunk_label)
            scored = progress(scored, -(-n_rows // CHUNK_ROWS), "predicting")
            # Should there be fewer of the one than of the other, the check below fails.
            for chunk, products in zip(scored, read_table_chunks(rows, size=CHUNK_ROWS), strict=False):
                write(chunk.assign(model_version=version))
                submit(products, chunk)
                to_review += int(chunk["needs_review"].sum())
        check_submission(read_submission(submission), read_index(rows), classifier.classes)
        dump_json(
            {
                "rows": n_rows,
                "decided": n_rows - to_review,
                "to_review": to_review,
                "target_precision": classifier.config.target_precision,
                "threshold": classifier.config.threshold,
            },
            decisions,
        )
    dvc_lock.attach_dvc_lock(models)
    return f"{n_rows:,} products predicted, {n_rows - to_review:,} decided automatically and {to_review:,} to review"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument.startswith(("--input", "--output")) for argument in arguments):  # until 0.2: now `rakuten score`
        return score.main(arguments)
    paths = {"interim": INTERIM, "processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    return run_stage("predict", predict, paths, arguments)


if __name__ == "__main__":
    sys.exit(main())
