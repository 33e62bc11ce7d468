"""The architectures and their variants."""

from __future__ import annotations

from typing import Any

from gguf import RopeScalingType

from . import Case
from .keys import (
    decoder,
    experts,
    falcon,
    gpt,
    llama,
    llama3_factors,
    long_factors,
    phi3,
    rotary_dim,
    softcaps,
    window,
    without,
)
from .rows import (
    expert_rows,
    falcon_rows,
    fused_expert_rows,
    glm_multi_axis_rows,
    gpt_oss_rows,
    llama_rows,
    stacked_head_norms,
)

# No value is its class's default, so that a key that is not read shows.
TOKENS = {"bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 7}
EPS = 3e-4
SMALL = {
    **TOKENS,
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    "tie_word_embeddings": False,
}
RMS = SMALL | {"rms_norm_eps": EPS}
GPT = {
    **TOKENS,
    "vocab_size": 96,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 160,
    "layer_norm_epsilon": EPS,
}
WINDOW = 8  # shorter than the texts of the tests

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
OTHER_LLAMA3 = LLAMA3 | {"rope_theta": 100.0, "low_freq_factor": 0.5, "original_max_position_embeddings": 32}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 20000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0],
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 150000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 32,
}
MOE = RMS | {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_MOE = RMS | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GEMMA = RMS | {"head_dim": 32, "tie_word_embeddings": True}
GEMMA_WINDOWED = GEMMA | {"sliding_window": WINDOW, "query_pre_attn_scalar": 32}
FALCON = {
    **TOKENS,
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "layer_norm_epsilon": EPS,
}


def base(theta: float, **rest: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **rest}}


