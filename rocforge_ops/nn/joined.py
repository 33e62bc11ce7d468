"""Several layers of one input as one: their rows in one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from rocforge_ops.nn.packed import PackedLayer

Layer = TypeVar("Layer", bound=PackedLayer)


def one_format(layers: Sequence[PackedLayer]) -> bool:
    """Whether the rows of all can lie in one buffer: one format, no scales, and all or none have a bias."""
    alike = {(layer.format, layer.bias is None) for layer in layers}
    return len(alike) == 1 and all(layer.scale is None for layer in layers)


def joined(layers: Sequence[Layer]) -> Sequence[Layer]:
    """One layer with the rows of all where that is possible, else the layers as they are."""
    if len(layers) < 2 or not one_format(layers):
        return layers
    packed = torch.cat([layer.packed for layer in layers], dim=-2)
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return [type(layers[0])(packed, layers[0].format, torch.cat(biases, dim=-1) if biases else None)]
