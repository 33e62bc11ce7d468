"""What the public converter writes besides weights: keys, as {method of GGUFWriter: argument}, and rotary factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gguf import RopeScalingType


def tokens(c: Any) -> dict[str, Any]:
    return {"add_bos_token_id": c.bos_token_id, "add_eos_token_id": c.eos_token_id, "add_pad_token_id": c.pad_token_id}


def decoder(c: Any) -> dict[str, Any]:
    """What the converter writes for every decoder with transformers' usual names."""
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    keys = {
        **tokens(c),
        "add_block_count": c.num_hidden_layers,
        "add_context_length": c.max_position_embeddings,
        "add_embedding_length": c.hidden_size,
        "add_feed_forward_length": c.intermediate_size,
        "add_head_count": c.num_attention_heads,
        "add_head_count_kv": c.num_key_value_heads,
        "add_rope_freq_base": rope["rope_theta"],
    }
    if (eps := getattr(c, "rms_norm_eps", None)) is not None:
        keys["add_layer_norm_rms_eps"] = eps
    for name in ("norm_epsilon", "layer_norm_eps", "norm_eps"):
        if (eps := getattr(c, name, None)) is not None:
            keys["add_layer_norm_eps"] = eps
    if (width := getattr(c, "head_dim", None)) is not None:
        keys |= {"add_key_length": width, "add_value_length": width}
    if (local := c.rope_parameters.get("sliding_attention")) is not None:
        keys["add_rope_freq_base_swa"] = local["rope_theta"]
    return keys | scaling(rope)


def scaling(rope: Mapping[str, Any]) -> dict[str, Any]:
    """llama3 and longrope leave tensors instead, see `extra`."""
    keys: dict[str, Any] = {}
    if rope["rope_type"] == "linear":
        keys = {"add_rope_scaling_type": RopeScalingType.LINEAR, "add_rope_scaling_factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        keys = {
            "add_rope_scaling_type": RopeScalingType.YARN,
            "add_rope_scaling_factor": rope["factor"],
            "add_rope_scaling_orig_ctx_len": rope["original_max_position_embeddings"],
            "add_rope_scaling_yarn_beta_fast": rope["beta_fast"],
            "add_rope_scaling_yarn_beta_slow": rope["beta_slow"],
        }
    return keys


def without(keys: Mapping[str, Any], *methods: str) -> dict[str, Any]:
    return {method: value for method, value in keys.items() if method not in methods}


def rotary_dim(c: Any) -> dict[str, Any]:
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return {"add_rope_dimension_count": int(width * c.rope_parameters.get("partial_rotary_factor", 1.0))}


def window(c: Any) -> dict[str, Any]:
    return {"add_sliding_window": c.sliding_window}


def experts(c: Any) -> dict[str, Any]:
    return {"add_expert_count": c.num_experts, "add_expert_used_count": c.num_experts_per_tok}


def softcaps(c: Any) -> dict[str, Any]:
    attention, final = c.attn_logit_softcapping, c.final_logit_softcapping
    keys = {"add_attn_logit_softcapping": attention, "add_final_logit_softcapping": final}
    return {method: value for method, value in keys.items() if value is not None}


def llama(c: Any) -> dict[str, Any]:
    return decoder(c) | rotary_dim(c) | {"add_vocab_size": c.vocab_size}


def gpt(c: Any) -> dict[str, Any]:
    return {
        **tokens(c),
        "add_block_count": c.n_layer,
        "add_context_length": c.n_positions,
        "add_embedding_length": c.n_embd,
        "add_feed_forward_length": 4 * c.n_embd,
        "add_head_count": c.n_head,
        "add_layer_norm_eps": c.layer_norm_epsilon,
    }


def falcon(c: Any) -> dict[str, Any]:
    return {
        **tokens(c),
        "add_block_count": c.num_hidden_layers,
        "add_context_length": 2048,
        "add_tensor_data_layout": "jploski",
        "add_embedding_length": c.hidden_size,
        "add_feed_forward_length": 4 * c.hidden_size,
        "add_head_count": c.num_attention_heads,
        "add_head_count_kv": c.num_kv_heads,
        "add_layer_norm_eps": c.layer_norm_epsilon,
    }


def phi3(c: Any) -> dict[str, Any]:
    keys = decoder(c) | rotary_dim(c)
    original = c.rope_parameters.get("original_max_position_embeddings", c.original_max_position_embeddings)
    keys |= {"add_rope_scaling_orig_ctx_len": original, "add_sliding_window": c.sliding_window or 0}
    if "long_factor" in c.rope_parameters:
        scale = c.max_position_embeddings / original
        keys["add_rope_scaling_attn_factors"] = math.sqrt(1 + math.log(scale) / math.log(original))
    return keys


def llama3_factors(c: Any) -> dict[str, np.ndarray]:
    """Divisors of the rotary frequencies, from the wave length each has."""
    rope = c.rope_parameters
    waves = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, c.head_dim, 2) / c.head_dim)
    turns = rope["original_max_position_embeddings"] / waves
    smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    factors = np.where(smooth >= 1, 1.0, np.where(smooth <= 0, rope["factor"], between))
    return {"rope_freqs.weight": factors.astype(np.float32)}


def long_factors(c: Any) -> dict[str, np.ndarray]:
    kinds = ("long", "short")
    return {f"rope_factors_{kind}.weight": np.float32(c.rope_parameters[f"{kind}_factor"]) for kind in kinds}