CASES = {
    "llama": Case("llama", "LlamaConfig", RMS | base(500000.0), llama, llama_rows),
    "llama-bias-tied-wide-heads": Case(
        "llama",
        "LlamaConfig",
        RMS | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 32},
        llama,
        llama_rows,
    ),
    "llama-linear": Case(
        "llama",
        "LlamaConfig",
        RMS | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
        llama,
        llama_rows,
    ),
    "llama-3.1": Case(
        "llama",
        "LlamaConfig",
        RMS | {"head_dim": 128, "rope_parameters": LLAMA3},
        llama,
        llama_rows,
        extra=llama3_factors,
    ),
    "llama-3.1-other-rule": Case(
        "llama", "LlamaConfig", RMS | {"rope_parameters": OTHER_LLAMA3}, llama, llama_rows, extra=llama3_factors
    ),
    "mistral": Case(
        "llama", "MistralConfig", RMS | {"sliding_window": None}, llama, llama_rows, loads_as="LlamaForCausalLM"
    ),
    "mistral-window": Case(
        "llama",
        "MistralConfig",
        RMS | {"sliding_window": WINDOW},
        lambda c: llama(c) | window(c),
        llama_rows,
    ),
    "mixtral": Case(
        "llama",
        "MixtralConfig",
        MOE | {"head_dim": 16},
        lambda c: llama(c) | experts(c),
        llama_rows,
    ),
    "gemma": Case(
        "gemma", "GemmaConfig", GEMMA, lambda c: without(decoder(c), "add_rope_freq_base"), plus_one="norm.weight"
    ),
    "gemma2": Case(
        "gemma2",
        "Gemma2Config",
        GEMMA_WINDOWED | {"num_hidden_layers": 3, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 7.0},
        lambda c: without(decoder(c), "add_rope_freq_base") | window(c) | softcaps(c),
        plus_one="norm.weight",
    ),
    "gemma3": Case(
        "gemma3",
        "Gemma3TextConfig",
        GEMMA_WINDOWED | {"num_hidden_layers": 7, "num_key_value_heads": 1},
        lambda c: without(decoder(c), "add_rope_freq_base_swa") | window(c) | softcaps(c),
        plus_one="norm.weight",
    ),
    "gemma3-27b-scale-and-scaling": Case(
        "gemma3",
        "Gemma3TextConfig",
        GEMMA_WINDOWED
        | {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 62,
            "query_pre_attn_scalar": 8,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
            },
        },
        lambda c: decoder(c) | window(c),
        plus_one="norm.weight",
    ),
    "qwen2": Case("qwen2", "Qwen2Config", RMS | base(1000000.0), decoder),
    "qwen2-tied": Case("qwen2", "Qwen2Config", RMS | {"tie_word_embeddings": True}, decoder),
    "qwen3": Case("qwen3", "Qwen3Config", RMS | base(1000000.0) | {"head_dim": 32}, decoder),
    "qwen2moe": Case(
        "qwen2moe",
        "Qwen2MoeConfig",
        QWEN_MOE | {"shared_expert_intermediate_size": 96},
        lambda c: (
            decoder(c)
            | experts(c)
            | {
                "add_expert_feed_forward_length": c.moe_intermediate_size,
                "add_expert_shared_feed_forward_length": c.shared_expert_intermediate_size,
            }
        ),
        expert_rows,
    ),
    "qwen3moe": Case(
        "qwen3moe",
        "Qwen3MoeConfig",
        QWEN_MOE | {"head_dim": 32, "norm_topk_prob": True},
        lambda c: decoder(c) | experts(c) | {"add_expert_feed_forward_length": c.moe_intermediate_size},
        expert_rows,
    ),
    "qwen3moe-fused": Case(
        "qwen3moe",
        "Qwen3MoeConfig",
        QWEN_MOE | {"head_dim": 32, "norm_topk_prob": False, "num_experts_per_tok": 3},
        lambda c: decoder(c) | experts(c) | {"add_expert_weights_norm": False},
        fused_expert_rows,
    ),
    "starcoder": Case(
        "starcoder", "GPTBigCodeConfig", GPT | {"multi_query": True}, lambda c: gpt(c) | {"add_head_count_kv": 1}
    ),
    "starcoder2": Case("starcoder2", "Starcoder2Config", SMALL | {"norm_epsilon": EPS} | base(999999.0), decoder),
    "gpt2": Case(
        "gpt2", "GPT2Config", GPT | {"n_ctx": 160}, gpt, transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight")
    ),
    "phi3": Case("phi3", "Phi3Config", RMS | base(20000.0) | {"sliding_window": WINDOW}, phi3),
    "phi3-long-context": Case(
        "phi3",
        "Phi3Config",
        RMS | {"rope_parameters": LONG, "original_max_position_embeddings": 16},
        phi3,
        extra=long_factors,
    ),
    "glm4": Case(
        "glm4",
        "Glm4Config",
        RMS | {"head_dim": 32} | base(20000.0, partial_rotary_factor=0.25),
        lambda c: decoder(c) | rotary_dim(c),
    ),
    "glm4-multi-axis": Case(
        "glm4",
        "Glm4Config",
        RMS | {"head_dim": 32} | base(20000.0, partial_rotary_factor=0.25),
        lambda c: decoder(c) | rotary_dim(c) | {"add_rope_dimension_sections": [1, 1, 2, 0]},
        glm_multi_axis_rows,
    ),
    "chatglm": Case(
        "chatglm",
        "GlmConfig",
        RMS | {"head_dim": 16} | base(50000.0, partial_rotary_factor=0.25),
        lambda c: without(decoder(c), "add_key_length", "add_value_length") | rotary_dim(c),
    ),
    "falcon-7b": Case("falcon", "FalconConfig", FALCON | {"num_kv_heads": 1}, falcon, falcon_rows),
    "falcon-40b": Case(
        "falcon",
        "FalconConfig",
        FALCON | {"num_kv_heads": 2, "new_decoder_architecture": True, "tie_word_embeddings": False},
        falcon,
        falcon_rows,
    ),
    "falcon-11b": Case(
        "falcon",
        "FalconConfig",
        FALCON | {"num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
        falcon,
        falcon_rows,
    ),
    "nemotron": Case(
        "nemotron",
        "NemotronConfig",
        SMALL | {"norm_eps": EPS} | base(20000.0, partial_rotary_factor=0.25),
        lambda c: (
            decoder(c)
            | rotary_dim(c)
            | {
                "add_vocab_size": c.vocab_size,
                "add_layer_norm_rms_eps": c.norm_eps,
                "add_rope_scaling_type": RopeScalingType.NONE,
            }
        ),
        plus_one="norm.weight",
    ),
    "olmo2": Case("olmo2", "Olmo2Config", RMS | base(500000.0), decoder),
    "olmo3": Case(
        "olmo2",
        "Olmo3Config",
        RMS
        | {
            "num_hidden_layers": 4,
            "sliding_window": WINDOW,
            "rope_parameters": {
                "full_attention": {**YARN, "truncate": True},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
            },
        },
        lambda c: (
            decoder(c)
            | window(c)
            | {"add_sliding_window_pattern": [kind == "sliding_attention" for kind in c.layer_types]}
        ),
    ),
    "command-r": Case(
        "command-r",
        "CohereConfig",
        SMALL | {"layer_norm_eps": EPS} | base(8000000.0) | {"logit_scale": 0.25, "tie_word_embeddings": True},
        lambda c: decoder(c) | {"add_logit_scale": c.logit_scale, "add_rope_scaling_type": RopeScalingType.NONE},
    ),
    "command-r-plus": Case(
        "command-r",
        "CohereConfig",
        SMALL | {"layer_norm_eps": EPS} | {"logit_scale": 0.5, "use_qk_norm": True, "tie_word_embeddings": True},
        lambda c: decoder(c) | {"add_logit_scale": c.logit_scale, "add_rope_scaling_type": RopeScalingType.NONE},
    ),
    "stablelm": Case(
        "stablelm",
        "StableLmConfig",
        SMALL | {"layer_norm_eps": EPS} | {"use_qkv_bias": True} | base(10000.0, partial_rotary_factor=0.5),
        lambda c: (
            without(decoder(c), "add_rope_freq_base")
            | rotary_dim(c)
            | {"add_parallel_residual": c.use_parallel_residual}
        ),
    ),
    "stablelm-12b": Case(
        "stablelm",
        "StableLmConfig",
        SMALL
        | {"layer_norm_eps": EPS}
        | {"qk_layernorm": True, "use_parallel_residual": True}
        | base(10000.0, partial_rotary_factor=0.5),
        lambda c: (
            without(decoder(c), "add_rope_freq_base")
            | rotary_dim(c)
            | {"add_parallel_residual": c.use_parallel_residual}
        ),
        stacked_head_norms,
    ),
    "gpt-oss": Case(
        "gpt-oss",
        "GptOssConfig",
        MOE | {"head_dim": 16, "num_hidden_layers": 4, "sliding_window": WINDOW, "rope_parameters": YARN},
        lambda c: decoder(c) | window(c) | experts(c) | {"add_expert_feed_forward_length": c.intermediate_size},
        gpt_oss_rows,
        transposed=("experts.gate_up_proj", "experts.down_proj"),
    ),
}
