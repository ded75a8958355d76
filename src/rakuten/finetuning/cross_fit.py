"""Fine-tuning of a view's encoder: a network for each fold, which never saw it and scores it, and one on all rows."""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch

from rakuten.config import FinetuneParams, ScheduleParams
from rakuten.errors import UserError
from rakuten.evaluation.metrics import classification_scores
from rakuten.finetuning import devices
from rakuten.finetuning.export import FLOAT, INT8, check_graph
from rakuten.finetuning.trainer import Examples, Network, Schedule, Target, Trainer, duration, score_rows
from rakuten.types import BoolArray, Float32Array, IntArray

log = logging.getLogger(__name__)

VERSION = "3"  # raise it when this code makes other networks of the same settings, so that no old checkpoint is used
HEAD_LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.05
MAX_INT8_LOSS = 0.002  # of weighted F1 out of fold
N_CHECKED = 20  # products whose scores by onnxruntime are compared with torch's
CURVE_ROWS = 2_000  # of the held-out fold, behind the scores of a learning curve
CURVE_POINTS = 10  # of the learning curve in an epoch


class View(Protocol):
    """What is fine-tuned: an encoder, and the products that it reads."""

    name: str  # of its section in params.yaml, "text" or "picture"
    has_input: BoolArray  # for each product, whether it has what the encoder reads

    @property
    def params(self) -> ScheduleParams:
        """How it is fine-tuned."""
        ...

    @property
    def examples(self) -> Examples:
        """The inputs of all products."""
        ...

    def key(self) -> str:
        """Digest of the base and of all inputs."""
        ...

    def new_network(self, n_classes: int) -> Network:
        """The base, with a new layer on top."""
        ...

    def export(self, network: Network, folder: Path) -> dict[str, Path]:
        """The graph of a network in each precision."""
        ...

    def save(self, folder: Path, graph: Path, description: Mapping[str, object]) -> None:
        """Write a network's folder; see `save_network`."""
        ...

    def score(self, folder: Path, rows: IntArray, description: str) -> Float32Array:
        """The scores of a written network for some products: rows x classes."""
        ...


@dataclass(frozen=True, eq=False)
class Labels:
    """What is to be learnt of the products."""

    y: IntArray  # class column of each
    n_classes: int
    fold: IntArray  # of as many folds as networks are held out; no title is in two


class FinetunedView(NamedTuple):
    """What `finetune_view` returns besides the network that it writes."""

    scores: Float32Array  # out of fold, rows x classes; a row of NaN for a product that lacks the view
    curves: pd.DataFrame  # fit, step, epoch, loss, weighted_f1 (of the held-out fold, at the end of an epoch)
    measured: Mapping[str, float]  # weighted F1 out of fold of the network in each precision
    precision: str  # of the network that is written


def finetune_view(
    view: View, labels: Labels, params: FinetuneParams, seed: int, work: Path, output: Path
) -> FinetunedView:
    """Fine-tune an encoder: one network for each fold, to score it, and one on all products, which is written.

    Args:
        work: folder for checkpoints; those of a killed run with the same settings are used.
        output: folder that the network is written to.

    Raises:
        UserError: fewer than two classes have products with the view; or see `Trainer.fit`.
    """
    mask = view.has_input
    if len(np.unique(labels.y[mask])) < 2:
        raise UserError(
            f"finetune.{view.name}: fewer than two classes have products with a {view.name}; set it to none"
        )
    device = devices.find_device(params.device)
    fits = _Fits(view, labels, device, seed, work)
    log.info("%s, on %s", view.params.base, devices.describe(device))
    fits.log_estimate(params.folds)
    scores: dict[str, Float32Array] = {}
    curves = []
    for number in range(params.folds):
        fold_scores, curve = fits.score_fold(number)
        for kind, array in fold_scores.items():
            empty = np.full((len(mask), labels.n_classes), np.nan, dtype=np.float32)
            scores.setdefault(kind, empty)[fits.fold_rows(number)] = array
        curves.append(curve)
    measured = {
        kind: classification_scores(labels.y[mask], array[mask].argmax(axis=1))["weighted_f1"]
        for kind, array in scores.items()
    }
    kind = choose_precision(measured)
    found = ", ".join(f"{f1:.4f} in {name}" for name, f1 in measured.items())
    log.info("weighted F1 out of fold, %s alone: %s; %s is used", view.name, found, kind)
    network, curve = fits.fit(None)
    curves.append(curve)
    described = {
        "base": view.params.base,
        "precision": kind,
        "weighted_f1": measured,
        "device": devices.describe(device),
    }
    graphs = fits.export(network)
    view.save(output, graphs.pop(kind), described)
    for unused in graphs.values():
        unused.unlink()
    return FinetunedView(scores[kind], pd.concat(curves, ignore_index=True), measured, kind)


