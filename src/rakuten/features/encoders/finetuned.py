"""Fine-tuned networks on disk: each a folder with an ONNX graph, its tokenizer if it reads texts, and its settings."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from rakuten.errors import UserError
from rakuten.features.encoders.finetuned_image import FinetunedImage, ImageInput
from rakuten.features.encoders.finetuned_text import FinetunedText, TextInput, text_input
from rakuten.files import atomic_write, digest, dump_json
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT

NETWORKS_FOLDER = "finetuned"  # beside the model's files: a folder for each network, and the index
NETWORK_FOLDERS = {FINETUNED_TEXT: "text", FINETUNED_IMAGE: "picture"}
INDEX_FILE = "networks.json"  # in the folder of all networks: view -> folder
GRAPH_FILE, TOKENIZER_FILE, SETTINGS_FILE = "network.onnx", "tokenizer.json", "settings.json"


def save_network(
    folder: Path, graph: Path, network_input: TextInput | ImageInput, description: Mapping[str, object]
) -> None:
    """Write a network's files; the graph is moved there.

    Args:
        network_input: how a product becomes the network's input.
        description: kept in the settings, for people.
    """
    names = [GRAPH_FILE, *([TOKENIZER_FILE] if isinstance(network_input, TextInput) else []), SETTINGS_FILE]
    with atomic_write(*(folder / name for name in names)) as (moved, *tokenizer, settings):
        graph.replace(moved)
        if isinstance(network_input, TextInput):
            tokenizer[0].write_text(network_input.tokenizer.to_str(), encoding="utf-8", newline="\n")
        digests = {name: digest(path) for name, path in zip(names, [moved, *tokenizer], strict=False)}
        dump_json({**description, **network_input.settings(), "sha256": digests}, settings)


class NetworkFolder(NamedTuple):
    """Where a network is, and which one it must be. It can be sent to another process."""

    path: Path
    sha256: str  # hex digest of its settings, which hold the digests of its other files

    @classmethod
    def of(cls, path: Path) -> "NetworkFolder":
        """The network that is in a folder now."""
        return cls(path, digest(path / SETTINGS_FILE))

    def settings(self) -> dict[str, Any]:
        """How the network was made and is used: base, device, precision, weighted_f1, sha256, and its input."""
        return dict(json.loads((self.path / SETTINGS_FILE).read_text(encoding="utf-8")))

    def text(self, all_cores: bool = False) -> FinetunedText:
        """The network, which reads texts. See `open`."""
        network = self.open(all_cores)
        assert isinstance(network, FinetunedText)
        return network

    def image(self, all_cores: bool = False) -> FinetunedImage:
        """The network, which reads images. See `open`."""
        network = self.open(all_cores)
        assert isinstance(network, FinetunedImage)
        return network

    def open(self, all_cores: bool = False) -> FinetunedText | FinetunedImage:
        """The network, opened once in each process.

        Args:
            all_cores: score each product on all cores, where the latency of one product counts; else on one thread.
                The scores are the same.

        Raises:
            UserError: a file is missing, damaged or of another network.
        """
        return _open(self.path, self.sha256, all_cores)


@lru_cache(maxsize=4)
def _open(folder: Path, sha256: str, all_cores: bool) -> FinetunedText | FinetunedImage:
    try:
        if digest(folder / SETTINGS_FILE) != sha256:
            raise UserError(f"{folder / SETTINGS_FILE}: belongs to another network; run `dvc repro`")
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        for name, expected in settings["sha256"].items():
            if digest(folder / name) != expected:
                raise UserError(
                    f"{folder / name}: damaged or from another network; run `dvc repro` (or `dvc checkout`)"
                )
        graph = (folder / GRAPH_FILE).read_bytes()
        if TOKENIZER_FILE not in settings["sha256"]:
            return FinetunedImage(graph, ImageInput(int(settings["size"])), all_cores)
        text = text_input(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), settings)
        return FinetunedText(graph, text, all_cores)
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
