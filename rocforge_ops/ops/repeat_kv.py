from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def repeat_kv(x: Tensor, n_rep: int) -> Tensor:
    """Repeat each key/value head `n_rep` times, so that there is one for every query head of its group.

    Args:
        x: [batch, kv_heads, length, head_dim], any dtype and strides.
        n_rep: query heads per key/value head, at least 1.

    Returns:
        A new contiguous tensor [batch, kv_heads * n_rep, length, head_dim] whose head h is x's head h // n_rep.
        Differentiable in `x`: the gradient of a head is the sum over its copies.

    Raises:
        ValueError: `x` is not four-dimensional, or `n_rep` < 1.
    """
    return torch.ops.rocforge.repeat_kv(x, n_rep)


@torch.library.register_fake("rocforge::repeat_kv")
def _(x: Tensor, n_rep: int) -> Tensor:
    batch, heads, length, head_dim = x.shape
    return x.new_empty((batch, heads * n_rep, length, head_dim))


def _setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.n_rep = inputs[1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad.unflatten(1, (-1, ctx.n_rep)).sum(2), None


torch.library.register_autograd("rocforge::repeat_kv", _backward, setup_context=_setup_context)
