from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.formats import formats


def linear(input: Tensor, packed: Tensor, format: str, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` on packed weights, which are decoded on the way: y = x W^T + b.

    Args:
        input: [..., in], float16, bfloat16 or float32 (on the CPU float64 too), any strides.
        packed: uint8 [out, row_bytes], as for `dequantize`: a row holds `in` weights.
        format: name of the block format.
        bias: [out], of input's dtype.

    Returns:
        [..., out] of input's dtype, rounded once. Weights are the float32 values of `dequantize`, never rounded to
        half, except on a GPU for more than 32 rows, where blocks are decoded to input's dtype for PyTorch's matrix
        product (which may use TF32 for float32 where PyTorch is told to); products are summed in float32 (float64
        for float64). Differentiable in `input` and `bias`, twice where needed; `packed` is a
        constant.

        Under autocast input and bias become the autocast dtype, as for `torch.nn.functional.linear`.

    Raises:
        ValueError: unknown format, shapes or devices that do not fit. TypeError: dtypes that do not.
    """
    return torch.ops.rocforge.linear(input, packed, format, bias)


def grouped_linear(input: Tensor, packed: Tensor, format: str, offsets: Tensor) -> Tensor:
    """`linear` without bias for rows that are sorted by expert, each expert with weights of its own.

    Args:
        input: [rows, in], as for `linear`.
        packed: uint8 [experts, out, row_bytes].
        format: name of the block format.
        offsets: int32 [experts + 1], on the same device: rows offsets[e] .. offsets[e + 1] - 1 belong to expert e. They
            ascend from 0 to at most `rows`; an expert may have no row.

    Returns:
        [rows, out] of input's dtype, computed as by `linear`; rows from offsets[-1] on, which belong to no expert, are
        0. Differentiable in `input`.

        Under autocast input becomes the autocast dtype.

    Raises:
        ValueError: as for `linear`; on the CPU also offsets that do not ascend from 0 to at most `rows` (a GPU does not
            wait for the host: there such offsets give wrong rows). TypeError: dtypes that do not fit.
    """
    return torch.ops.rocforge.grouped_linear(input, packed, format, offsets)


def _in_features(packed: Tensor, format: str) -> int:
    return packed.shape[-1] // formats[format].block_bytes * formats[format].block_size


@torch.library.register_fake("rocforge::linear")
def _(input: Tensor, packed: Tensor, format: str, bias: Tensor | None = None) -> Tensor:
    torch.ops.rocforge._check_linear(input, packed, format, bias)
    return input.new_empty((*input.shape[:-1], packed.shape[-2]))


@torch.library.register_fake("rocforge::linear_input_gradient")
def _(grad: Tensor, packed: Tensor, format: str) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], _in_features(packed, format)))


@torch.library.register_fake("rocforge::grouped_linear")
def _(input: Tensor, packed: Tensor, format: str, offsets: Tensor) -> Tensor:
    torch.ops.rocforge._check_grouped_linear(input, packed, format, offsets)
    return input.new_empty((*input.shape[:-1], packed.shape[-2]))


@torch.library.register_fake("rocforge::grouped_linear_input_gradient")
def _(grad: Tensor, packed: Tensor, format: str, offsets: Tensor) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], _in_features(packed, format)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, packed, ctx.format, *rest = inputs
    ctx.save_for_backward(packed, *(t for t in rest if t is not None))


# An operator and its gradient are each other's derivative: both are linear in their first argument.
def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    packed, *_ = ctx.saved_tensors
    by_input = torch.ops.rocforge.linear_input_gradient(grad, packed, ctx.format) if ctx.needs_input_grad[0] else None
    by_bias = grad.sum_to_size(grad.shape[-1:]) if any(ctx.needs_input_grad[3:]) else None  # absent when not given
    return by_input, None, None, by_bias


def _linear_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (packed,) = ctx.saved_tensors
    return torch.ops.rocforge.linear(grad, packed, ctx.format), None, None


def _grouped_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    packed, offsets = ctx.saved_tensors
    return torch.ops.rocforge.grouped_linear_input_gradient(grad, packed, ctx.format, offsets), None, None, None


def _grouped_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    packed, offsets = ctx.saved_tensors
    return torch.ops.rocforge.grouped_linear(grad, packed, ctx.format, offsets), None, None, None


for _name, _backward in {
    "linear": _linear_backward,
    "linear_input_gradient": _linear_gradient_backward,
    "grouped_linear": _grouped_backward,
    "grouped_linear_input_gradient": _grouped_gradient_backward,
}.items():
    torch.library.register_autograd(f"rocforge::{_name}", _backward, setup_context=_keep)


def _autocast(op: Any, device_type: str, key: str) -> Callable[..., Tensor]:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def cast(t: Any) -> Any:
        wanted = isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64
        return t.to(torch.get_autocast_dtype(device_type)) if wanted else t

    def kernel(*arguments: Any) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*(cast(t) for t in arguments))

    return kernel


_implementations = torch.library.Library("rocforge", "IMPL")
for _op in (torch.ops.rocforge.linear, torch.ops.rocforge.grouped_linear):
    for _device_type, _key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _implementations.impl(_op.__name__, _autocast(_op, _device_type, _key), _key)
