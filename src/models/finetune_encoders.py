"""Stage finetune: fine-tune the encoder that params.yaml names, and score the products by it. None by default."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import numpy as np
import pandas as pd

from rakuten.cli import run_stage
from rakuten.config import CACHE, INTERIM, MODELS, PROCESSED, REPORTS, Params
from rakuten.data.tables import read_table_chunks, write_table
from rakuten.errors import UserError
from rakuten.evaluation.folds import assign_folds
from rakuten.evaluation.report import LEARNING_CURVE_COLUMNS, LEARNING_CURVES_FILE
from rakuten.features.encoders.finetuned import (
    NETWORK_FOLDERS,
    NETWORKS_FOLDER,
    ProductText,
    cased_texts,
    write_networks,
)
from rakuten.features.feature_set import TEST, TRAIN, FeatureSet, finetuned_path
from rakuten.files import atomic_write
from rakuten.types import FINETUNED_TEXT, Float32Array


def finetune(params: Params, interim: Path, processed: Path, models: Path, reports: Path, cache: Path) -> str:
    """Fine-tune the encoder that params.yaml names, and score the train and test products by it."""
    networks = models / NETWORKS_FOLDER
    if params.finetune.text == "none":
        shutil.rmtree(networks, ignore_errors=True)
        write_networks(networks, {})
        nothing = np.empty((0, 0), dtype=np.float32)
        _write(processed, reports, nothing, nothing, pd.DataFrame(columns=LEARNING_CURVE_COLUMNS))
        return "nothing to fine-tune: finetune.text is none"
    try:
        from rakuten.finetuning import cross_fit
    except ModuleNotFoundError as error:
        raise UserError(f"finetune.text needs {error.name}, which is not installed: `make finetune`") from error
    features = FeatureSet.open(processed, TRAIN)
    codes = features.y()
    classes, y = np.unique(codes, return_inverse=True)
    fold = assign_folds(features.metadata["group"].to_numpy(), codes, params.finetune.folds, params.seed)
    train = cross_fit.LabelledTexts(_read_texts(interim, TRAIN), y, len(classes), fold)
    work = cache / "finetune"
    learnt = work / "network"
    view = cross_fit.finetune_text(train, params.finetune, params.seed, work, learnt)
    test_scores = cross_fit.score_texts(learnt, _read_texts(interim, TEST), "scoring the test products")
    shutil.rmtree(networks, ignore_errors=True)
    name = NETWORK_FOLDERS[FINETUNED_TEXT]
    write_networks(networks, {FINETUNED_TEXT: name})
    shutil.move(learnt, networks / name)
    _write(processed, reports, view.scores, test_scores, view.curves)
    f1 = view.measured[view.precision]
    return f"{params.finetune.text.base} fine-tuned on {len(y):,} products: weighted F1 {f1:.4f} out of fold, alone"


def _read_texts(interim: Path, name: str) -> list[ProductText]:
    chunks = read_table_chunks(interim / f"merged_{name}.csv")
    return [
        cased_texts(*pair)
        for chunk in chunks
        for pair in zip(chunk["designation"], chunk["description"], strict=True)
    ]  # fmt: skip


def _write(processed: Path, reports: Path, train: Float32Array, test: Float32Array, curves: pd.DataFrame) -> None:
    paths = [finetuned_path(processed, name, FINETUNED_TEXT) for name in (TRAIN, TEST)]
    with atomic_write(*paths, reports / LEARNING_CURVES_FILE) as (*arrays, table):
        for path, scores in zip(arrays, (train, test), strict=True):
            with path.open("wb") as stream:
                np.lib.format.write_array(stream, scores, version=(1, 0))
        write_table(curves[list(LEARNING_CURVE_COLUMNS)], table)


def main(argv: Sequence[str] | None = None) -> int:
    paths = {
        "interim": INTERIM, "processed": PROCESSED, "models": MODELS, "reports": REPORTS, "cache": CACHE
    }  # fmt: skip
    return run_stage("finetune", finetune, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
