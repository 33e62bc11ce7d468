from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rocforge_ops.ops.mqa_attention import mqa_attention
from rocforge_ops.ops.mqa_attention_q8_0 import mqa_attention_q8_0

_NOT_PASSED: Any = object()


def register_attention(name: str = "rocforge") -> None:
    """Make mqa_attention an attention implementation of transformers: attn_implementation=name.

    Registers an attention function and, under the same name, a mask function (without one transformers drops padding).
    Calling it again changes nothing. Padding, sliding windows, logit softcapping, attention sinks, static caches, T5's
    position bias and training work; dropout and returned attention weights are errors.

    A few older classes do not consult the registry and answer an unknown name with KeyError, falcon among them: load
    them with attn_implementation="sdpa" and run them inside `rocforge_ops.attention.replacing_sdpa()`.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = _NOT_PASSED,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: query [B, Hq, Lq, D], key and value [B, Hkv, Lk, D] -> [B, Lq, Hq, D], None.

    `attention_mask` is what the mask function below returned, or a mask of the user: 4-D bool or additive, or 2-D
    padding [B, Lk]. Such a 4-D mask says everything; with the others the causal rule and the window are added here.
    """
    if dropout > 0:
        raise ValueError(f"attention dropout is not supported, got {dropout}: set the config's attention_dropout to 0")
    if kwargs.get("output_attentions"):
        raise ValueError("attention weights are never stored: use attn_implementation='eager' for output_attentions")

    options: dict[str, Any] = {"scale": scaling, "softcap": softcap or 0.0, "sinks": s_aux}
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    in_cache = attention_mask is not None and attention_mask.dim() == 4 and attention_mask.dtype == torch.int32
    if attention_mask is None or attention_mask.dim() < 4 or in_cache:
        options |= {"causal": "bottom_right" if causal else "none"}
        options |= {"window": _window(module, sliding_window, causal, key.shape[2])}
    if attention_mask is not None and attention_mask.dim() == 1:  # valid keys of right-padded rows
        options |= {"kv_lengths": attention_mask, "causal": "top_left" if causal else "none"}
    elif attention_mask is not None and in_cache:  # valid keys, the last one seen by the last query
        options |= {"kv_lengths": attention_mask.flatten()}
    elif attention_mask is not None and attention_mask.dim() == 2:
        options |= {"attn_mask": attention_mask[:, None, None, :].bool()}
    else:
        options |= {"attn_mask": attention_mask}
    if position_bias is not None:
        options |= {"attn_mask": _with_bias(options.get("attn_mask"), position_bias)}
    attend = mqa_attention_q8_0 if key.dtype == torch.uint8 else mqa_attention  # from a KVCache in blocks
    out = attend(query, key, value, **options)
    assert isinstance(out, Tensor)
    return out.transpose(1, 2).contiguous(), None


def _window(module: torch.nn.Module, sliding_window: int | None, causal: bool, keys: int) -> int | None:
    if sliding_window is _NOT_PASSED:  # a few classes keep it to themselves; their mask would have had it
        config = getattr(module, "config", None)
        sliding_window = getattr(config, "sliding_window", None)
        layer_types, layer = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
        if layer_types is not None and layer is not None and layer_types[layer] != "sliding_attention":
            sliding_window = None
    if sliding_window is not None and not causal:
        if keys <= sliding_window:
            return None
        raise ValueError("a sliding window on both sides needs a mask that holds it, got none")
    return sliding_window


def _with_bias(mask: Tensor | None, bias: Tensor) -> Tensor:
    if mask is None:
        return bias
    return torch.where(mask, bias, -torch.inf) if mask.dtype == torch.bool else bias + mask


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    config: Any = None,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """The mask for attention_forward: None, lengths or, where neither will do, bool [B, 1, q_length, kv_length].

    None: the rule is causal, or causal with the config's sliding window, and nothing is padded. int32 [B]: the same,
    rows padded on the right, no cache. int32 [B, 1, 1, 1] (a form that transformers hands on as it is): nothing is
    padded, but keys that are not yet there follow the last query's, as in a static cache. The kernel then skips what is
    hidden, and nothing of size L x L is made.
    """
    from transformers.masking_utils import sdpa_mask

    # transformers allows the skip where nothing is laid over the causal rule; a local size is a window or a chunk.
    only_window = local_size is None or (
        local_size == getattr(config, "sliding_window", None) and getattr(config, "attention_chunk_size", None) is None
    )
    if allow_is_causal_skip and only_window:
        valid = q_offset + q_length - kv_offset  # a tensor where offsets are: in a static cache
        if attention_mask is None:
            return _up_to(valid, kv_length, batch_size, device)
        if isinstance(valid, int) and not _reading_waits(attention_mask):
            padding = attention_mask[:, kv_offset : kv_offset + valid].bool()
            if padding.shape[1] == valid and padding.all():
                return _up_to(valid, kv_length, batch_size, device)
            lengths = padding.sum(-1, dtype=torch.int32)
            if q_length == kv_length == padding.shape[1] and _only_right(padding, lengths):
                return lengths
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=False,
        config=config,
        device=device,
        **kwargs,
    )


def _up_to(valid: Any, keys: int, batch: int, device: torch.device | str) -> Tensor | None:
    """The form for `valid` keys, an int or a tensor, of `keys` that are there."""
    if isinstance(valid, int) and valid == keys:
        return None
    if isinstance(valid, int):
        return torch.full((batch, 1, 1, 1), valid, dtype=torch.int32, device=device)
    return valid.to(device, torch.int32).expand(batch).view(batch, 1, 1, 1)


def _only_right(padding: Tensor, lengths: Tensor) -> bool:
    return padding.equal(torch.arange(padding.shape[1], device=padding.device) < lengths[:, None])


def _reading_waits(t: Tensor) -> bool:
    """Whether values cannot be looked at: while a graph is traced or captured."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return t.is_cuda and torch.cuda.is_current_stream_capturing()
