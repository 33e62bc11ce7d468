"""Rotary embedding parameters, as transformers' configurations hold them, out of a file's keys and tensors."""

from __future__ import annotations

from typing import Any

import torch

from rocforge_ops.rope import DEFAULT_BASE, RopeConfig

from .header import Header

FACTOR_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

# Every published Llama 3.1+ checkpoint uses these; only the overall factor differs.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_parameters(file: Header) -> dict[str, Any]:
    """Base and scaling for a model that rotates whole heads."""
    if file.rotary_dim != file.head_dim:
        raise ValueError(
            f"{file.architecture}.rope.dimension_count is {file.rotary_dim}, but this model rotates whole heads of "
            f"{file.head_dim}"
        )
    return {"rope_theta": file.get("rope.freq_base", DEFAULT_BASE)} | rope_scaling(file)


def partial_rope_parameters(file: Header) -> dict[str, Any]:
    """Base and scaling for a model that may rotate only the first part of a head."""
    parameters = {"rope_theta": file.get("rope.freq_base", DEFAULT_BASE)} | rope_scaling(file)
    return parameters | {"partial_rotary_factor": file.rotary_dim / file.head_dim}


def rope_per_layer_type(file: Header) -> dict[str, Any]:
    """For models with windowed layers that rotate by a base of their own; scaling concerns the global layers only."""
    full = rope_parameters(file)
    local = {"rope_type": "default", "rope_theta": file.get("rope.freq_base_swa", full["rope_theta"])}
    return {"full_attention": full, "sliding_attention": local}


def rope_scaling(file: Header) -> dict[str, Any]:
    """rope_type and what belongs to it. Per-frequency factors are stored as tensors, everything else as keys."""
    if file.has("rope_freqs.weight"):
        return _frequency_factors(file)
    if file.has("rope_factors_long.weight"):
        return _long(file)
    kind = file.get("rope.scaling.type", "none")
    legacy_factor = file.get("rope.scale_linear", 1.0)  # the key before scaling had kinds
    factor = file.get("rope.scaling.factor", legacy_factor)
    if kind == "linear" or (kind == "none" and legacy_factor != 1.0):
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(file, factor)
    if kind != "none":
        raise ValueError(
            f"{file.architecture}.rope.scaling.type is {kind!r}; known are none, linear, yarn and longrope"
        )
    return {"rope_type": "default"}


def _yarn(file: Header, factor: float) -> dict[str, Any]:
    parameters = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original_context(file),
        "beta_fast": file.get("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": file.get("rope.scaling.yarn_beta_slow", 1.0),
    }
    attention_factor = file.get("rope.scaling.yarn_attn_factor", None)
    return parameters if attention_factor is None else parameters | {"attention_factor": attention_factor}


def _long(file: Header) -> dict[str, Any]:
    """Two sets of factors, the second for texts longer than the original context (Phi-3 128k)."""
    file.get("rope.scaling.type", "longrope")
    original = original_context(file)
    parameters = {
        "rope_type": "longrope",
        "factor": max(1.0, file.count("context_length") / original),
        "short_factor": _factors(file, "rope_factors_short.weight"),
        "long_factor": _factors(file, "rope_factors_long.weight"),
        "original_max_position_embeddings": original,
    }
    attention_factor = file.get("rope.scaling.attn_factor", None)  # transformers has the rule for files without it
    return parameters if attention_factor is None else parameters | {"attention_factor": attention_factor}


def _frequency_factors(file: Header) -> dict[str, Any]:
    """One fixed set of factors (Llama 3.1+): the rule it came from where that reproduces it, else the factors."""
    factors = _factors(file, "rope_freqs.weight")
    base = file.get("rope.freq_base", DEFAULT_BASE)
    rule = {"rope_type": "llama3", "factor": max(factors)} | LLAMA3
    known = RopeConfig.from_parameters(rule | {"rope_theta": base}, file.rotary_dim)
    stored = RopeConfig(base, scaling="factors", factors=factors)
    if torch.allclose(stored.frequencies(file.rotary_dim), known.frequencies(file.rotary_dim), rtol=1e-5, atol=0):
        return rule
    return {
        "rope_type": "longrope",
        "factor": 1.0,
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": file.count("context_length"),
    }


def _factors(file: Header, tensor: str) -> list[float]:
    if list(file.shape(tensor)) != [file.rotary_dim // 2]:
        raise ValueError(f"{tensor} has shape {list(file.shape(tensor))}, expected [{file.rotary_dim // 2}]")
    return file.floats(tensor)


def original_context(file: Header) -> int:
    return file.count("rope.scaling.original_context_length", file.count("context_length"))
