"""stablelm: StableLM 3B, Zephyr, 2 1.6B and 2 12B (norms per head, stacked in the file)."""

from __future__ import annotations

from ..architecture import DECODER, PARTIAL_ROPE, Architecture, Rule, has

ARCHITECTURES = (
    Architecture(
        "stablelm",
        "StableLmForCausalLM",
        DECODER
        | PARTIAL_ROPE
        | {
            "layer_norm_eps": "attention.layer_norm_epsilon",
            "use_parallel_residual": "use_parallel_residual",
            "use_qkv_bias": has("blk.0.attn_q.bias"),
            "qk_layernorm": has("blk.0.attn_q_norm.weight"),
        },
        (
            Rule(
                r".*\.layers\.(\d+)\.self_attn\.([qk])_layernorm\.norms\.(\d+)\.weight",
                ("blk.{0}.attn_{1}_norm.weight",),
                row="{2}",
            ),
        ),
    ),
)
