from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate pairs of elements of each head by position-dependent angles (RoPE, arXiv:2104.09864).

    A pair (a, b) of angle t becomes (a cos t - b sin t, b cos t + a sin t). With R rotated elements a head, pair i is
    (x[i], x[i + R/2]), or (x[2i], x[2i + 1]) when `interleaved`. Elements R and above are copied (partial rotation).

    Args:
        x: [batch, heads, length, head_dim], float16, bfloat16, float32 or float64, any strides.
        cos, sin: cosines and sines of the angles, float32 or of x's dtype, [length, width], [batch, length, width] or
            [batch, heads, length, width] (size 1 broadcasts). `width` is R/2, one angle per pair; or, where the
            whole head is rotated, head_dim: one entry per element, equal for both of a pair, as transformers makes
            them. (Partial rotation wants R/2: pass cos[..., : R // 2] of a transformers table.)
        interleaved: which elements make a pair.

    Returns:
        A new contiguous tensor like `x`, computed in float32 (float64 for float64) and rounded once.
        Differentiable in `x`; its gradient is rotated by the negative angles.

    Raises:
        ValueError: shapes that do not fit each other. TypeError: dtypes that do not.
    """
    return torch.ops.rocforge.rotary_embedding(x, cos, sin, interleaved)


@torch.library.register_fake("rocforge::rotary_embedding")
def _(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    _, cos, sin, ctx.interleaved = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    cos, sin = ctx.saved_tensors
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        raise RuntimeError("rotary_embedding is differentiable in x only, not in cos and sin: detach them")
    return torch.ops.rocforge.rotary_embedding(grad, cos, -sin, ctx.interleaved), None, None, None


torch.library.register_autograd("rocforge::rotary_embedding", _backward, setup_context=_setup_context)
