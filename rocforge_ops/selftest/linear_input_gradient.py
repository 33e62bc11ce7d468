"""Self-test of linear's gradient: every format and dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rocforge_ops.formats import Format, formats
from rocforge_ops.selftest import linear
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "linear_input_gradient"
TITLE = "linear_input_gradient"


def cases() -> Iterator[Case]:
    for format in formats:
        for name in linear.bench.DTYPES:
            yield linear.case(format, name, _inputs)


def _inputs(format: Format, dtype: torch.dtype, device: str) -> Iterator[Call]:
    for packed in linear.weights(format, device=device):
        for rows in linear.ROWS:
            yield Call((linear.normal(rows, linear.OUT, dtype=dtype, device=device), packed, format.name))
