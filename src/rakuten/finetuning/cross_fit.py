"""Fine-tuning of a text encoder: a network for each fold, which never saw it and scores it, and one on all rows."""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.config import FinetuneParams, TextFinetuneParams
from rakuten.disk_array import row_chunks
from rakuten.errors import UserError
from rakuten.evaluation.metrics import classification_scores
from rakuten.features.encoders.finetuned import NetworkFolder, ProductText, save_network, text_input
from rakuten.finetuning import devices
from rakuten.finetuning.export import check_graph, export_text_network, quantize
from rakuten.finetuning.text_bases import load_text_base
from rakuten.finetuning.text_network import TextExamples, TextNetwork
from rakuten.finetuning.trainer import Schedule, Target, Trainer, duration, score_rows
from rakuten.types import BoolArray, Float32Array, IntArray

log = logging.getLogger(__name__)

VERSION = "1"  # raise it when this code makes other networks of the same settings, so that no old checkpoint is used
HEAD_LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.05
MAX_INT8_LOSS = 0.002  # of weighted F1 out of fold
CHUNK_TEXTS = 512  # scored in one task
CURVE_ROWS = 2_000  # of the held-out fold, behind the scores of a learning curve
N_CHECKED = 20  # products whose scores by onnxruntime are compared with torch's
CURVE_POINTS = 10  # of the learning curve in an epoch
FLOAT, INT8 = "float32", "int8"


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Products to fine-tune on."""

    texts: Sequence[ProductText]  # from `cased_texts`
    y: IntArray  # class column of each
    n_classes: int
    fold: IntArray  # of as many folds as networks are held out; no title is in two

    def has_text(self) -> BoolArray:
        """For each product, whether its title or its description has a word."""
        return np.array([any(text) for text in self.texts], dtype=bool)


class FinetunedView(NamedTuple):
    """What `finetune_text` returns besides the network that it writes."""

    scores: Float32Array  # out of fold, rows x classes; a row of NaN for a product without text
    curves: pd.DataFrame  # fit, step, epoch, loss, weighted_f1 (of the held-out fold, at the end of an epoch)
    measured: Mapping[str, float]  # weighted F1 out of fold of the network in each precision
    precision: str  # of the network that is written


def finetune_text(
    products: LabelledTexts, params: FinetuneParams, seed: int, work: Path, output: Path
) -> FinetunedView:
    """Fine-tune a text encoder: one network for each fold, to score it, and one on all products, which is written.

    Args:
        params: `text` must be set.
        work: folder for checkpoints; those of a killed run with the same settings are used.
        output: folder that the network is written to.

    Raises:
        UserError: the base cannot be used, fewer than two classes have text; or see `Trainer.fit`.
    """
    assert isinstance(params.text, TextFinetuneParams)
    mask = products.has_text()
    if len(np.unique(products.y[mask])) < 2:
        raise UserError("finetune.text: fewer than two classes have products with text; set it to none")
    device = devices.find_device(params.device)
    fits = _Fits(products, mask, params.text, device, seed, work)
    log.info("%s, on %s", params.text.base, devices.describe(device))
    fits.log_estimate(params.folds)
    scores = {kind: np.full((len(mask), products.n_classes), np.nan, dtype=np.float32) for kind in (FLOAT, INT8)}
    curves = []
    for number in range(params.folds):
        fold_scores, curve = fits.score_fold(number)
        for kind, array in fold_scores.items():
            scores[kind][fits.fold_rows(number)] = array
        curves.append(curve.assign(fit=f"without fold {number}"))
    measured = {
        kind: classification_scores(products.y[mask], array[mask].argmax(axis=1))["weighted_f1"]
        for kind, array in scores.items()
    }
    kind = choose_precision(measured)
    log.info("weighted F1 out of fold: %.4f in floats, %.4f in 8-bit integers: %s is used", *measured.values(), kind)
    network, curve = fits.fit(None)
    curves.append(curve.assign(fit="all rows"))
    described = {
        "base": params.text.base,
        "precision": kind,
        "weighted_f1": measured,
        "device": devices.describe(device),
    }
    graphs = fits.export(network)
    save_network(output, graphs.pop(kind), fits.text, described)
    for unused in graphs.values():
        unused.unlink()
    return FinetunedView(scores[kind], pd.concat(curves, ignore_index=True), measured, kind)


def choose_precision(measured: Mapping[str, float]) -> str:
    """8-bit integers if they cost at most MAX_INT8_LOSS.

    Args:
        measured: weighted F1 out of fold of the network in each precision.
    """
    return INT8 if measured[FLOAT] - measured[INT8] <= MAX_INT8_LOSS else FLOAT


class _Fits:
    """The trainings of one encoder, which differ only in the fold that is left out."""

    def __init__(
        self,
        products: LabelledTexts,
        mask: BoolArray,
        params: TextFinetuneParams,
        device: torch.device,
        seed: int,
        work: Path,
    ) -> None:
        self._products, self._mask, self._params = products, mask, params
        self._device, self._seed, self._work = device, seed, work
        base = load_text_base(params.base, params.revision)
        self.text = text_input(base.tokenizer, params.tokens, base.prefix)
        self._base_digest = base.digest()
        self._examples = TextExamples(self.text.token_ids(products.texts), base.padding_id)
        self._schedule = Schedule(
            epochs=params.epochs,
            batch=params.batch,
            learning_rate=params.learning_rate,
            head_learning_rate=HEAD_LEARNING_RATE,
            layer_decay=params.layer_decay,
            weight_decay=WEIGHT_DECAY,
            label_smoothing=LABEL_SMOOTHING,
            seed=seed,
        )

    def log_estimate(self, n_folds: int) -> None:
        """Say how long all trainings will take, measured on a few steps."""
        seconds = self._trainer(None).estimate_seconds()
        log.info(
            "about %s for all: %s for each of %s networks without a fold, %s for the one on all rows",
            duration(seconds * n_folds), duration(seconds * (1 - 1 / n_folds)), n_folds, duration(seconds),
        )  # fmt: skip

    def fit(self, held_out: int | None) -> tuple[TextNetwork, pd.DataFrame]:
        """A network trained on all rows, or all but those of a fold; and its learning curve."""
        trainer = self._trainer(held_out)
        label = "all rows" if held_out is None else f"without fold {held_out}"
        rows = np.empty(0, dtype=np.int64) if held_out is None else self.fold_rows(held_out)[:CURVE_ROWS]

        def score() -> float:
            found = score_rows(trainer.network, self._examples, rows, self._device)
            return classification_scores(self._products.y[rows], found.argmax(axis=1))["weighted_f1"]

        trainer.fit(self._path(held_out), self._key(held_out), label, score if len(rows) else None)
        return trainer.network, _curve(trainer)

    def score_fold(self, number: int) -> tuple[dict[str, Float32Array], pd.DataFrame]:
        """The scores of a fold, in each precision, by the network that was trained without it; its learning curve."""
        network, curve = self.fit(number)
        rows = self.fold_rows(number)
        texts = [self._products.texts[row] for row in rows]
        scores = {}
        for kind, graph in self.export(network).items():
            folder = self._work / f"network-{kind}"
            save_network(folder, graph, self.text, {})
            scores[kind] = score_texts(folder, texts, f"scoring fold {number} in {kind}")
            shutil.rmtree(folder)
        return scores, curve

    def fold_rows(self, number: int) -> IntArray:
        """The rows of a fold that have text."""
        return np.flatnonzero(self._mask & (self._products.fold == number))

    def export(self, network: TextNetwork) -> dict[str, Path]:
        """The graph of a network in each precision, once its scores are those of torch."""
        graphs = {kind: self._work / f"{kind}.onnx" for kind in (FLOAT, INT8)}
        export_text_network(network, graphs[FLOAT])
        sample = np.flatnonzero(self._mask)[:N_CHECKED]
        check_graph(graphs[FLOAT], network, [self._examples.batch(row[None], None) for row in sample])
        quantize(graphs[FLOAT], graphs[INT8])
        return graphs

    def _trainer(self, held_out: int | None) -> Trainer:
        torch.manual_seed(self._seed)  # of the new layer
        base = load_text_base(self._params.base, self._params.revision)
        network = TextNetwork(
            base, self._products.n_classes, self._params.frozen_layers, self._params.frozen_embeddings
        )
        mask = self._mask if held_out is None else self._mask & (self._products.fold != held_out)
        rows = np.flatnonzero(mask)
        return Trainer(network, self._examples, Target(rows, self._products.y[rows]), self._schedule, self._device)

    def _key(self, held_out: int | None) -> str:
        """Names everything that a training depends on."""
        parts = [
            VERSION, self._base_digest, self._params.model_dump_json(), str(self._schedule), self._device.type,
            str(held_out), self._examples.digest(), hashlib.sha256(self._products.y.tobytes()).hexdigest(),
            hashlib.sha256(self._products.fold.tobytes()).hexdigest(),
        ]  # fmt: skip
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _path(self, held_out: int | None) -> Path:
        return self._work / f"{'all-rows' if held_out is None else f'without-fold-{held_out}'}.safetensors"


def _curve(trainer: Trainer) -> pd.DataFrame:
    """The learning curve of a training, CURVE_POINTS rows for each epoch."""
    losses, per_epoch = np.array(trainer.losses), trainer.steps_per_epoch
    ends = np.unique(
        [round(per_epoch * point / CURVE_POINTS) for point in range(1, CURVE_POINTS * len(losses) // per_epoch + 1)]
    )
    ends = ends[ends > 0]
    rows = [
        {
            "step": int(end),
            "epoch": round(end / per_epoch, 2),
            "loss": round(float(part.mean()), 5),
            "weighted_f1": round(trainer.scores[end], 5) if end in trainer.scores else np.nan,
        }
        for end, part in zip(ends, np.split(losses, ends[:-1]), strict=True)
    ]
    return pd.DataFrame(rows, columns=["step", "epoch", "loss", "weighted_f1"])


def score_texts(folder: Path, texts: Sequence[ProductText], description: str) -> Float32Array:
    """The scores of a written network for products, rows x classes, computed in several processes."""
    network = NetworkFolder.of(folder)
    chunks = [texts[rows] for rows in row_chunks(len(texts), CHUNK_TEXTS)]
    task = partial(_score_chunk, network)
    scored = progress(parallel_map(task, chunks, 1, _chunk_label, new_processes=True), len(chunks), description)
    return np.concatenate([np.empty((0, network.open().n_classes), dtype=np.float32), *scored])


def _score_chunk(network: NetworkFolder, texts: Sequence[ProductText]) -> Float32Array:
    return network.open().scores(texts)


def _chunk_label(texts: Sequence[ProductText]) -> str:
    return f"texts from {texts[0][0]!r}"
