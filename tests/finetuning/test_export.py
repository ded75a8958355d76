from pathlib import Path

import numpy as np
import pytest
import torch

from rakuten.errors import UserError
from rakuten.features.encoders.onnx import make_session
from rakuten.finetuning.export import check_graph, export_text_network, quantize
from rakuten.finetuning.text_bases import load_text_base
from rakuten.finetuning.text_network import TextNetwork


@pytest.fixture
def network(tiny_base: Path) -> TextNetwork:
    torch.manual_seed(0)
    return TextNetwork(load_text_base(str(tiny_base), None), 3, 0, False).eval()


def inputs(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(np.random.default_rng(tokens).integers(4, 20, (rows, tokens)))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_the_graph_gives_torchs_scores_for_any_number_of_rows_and_tokens(network: TextNetwork, tmp_path: Path) -> None:
    export_text_network(network, tmp_path / "graph.onnx")
    session = make_session((tmp_path / "graph.onnx").read_bytes())
    for shape in ((1, 1), (1, 5), (3, 40)):
        tensors = inputs(*shape)
        with torch.inference_mode():
            expected = network(**tensors).numpy()
        found = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})[0]
        assert found == pytest.approx(expected, abs=1e-5)
    check_graph(tmp_path / "graph.onnx", network, [inputs(1, 5)])


def test_a_graph_of_another_network_is_refused(network: TextNetwork, tmp_path: Path) -> None:
    export_text_network(network, tmp_path / "graph.onnx")
    with torch.no_grad():
        network.head.bias[0] += 1
    with pytest.raises(UserError, match=r"differs from torch's by 0\.\d+ in a probability"):
        check_graph(tmp_path / "graph.onnx", network, [inputs(1, 5)])


def test_eight_bit_integers_give_nearly_the_same_scores_in_less_room(network: TextNetwork, tmp_path: Path) -> None:
    export_text_network(network, tmp_path / "graph.onnx")
    quantize(tmp_path / "graph.onnx", tmp_path / "int8.onnx")
    tensors = {name: tensor.numpy() for name, tensor in inputs(3, 9).items()}
    floats, integers = (
        make_session((tmp_path / f"{n}.onnx").read_bytes()).run(None, tensors)[0] for n in ("graph", "int8")
    )
    assert integers == pytest.approx(floats, abs=0.05) and not np.array_equal(integers, floats)
    assert b"MatMulNBits" in (tmp_path / "int8.onnx").read_bytes()


def test_all_cores_give_the_same_scores(network: TextNetwork, tmp_path: Path) -> None:
    export_text_network(network, tmp_path / "graph.onnx")
    quantize(tmp_path / "graph.onnx", tmp_path / "int8.onnx")
    tensors = {name: tensor.numpy() for name, tensor in inputs(1, 40).items()}
    for name in ("graph", "int8"):
        graph = (tmp_path / f"{name}.onnx").read_bytes()
        one, several = (make_session(graph, all_cores).run(None, tensors)[0] for all_cores in (False, True))
        assert one.tobytes() == several.tobytes(), name


def test_the_graph_is_the_same_bytes_each_time(network: TextNetwork, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_text_network(network, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
