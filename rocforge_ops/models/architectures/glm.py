"""glm4 (GLM-4-0414, also the text side of its multi-axis-rotary kinds) and chatglm (GLM-4-9B as transformers' Glm)."""

from __future__ import annotations

from ..architecture import (
    ATTENTION_BIAS,
    DECODER,
    HEAD_DIM,
    PARTIAL_ROPE,
    RMS_NORM,
    Architecture,
    Rule,
    half_rotated_heads,
)

GLM = DECODER | HEAD_DIM | RMS_NORM | PARTIAL_ROPE | ATTENTION_BIAS

ARCHITECTURES = (
    Architecture(
        "glm4",
        "Glm4ForCausalLM",
        GLM,
        (Rule(r".*\.self_attn\.[qk]_proj\.(?:weight|bias)", rows=half_rotated_heads),),
    ),
    Architecture("chatglm", "GlmForCausalLM", GLM),
)
