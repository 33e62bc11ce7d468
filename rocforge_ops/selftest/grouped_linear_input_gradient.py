"""Self-test of grouped_linear's gradient: every format and dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rocforge_ops.formats import Format, formats
from rocforge_ops.selftest import grouped_linear, linear
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "grouped_linear_input_gradient"
TITLE = "grouped_linear_input_gradient"


def cases() -> Iterator[Case]:
    for format in formats:
        for name in linear.bench.DTYPES:
            yield linear.case(format, name, _inputs)


def _inputs(format: Format, dtype: torch.dtype, device: str) -> Iterator[Call]:
    return grouped_linear.calls(format, dtype, linear.OUT, device)
