"""Rows of keys and values as GGUF Q8_0 blocks: 32 elements share a float16 scale, 8.5 bits an element."""

from __future__ import annotations

import torch
from torch import Tensor

from rocforge_ops.formats import formats
from rocforge_ops.ops.dequantize import dequantize

BLOCK = formats["Q8_0"]
DTYPES = (torch.float16, torch.bfloat16, torch.float32)  # of what may be stored


def encode(x: Tensor) -> Tensor:
    """[..., D], D a multiple of 32 -> uint8 [..., D / 32 * 34], each element within half a step of its block."""
    blocks = x.float().unflatten(-1, (-1, BLOCK.block_size))
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half()
    # By the scale as it is stored; a block too small for float16 has scale 0, as all its elements.
    steps = torch.where(scale > 0, blocks / scale.float(), 0).round().clamp(-127, 127).to(torch.int8)
    return torch.cat((scale.view(torch.uint8), steps.view(torch.uint8)), -1).flatten(-2)


def decode(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [..., D / 32 * 34] -> [..., D] of `dtype`."""
    return dequantize(packed, BLOCK.name, dtype)


def row_bytes(elements: int) -> int:
    if elements % BLOCK.block_size:
        raise ValueError(f"Q8_0 stores blocks of {BLOCK.block_size} elements, got heads of {elements}")
    return elements // BLOCK.block_size * BLOCK.block_bytes
