"""Short plain-PyTorch versions of the operators, in float64, to compare with."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_embedding(x: Tensor, angles: Tensor, interleaved: bool) -> Tensor:
    """x [B, H, L, D] with pair i rotated by angles[..., i] (broadcastable to [B, H, L, R/2]); float64."""
    x, pairs = x.double(), angles.shape[-1]
    first = slice(0, 2 * pairs, 2) if interleaved else slice(0, pairs)
    second = slice(1, 2 * pairs, 2) if interleaved else slice(pairs, 2 * pairs)
    a, b = x[..., first], x[..., second]
    out = x.clone()
    out[..., first] = a * angles.cos() - b * angles.sin()
    out[..., second] = b * angles.cos() + a * angles.sin()
    return out


def mqa_attention(
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
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Attention with the whole score matrix, every step in `dtype`: (out, lse)."""
    options = {"causal": causal, "scale": scale, "window": window, "softcap": softcap, "dtype": dtype}
    options |= {"sinks": sinks, "alibi_slopes": alibi_slopes}
    batch, heads, rows, head_dim = query.shape
    keys = key.shape[2]
    if cu_seqlens_q is not None:
        mask = None if attn_mask is None else attn_mask.expand(1, heads, rows, keys)
        parts = []
        for q0, q1, k0, k1 in zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False):
            part = None if mask is None else mask[:, :, q0:q1, k0:k1]
            tensors = query[:, :, q0:q1], key[:, :, k0:k1], value[:, :, k0:k1]
            parts.append(mqa_attention(*tensors, attn_mask=part, **options))
        return tuple(torch.cat(results, 2) for results in zip(*parts, strict=True))

    valid = query.new_full((batch,), keys, dtype=torch.int64) if kv_lengths is None else kv_lengths.long()
    valid, k = valid.view(batch, 1, 1, 1), torch.arange(keys, device=query.device)
    position = torch.arange(rows, device=query.device).view(-1, 1) + (0 if causal == "top_left" else valid - rows)
    keep = (k < valid).expand(batch, heads, rows, keys)
    groups = heads // key.shape[1]
    key, value = (t.to(dtype).masked_fill((k >= valid).mT, 0).repeat_interleave(groups, 1) for t in (key, value))

    scores = query.to(dtype) @ key.mT * (head_dim**-0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if alibi_slopes is not None:
        scores = scores - alibi_slopes.to(dtype).view(-1, heads, 1, 1) * (position - k).abs()
    if causal != "none":
        keep = keep & (k <= position)
    if window is not None:
        keep = keep & (k > position - window)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        keep = keep & attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask.to(dtype)
        keep = keep & (attn_mask > -torch.inf)
    seen = keep.any(-1, keepdim=True)
    logits = scores.masked_fill(~keep, -torch.inf).masked_fill(~seen, 0)
    if sinks is not None:
        logits = torch.cat([logits, sinks.to(dtype).view(1, heads, 1, 1).expand(batch, heads, rows, 1)], -1)
    weights = torch.softmax(logits, -1)[..., :keys].masked_fill(~seen, 0)
    return weights @ value, torch.logsumexp(logits, -1).masked_fill(~seen[..., 0], -torch.inf)


def qkv_rope_cache(
    qkv: Tensor | list[Tensor],
    key_cache: Tensor,
    value_cache: Tensor,
    positions: Tensor,
    angles: Tensor | None = None,
    *,
    interleaved: bool = False,
    bias: Tensor | None = None,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 1e-6,
    ring: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, Hq, L, D] and the caches after the call, in float64. positions [B, L]; angles [B or 1, L, R/2]."""
    _, kv_heads, capacity, dim = key_cache.shape
    widths = kv_heads * dim, kv_heads * value_cache.shape[3]
    x = (qkv if isinstance(qkv, Tensor) else torch.cat(list(qkv), -1)).double()
    x = x if bias is None else x + bias.double()
    parts = x.split([x.shape[-1] - sum(widths), *widths], -1)
    query, key, value = (
        part.unflatten(-1, (-1, size)).transpose(1, 2)
        for part, size in zip(parts, (dim, dim, value_cache.shape[3]), strict=True)
    )
    rows = []
    for row, weight in ((query, q_norm), (key, k_norm)):
        if weight is not None:
            row = row / (row.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
        rows.append(row if angles is None else rotary_embedding(row, angles.unsqueeze(1), interleaved))
    key_cache, value_cache = key_cache.double().clone(), value_cache.double().clone()
    for b, tokens in enumerate(positions.tolist()):
        for token, position in enumerate(tokens):
            if position >= 0 and (ring or position < capacity):
                key_cache[b, :, position % capacity] = rows[1][b, :, token]
                value_cache[b, :, position % capacity] = value[b, :, token]
    return rows[0], key_cache, value_cache


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """x [..., D] over the root of its mean square, times weight [D]."""
    x = x.to(dtype)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(dtype)


def multi_query_attention(
    hidden: Tensor,
    qkv: Tensor,
    out: Tensor,
    *,
    heads: tuple[int, int],
    qkv_bias: Tensor | None = None,
    out_bias: Tensor | None = None,
    norms: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
    angles: Tensor | None = None,
    interleaved: bool = False,
    dtype: torch.dtype = torch.float64,
    **attention: object,
) -> Tensor:
    """A whole layer on hidden [B, L, width], weights as torch.nn.Linear has them, heads (Hq, Hkv); steps in `dtype`.

    angles [..., L, R/2], broadcastable over [B, H].
    """

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.to(dtype) @ weight.to(dtype).mT
        return x if bias is None else x + bias.to(dtype)

    query_heads, kv_heads = heads
    projected = linear(hidden, qkv, qkv_bias).unflatten(-1, (query_heads + 2 * kv_heads, -1)).transpose(1, 2)
    query, key, value = projected.split((query_heads, kv_heads, kv_heads), 1)
    if norms is not None:
        query, key = (rms_norm(x, weight, eps, dtype) for x, weight in zip((query, key), norms, strict=True))
    if angles is not None:
        query, key = (rotary_embedding(x, angles, interleaved).to(dtype) for x in (query, key))
    attended, _ = mqa_attention(query, key, value, dtype=dtype, **attention)
    return linear(attended.transpose(1, 2).flatten(2), out, out_bias)


def dequantize(packed: Tensor, format: str) -> Tensor:
    """Q4_1, Q5_0 or Q5_1 blocks in uint8 [..., row_bytes]: 32 elements level x scale (+ minimum), in float64."""
    numbers = {"Q4_1": 2, "Q5_0": 1, "Q5_1": 2}[format]  # float16 ahead of the levels: scale, minimum
    five_bits = format != "Q4_1"
    size = 2 * numbers + 4 * five_bits + 16
    blocks = packed.unflatten(-1, (-1, size))
    head, high, low = blocks.split((2 * numbers, 4 * five_bits, 16), -1)
    levels = torch.cat((low & 15, low >> 4), -1).double()  # the low nibbles are the first half
    if five_bits:
        bits = torch.arange(32, device=packed.device)
        levels += 16 * (high[..., bits // 8] >> bits % 8 & 1)
    scales = head.contiguous().view(torch.float16).double()
    if format == "Q5_0":
        return ((levels - 16) * scales).flatten(-2)
    return (levels * scales[..., :1] + scales[..., 1:]).flatten(-2)
