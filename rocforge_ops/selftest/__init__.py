"""Every GPU kernel on this machine's GPU against the CPU: what `rocforge verify` runs.

Each operator with a GPU kernel has a module here with

    OPERATOR             its name in torch.ops.rocforge
    TITLE                a heading for its table
    cases() -> [Case]

and a place in OPERATORS below.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from rocforge_ops.selftest import (
    dequantize,
    embedding,
    grouped_linear,
    grouped_linear_input_gradient,
    linear,
    linear_input_gradient,
    mqa_attention,
    mqa_attention_backward,
    mqa_attention_q8_0,
    qkv_rope_cache,
    rotary_embedding,
)
from rocforge_ops.selftest.case import Call, Case, Reference, Result, on_cpu

OPERATORS: tuple[ModuleType, ...] = (
    dequantize,
    embedding,
    linear,
    linear_input_gradient,
    grouped_linear,
    grouped_linear_input_gradient,
    mqa_attention,
    mqa_attention_backward,
    mqa_attention_q8_0,
    qkv_rope_cache,
    rotary_embedding,
)


def run(module: ModuleType, device: str, reference: Reference = on_cpu, timed: bool = True) -> Iterator[Result]:
    """Results of an operator's cases, one after another."""
    for case in module.cases():
        yield case.run(module.OPERATOR, device, reference, timed)


__all__ = ["OPERATORS", "Call", "Case", "Reference", "Result", "on_cpu", "run"]
