"""Our fused linear and decoders for the GGUF weights of diffusers' image and video models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.attention import scaled_dot_product_attention
from rocforge_ops.formats import formats
from rocforge_ops.integrations.patches import Plug, append, set_attribute, set_item
from rocforge_ops.ops import dequantize, linear

BACKEND = "rocforge"


def enable() -> None:
    """GGUF layers, also of models that are loaded already, multiply without decoding the weight first. Repeatable.

    Every block format that the gguf package can read is taken, also those that diffusers refuses, and makes
    `model.set_attention_backend("rocforge")` known. Weights are used exactly, where diffusers rounds scales and values
    of most formats to float16.

    Raises:
        ModuleNotFoundError: diffusers is not installed. RuntimeError: its version is not one that was tested.
    """
    _plug.enable()


def disable() -> None:
    """Undo enable(). Call reset_attention_backend() first on models whose attention was set to ours."""
    _plug.disable()


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    _parallel_config: Any = None,
) -> Tensor:
    """scaled_dot_product_attention as diffusers calls it.

    Args:
        query: [B, Lq, Hq, D]. key, value: [B, Lk, H, D].
        attn_mask: as for PyTorch's function, or padding [B, Lk].

    Returns:
        [B, Lq, Hq, D].
    """
    if _parallel_config is not None:
        raise ValueError("the attention backend 'rocforge' does not split sequences over GPUs (context parallelism)")
    if attn_mask is not None and attn_mask.shape == (query.shape[0], key.shape[1]):
        attn_mask = attn_mask[:, None, None, :]
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    out = scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return out.transpose(1, 2)


def _install(undo: ExitStack) -> None:
    from diffusers.quantizers.gguf import utils

    names = _gguf_types()
    for number, name in names.items():
        set_item(undo, utils.dequantize_functions, number, _decoder(name))
        if number not in utils.SUPPORTED_GGUF_QUANT_TYPES:
            append(undo, utils.SUPPORTED_GGUF_QUANT_TYPES, number)
    set_attribute(undo, utils.GGUFLinear, "forward", _forward(utils, names))
    _register_attention(undo)


def _gguf_types() -> dict[Any, str]:
    """The installed gguf package's numbers of packed formats with the formats' names, where it has our block."""
    from gguf import GGML_QUANT_SIZES

    packed = {f.id: f for f in formats if f.block_size > 1 or f.name == "BF16"}
    sizes = {number: (f.block_size, f.block_bytes) for number, f in packed.items()}
    return {number: packed[number].name for number, size in GGML_QUANT_SIZES.items() if sizes.get(number) == size}


def _decoder(name: str) -> Callable[..., Tensor]:
    def decode(blocks: Tensor, block_size: int, type_size: int, dtype: torch.dtype | None = None) -> Tensor:
        """uint8 [blocks, type_size] -> [blocks, block_size]."""
        return dequantize(blocks, name, dtype)

    return decode


def _forward(utils: Any, names: dict[Any, str]) -> Callable[..., Tensor]:
    """GGUFLinear.forward for packed weights; diffusers' own for others."""
    theirs, bias_values = utils.GGUFLinear.forward, utils.dequantize_gguf_tensor

    def forward(self: Any, inputs: Tensor) -> Tensor:
        name = names.get(getattr(self.weight, "quant_type", None))
        if name is None:
            return theirs(self, inputs)
        bias = None if self.bias is None else bias_values(self.bias).to(self.compute_dtype)
        return linear(inputs.to(self.compute_dtype), self.weight.as_tensor(), name, bias)

    return forward


def _register_attention(undo: ExitStack) -> None:
    """A member of diffusers' enumeration of attention backends, which offers no way to add one."""
    from diffusers.models.attention_dispatch import (
        DIFFUSERS_ATTN_BACKEND,
        AttentionBackendName,
        _AttentionBackendRegistry,
    )

    member = _new_member(AttentionBackendName, BACKEND)
    append(undo, AttentionBackendName._member_names_, member.name)
    set_item(undo, AttentionBackendName._member_map_, member.name, member)
    set_item(undo, AttentionBackendName._value2member_map_, member.value, member)

    def leave() -> None:
        if _AttentionBackendRegistry._active_backend is member:
            _AttentionBackendRegistry._active_backend = AttentionBackendName(DIFFUSERS_ATTN_BACKEND)
        for table in ("_backends", "_constraints", "_supported_arg_names"):
            getattr(_AttentionBackendRegistry, table).pop(member)

    _AttentionBackendRegistry.register(member)(attention)
    undo.callback(leave)


def _new_member(enumeration: type[Enum], value: str) -> Any:
    member = str.__new__(enumeration, value)  # type: ignore[type-var]
    member._name_, member._value_ = value.upper(), value
    return member


_plug = Plug("diffusers", _install)
