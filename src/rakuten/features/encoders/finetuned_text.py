"""A fine-tuned text network, applied by onnxruntime: the texts of a product in, a score for every class out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from rakuten.features.encoders.onnx import make_session
from rakuten.features.text import clean_cased_text
from rakuten.types import Float32Array, IntArray

ProductText = tuple[str, str]  # designation, description
SLOW_FUSIONS = ("SkipLayerNormFusion",)  # its operator takes twice the time of the two that it replaces


def cased_texts(designation: str, description: str) -> ProductText:
    """The texts of a product as a pretrained network reads them: cleaned, with their case and accents."""
    return clean_cased_text(designation), clean_cased_text(description)


class TextInput(NamedTuple):
    """How the texts of a product become token ids."""

    tokenizer: Tokenizer  # with truncation set, without padding
    tokens: int  # longer texts are cut
    prefix: str  # put before each title

    def token_ids(self, texts: Iterable[ProductText]) -> Iterator[list[int]]:
        """The token ids of each product's title and description.

        The tokenizer's truncation cuts the longer of the two first, so that the title and the beginning of the
        description are both kept.
        """
        for title, description in texts:
            yield self.tokenizer.encode(self.prefix + title, description or None).ids

    def settings(self) -> dict[str, Any]:
        """What `text_input` needs besides the tokenizer."""
        return {"tokens": self.tokens, "prefix": self.prefix}


def text_input(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> TextInput:
    """A TextInput from its `settings`."""
    tokens = int(settings["tokens"])
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens, strategy="longest_first")
    return TextInput(tokenizer, tokens, str(settings["prefix"]))


class FinetunedText:
    """A fine-tuned text network.

    Attributes:
        n_classes: scores of a product.
        input: how texts become token ids.
    """

    def __init__(self, graph: bytes, text: TextInput, all_cores: bool = False) -> None:
        """
        Args:
            graph: a serialised ONNX model: input_ids and attention_mask to rows x classes.
            all_cores: see `NetworkFolder.open`.

        Raises:
            Exception: onnxruntime has a type for each reason why a graph cannot be used.
        """
        self._session = make_session(graph, all_cores, SLOW_FUSIONS)
        self.input = text
        self.n_classes: int = self._session.get_outputs()[0].shape[1]

    def scores(self, texts: Iterable[ProductText]) -> Float32Array:
        """The scores of products: rows x classes; a row of NaN for a product without text.

        Each product is scored alone, so that its scores do not depend on the others.

        Args:
            texts: from `cased_texts`.
        """
        nothing = np.full((1, self.n_classes), np.nan, dtype=np.float32)
        return np.concatenate([nothing[:0], *(self._score(text) if any(text) else nothing for text in texts)])

    def _score(self, text: ProductText) -> Float32Array:
        (ids,) = self.input.token_ids([text])
        return self.score_tokens(np.array([ids], dtype=np.int64))

    def score_tokens(self, ids: IntArray) -> Float32Array:
        """The scores, rows x classes, of token ids, rows x tokens."""
        found: Float32Array = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        return found
