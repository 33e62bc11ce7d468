from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rocforge_ops import _library  # noqa: F401  (defines the operator)


def qkv_rope_cache(
    qkv: Tensor | Sequence[Tensor],
    key_cache: Tensor,
    value_cache: Tensor,
    cache_positions: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    *,
    position_ids: Tensor | None = None,
    interleaved: bool = False,
    bias: Tensor | None = None,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 1e-6,
    ring: bool = False,
) -> Tensor:
    """From a projection to attention's inputs in one pass: split, bias, RMS norm, RoPE, K and V into their cache.

    Each head's row x becomes x + bias, then (query and key) x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467), then
    (query and key) its rotation as by `rotary_embedding`; what is not given is left out. Computed in float32 (float64
    for float64) and rounded once.

    Args:
        qkv: [B, L, Hq D + Hkv D + Hkv Dv], or three tensors: query [B, L, Hq D], key [B, L, Hkv D] and value
            [B, L, Hkv Dv]; float16, bfloat16, float32 or float64, any strides, the last one 1. The caches say what
            Hkv, D and Dv are.
        key_cache, value_cache: [B, Hkv, capacity, D] and [B, Hkv, capacity, Dv] of qkv's dtype, any strides, the last
            one 1. Written in place, at the tokens' positions only.
        cache_positions: int32 or int64 on the device, [B, L] (or [1, L]), the slot of each token; or [B], that of each
            row's first token, the others following it. A token whose position is not in [0, capacity) is not written;
            of two tokens of a row at one position, one is.
        cos, sin: as `rotary_embedding` takes them ([L, width] or [B, L, width]), the same for all heads; no rotation
            without them. With `position_ids` tables [positions, width].
        position_ids: int32 or int64 [B, L], [1, L] or [B], as cache_positions: each token's row of the tables. A row
            outside of them is an IndexError on the CPU and makes NaN on a GPU, which does not wait for the host.
        interleaved: which elements make a pair, as for `rotary_embedding`.
        bias: [Hq D + Hkv D + Hkv Dv], float32 or qkv's dtype.
        q_norm, k_norm: [D], weights of the RMS norm of each query and key head; float32 or qkv's dtype.
        ring: the caches are ring buffers of the last `capacity` tokens: position p goes to slot p % capacity, and of
            tokens that follow each other the last `capacity` are written. A negative position is not written.

    Returns:
        The queries [B, Hq, L, D], contiguous.

    Raises:
        ValueError: shapes, strides or devices that do not fit. TypeError: dtypes that do not.
        NotImplementedError: gradients are asked for; this operator has none.
    """
    return torch.ops.rocforge.qkv_rope_cache(
        [qkv] if isinstance(qkv, Tensor) else list(qkv),
        key_cache,
        value_cache,
        cache_positions,
        cos,
        sin,
        position_ids=position_ids,
        interleaved=interleaved,
        bias=bias,
        q_norm=q_norm,
        k_norm=k_norm,
        eps=eps,
        ring=ring,
    )


@torch.library.register_fake("rocforge::qkv_rope_cache")
def _(
    qkv: list[Tensor], key_cache: Tensor, value_cache: Tensor, cache_positions: Tensor, *angles: Any, **options: Any
) -> Tensor:
    batch, length, width = qkv[0].shape
    _, kv_heads, _, head_dim = key_cache.shape
    key_and_value = kv_heads * (head_dim + value_cache.shape[3]) if len(qkv) == 1 else 0
    return qkv[0].new_empty((batch, (width - key_and_value) // head_dim, length, head_dim))
