"""Self-test of mqa_attention_q8_0: each dtype and head size over many blocks, and with what may stand beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.bench import timing
from rocforge_ops.bench.timing import Action
from rocforge_ops.selftest import mqa_attention
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "mqa_attention_q8_0"
TITLE = "mqa_attention_q8_0: one row over 8192 keys in Q8_0 blocks"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
HEADS, KV_HEADS, KEYS = 6, 2, 1151
TIMED_HEADS, TIMED_KEYS, TIMED_BATCH = 16, 8192, 8


def cases() -> Iterator[Case]:
    for dim in (64, 128, 256):
        for name, dtype in DTYPES.items():
            load = None if dtype == torch.float32 else functools.partial(_load, dim, dtype)
            inputs, difference = functools.partial(_inputs, dim, dtype), functools.partial(_difference, dtype)
            yield Case(f"D {dim}", name, inputs, difference, load)


def _blocks(*shape: int, device: str, seed: int) -> Tensor:
    """[*shape, 34] bytes of blocks with a scale of about 1 / 64."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(-127, 128, (*shape, 32), dtype=torch.int8, generator=generator)
    scales = (1 + torch.rand(*shape, 1, generator=generator)).div(100).half()
    return torch.cat((scales.view(torch.uint8), levels.view(torch.uint8)), -1).to(device)


def _inputs(dim: int, dtype: torch.dtype, device: str) -> Iterator[Call]:
    lengths = torch.tensor([KEYS, 7], dtype=torch.int32, device=device)
    options: tuple[dict[str, Any], ...] = ({}, {"kv_lengths": lengths, "causal": "bottom_right", "softcap": 2.0})
    key, value = (_blocks(2, KV_HEADS, KEYS, dim // 32, device=device, seed=seed).flatten(-2) for seed in (1, 2))
    for rows, option in zip((1, 3), options, strict=True):
        query = torch.randn(2, HEADS, rows, dim, generator=torch.Generator().manual_seed(3)).to(device, dtype)
        yield Call((query, key, value), option)


def _difference(dtype: torch.dtype, actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> str:
    """Both round the same blocks to `dtype`, and their results to it: the bound of mqa_attention holds."""
    return mqa_attention.difference(dtype, actual, (expected[0].double(), expected[1].double()))


def _load(dim: int, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    """Bytes of keys and values."""
    shape = TIMED_BATCH, 1, TIMED_KEYS, dim // 32 * 34
    query = torch.randn(TIMED_BATCH, TIMED_HEADS, 1, dim, dtype=dtype, device=device)
    nbytes = 2 * TIMED_BATCH * TIMED_KEYS * shape[-1]
    calls = []
    for _ in range(timing.rotation(nbytes)):
        key, value = (torch.randint(0, 64, shape, dtype=torch.uint8, device=device) for _ in range(2))
        calls.append(functools.partial(torch.ops.rocforge.mqa_attention_q8_0, query, key, value))
    return calls, nbytes
