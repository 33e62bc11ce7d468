"""Inputs of linear and grouped_linear for their tests, and the bound that results are held to."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from blocks import DTYPES, even_rows
from conftest import KERNELS
from torch import Tensor

import rocforge_ops as rf
from rocforge_ops.bench.linear import PLAIN

OUT = 67  # features
# Of the input. The emulation is some 10^4 times slower than a GPU: there each dtype takes its share of the row counts.
ROWS = {dtype: [1, 2, 3, 8, 16, 17, 64, 513] for dtype in DTYPES}
if KERNELS:
    ROWS = {torch.float32: [1, 16], torch.float16: [3, 17], torch.bfloat16: [2, 8, 64]}


def in_features(format: str) -> int:
    """Three large blocks, or as many small ones; an odd number of plain values."""
    return 771 if format in PLAIN else 768


def weights(format: str, *shape: int, seed: int = 0) -> Tensor:
    """Packed [*shape, row_bytes]."""
    return even_rows(format, *shape, weights=in_features(format), seed=seed)


def share(actual: Tensor) -> float:
    """Of plain PyTorch's error on the same device, what the error of `actual` may be.

    In half precision that is the error of the weights, which here are not rounded, and of the result, which is: never
    more, but for numbers between two halves. In float32 both are sums of the same products, rounded in another order:
    that of matrix cores is one term after another.
    """
    if actual.dtype != torch.float32:
        return 1 + (1e-2 if actual.is_cuda else 1e-3)
    return 4 if KERNELS or actual.is_cuda else 2


def rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def errors(actual: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None) -> tuple[float, float]:
    """(of `actual`, of plain PyTorch in left's dtype) from left @ right + bias in float64; right is float32."""
    left, right = left.detach().to(actual.device), right.to(actual.device)
    exact, plain = left.double() @ right.double(), left @ right.to(left.dtype)
    if bias is not None:
        bias = bias.detach().to(actual.device)
        exact, plain = exact + bias.double(), F.linear(left, right.to(left.dtype).mT, bias)
    assert actual.dtype == plain.dtype and actual.shape == exact.shape
    # Where PyTorch makes no error, a quarter of a unit in the last place is none.
    least = rms(exact) * torch.finfo(plain.dtype).eps / 4
    return rms(actual.detach().double() - exact), max(rms(plain.double() - exact), least)


def check(actual: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None) -> None:
    """`actual` is left @ right + bias as exactly as its dtype can say it; a NaN is never right."""
    error, plain = errors(actual, left, right, bias)
    message = f"input {tuple(left.shape)}: error {error:.2e}, of plain PyTorch {plain:.2e}"
    assert error <= share(actual) * plain, message


def check_row_counts(product: Callable[[Tensor], Tensor], right: Tensor, dtype: torch.dtype) -> None:
    """product(left) is left @ right for every number of rows."""
    left = torch.randn(max(ROWS[dtype]), right.shape[0]).to(dtype)
    for rows in ROWS[dtype]:
        check(product(left[:rows]), left[:rows], right)


def decoded(packed: Tensor, format: str) -> Tensor:
    """float32 [..., in, out], what the right operand of a product is."""
    return rf.dequantize(packed, format).mT
