"""Self-test of qkv_rope_cache: each dtype, with and without bias and norms, aligned and not, both pairings, rings."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.bench.timing import Action
from rocforge_ops.selftest.case import Call, Case, bit_difference

OPERATOR = "qkv_rope_cache"
TITLE = "qkv_rope_cache, bytes read and written"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def cases() -> Iterator[Case]:
    for steps in ("rope", "bias, norm, rope"):
        for name, dtype in DTYPES.items():
            yield Case(
                steps,
                name,
                functools.partial(_inputs, dtype, "norm" in steps),
                _difference,
                functools.partial(_load, dtype, "norm" in steps),
            )


def _inputs(dtype: torch.dtype, norm: bool, device: str) -> Iterator[Call]:
    for head_dim, pairs, interleaved in ((64, 32, False), (128, 32, True), (80, 16, False), (17, 6, True)):
        yield _call(dtype, norm, device, (2, 7, 6, 2, head_dim), pairs, capacity=5, interleaved=interleaved, ring=True)


def _call(
    dtype: torch.dtype,
    norm: bool,
    device: str,
    shape: tuple[int, int, int, int, int],
    pairs: int,
    capacity: int,
    seed: int = 0,
    **options: Any,
) -> Call:
    """shape: batch, length, query heads, key/value heads, head_dim."""
    batch, length, heads, kv_heads, head_dim = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype).to(device)

    width = (heads + 2 * kv_heads) * head_dim
    caches = [torch.zeros(batch, kv_heads, capacity, head_dim, dtype=dtype, device=device) for _ in range(2)]
    angles = torch.randn(length, pairs, generator=generator) * 10
    cos_sin = angles.cos().to(device), angles.sin().to(device)
    if norm:
        options |= {"bias": normal(width), "q_norm": normal(head_dim), "k_norm": normal(head_dim)}
    starts = torch.arange(batch, dtype=torch.int32, device=device)
    return Call(([normal(batch, length, width)], *caches, starts, *cos_sin), options)


def _difference(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> str:
    for name, a, e in zip(("query", "key_cache", "value_cache"), actual, expected, strict=True):
        if wrong := bit_difference(a, e):
            return f"{name}: {wrong}"
    return ""


def _load(dtype: torch.dtype, norm: bool, device: str) -> tuple[Sequence[Action], float]:
    calls = [_call(dtype, norm, device, (32, 512, 32, 8, 128), 64, capacity=1024, seed=seed) for seed in range(2)]
    operator = torch.ops.rocforge.qkv_rope_cache
    actions = [functools.partial(operator, *call.arguments, **call.options) for call in calls]
    return actions, 2 * calls[0].arguments[0][0].nbytes
