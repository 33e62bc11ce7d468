from __future__ import annotations

import torch
from torch import Tensor

from rocforge_ops.nn.packed import PackedLayer


class QuantizedLinear(PackedLayer):
    """torch.nn.Linear on a weight in GGUF blocks: input [..., in_features] -> [..., out_features], in input's dtype.

    Differentiable in the input and the bias, never in the weight.

    Args:
        weight: a matrix of a GGUF file, or packed bytes, uint8 [out_features, row_bytes].
        format: of the bytes; a tensor of a file knows its own.
        bias: [out_features], of the dtype that inputs will have, or of a GGUF file (then float32).
        scale: float32, one number or [out_features], by which the decoded weight is multiplied.

    Raises:
        ValueError: an unknown format, rows that are no whole blocks, a bias or a scale of another length.
        TypeError: bytes that are not uint8, or without a format; a bias of integers; a scale that is not float32.
    """

    dims = 2

    def forward(self, input: Tensor) -> Tensor:
        if self.scale is None:
            return torch.ops.rocforge.linear(input, self.packed, self.format, self.bias)
        output = torch.ops.rocforge.linear(input, self.packed, self.format)
        scaled = output.float() * self.scale
        return (scaled if self.bias is None else scaled + self.bias).to(output.dtype)
