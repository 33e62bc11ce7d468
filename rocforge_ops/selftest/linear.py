"""Self-test of linear: every format and dtype, few rows and many, blocks at multiples of 16 bytes and at any byte."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rocforge_ops.bench import linear as bench
from rocforge_ops.bench import timing
from rocforge_ops.bench.dequantize import random_rows
from rocforge_ops.bench.timing import Action
from rocforge_ops.formats import Format, formats
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "linear"
TITLE = "linear, one row of 4096 on 14336 rows of weights, packed bytes read"
OUT, IN = 19, 512  # features of the comparison
ROWS = (1, 3, 16, 70)
TIMED = bench.Shape(14336, 4096)
Inputs = Callable[[Format, torch.dtype, str], Iterator[Call]]


def cases() -> Iterator[Case]:
    for format in formats:
        for name, dtype in bench.DTYPES.items():
            timed = dtype == torch.bfloat16
            yield case(format, name, _inputs, functools.partial(_load, format, dtype) if timed else None)


def case(
    format: Format,
    name: str,
    inputs: Inputs,
    load: Callable[[str], tuple[Sequence[Action], float]] | None = None,
) -> Case:
    """Of an operator whose result is a product with packed weights."""
    dtype = bench.DTYPES[name]
    difference = functools.partial(_difference, dtype)
    return Case(format.name, name, functools.partial(inputs, format, dtype), difference, load, exact=_widened)


def weights(format: Format, *experts: int, device: str) -> Iterator[Tensor]:
    """Packed [*experts, OUT, row_bytes], the same on every device: rows at multiples of 16 bytes, then at odd ones."""
    shape = bench.Shape(max(experts, default=1) * OUT, IN)
    packed = bench.random_weights(format, shape, "cpu", torch.Generator().manual_seed(0))
    row_bytes = packed.shape[-1]
    for start, end in ((0, -row_bytes % 16), (1, 1)):
        padded = torch.nn.functional.pad(packed, (start, end)).to(device)
        yield padded[:, start : start + row_bytes].unflatten(0, (*experts, OUT))


def normal(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    """The same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype)


def _inputs(format: Format, dtype: torch.dtype, device: str) -> Iterator[Call]:
    bias = normal(OUT, dtype=dtype, device=device)
    for packed in weights(format, device=device):
        for rows in ROWS:
            yield Call((normal(rows, IN, dtype=dtype, device=device), packed, format.name, bias if rows > 1 else None))


def _widened(call: Call) -> Call:
    """The same numbers as float64."""
    return Call(tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in call.arguments))


def _difference(dtype: torch.dtype, actual: Tensor, expected: Tensor) -> str:
    """A bound on the root mean square of the error, relative to the result.

    Rounding the weights and then the result to `dtype` makes an error of some 0.4 eps; 1 eps is allowed, and for
    float32, in which the sums are computed, 8.
    """
    allowed = torch.finfo(dtype).eps * (1 if dtype.itemsize == 2 else 8)
    if actual.dtype != dtype or actual.shape != expected.shape:
        return f"{actual.dtype} {list(actual.shape)} instead of {dtype} {list(expected.shape)}"
    error = (actual.double() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    return "" if bool(error <= allowed) else f"the error is {error:.1e} of the result, {allowed:.1e} is allowed"


def _load(format: Format, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    nbytes = TIMED.out * format.row_bytes(TIMED.inner)
    x = normal(1, TIMED.inner, dtype=dtype, device=device)
    packed = [random_rows(format, TIMED.out, TIMED.inner, device) for _ in range(timing.rotation(nbytes))]
    return [functools.partial(torch.ops.rocforge.linear, x, p, format.name) for p in packed], nbytes
