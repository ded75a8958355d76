"""Fine-tuned networks, applied by onnxruntime: the text of a product in, a score for every class out.

A network is a folder with three files: the ONNX graph, the tokenizer, and how both are used.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from rakuten.errors import UserError
from rakuten.features.encoders.onnx import make_session
from rakuten.features.text import clean_text
from rakuten.files import atomic_write, digest, dump_json
from rakuten.types import FINETUNED_TEXT, Float32Array, IntArray

NETWORKS_FOLDER = "finetuned"  # beside the model's files: a folder for each network, and the index
NETWORK_FOLDERS = {FINETUNED_TEXT: "text"}
INDEX_FILE = "networks.json"  # in the folder of all networks: view -> folder
GRAPH_FILE, TOKENIZER_FILE, SETTINGS_FILE = "network.onnx", "tokenizer.json", "settings.json"
FILES = (GRAPH_FILE, TOKENIZER_FILE, SETTINGS_FILE)

ProductText = tuple[str, str]  # designation, description


def cased_texts(designation: str, description: str) -> ProductText:
    """The texts of a product as a pretrained network reads them: cleaned, with their case and accents."""
    title, body = (clean_text(text, lowercase=False, strip_accents=False) for text in (designation, description))
    return title, body


class TextInput(NamedTuple):
    """How the texts of a product become token ids."""

    tokenizer: Tokenizer  # with truncation set, without padding
    tokens: int  # longer texts are cut
    prefix: str  # put before each title

    def token_ids(self, texts: Sequence[ProductText]) -> Iterator[list[int]]:
        """The token ids of each product's title and description.

        The tokenizer's truncation cuts the longer of the two first, so that the title and the beginning of the
        description are both kept.
        """
        for title, description in texts:
            yield self.tokenizer.encode(self.prefix + title, description or None).ids


def text_input(tokenizer: Tokenizer, tokens: int, prefix: str) -> TextInput:
    """A TextInput that cuts texts to so many tokens."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens, strategy="longest_first")
    return TextInput(tokenizer, tokens, prefix)


class FinetunedText:
    """A fine-tuned text network.

    Attributes:
        n_classes: scores of a product.
        input: how texts become token ids.
    """

    def __init__(self, graph: bytes, text: TextInput) -> None:
        """
        Args:
            graph: a serialised ONNX model: input_ids and attention_mask to rows x classes.

        Raises:
            Exception: onnxruntime has a type for each reason why a graph cannot be used.
        """
        self._session = make_session(graph)
        self.input = text
        self.n_classes: int = self._session.get_outputs()[0].shape[1]

    def scores(self, texts: Sequence[ProductText]) -> Float32Array:
        """The scores of products: rows x classes; a row of NaN for a product without text.

        Each product is scored alone, so that its scores do not depend on the others.

        Args:
            texts: from `cased_texts`.
        """
        scores = np.full((len(texts), self.n_classes), np.nan, dtype=np.float32)
        for row, text in enumerate(texts):
            if any(text):
                (ids,) = self.input.token_ids([text])
                scores[row] = self.score_tokens(np.array([ids], dtype=np.int64))[0]
        return scores

    def score_tokens(self, ids: IntArray) -> Float32Array:
        """The scores, rows x classes, of token ids, rows x tokens."""
        found: Float32Array = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        return found


def save_network(folder: Path, graph: Path, text: TextInput, description: Mapping[str, object]) -> None:
    """Write a network's three files; the graph is moved there.

    Args:
        description: kept in the settings, for people.
    """
    with atomic_write(*(folder / name for name in FILES)) as (moved, tokenizer, settings):
        graph.replace(moved)
        tokenizer.write_text(text.tokenizer.to_str(), encoding="utf-8", newline="\n")
        dump_json(
            {
                **description,
                "tokens": text.tokens,
                "prefix": text.prefix,
                "sha256": {GRAPH_FILE: digest(moved), TOKENIZER_FILE: digest(tokenizer)},
            },
            settings,
        )


class NetworkFolder(NamedTuple):
    """Where a network is, and which one it must be. It can be sent to another process."""

    path: Path
    sha256: str  # hex digest of its settings, which hold the digests of its other files

    @classmethod
    def of(cls, path: Path) -> "NetworkFolder":
        """The network that is in a folder now."""
        return cls(path, digest(path / SETTINGS_FILE))

    def settings(self) -> dict[str, Any]:
        """How the network was made and is used: base, device, precision, weighted_f1, tokens, prefix, sha256."""
        return dict(json.loads((self.path / SETTINGS_FILE).read_text(encoding="utf-8")))

    def open(self) -> FinetunedText:
        """The network, opened once in each process.

        Raises:
            UserError: a file is missing, damaged or of another network.
        """
        return _open(self.path, self.sha256)


@lru_cache(maxsize=2)
def _open(folder: Path, sha256: str) -> FinetunedText:
    try:
        if digest(folder / SETTINGS_FILE) != sha256:
            raise UserError(f"{folder / SETTINGS_FILE}: of another network; run `dvc repro`")
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        for name, expected in settings["sha256"].items():
            if digest(folder / name) != expected:
                raise UserError(
                    f"{folder / name}: damaged or from another network; run `dvc repro` (or `dvc checkout`)"
                )
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        text = text_input(tokenizer, int(settings["tokens"]), str(settings["prefix"]))
        return FinetunedText((folder / GRAPH_FILE).read_bytes(), text)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; run `dvc repro` (or `dvc checkout`)") from error


def write_networks(folder: Path, networks: Mapping[str, str]) -> None:
    """Write which networks are in a folder.

    Args:
        networks: view -> name of its folder within `folder`.
    """
    with atomic_write(folder / INDEX_FILE) as (partial,):
        dump_json(dict(networks), partial)


def read_networks(folder: Path) -> dict[str, NetworkFolder]:
    """The networks in a folder, by view; none where the finetune stage has not run."""
    if not (folder / INDEX_FILE).is_file():
        return {}
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    return {view: NetworkFolder.of(folder / name) for view, name in index.items()}
