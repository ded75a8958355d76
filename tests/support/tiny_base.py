"""A tiny text network in Hugging Face's format, with random weights: a base that fine-tunes in seconds."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TEXTS = ["piscine pompe roman livre jeu console avec secret bleu rouge", "0 1 2 3 4 5 6 7 8 9"]


def write_tiny_base(folder: Path, texts: Sequence[str] = TEXTS, seed: int = 0, **config: int) -> None:
    """Write config.json, model.safetensors and tokenizer.json.

    Args:
        texts: the words that the tokenizer knows.
        config: of BertConfig, instead of two layers of 16.
    """
    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(texts, WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(seed)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    BertModel(BertConfig(**{**settings, **config}), add_pooling_layer=False).save_pretrained(folder)
