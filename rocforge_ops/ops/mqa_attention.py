from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rocforge_ops import _library  # noqa: F401  (defines the operator)

_OP = torch.ops.rocforge.mqa_attention


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
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention in which each key/value head serves a group of query heads (MHA, GQA, MQA), in one pass.

    Query head h reads key/value head h // (Hq / Hkv). The logit of query row i and key k is
    softcap * tanh(scale * q.k / softcap) - slope * |position - k| + attn_mask, where a row stands at position
    i + (valid keys - Lq), or at i when `causal` is "top_left". Nothing of size Lq x Lk is stored, and keys that causal
    rule, window or length hide from all rows are not read.

    Args:
        query: [B, Hq, Lq, D], float16, bfloat16, float32 or float64; any strides, the last one 1.
        key, value: [B, Hkv, Lk, D] and [B, Hkv, Lk, Dv], of query's dtype; Hq is a multiple of Hkv.
        attn_mask: bool (True keeps) or float (added; of query's dtype or float32), broadcastable to [B, Hq, Lq, Lk].
        causal: "none"; "top_left": row i sees keys up to i; "bottom_right": the last row sees all valid keys.
        scale: 1 / sqrt(D) when None.
        window: keys a row sees up to its position, itself included (k > position - window); the causal rule decides
            about keys after it.
        softcap: 0 is none (Gemma 2, arXiv:2408.00118).
        sinks: [Hq], one more logit of each head's softmax that belongs to no key; query's dtype or float32.
        alibi_slopes: [Hq] or [B, Hq] (arXiv:2108.12409), query's dtype or float32.
        kv_lengths: int32 [B], the valid keys of each batch row; what follows them is not read.
        cu_seqlens_q, cu_seqlens_k: int32 [sequences + 1], where each sequence begins in tensors [1, H, total, D];
            rows see keys of their own sequence only, and count positions within it.
        return_lse: also return the logarithm of softmax's denominator.

    Returns:
        [B, Hq, Lq, Dv] of query's dtype, and lse float32 [B, Hq, Lq]. A row that sees no key is 0 with lse -inf, sink
        or not. Computed in float32 (float64 for float64), rounded once. Differentiable once, in query, key, value,
        sinks and a float attn_mask, through both results; gradients are the same bits from run to run.

        Under autocast query, key and value become the autocast dtype, as for PyTorch's own attention.

    Raises:
        ValueError: shapes, devices, lengths or options that do not fit. TypeError: dtypes that do not.
    """
    out, lse = _OP(
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
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
    )
    return (out, lse) if return_lse else out


@torch.library.register_fake("rocforge::mqa_attention")
def _(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    batch, heads, length, _ = query.shape
    lse = torch.empty((batch, heads, length), dtype=torch.float32, device=query.device)
    return query.new_empty((batch, heads, length, value.shape[-1])), lse


@torch.library.register_fake("rocforge::mqa_attention_backward")
def _(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    attn_mask: Tensor | None,
    causal: str,
    scale: float | None,
    window: int | None,
    softcap: float,
    sinks: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(t: Tensor | None) -> Tensor:
        return query.new_empty(0) if t is None else t.new_empty(t.shape)

    *_, mask_gradient = rest
    return like(query), like(key), like(value), like(attn_mask if mask_gradient else None), like(sinks)


class _Attention(torch.autograd.Function):
    """What torch.library.register_autograd would make, which takes no operator with keyword-only tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        sinks: Tensor | None,
        numbers: dict[str, Any],
        tensors: dict[str, Tensor | None],
    ) -> tuple[Tensor, Tensor]:
        out, lse = _below_autograd(query, key, value, attn_mask=mask, sinks=sinks, **numbers, **tensors)
        ctx.numbers = numbers
        ctx.save_for_backward(query, key, value, out, lse, mask, sinks, *tensors.values())
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse, mask, sinks, *tensors = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        grads = torch.ops.rocforge.mqa_attention_backward(
            *(grad_out, grad_lse, query, key, value, out, lse),
            *(mask, *ctx.numbers.values(), sinks, *tensors, ctx.needs_input_grad[3]),
        )
        needed = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad if needs else None for grad, needs in needed), None, None


def _below_autograd(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        return _OP(*arguments, **options)


# Options with their defaults, which the dispatcher leaves out; in the order of the backward operator's arguments.
_NUMBERS: dict[str, Any] = {"causal": "none", "scale": None, "window": None, "softcap": 0.0}
_TENSORS = ("alibi_slopes", "kv_lengths", "cu_seqlens_q", "cu_seqlens_k")


def _autograd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None = None,
    sinks: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    numbers = _NUMBERS | {name: options[name] for name in _NUMBERS if name in options}
    tensors = {name: options.get(name) for name in _TENSORS}
    alibi_slopes = tensors["alibi_slopes"]
    if torch.is_grad_enabled():
        if alibi_slopes is not None and alibi_slopes.requires_grad:
            raise RuntimeError("mqa_attention is not differentiable in alibi_slopes: detach them")
        if any(t is not None and t.requires_grad for t in (query, key, value, attn_mask, sinks)):
            return _Attention.apply(query, key, value, attn_mask, sinks, numbers, tensors)
    return _below_autograd(query, key, value, attn_mask=attn_mask, sinks=sinks, **numbers, **tensors)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("mqa_attention has no second derivative")


torch.library.register_autograd("rocforge::mqa_attention_backward", _no_second_derivative)


def _autocast(device_type: str, key: str) -> Callable[..., tuple[Tensor, Tensor]]:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def kernel(*tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        dtype = torch.get_autocast_dtype(device_type)
        if all(t.dtype != torch.float64 for t in tensors):
            tensors = tuple(t.to(dtype) for t in tensors)
            for name in ("attn_mask", "sinks", "alibi_slopes"):  # float32 ones are taken as they are
                option = options.get(name)
                if option is not None and option.dtype in (torch.float16, torch.bfloat16):
                    options[name] = option.float()
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return _OP(*tensors, **options)

    return kernel


_implementations = torch.library.Library("rocforge", "IMPL")
_implementations.impl("mqa_attention", _autograd, "Autograd")
for _device_type, _key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
    _implementations.impl("mqa_attention", _autocast(_device_type, _key), _key)
