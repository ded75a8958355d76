"""The training loop of one network.

Written here although transformers has a Trainer: a killed training must go on from its checkpoint to the same bytes,
checkpoints must hold no pickle and none of the frozen weights, and a batch that exceeds the memory must be computed in
parts with the same mean gradient.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from rakuten.errors import UserError
from rakuten.finetuning import devices
from rakuten.finetuning.batches import plan_batches
from rakuten.finetuning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from rakuten.types import Float32Array, IntArray

log = logging.getLogger(__name__)

HEAD_ONLY = 0.1  # share of the steps in which only the new layer on top learns
WARM_UP = 0.1  # share of the steps in which the learning rate rises from zero; afterwards it falls to zero
MAX_NORM = 1.0  # of the gradient
CHECKPOINT_SECONDS = 120.0  # of work that a killed training loses at most
LOG_SECONDS = 30.0
SCORED_ROWS = 64  # in a batch that is scored
LOGGED_LOSSES = 50  # latest steps whose mean loss is shown
TIMED_STEPS = 3
MOMENTS = ("exp_avg", "exp_avg_sq")  # names that AdamW gives them

Inputs = dict[str, torch.Tensor]


class Examples(Protocol):
    """The inputs of a network, by row number."""

    lengths: IntArray  # of each row: what its cost is proportional to

    def batch(self, rows: IntArray, augmentation: int | None) -> Inputs:
        """The inputs of some rows.

        Args:
            augmentation: seed of random changes to the inputs; None for none.
        """
        ...

    def describe(self, row: int) -> str:
        """What the input of a row is, for an error, such as "one text of 96 tokens"."""
        ...


class Network(nn.Module):
    """A base with a new layer on top, which scores every class."""

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters to train, layer by layer, from the new one on top down to the lowest."""
        raise NotImplementedError


@dataclass(frozen=True)
class Schedule:
    """How a network is trained."""

    epochs: int
    batch: int  # rows behind one step
    learning_rate: float  # of the base's highest layer, at its peak
    head_learning_rate: float  # of the new layer
    layer_decay: float  # factor on the learning rate from each layer of the base to the one below it
    weight_decay: float
    label_smoothing: float
    seed: int


class Target(NamedTuple):
    """Rows, and what is to be learnt of them."""

    rows: IntArray  # row numbers in the examples
    y: IntArray  # class column of each


