"""What text and image networks share: an encoder, a new layer on top that scores every class, and what is frozen."""

from collections.abc import Sequence

import torch
from torch import nn

from rakuten.finetuning.trainer import Network

HEAD_DEVIATION = 0.02  # standard deviation of the new layer's weights in the beginning


class EncoderNetwork(Network):
    """An encoder with a new layer on top.

    Attributes:
        encoder: the pretrained network.
        encoder_layers: its layers, the lowest first. What else it has, such as embeddings, is below them.
    """

    def __init__(self, encoder: nn.Module, encoder_layers: Sequence[nn.Module], width: int, n_classes: int) -> None:
        """
        Args:
            width: of the encoder's vector.
        """
        super().__init__()
        self.encoder = encoder
        self.encoder_layers = tuple(encoder_layers)  # no ModuleList, which would name each parameter twice
        self.head = nn.Linear(width, n_classes)
        nn.init.normal_(self.head.weight, std=HEAD_DEVIATION)
        nn.init.zeros_(self.head.bias)

    def freeze(self, n_layers: int) -> None:
        """Do not train the lowest layers, nor what is below them."""
        if n_layers:
            self.encoder.requires_grad_(False)
            for layer in self.encoder_layers[n_layers:]:
                layer.requires_grad_(True)

    def layers(self) -> list[list[nn.Parameter]]:
        """See `Network.layers`."""
        in_layers = {id(parameter) for layer in self.encoder_layers for parameter in layer.parameters()}
        below = [parameter for parameter in self.encoder.parameters() if id(parameter) not in in_layers]
        stack: list[list[torch.nn.Parameter]] = [list(self.head.parameters())]
        stack += [list(layer.parameters()) for layer in reversed(self.encoder_layers)]
        return [[parameter for parameter in layer if parameter.requires_grad] for layer in (*stack, below)]
