from pathlib import Path

import numpy as np
import pytest
import torch

from rakuten.features.encoders.finetuned_text import text_input
from rakuten.finetuning.text_bases import load_text_base
from rakuten.finetuning.text_network import TOKEN_DROPOUT, TextExamples, TextNetwork


def make(tiny_base: Path, frozen_layers: int = 0, frozen_embeddings: bool = False) -> TextNetwork:
    return TextNetwork(load_text_base(str(tiny_base), None), 3, frozen_layers, frozen_embeddings)


def test_padding_does_not_change_scores(tiny_base: Path) -> None:
    base = load_text_base(str(tiny_base), None)
    text = text_input(base.tokenizer, {"tokens": 16, "prefix": ""})
    examples = TextExamples(text.token_ids([("piscine", ""), ("roman livre jeu", "avec console")]), base.padding_id)
    assert examples.lengths.tolist() == [3, 8]
    network = make(tiny_base).eval()
    with torch.inference_mode():
        together = network(**examples.batch(np.array([0, 1]), None))
        alone = [network(**examples.batch(np.array([row]), None)) for row in (0, 1)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_tokens_are_left_out_in_training_only_and_by_the_seed_alone(tiny_base: Path) -> None:
    base = load_text_base(str(tiny_base), None)
    texts = [("piscine pompe " * 6, "roman livre " * 6)] * 200
    text = text_input(base.tokenizer, {"tokens": 40, "prefix": ""})
    examples, rows = TextExamples(text.token_ids(texts), base.padding_id), np.arange(200)
    plain, first, again, other = (examples.batch(rows, seed)["attention_mask"].numpy() for seed in (None, 1, 1, 2))
    assert plain.all() and first[:, 0].all()
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first[:, 1:].mean() == pytest.approx(1 - TOKEN_DROPOUT, abs=0.02)


def test_a_long_text_keeps_its_title_and_the_beginning_of_its_description(tiny_base: Path) -> None:
    text = text_input(load_text_base(str(tiny_base), None).tokenizer, {"tokens": 8, "prefix": ""})
    (ids,) = text.token_ids([("piscine pompe", "roman livre jeu console bleu rouge")])
    assert text.tokenizer.decode(ids, skip_special_tokens=False).split() == [
        "[CLS]", "piscine", "pompe", "[SEP]", "roman", "livre", "jeu", "[SEP]"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("frozen_layers", "frozen_embeddings", "trained"),
    [(0, False, [2, 16, 16, 5]), (0, True, [2, 16, 16, 4]), (1, False, [2, 16, 0, 0]), (2, True, [2, 0, 0, 0])],
)
def test_what_is_frozen(tiny_base: Path, frozen_layers: int, frozen_embeddings: bool, trained: list[int]) -> None:
    network = make(tiny_base, frozen_layers, frozen_embeddings)
    assert [len(layer) for layer in network.layers()] == trained
    everything = {id(p) for p in network.parameters() if p.requires_grad}
    assert {id(p) for layer in network.layers() for p in layer} == everything
