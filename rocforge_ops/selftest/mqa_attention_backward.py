"""Self-test of mqa_attention's gradients: every feature at every head size and dtype."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rocforge_ops.bench.timing import Action
from rocforge_ops.selftest import mqa_attention as forward
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "mqa_attention_backward"
TITLE = "mqa_attention, backward: 2048 rows"
OPTIONS = (  # in the order of the operator's arguments
    *("attn_mask", "causal", "scale", "window", "softcap"),
    *("sinks", "alibi_slopes", "kv_lengths", "cu_seqlens_q", "cu_seqlens_k"),
)
DEFAULTS = {"causal": "none", "softcap": 0.0}
GRADIENTS = ("query", "key", "value", "mask", "sinks")


def cases() -> Iterator[Case]:
    for dim in forward.HEAD_DIMS:
        for feature in forward.FEATURES:
            for name, dtype in forward.DTYPES.items():
                timed = dtype.itemsize == 2 and feature == "bottom_right"
                yield Case(
                    f"D {dim} backward {feature}".rstrip(),
                    name,
                    functools.partial(_inputs, dim, feature, dtype),
                    functools.partial(_difference, dtype),
                    functools.partial(_load, dim, dtype) if timed else None,
                    "TFLOP/s",
                    _widened,
                )


def _inputs(dim: int, feature: str, dtype: torch.dtype, device: str) -> Iterator[Call]:
    """Out and lse are those of float64, rounded: the same on every device."""
    (call,) = forward._inputs(dim, feature, forward.ROWS, dtype, "cpu")
    exact = forward._widened(call)
    out, lse = torch.ops.rocforge.mqa_attention(*exact.arguments, **exact.options)
    grad_out = forward._normal(*out.shape, dtype=dtype, device="cpu", seed=3)
    grad_lse = forward._normal(*lse.shape, dtype=torch.float32, device="cpu", seed=4)
    options = [call.options.get(name, DEFAULTS.get(name)) for name in OPTIONS]
    arguments = (grad_out, grad_lse, *call.arguments, out.to(dtype), lse, *options, feature == "float mask")
    yield Call(tuple(x.to(device) if isinstance(x, Tensor) else x for x in arguments))


def _widened(call: Call) -> Call:
    """The same numbers as float64; lse and its gradient are float32 always."""
    grad_out, grad_lse, query, key, value, out, lse, *options = call.arguments
    wide = forward._widened(Call((grad_out, query, key, value, out, *options))).arguments
    return Call((wide[0], grad_lse, *wide[1:5], lse, *wide[5:]))


def _difference(dtype: torch.dtype, actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> str:
    """Bounds on the root mean square of the errors.

    Rounding weights and dS, which the products take, and then the result to `dtype` makes an error of some 0.5 eps
    relative to it; 1 eps is allowed, and for float32 and float64, in which scores and sums are computed, 64.
    """
    rounding = torch.finfo(dtype).eps * (1 if dtype.itemsize == 2 else 64)
    for name, grad, exact in zip(GRADIENTS, actual, expected, strict=True):
        if grad.shape != exact.shape:
            return f"the gradient of {name} is {list(grad.shape)}"
        if not grad.numel():
            continue
        allowed = max(rounding, torch.finfo(grad.dtype).eps)  # mask and sinks are float32
        error = forward._rms(grad.double() - exact) / forward._rms(exact.double())
        if not error <= allowed:
            return f"the error of the gradient of {name} is {error:.1e} of it, {allowed:.1e} is allowed"
    return ""


def _load(dim: int, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    """Causal, one key/value head; five products over the pairs that the causal rule leaves."""
    heads, rows = forward.TIMED_HEADS, forward.TIMED_ROWS
    query = torch.randn(1, heads, rows, dim, dtype=dtype, device=device)
    key = torch.randn(1, 1, rows, dim, dtype=dtype, device=device)
    out, lse = torch.ops.rocforge.mqa_attention(query, key, key, causal="bottom_right")
    options = (None, "bottom_right", None, None, 0.0, None, None, None, None, None, False)
    call = functools.partial(
        torch.ops.rocforge.mqa_attention_backward, query, None, query, key, key, out, lse, *options
    )
    return [call, call], 5 * heads * rows * rows * dim
