"""Self-test of grouped_linear: every format and dtype, experts without rows, rows of no expert."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rocforge_ops.formats import Format, formats
from rocforge_ops.selftest import linear
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "grouped_linear"
TITLE = "grouped_linear"
OFFSETS = (0, 3, 3, 4, 37, 39)
ROWS = 41


def cases() -> Iterator[Case]:
    for format in formats:
        for name in linear.bench.DTYPES:
            yield linear.case(format, name, _inputs)


def calls(format: Format, dtype: torch.dtype, features: int, device: str) -> Iterator[Call]:
    offsets = torch.tensor(OFFSETS, dtype=torch.int32, device=device)
    for packed in linear.weights(format, len(OFFSETS) - 1, device=device):
        yield Call((linear.normal(ROWS, features, dtype=dtype, device=device), packed, format.name, offsets))


def _inputs(format: Format, dtype: torch.dtype, device: str) -> Iterator[Call]:
    return calls(format, dtype, linear.IN, device)
