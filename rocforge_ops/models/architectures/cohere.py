"""command-r: Command R, Command R+ and Aya."""

from __future__ import annotations

from ..architecture import ATTENTION_BIAS, DECODER, Architecture, has

ARCHITECTURES = (
    Architecture(
        "command-r",
        "CohereForCausalLM",
        DECODER
        | ATTENTION_BIAS
        | {
            "layer_norm_eps": "attention.layer_norm_epsilon",
            "logit_scale": "logit_scale",
            "use_qk_norm": has("blk.0.attn_q_norm.weight"),
        },
    ),
)
