from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rocforge_ops.ops.mqa_attention import mqa_attention


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention by mqa_attention: same arguments, same meaning.

    Args:
        query: [..., Hq, L, E]; [L, E] is one head. key, value: [..., H, S, E] and [..., H, S, Ev].
            Leading dimensions are broadcast; so are the heads, unless `enable_gqa`.
        attn_mask: bool (True keeps) or float (added; of query's dtype or float32), broadcastable to [..., Hq, L, S].
        dropout_p: must be 0.
        is_causal: row i sees keys up to i (aligned top-left, whatever L and S); not together with attn_mask.
        scale: 1 / sqrt(E) when None.
        enable_gqa: key and value may have fewer heads, each of which serves Hq / H neighbouring query heads.

    Returns:
        [..., Hq, L, Ev]. A row that sees no key is 0. Differentiable as mqa_attention is.

    Raises:
        ValueError: dropout, shapes that do not fit, or both a mask and is_causal. TypeError: dtypes that do not fit.
    """
    if dropout_p != 0:
        raise ValueError(f"dropout is not supported in attention: dropout_p must be 0, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask and is_causal exclude each other: put the causal rule into the mask")
    tensors = (query, key, value)
    if any(t.is_nested for t in tensors):
        raise ValueError("nested tensors are not supported: pack the sequences for mqa_attention's cu_seqlens")
    if any(t.dim() < 2 for t in tensors):
        shapes = ", ".join(str(list(t.shape)) for t in tensors)
        raise ValueError(f"query, key and value must be [..., length, head_dim], got {shapes}")

    no_heads = all(t.dim() == 2 for t in tensors)
    query, key, value = (t.unsqueeze(0) if t.dim() == 2 else t for t in tensors)
    query, key, value = _matching_heads(query, key, value, enable_gqa)
    batch = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
    query, key, value = (_four_dimensions(t, batch) for t in (query, key, value))
    if attn_mask is not None and attn_mask.dim() > 3 and len(batch) > 1:
        attn_mask = _four_dimensions(attn_mask, batch)
    causal = "top_left" if is_causal else "none"
    out = mqa_attention(query, key, value, attn_mask=attn_mask, causal=causal, scale=scale)
    assert isinstance(out, Tensor)
    return out[0, 0] if no_heads else out.reshape(*batch, *out.shape[1:])


def _matching_heads(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor, Tensor]:
    """key and value with one number of heads, of which query's is a multiple."""
    heads = [t.shape[-3] for t in (query, key, value)]
    if enable_gqa:
        if any(n == 0 or heads[0] % n for n in heads[1:]):
            raise ValueError(f"the heads of key and value must divide those of query, got {heads[1:]} and {heads[0]}")
        shared = math.lcm(*heads[1:])
        return query, _repeated(key, shared // heads[1]), _repeated(value, shared // heads[2])
    if len(set(heads) - {1}) > 1:
        raise ValueError(f"query, key and value must have one number of heads, or enable_gqa=True, got {heads}")
    if heads[1:] == [1, 1]:
        return query, key, value  # one head for all: broadcasting is what multi-query attention is
    query, key, value = (t.expand(*t.shape[:-3], max(heads), -1, -1) for t in (query, key, value))
    return query, key, value


def _repeated(t: Tensor, times: int) -> Tensor:
    return t if times == 1 else t.repeat_interleave(times, -3)


def _four_dimensions(t: Tensor, batch: torch.Size) -> Tensor:
    t = t.expand(*batch, *t.shape[-3:]).reshape(math.prod(batch), *t.shape[-3:])
    return t if t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()


class replacing_sdpa(TorchFunctionMode):
    """Context in which torch.nn.functional.scaled_dot_product_attention is this package's, in this thread.

    For models that call PyTorch's function by themselves (transformers' falcon, diffusers).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            func = scaled_dot_product_attention
        return func(*args, **(kwargs or {}))
