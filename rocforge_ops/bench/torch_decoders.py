"""Decoders in plain PyTorch for a few formats: what dequantizing on a GPU looks like without kernels of its own.

Each takes blocks, uint8 [..., block_bytes], and gives float32 [..., weights of a block].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _half(field: Tensor) -> Tensor:
    return field.contiguous().view(torch.float16).float()


def q4_0(blocks: Tensor) -> Tensor:
    scale, packed = _half(blocks[..., :2]), blocks[..., 2:]
    return scale * (torch.cat([packed & 15, packed >> 4], -1).float() - 8)


def q8_0(blocks: Tensor) -> Tensor:
    return _half(blocks[..., :2]) * blocks[..., 2:].contiguous().view(torch.int8).float()


def q4_k(blocks: Tensor) -> Tensor:
    scale, least = _half(blocks[..., :2]), _half(blocks[..., 2:4])
    # Eight 6-bit scales and offsets: four of each in whole bytes, whose upper bits complete the nibbles of the others.
    a, b, c = blocks[..., 4:16].unflatten(-1, (3, 4)).unbind(-2)
    scales = torch.cat([a & 63, c & 15 | a >> 6 << 4], -1)
    offsets = torch.cat([b & 63, c >> 4 | b >> 6 << 4], -1)
    packed = blocks[..., 16:].unflatten(-1, (4, 32))
    levels = torch.stack([packed & 15, packed >> 4], -2).flatten(-3, -2)
    weights = (scale * scales).unsqueeze(-1) * levels.float() - (least * offsets).unsqueeze(-1)
    return weights.flatten(-2)


def q6_k(blocks: Tensor) -> Tensor:
    low, high = blocks[..., :128].unflatten(-1, (2, 2, 32)), blocks[..., 128:192].unflatten(-1, (2, 1, 32))
    scales = blocks[..., 192:208].contiguous().view(torch.int8).float()
    nibbles = torch.cat([low & 15, low >> 4], -2)  # [..., 2 halves, 4 quarters, 32]
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device).view(4, 1)
    levels = (nibbles | (high >> shifts & 3) << 4).float() - 32
    return ((_half(blocks[..., 208:]) * scales).unsqueeze(-1) * levels.flatten(-3).unflatten(-1, (16, 16))).flatten(-2)


DECODERS: dict[str, Callable[[Tensor], Tensor]] = {"Q4_0": q4_0, "Q8_0": q8_0, "Q4_K": q4_k, "Q6_K": q6_k}


def dequantize(packed: Tensor, format: str, dtype: torch.dtype) -> Tensor:
    """As `rocforge_ops.dequantize`, for contiguous rows of the formats above."""
    from rocforge_ops.formats import formats

    return DECODERS[format](packed.unflatten(-1, (-1, formats[format].block_bytes))).flatten(-2).to(dtype)
