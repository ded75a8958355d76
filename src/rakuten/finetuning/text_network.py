"""A pretrained text encoder with a layer on top that scores every class, and its inputs."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from rakuten.finetuning.encoder_network import EncoderNetwork
from rakuten.finetuning.text_bases import TextBase
from rakuten.finetuning.trainer import Inputs
from rakuten.types import IntArray

DROPOUT = 0.1  # before the new layer
TOKEN_DROPOUT = 0.1  # share of the tokens of a text that are left out in a step


class TextNetwork(EncoderNetwork):
    """Scores of every class from the mean of the encoder's last hidden states."""

    def __init__(self, base: TextBase, n_classes: int, frozen_layers: int, frozen_embeddings: bool) -> None:
        """
        Args:
            frozen_layers: lowest layers of the encoder that are not trained.
            frozen_embeddings: do not train the embeddings of the tokens.
        """
        super().__init__(base.encoder, encoder_blocks(base.encoder), base.encoder.config.hidden_size, n_classes)
        self.dropout = nn.Dropout(DROPOUT)
        self.freeze(frozen_layers)
        if frozen_embeddings:
            self.encoder.get_input_embeddings().requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Scores, rows x classes, of rows x tokens."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        scores: torch.Tensor = self.head(self.dropout(mean))
        return scores


def encoder_blocks(encoder: nn.Module) -> nn.ModuleList:
    """The layers of an encoder, the lowest first: its longest list of modules."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


class TextExamples:
    """The tokens of products' texts, by row number.

    Attributes:
        lengths: tokens of each product.
    """

    def __init__(self, token_ids: Iterable[list[int]], padding_id: int) -> None:
        self._ids = [np.array(ids, dtype=np.int32) for ids in token_ids]
        self._padding_id = padding_id
        self.lengths: IntArray = np.array([len(ids) for ids in self._ids], dtype=np.int64)

    def batch(self, rows: IntArray, augmentation: int | None) -> Inputs:
        """See `Examples.batch`; a text is augmented by leaving out tokens, so that no single word is relied on."""
        width = int(self.lengths[rows].max())
        ids = np.full((len(rows), width), self._padding_id, dtype=np.int64)
        for position, row in enumerate(rows.tolist()):
            ids[position, : len(self._ids[row])] = self._ids[row]
        mask = np.arange(width) < self.lengths[rows][:, None]
        if augmentation is not None:
            left_out = np.random.default_rng(augmentation).random(mask.shape) < TOKEN_DROPOUT
            left_out[:, 0] = False  # no text is left empty
            mask &= ~left_out
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}

    def describe(self, row: int) -> str:
        """See `Examples.describe`."""
        return f"one text of {self.lengths[row]} tokens"

    def digest(self) -> str:
        """SHA-256 of all tokens."""
        found = hashlib.sha256(self.lengths.tobytes())
        for ids in self._ids:
            found.update(ids.tobytes())
        return found.hexdigest()
