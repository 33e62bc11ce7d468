"""Short plain-PyTorch versions of the operators, in float64, to compare with."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_embedding(x: Tensor, angles: Tensor, interleaved: bool) -> Tensor:
    """x [B, H, L, D] with pair i rotated by angles[..., i] (broadcastable to [B, H, L, R/2]); float64."""
    x, pairs = x.double(), angles.shape[-1]
    first = slice(0, 2 * pairs, 2) if interleaved else slice(0, pairs)
    second = slice(1, 2 * pairs, 2) if interleaved else slice(pairs, 2 * pairs)
    a, b = x[..., first], x[..., second]
    out = x.clone()
    out[..., first] = a * angles.cos() - b * angles.sin()
    out[..., second] = b * angles.cos() + a * angles.sin()
    return out
