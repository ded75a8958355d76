"""A tiny base in Hugging Face's format, and products that its words tell apart. Needs torch: `make finetune`."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("torch") is None or find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    from tests.support.tiny_base import write_tiny_base

    torch.set_num_threads(1)  # pytest-xdist's processes share the cores

    @pytest.fixture(scope="session")
    def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A BERT of two layers of 16, with a tokenizer of letters. Read only."""
        folder: Path = tmp_path_factory.mktemp("base")
        write_tiny_base(folder)
        return folder


WORDS = {0: ("piscine", "pompe"), 1: ("roman", "livre"), 2: ("jeu", "console")}


@pytest.fixture(scope="session")
def products() -> tuple[list[tuple[str, str]], np.ndarray]:
    """Texts of 60 products, and the class column of each, which the words tell."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    texts = [(f"{rng.choice(WORDS[int(label)])} {rng.integers(100)}", "avec " * int(rng.integers(3))) for label in y]
    return [(title, description.strip()) for title, description in texts], y
