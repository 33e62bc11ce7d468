"""qwen2, qwen3 and their mixtures of experts."""

from __future__ import annotations

from ..architecture import ATTENTION_BIAS, DECODER, HEAD_DIM, RMS_NORM, Architecture, Source, has, optional, value
from .experts import EXPERT_RULES, dense_layers, expert_width

QWEN2 = DECODER | RMS_NORM
QWEN3 = DECODER | HEAD_DIM | RMS_NORM | ATTENTION_BIAS
EXPERTS: dict[str, Source] = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": expert_width,
    "mlp_only_layers": dense_layers,
    "decoder_sparse_step": value(1),
}

ARCHITECTURES = (
    Architecture("qwen2", "Qwen2ForCausalLM", QWEN2),
    Architecture("qwen3", "Qwen3ForCausalLM", QWEN3),
    Architecture(
        "qwen2moe",
        "Qwen2MoeForCausalLM",
        QWEN2
        | EXPERTS
        | {
            "qkv_bias": has("blk.0.attn_q.bias"),
            "norm_topk_prob": optional("expert_weights_norm", False),
            "shared_expert_intermediate_size": lambda file: file.get(
                "expert_shared_feed_forward_length", file.shape("blk.0.ffn_up_shexp.weight")[0]
            ),
        },
        EXPERT_RULES,
    ),
    # Published Qwen3 mixtures normalise the weights of the chosen experts; the key for it is rarely written.
    Architecture(
        "qwen3moe",
        "Qwen3MoeForCausalLM",
        QWEN3 | EXPERTS | {"norm_topk_prob": optional("expert_weights_norm", True)},
        EXPERT_RULES,
    ),
)
