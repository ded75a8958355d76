import numpy as np
import pytest
import torch

from rakuten.features.encoders import efficientnet_lite0 as packaged
from rakuten.features.encoders.onnx import make_session
from rakuten.finetuning.efficientnet_lite0 import WIDTH, efficientnet_lite0


def test_it_is_the_network_that_the_features_stage_uses() -> None:
    """The frozen encoder's embedding begins with the square root of the pooled head."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96)).astype(np.float32)
    embedding = make_session(packaged.build()).run(None, {"pixels": pixels})[0]
    with torch.inference_mode():
        found = efficientnet_lite0().eval()((torch.from_numpy(pixels) - 127) / 128).numpy()
    assert found.shape == (2, WIDTH)
    assert np.sqrt(found) == pytest.approx(embedding[:, :WIDTH], abs=1e-3)
