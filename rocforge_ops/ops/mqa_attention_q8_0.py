from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rocforge_ops import _library  # noqa: F401  (defines the operator)
from rocforge_ops.formats import formats

_Q8_0 = formats["Q8_0"]


def mqa_attention_q8_0(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None = None,
    causal: str = "none",
    scale: float | None = None,
    window: int | None = None,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    kv_lengths: Tensor | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`mqa_attention` of keys and values that are stored as Q8_0 blocks.

    Each is decoded and rounded to query's dtype, as `dequantize` does it; the result is that of `mqa_attention` on the
    decoded tensors. These are not in memory where few rows attend: on the CPU, and on a GPU in float16 and bfloat16
    with head sizes up to 256, where `mqa_attention` would take its way for decoding. Otherwise all of them are decoded
    to memory first.

    Args:
        query: [B, Hq, Lq, D], float16, bfloat16 or float32; D a multiple of 32; any strides, the last one 1.
        key, value: uint8 [B, Hkv, Lk, D / 32 * 34] and [B, Hkv, Lk, Dv / 32 * 34], any strides, the last one 1.

    The other arguments, the result and the errors are those of `mqa_attention`; there are no packed sequences.

    Raises:
        NotImplementedError: gradients are asked for; this operator has none.
    """
    out, lse = torch.ops.rocforge.mqa_attention_q8_0(
        query,
        key,
        value,
        attn_mask=attn_mask,
        causal=causal,
        scale=scale,
        window=window,
        softcap=softcap,
        sinks=sinks,
        alibi_slopes=alibi_slopes,
        kv_lengths=kv_lengths,
    )
    return (out, lse) if return_lse else out


@torch.library.register_fake("rocforge::mqa_attention_q8_0")
def _(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    batch, heads, length, _ = query.shape
    lse = torch.empty((batch, heads, length), dtype=torch.float32, device=query.device)
    value_dim = value.shape[-1] // _Q8_0.block_bytes * _Q8_0.block_size
    return query.new_empty((batch, heads, length, value_dim)), lse
