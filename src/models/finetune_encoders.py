"""Stage finetune: fine-tune the encoders that params.yaml names, and score the products by them. None by default."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others

# isort: split
import numpy as np
import pandas as pd

from rakuten.cli import run_stage
from rakuten.config import INTERIM, MODELS, PROCESSED, RAW, REPORTS, Params
from rakuten.data.images import ImageFiles, image_paths
from rakuten.data.tables import read_table_chunks, write_table
from rakuten.errors import UserError
from rakuten.evaluation.learning_curves import LEARNING_CURVE_COLUMNS, LEARNING_CURVES_FILE
from rakuten.features.encoders.finetuned import NETWORK_FOLDERS, NETWORKS_FOLDER, write_networks
from rakuten.features.encoders.finetuned_text import ProductText, cased_texts
from rakuten.features.feature_set import TEST, TRAIN, FeatureSet, finetuned_path
from rakuten.files import atomic_write
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT, FINETUNED_VIEWS, Float32Array

if TYPE_CHECKING:  # needs torch
    from rakuten.finetuning.cross_fit import FinetunedView, Labels


class Finetuned(NamedTuple):
    """What is learnt of one view, besides its network."""

    view: "FinetunedView"
    test_scores: Float32Array


def finetune(params: Params, interim: Path, raw: Path, processed: Path, models: Path, reports: Path) -> str:
    """Fine-tune the encoders that params.yaml names, and score the train and test products by them."""
    work = processed.parent / "cache" / "finetune"
    finetuned: dict[str, Finetuned] = {}
    try:
        if params.finetune.text != "none":
            finetuned[FINETUNED_TEXT] = _finetune_texts(params, interim, processed, work / "text")
        if params.finetune.picture != "none":
            finetuned[FINETUNED_IMAGE] = _finetune_images(params, interim, raw, processed, work / "picture")
    except ModuleNotFoundError as error:
        raise UserError(f"finetune needs {error.name}, which is not installed: `make finetune`") from error
    networks = models / NETWORKS_FOLDER
    shutil.rmtree(networks, ignore_errors=True)
    write_networks(networks, {view: NETWORK_FOLDERS[view] for view in finetuned})
    for view in finetuned:
        shutil.move(work / NETWORK_FOLDERS[view] / "network", networks / NETWORK_FOLDERS[view])
    _write(processed, reports, finetuned)
    return (
        ", ".join(
            f"{view}: weighted F1 {result.view.measured[result.view.precision]:.4f} out of fold, alone"
            for view, result in finetuned.items()
        )
        or "nothing to fine-tune: finetune.text and finetune.picture are none"
    )


def _labels(params: Params, processed: Path) -> "Labels":
    from rakuten.evaluation.folds import assign_folds  # imports scikit-learn, which takes half a second
    from rakuten.finetuning.cross_fit import Labels

    features = FeatureSet.open(processed, TRAIN)
    codes = features.y()
    classes, y = np.unique(codes, return_inverse=True)
    fold = assign_folds(features.metadata, codes, params.finetune.folds, params.seed)
    return Labels(y, len(classes), fold)


def _finetune_texts(params: Params, interim: Path, processed: Path, work: Path) -> Finetuned:
    from rakuten.finetuning.cross_fit import finetune_view
    from rakuten.finetuning.text_view import TextView, score_texts

    assert params.finetune.text != "none"
    view = TextView(_read_texts(interim, TRAIN), params.finetune.text)
    network = work / "network"
    found = finetune_view(view, _labels(params, processed), params.finetune, params.seed, work, network)
    return Finetuned(found, score_texts(network, _read_texts(interim, TEST), "scoring the test products by their text"))


def _finetune_images(params: Params, interim: Path, raw: Path, processed: Path, work: Path) -> Finetuned:
    from rakuten.finetuning.cross_fit import finetune_view
    from rakuten.finetuning.image_view import ImageView, score_images

    assert params.finetune.picture != "none"
    files = ImageFiles(raw / "images")
    with ImageView(_read_paths(interim, TRAIN, files), params.finetune.picture, work) as view:
        network = work / "network"
        found = finetune_view(view, _labels(params, processed), params.finetune, params.seed, work, network)
    paths = _read_paths(interim, TEST, files)
    return Finetuned(found, score_images(network, paths, "scoring the test products by their picture"))


def _read_texts(interim: Path, name: str) -> list[ProductText]:
    chunks = read_table_chunks(interim / f"merged_{name}.csv")
    return [
        cased_texts(*pair)
        for chunk in chunks
        for pair in zip(chunk["designation"], chunk["description"], strict=True)
    ]  # fmt: skip


def _read_paths(interim: Path, name: str, files: ImageFiles) -> list[Path | None]:
    chunks = read_table_chunks(interim / f"merged_{name}.csv")
    return [path for chunk in chunks for path in image_paths(chunk, files)]


def _write(processed: Path, reports: Path, finetuned: dict[str, Finetuned]) -> None:
    nothing = np.empty((0, 0), dtype=np.float32)
    arrays = {}
    for view in FINETUNED_VIEWS:
        result = finetuned.get(view)
        arrays[finetuned_path(processed, TRAIN, view)] = nothing if result is None else result.view.scores
        arrays[finetuned_path(processed, TEST, view)] = nothing if result is None else result.test_scores
    curves = [pd.DataFrame(columns=LEARNING_CURVE_COLUMNS), *(result.view.curves for result in finetuned.values())]
    with atomic_write(*arrays, reports / LEARNING_CURVES_FILE) as (*partials, table):
        for path, scores in zip(partials, arrays.values(), strict=True):
            with path.open("wb") as stream:
                np.lib.format.write_array(stream, scores, version=(1, 0))
        write_table(pd.concat(curves[1:] or curves)[list(LEARNING_CURVE_COLUMNS)], table)


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"interim": INTERIM, "raw": RAW, "processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    return run_stage("finetune", finetune, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