class Trainer:
    """Trains a network on some rows, with checkpoints.

    Attributes:
        losses: the loss of each step that was done.
        scores: weighted F1 on held-out rows, by the number of steps done.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(
        self, network: Network, examples: Examples, target: Target, schedule: Schedule, device: torch.device
    ) -> None:
        self.network, self.examples, self.target = network.to(device), examples, target
        self.schedule, self.device = schedule, device
        lengths = examples.lengths[target.rows]
        self._plan, self.steps_per_epoch = plan_batches(lengths, schedule.batch, schedule.epochs, schedule.seed)
        self._cost = np.cumsum([0, *(len(rows) * lengths[rows].max() for rows in self._plan)])  # padding included
        self._micro_batch = schedule.batch  # rows computed at once
        self.losses: list[float] = []
        self.scores: dict[int, float] = {}

    def estimate_seconds(self) -> float:
        """How long the training will take on this device, measured on a few steps that teach nothing."""
        numbers = range(0, len(self._plan), max(1, len(self._plan) // TIMED_STEPS))[:TIMED_STEPS]
        for number in numbers:  # the first step of a width also loads what the later ones need
            self._compute_gradients(number)
        started = time.perf_counter()
        for number in numbers:
            self._compute_gradients(number)
        self.network.zero_grad(set_to_none=True)
        timed = sum(self._cost[number + 1] - self._cost[number] for number in numbers)
        return float((time.perf_counter() - started) * self._cost[-1] / timed)

    def fit(self, path: Path, key: str, label: str, score: Callable[[], float] | None = None) -> None:
        """Train the network, from the checkpoint on if there is one. The last checkpoint is the trained network.

        Args:
            path: the file of the checkpoint.
            key: names everything that the training depends on.
            label: what is trained, for the log.
            score: called after each epoch; returns the weighted F1 on held-out rows.

        Raises:
            UserError: the loss is not a number, one row alone exceeds the memory, or the disk is full.
        """
        optimizer = torch.optim.AdamW(self._parameter_groups(), weight_decay=self.schedule.weight_decay, fused=True)
        peaks = [group["lr"] for group in optimizer.param_groups]
        done = self._restore(optimizer, read_checkpoint(path, key))
        if done == len(self._plan):
            log.info("%s: already trained by an earlier run", label)
        elif done:
            log.info("%s: continues after step %s of %s", label, f"{done:,}", f"{len(self._plan):,}")
        saved = time.monotonic()
        n_rows = np.cumsum([0, *map(len, self._plan)])
        with _Progress(label, self._cost, n_rows, done) as progress:
            for step in range(done, len(self._plan)):
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    waits = group["waits"]
                    group["lr"] = peak * learning_rate_factor(step - waits, len(self._plan) - waits)
                self.losses.append(self._compute_gradients(step))
                if not math.isfinite(self.losses[-1]):
                    raise UserError(f"{label}: the loss is not a number at step {step + 1:,}; lower learning_rate")
                nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM)
                optimizer.step()
                if score is not None and (step + 1) % self.steps_per_epoch == 0:
                    self.scores[step + 1] = score()
                progress.update(step + 1, self.losses[-LOGGED_LOSSES:], self.scores)
                if time.monotonic() - saved >= CHECKPOINT_SECONDS and step + 1 < len(self._plan):
                    self._save(optimizer, path, key)
                    saved = time.monotonic()
        if done < len(self._plan):
            self._save(optimizer, path, key)

    def _compute_gradients(self, step: int) -> float:
        """The mean loss of a batch, and its gradients; in halves, and halves of these, if memory runs out."""
        rows = self._plan[step]
        while True:
            try:
                return self._accumulate(rows, step)
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                if self._micro_batch == 1:
                    largest = max(self.target.rows[rows], key=lambda row: self.examples.lengths[row])
                    raise UserError(
                        f"{self.examples.describe(largest)} exceeds the memory of {self.device.type}: lower that "
                        "number, or freeze more layers"
                    ) from None
            self._micro_batch = max(1, self._micro_batch // 2)
            log.warning("out of memory: batches are computed in parts of %s rows from now on", self._micro_batch)
            self.network.zero_grad(set_to_none=True)
            devices.free_memory(self.device)

    def _accumulate(self, rows: IntArray, step: int) -> float:
        self.network.train()
        self.network.zero_grad(set_to_none=True)
        total = 0.0
        for start in range(0, len(rows), self._micro_batch):
            part = rows[start : start + self._micro_batch]
            seed = (self.schedule.seed * 1_000_003 + step) * 1_009 + start  # so that a step is the same after a restart
            torch.manual_seed(seed)
            inputs = self.examples.batch(self.target.rows[part], seed)
            y = torch.from_numpy(self.target.y[part]).to(self.device)
            with devices.autocast(self.device):
                scores = self.network(**{name: tensor.to(self.device) for name, tensor in inputs.items()})
            loss = functional.cross_entropy(
                scores.float(), y, reduction="sum", label_smoothing=self.schedule.label_smoothing
            ) / len(rows)  # fmt: skip
            loss.backward()
            total += float(loss.detach())
        return total

    def _parameter_groups(self) -> list[dict[str, object]]:
        """Parameters with their learning rates: lower layers change less, gains and biases do not decay.

        The layers of the base wait for the new one: what a random layer asks of them can destroy them for good.
        """
        waits = round(HEAD_ONLY * len(self._plan))
        groups: list[dict[str, object]] = []
        for depth, layer in enumerate(self.network.layers()):
            rate = self.schedule.head_learning_rate
            if depth:
                rate = self.schedule.learning_rate * self.schedule.layer_decay ** (depth - 1)
            settings = {"lr": rate, "waits": waits if depth else 0}
            groups.append({"params": [p for p in layer if p.ndim > 1], **settings})
            groups.append({"params": [p for p in layer if p.ndim < 2], **settings, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.network.named_parameters() if parameter.requires_grad}

    def _save(self, optimizer: torch.optim.Optimizer, path: Path, key: str) -> None:
        tensors, finished = {}, len(self.losses) == len(self._plan)
        for name, parameter in self._trained().items():
            tensors[name] = parameter.detach()
            if not finished:
                tensors |= {f"{moment}:{name}": optimizer.state[parameter][moment] for moment in MOMENTS}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        write_checkpoint(path, key, Checkpoint(len(self.losses), tensors, self.losses, self.scores))

    def _restore(self, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint | None) -> int:
        """Continue from a checkpoint; returns the number of steps done."""
        if checkpoint is None:
            return 0
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(checkpoint.tensors[name])
                if checkpoint.step < len(self._plan):
                    moments = {moment: checkpoint.tensors[f"{moment}:{name}"].to(self.device) for moment in MOMENTS}
                    step = torch.tensor(float(checkpoint.step), device=self.device)
                    optimizer.state[parameter] = {"step": step, **moments}
        self.losses, self.scores = checkpoint.losses, checkpoint.scores
        return checkpoint.step


def learning_rate_factor(step: int, n_steps: int) -> float:
    """The share of the peak learning rate in a step: it rises linearly, then falls linearly; 0 before step 0."""
    if step < 0:
        return 0.0
    warm_up = max(1, round(WARM_UP * n_steps))
    return min((step + 1) / warm_up, (n_steps - step) / max(1, n_steps - warm_up))


def score_rows(network: Network, examples: Examples, rows: IntArray, device: torch.device) -> Float32Array:
    """The network's scores of some rows: rows x classes."""
    network.eval().to(device)
    order = np.argsort(examples.lengths[rows], kind="stable")
    scores: Float32Array | None = None
    with torch.inference_mode():
        for start in range(0, len(rows), SCORED_ROWS):
            part = order[start : start + SCORED_ROWS]
            inputs = examples.batch(rows[part], None)
            with devices.autocast(device):
                found = network(**{name: tensor.to(device) for name, tensor in inputs.items()}).float().cpu().numpy()
            scores = np.empty((len(rows), found.shape[1]), dtype=np.float32) if scores is None else scores
            scores[part] = found
    assert scores is not None
    return scores


