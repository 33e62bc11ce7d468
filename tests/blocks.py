"""Packed test data and exact comparison, for every test of a format."""

from __future__ import annotations

import math

import torch

import rocforge_ops as rf
from rocforge_ops.bench.linear import Shape, random_weights

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
FORMATS = [f.name for f in rf.formats]


def random_rows(format: str, *shape: int, blocks: int = 3, seed: int = 0) -> torch.Tensor:
    """Random bytes as packed rows [*shape, row_bytes] of `blocks` blocks; any bytes are a legal block."""
    generator = torch.Generator().manual_seed(seed)
    row_bytes = blocks * rf.formats[format].block_bytes
    return torch.randint(0, 256, (*shape, row_bytes), dtype=torch.uint8, generator=generator)


def finite_rows(format: str, *shape: int) -> torch.Tensor:
    """Random rows without infinities and NaNs, for comparisons that do not take a NaN for equal."""
    return random_rows(format, *shape) & 0x3F


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bit for bit, signed zeros included; all NaNs are one."""
    return a.dtype == b.dtype and a.shape == b.shape and _bits(a).equal(_bits(b))


def _bits(x: torch.Tensor) -> torch.Tensor:
    integers = {4: torch.int32, 2: torch.int16}[x.element_size()]
    return torch.where(x.isnan(), torch.full_like(x, torch.nan), x).view(integers)


def even_rows(format: str, *shape: int, weights: int, seed: int = 0) -> torch.Tensor:
    """Packed rows [*shape, row_bytes] of blocks of similar size: none is lost in the rounding of a sum over all."""
    generator = torch.Generator().manual_seed(seed)
    rows = random_weights(rf.formats[format], Shape(math.prod(shape), weights), "cpu", generator)
    return rows.unflatten(0, shape)
