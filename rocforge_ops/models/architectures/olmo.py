"""olmo2: OLMo 2, and OLMo 3, which adds windowed layers."""

from __future__ import annotations

from ..architecture import ATTENTION_BIAS, DECODER, RMS_NORM, Architecture
from ..header import Header
from ..rope import rope_per_layer_type

OLMO = DECODER | RMS_NORM | ATTENTION_BIAS


def layer_types(file: Header) -> list[str]:
    pattern = file.get_list("attention.sliding_window_pattern")
    return ["sliding_attention" if windowed else "full_attention" for windowed in pattern]


ARCHITECTURES = (
    Architecture(
        "olmo2",
        "Olmo3ForCausalLM",
        OLMO
        | {
            "sliding_window": "attention.sliding_window",
            "layer_types": layer_types,
            "rope_parameters": rope_per_layer_type,
        },
        when=lambda file: file.get("attention.sliding_window", 0) > 0,
    ),
    Architecture("olmo2", "Olmo2ForCausalLM", OLMO),
)