class _Progress:
    """Says how far a training is: a bar on a terminal, else a line in the log every LOG_SECONDS."""

    def __init__(self, label: str, cost: IntArray, rows: IntArray, done: int) -> None:
        """
        Args:
            cost: of all steps before each step, and of all.
            rows: of all steps before each step, and of all.
            done: steps that an earlier process has done.
        """
        self._label, self._cost, self._rows, self._first = label, cost, rows, done
        self._started = self._logged = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=len(cost) - 1, initial=done, desc=label, leave=False, disable=not terminal)
        self._log = not terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, done: int, losses: Sequence[float], scores: Mapping[int, float]) -> None:
        """Another step is done.

        Args:
            losses: of the latest steps.
            scores: weighted F1 on held-out rows, by the number of steps done.
        """
        now = time.monotonic()
        if not self._log:
            self._bar.set_postfix(loss=f"{np.mean(losses):.3f}", refresh=False)
            self._bar.update()
        if done in scores:
            log.info("%s: weighted F1 %.4f on held-out rows after step %s", self._label, scores[done], f"{done:,}")
        elif self._log and now - self._logged >= LOG_SECONDS:
            self._logged = now
            seconds = now - self._started
            left = seconds * (self._cost[-1] - self._cost[done]) / (self._cost[done] - self._cost[self._first])
            log.info(
                "%s: step %s of %s, loss %.3f, %.0f rows/s, %s left",
                self._label, f"{done:,}", f"{len(self._cost) - 1:,}", np.mean(losses),
                (self._rows[done] - self._rows[self._first]) / seconds, duration(left),
            )  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds in words, such as "2 h 5 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
