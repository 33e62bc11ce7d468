"""Self-test of mqa_attention: every feature at every head size and dtype, over many rows and over one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.bench import timing
from rocforge_ops.bench.timing import Action
from rocforge_ops.selftest.case import Call, Case

OPERATOR = "mqa_attention"
TITLE = "mqa_attention: 2048 rows, and one row over 8192 keys"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
HEAD_DIMS = (64, 80, 128, 256)
HEADS, KV_HEADS, ROWS, KEYS = 6, 2, 70, 151  # of the comparison
TIMED_HEADS, TIMED_ROWS, TIMED_KEYS = 16, 2048, 8192
Options = Callable[[int], dict[str, Any]]  # of the number of rows, on the CPU


def _mask(rows: int) -> Tensor:
    keep = torch.rand(2, 1, rows, KEYS, generator=torch.Generator().manual_seed(1)) < 0.6
    keep[0, 0, 0] = False  # a row without any key
    return keep


def _cuts(length: int) -> Tensor:
    """Of two sequences, the second one longer."""
    return torch.tensor([0, length // 3, length], dtype=torch.int32)


FEATURES: dict[str, Options] = {
    "": lambda rows: {},
    "bottom_right": lambda rows: {"causal": "bottom_right"},
    "top_left": lambda rows: {"causal": "top_left"},
    "window": lambda rows: {"causal": "bottom_right", "window": 40},
    "bool mask": lambda rows: {"attn_mask": _mask(rows)},
    "float mask": lambda rows: {"attn_mask": torch.zeros(2, 1, rows, KEYS).masked_fill(~_mask(rows), -torch.inf) + 0.5},
    "softcap": lambda rows: {"softcap": 1.5},
    "sinks": lambda rows: {"sinks": torch.linspace(-3, 3, HEADS)},
    "alibi": lambda rows: {"alibi_slopes": torch.linspace(0.01, 1, HEADS)},
    "kv_lengths": lambda rows: {"kv_lengths": torch.tensor([KEYS, KEYS // 2], dtype=torch.int32)},
    "cu_seqlens": lambda rows: {"cu_seqlens_q": _cuts(rows), "cu_seqlens_k": _cuts(KEYS)},
    "scale": lambda rows: {"scale": -0.3},
}


def cases() -> Iterator[Case]:
    for dim in HEAD_DIMS:
        for feature in FEATURES:
            for rows in (ROWS, 1):
                for name, dtype in DTYPES.items():
                    yield _case(dim, feature, rows, name, dtype)


def _case(dim: int, feature: str, rows: int, name: str, dtype: torch.dtype) -> Case:
    kind = "decode" if rows == 1 else "prefill"
    load = None
    if dtype in (torch.float16, torch.bfloat16):
        if rows == 1 and not feature:
            load = functools.partial(_decode_load, dim, dtype)
        elif rows > 1 and feature == "bottom_right":
            load = functools.partial(_prefill_load, dim, dtype)
    return Case(
        f"D {dim} {kind} {feature}".rstrip(),
        name,
        functools.partial(_inputs, dim, feature, rows, dtype),
        functools.partial(difference, dtype),
        load,
        "GB/s" if rows == 1 else "TFLOP/s",
        _widened,
    )


def _normal(*shape: int, dtype: torch.dtype, device: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(device, dtype)


def _inputs(dim: int, feature: str, rows: int, dtype: torch.dtype, device: str) -> Iterator[Call]:
    batch = 1 if feature == "cu_seqlens" else 2
    shapes = (HEADS, rows, dim), (KV_HEADS, KEYS, dim), (KV_HEADS, KEYS, dim)
    tensors = tuple(_normal(batch, *shape, dtype=dtype, device=device, seed=i) for i, shape in enumerate(shapes))
    options = {
        name: option.to(device) if isinstance(option, Tensor) else option
        for name, option in FEATURES[feature](rows).items()
    }
    yield Call(tensors, options)


def _widened(call: Call) -> Call:
    """The same numbers as float64."""

    def wide(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return Call(tuple(map(wide, call.arguments)), {name: wide(option) for name, option in call.options.items()})


def difference(dtype: torch.dtype, actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> str:
    """Bounds on the root mean square of the errors.

    Rounding the weights of the values and then the result to `dtype` makes an error of some 0.4 eps relative to the
    result; 1 eps is allowed, and for float32 and float64, in which the scores themselves are computed, 32. An error of
    the sum of the weights relative to it is one of lse.
    """
    allowed = torch.finfo(dtype).eps * (1 if dtype.itemsize == 2 else 32)
    (out, lse), (exact_out, exact_lse) = actual, expected
    if out.dtype != dtype or lse.dtype != torch.float32 or out.shape != exact_out.shape:
        return f"{out.dtype} {list(out.shape)} and {lse.dtype}"
    visible = exact_lse.isfinite()
    if not (lse.isfinite() == visible).all() or out[~visible].count_nonzero():
        return "rows without a key are not 0 with lse -inf"
    error = _rms(out.double() - exact_out) / _rms(exact_out)
    if not error <= allowed:
        return f"the error is {error:.1e} of the result, {allowed:.1e} is allowed"
    error = _rms((lse - exact_lse.float())[visible].double())
    allowed = max(allowed, 1e-5)  # lse is float32
    return "" if error <= allowed else f"the error of lse is {error:.1e}, {allowed:.1e} is allowed"


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def _prefill_load(dim: int, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    """Causal, one key/value head; the operations that the causal rule leaves."""
    query = torch.randn(1, TIMED_HEADS, TIMED_ROWS, dim, dtype=dtype, device=device)
    key = torch.randn(1, 1, TIMED_ROWS, dim, dtype=dtype, device=device)
    call = functools.partial(torch.ops.rocforge.mqa_attention, query, key, key, causal="bottom_right")
    return [call, call], 2 * TIMED_HEADS * TIMED_ROWS * TIMED_ROWS * dim


def _decode_load(dim: int, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    """One row over many keys: bytes of keys and values."""
    batch = 8
    nbytes = 2 * batch * TIMED_KEYS * dim * dtype.itemsize
    query = torch.randn(batch, TIMED_HEADS, 1, dim, dtype=dtype, device=device)
    calls = []
    for _ in range(timing.rotation(nbytes)):
        key, value = (torch.randn(batch, 1, TIMED_KEYS, dim, dtype=dtype, device=device) for _ in range(2))
        calls.append(functools.partial(torch.ops.rocforge.mqa_attention, query, key, value))
    return calls, nbytes
