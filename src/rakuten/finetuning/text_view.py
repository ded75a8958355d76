"""The texts of products, and the text encoder that is fine-tuned on them."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rakuten.config import TextFinetuneParams
from rakuten.features.encoders.finetuned import NetworkFolder, save_network
from rakuten.features.encoders.finetuned_text import ProductText, text_input
from rakuten.finetuning.export import FLOAT, INT8, export_text_network, quantize
from rakuten.finetuning.scoring import score_chunks
from rakuten.finetuning.text_bases import load_text_base
from rakuten.finetuning.text_network import TextExamples, TextNetwork
from rakuten.finetuning.trainer import Network
from rakuten.types import BoolArray, Float32Array, IntArray

CHUNK_TEXTS = 512  # scored in one task


class TextView:
    """See `cross_fit.View`."""

    name = "text"

    def __init__(self, texts: Sequence[ProductText], params: TextFinetuneParams) -> None:
        """
        Args:
            texts: of each product, from `cased_texts`.

        Raises:
            UserError: the base cannot be used.
        """
        self.params = params
        self._texts = texts
        self.has_input: BoolArray = np.array([any(text) for text in texts], dtype=bool)
        base = load_text_base(params.base, params.revision)
        self._input = text_input(base.tokenizer, {"tokens": params.tokens, "prefix": base.prefix})
        self._base_digest = base.digest()
        self.examples = TextExamples(self._input.token_ids(texts), base.padding_id)

    def key(self) -> str:
        """See `cross_fit.View`."""
        return hashlib.sha256(f"{self._base_digest} {self.examples.digest()}".encode()).hexdigest()

    def new_network(self, n_classes: int) -> TextNetwork:
        """See `cross_fit.View`."""
        base = load_text_base(self.params.base, self.params.revision)
        return TextNetwork(base, n_classes, self.params.frozen_layers, self.params.frozen_embeddings)

    def export(self, network: Network, folder: Path) -> dict[str, Path]:
        """See `cross_fit.View`."""
        graphs = {kind: folder / f"{kind}.onnx" for kind in (FLOAT, INT8)}
        export_text_network(network, graphs[FLOAT])
        quantize(graphs[FLOAT], graphs[INT8])
        return graphs

    def save(self, folder: Path, graph: Path, description: Mapping[str, object]) -> None:
        """See `cross_fit.View`."""
        save_network(folder, graph, self._input, description)

    def score(self, folder: Path, rows: IntArray, description: str) -> Float32Array:
        """See `cross_fit.View`."""
        return score_texts(folder, [self._texts[row] for row in rows], description)


def score_texts(folder: Path, texts: Sequence[ProductText], description: str) -> Float32Array:
    """The scores of a written network for products, rows x classes, computed in several processes.

    Args:
        texts: from `cased_texts`.
        description: for the log.
    """
    task = partial(_score_chunk, NetworkFolder.of(folder))
    return score_chunks(task, texts, CHUNK_TEXTS, _chunk_label, description)


def _score_chunk(network: NetworkFolder, texts: Sequence[ProductText]) -> Float32Array:
    return network.text().scores(texts)


def _chunk_label(texts: Sequence[ProductText]) -> str:
    return f"texts from {texts[0][0]!r}"