def choose_precision(measured: Mapping[str, float]) -> str:
    """8-bit integers if they cost at most MAX_INT8_LOSS.

    Args:
        measured: weighted F1 out of fold of the network in each precision.
    """
    return INT8 if INT8 in measured and measured[FLOAT] - measured[INT8] <= MAX_INT8_LOSS else FLOAT


class _Fits:
    """The trainings of one encoder, which differ only in the fold that is left out."""

    def __init__(self, view: View, labels: Labels, device: torch.device, seed: int, work: Path) -> None:
        self._view, self._labels, self._device, self._seed, self._work = view, labels, device, seed, work
        self._schedule = Schedule(
            epochs=view.params.epochs,
            batch=view.params.batch,
            learning_rate=view.params.learning_rate,
            head_learning_rate=HEAD_LEARNING_RATE,
            layer_decay=view.params.layer_decay,
            weight_decay=WEIGHT_DECAY,
            label_smoothing=LABEL_SMOOTHING,
            seed=seed,
        )

    def log_estimate(self, n_folds: int) -> None:
        """Say how long all trainings will take, measured on a few steps."""
        seconds = self._trainer(None).estimate_seconds()
        log.info(
            "about %s in total: %s for each of the %s networks of a fold, %s for the one on all rows",
            duration(seconds * n_folds), duration(seconds * (1 - 1 / n_folds)), n_folds, duration(seconds),
        )  # fmt: skip

    def fit(self, held_out: int | None) -> tuple[Network, pd.DataFrame]:
        """A network trained on all rows, or all but those of a fold; and its learning curve."""
        trainer = self._trainer(held_out)
        label = f"{self._view.name} {'on all rows' if held_out is None else f'without fold {held_out}'}"
        rows = np.empty(0, dtype=np.int64) if held_out is None else self.fold_rows(held_out)[:CURVE_ROWS]

        def score() -> float:
            found = score_rows(trainer.network, self._view.examples, rows, self._device)
            return classification_scores(self._labels.y[rows], found.argmax(axis=1))["weighted_f1"]

        trainer.fit(self._path(held_out), self._key(held_out), label, score if len(rows) else None)
        return trainer.network, _curve(trainer).assign(fit=label)

    def score_fold(self, number: int) -> tuple[dict[str, Float32Array], pd.DataFrame]:
        """The scores of a fold, in each precision, by the network that was trained without it; its learning curve."""
        network, curve = self.fit(number)
        scores = {}
        for kind, graph in self.export(network).items():
            folder = self._work / f"network-{kind}"
            self._view.save(folder, graph, {})
            description = f"scoring fold {number} by its {self._view.name} in {kind}"
            scores[kind] = self._view.score(folder, self.fold_rows(number), description)
            shutil.rmtree(folder)
        return scores, curve

    def export(self, network: Network) -> dict[str, Path]:
        """The graph of a network in each precision, once the scores of the one in floats are those of torch."""
        graphs = self._view.export(network, self._work)
        sample = np.flatnonzero(self._view.has_input)[:N_CHECKED]
        check_graph(graphs[FLOAT], network, [self._view.examples.batch(row[None], None) for row in sample])
        return graphs

    def fold_rows(self, number: int) -> IntArray:
        """The rows of a fold that have the view."""
        return np.flatnonzero(self._view.has_input & (self._labels.fold == number))

    def _trainer(self, held_out: int | None) -> Trainer:
        torch.manual_seed(self._seed)  # of the new layer
        network = self._view.new_network(self._labels.n_classes)
        mask = self._view.has_input if held_out is None else self._view.has_input & (self._labels.fold != held_out)
        rows = np.flatnonzero(mask)
        return Trainer(network, self._view.examples, Target(rows, self._labels.y[rows]), self._schedule, self._device)

    def _key(self, held_out: int | None) -> str:
        """Names everything that a training depends on."""
        parts = [
            VERSION, self._view.key(), self._view.params.model_dump_json(), str(self._schedule), self._device.type,
            str(held_out), hashlib.sha256(self._labels.y.tobytes()).hexdigest(),
            hashlib.sha256(self._labels.fold.tobytes()).hexdigest(),
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
