"""Checkpoints of a training: arrays in safetensors, so that nothing is unpickled when it goes on."""

import errno
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rakuten.errors import UserError
from rakuten.files import atomic_write

METADATA_KEY = "checkpoint"


class Checkpoint(NamedTuple):
    """Where a training stands."""

    step: int  # steps done
    tensors: dict[str, torch.Tensor]  # trained parameters; the optimizer's moments unless the training is finished
    losses: list[float]  # of each step done
    scores: dict[int, float]  # weighted F1 on the held-out rows after so many steps


def write_checkpoint(path: Path, key: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in a file.

    Args:
        key: names everything that the training depends on.

    Raises:
        UserError: the disk is full; the previous checkpoint stays.
    """
    described = {
        "key": key, "step": checkpoint.step, "losses": checkpoint.losses, "scores": list(checkpoint.scores.items())
    }  # fmt: skip
    try:
        with atomic_write(path) as (partial,):
            partial.write_bytes(save(checkpoint.tensors, {METADATA_KEY: json.dumps(described)}))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{path}: the checkpoint cannot be written ({error.strerror}); free some space and start again: the "
            "training continues from the last checkpoint"
        ) from error


def read_checkpoint(path: Path, key: str) -> Checkpoint | None:
    """The checkpoint in a file; None if there is none, it is damaged, or it belongs to another training."""
    try:
        with safe_open(path, framework="pt") as stored:
            described: dict[str, Any] = json.loads(stored.metadata()[METADATA_KEY])
            if described["key"] != key:
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
            scores = {int(step): float(score) for step, score in described["scores"]}
            return Checkpoint(int(described["step"]), tensors, list(described["losses"]), scores)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
