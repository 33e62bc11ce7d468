"""Self-test of embedding: every format to every dtype, tables at multiples of 16 bytes and at any byte."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch

from rocforge_ops.bench import dequantize as bench
from rocforge_ops.bench.timing import Action
from rocforge_ops.formats import Format, formats
from rocforge_ops.selftest.case import Call, Case, bit_difference
from rocforge_ops.selftest.dequantize import random_bytes

OPERATOR = "embedding"
TITLE = f"embedding, {bench.LOOKUPS} rows, bytes read and written"
TABLE_ROWS = 65_536  # of the timed table


def cases() -> Iterator[Case]:
    for format in formats:
        for name, dtype in bench.DTYPES.items():
            yield Case(
                format.name,
                name,
                functools.partial(_inputs, format, dtype),
                bit_difference,
                functools.partial(_load, format, dtype),
            )


def _inputs(format: Format, dtype: torch.dtype, device: str) -> Iterator[Call]:
    table = random_bytes(13, 24 * format.block_bytes + 16, device=device)
    for start, kind in ((0, torch.int64), (1, torch.int32)):
        indices = torch.tensor([[3, 0, 12], [12, 7, 3]], dtype=kind, device=device)
        yield Call((table[:, start : start + 24 * format.block_bytes], format.name, indices, dtype))


def _load(format: Format, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    calls, nbytes, _ = bench.embedding_calls(format, dtype, TABLE_ROWS, device)
    return calls, nbytes
