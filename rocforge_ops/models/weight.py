"""A weight on its way from the file to a parameter: packed rows until the last moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weight:
    """Rows of packed blocks. Blocks run along a row, so whole rows may be reordered, cut and joined as bytes."""

    packed: Tensor  # uint8 [..., rows, row_bytes]
    format: str
    scale: Tensor | None = None  # float32, one number or one for each entry of the first dimension

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """[..., rows, columns] of `dtype`; a scale is applied in float32 and the product rounded once."""
        if self.scale is None:
            return torch.ops.rocforge.dequantize(self.packed, self.format, dtype)
        value = torch.ops.rocforge.dequantize(self.packed, self.format, torch.float32)
        return (value * self.scale.view(-1, *[1] * (value.ndim - 1))).to(dtype)

    def rows(self, order: Tensor) -> Weight:
        """The rows `order` (int64 [any number]), in that order."""
        order = order.to(self.packed.device)
        scale = self.scale
        if scale is not None and scale.ndim == 1 and self.packed.ndim == 2:
            scale = scale[order]
        return Weight(self.packed.index_select(-2, order), self.format, scale)

    def columns_as_rows(self) -> Weight:
        """A vector [..., n] as n rows of one element, so that a bias is reordered as its matrix is."""
        plain = self.plain()
        return Weight(plain.packed.unflatten(-1, (-1, 4)), plain.format)

    def plain(self) -> Weight:
        """The same numbers as float32."""
        if self.format == "F32" and self.scale is None:
            return self
        return Weight(self.dequantize(torch.float32).view(torch.uint8), "F32")


def join(weights: Sequence[Weight], alternate: bool) -> Weight:
    """All rows, one weight after the other or in turns. Weights of several formats or scales are joined as float32."""
    if len({weight.format for weight in weights}) > 1 or any(weight.scale is not None for weight in weights):
        weights = [weight.plain() for weight in weights]
    packed = [weight.packed for weight in weights]
    joined = torch.stack(packed, dim=-2).flatten(-3, -2) if alternate else torch.cat(packed, dim=-2)
    return Weight(joined, weights[0].format)
