"""gemma, gemma2, gemma3 (text). Their norms multiply by 1 + weight; the files hold 1 + weight."""

from __future__ import annotations

from typing import Any

from ..architecture import DECODER, HEAD_DIM, RMS_NORM, Architecture, Rule, Source, has, optional
from ..header import Header
from ..rope import rope_per_layer_type

NORM_RULE = Rule(r".*norm\.weight", subtract=1.0)
GEMMA = DECODER | HEAD_DIM | RMS_NORM | {"attention_bias": has("blk.0.attn_q.bias")}

LOCAL_BASE = 10000.0  # rotary base of gemma3's windowed layers, where the file does not say
# The 27 B models, known by their depth, scale scores by hidden_size / heads instead of head_dim; no key says so.
WIDE_SCALE_LAYERS = {"gemma2": 46, "gemma3": 62}
WINDOWED_OF = {"gemma2": 2, "gemma3": 6}  # every second / sixth layer is global, where the file does not say


def query_scalar(file: Header) -> float:
    """Scores are divided by the root of this."""
    scale = file.get("attention.scale", None)
    if scale is not None:
        return scale**-2
    if file.layers == WIDE_SCALE_LAYERS[file.architecture]:
        return file.width // file.heads
    return file.head_dim


def layer_types(file: Header) -> list[str]:
    """From a flag per layer (true: windowed) or a period (its last layer is global; 0: none is)."""
    pattern = file.get_list("attention.sliding_window_pattern", WINDOWED_OF[file.architecture])
    if not isinstance(pattern, list):
        pattern = [pattern == 0 or (layer + 1) % pattern != 0 for layer in range(file.layers)]
    return ["sliding_attention" if windowed else "full_attention" for windowed in pattern]


def rope(file: Header) -> dict[str, Any]:
    """Older files do not say by which base the windowed layers rotate."""
    parameters = rope_per_layer_type(file)
    parameters["sliding_attention"]["rope_theta"] = file.get("rope.freq_base_swa", LOCAL_BASE)
    return parameters


WINDOWED: dict[str, Source] = {
    "query_pre_attn_scalar": query_scalar,
    "sliding_window": "attention.sliding_window",
    "layer_types": layer_types,
    "attn_logit_softcapping": optional("attn_logit_softcapping"),
    "final_logit_softcapping": optional("final_logit_softcapping"),
}

ARCHITECTURES = (
    Architecture("gemma", "GemmaForCausalLM", GEMMA, (NORM_RULE,), float16_overflows=True),
    Architecture("gemma2", "Gemma2ForCausalLM", GEMMA | WINDOWED, (NORM_RULE,), float16_overflows=True),
    Architecture(
        "gemma3",
        "Gemma3ForCausalLM",
        GEMMA | WINDOWED | {"rope_parameters": rope},
        (NORM_RULE,),
        float16_overflows=True,
    ),
)
