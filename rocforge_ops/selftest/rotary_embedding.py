"""Self-test of rotary_embedding: each dtype, both pairings, whole and partial rotation, strided inputs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rocforge_ops.bench.timing import Action
from rocforge_ops.selftest.case import Call, Case, bit_difference

OPERATOR = "rotary_embedding"
TITLE = "rotary_embedding, bytes read and written"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def cases() -> Iterator[Case]:
    for interleaved in (False, True):
        for name, dtype in DTYPES.items():
            yield Case(
                "interleaved" if interleaved else "half-split",
                name,
                functools.partial(_inputs, dtype, interleaved),
                bit_difference,
                functools.partial(_load, dtype, interleaved),
            )


def _inputs(dtype: torch.dtype, interleaved: bool, device: str) -> Iterator[Call]:
    for head_dim, pairs in ((64, 32), (80, 16), (17, 8)):
        cos, sin = _angles(7, pairs, device)
        x = _normal(2, 7, 3, head_dim + 3, device=device).to(dtype)
        yield Call((x.transpose(1, 2)[..., 3:], cos, sin, interleaved))


def _load(dtype: torch.dtype, interleaved: bool, device: str) -> tuple[Sequence[Action], float]:
    cos, sin = _angles(4096, 64, device)
    inputs = [_normal(4, 32, 4096, 128, device=device).to(dtype) for _ in range(2)]
    calls = [functools.partial(torch.ops.rocforge.rotary_embedding, x, cos, sin, interleaved) for x in inputs]
    return calls, 2 * inputs[0].nbytes


def _angles(length: int, pairs: int, device: str) -> tuple[Tensor, Tensor]:
    angles = _normal(length, pairs, device="cpu", seed=1) * 10
    return angles.cos().to(device), angles.sin().to(device)


def _normal(*shape: int, device: str, seed: int = 0) -> Tensor:
    """The same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
