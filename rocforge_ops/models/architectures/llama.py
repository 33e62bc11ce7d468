"""llama: Llama 1 to 3.3, Mistral (the same computation, plus a window in its first version) and Mixtral."""

from __future__ import annotations

from ..architecture import ATTENTION_BIAS, DECODER, HEAD_DIM, MLP_BIAS, RMS_NORM, Architecture, Rule, unpaired_heads
from .experts import EXPERT_RULES, EXPERTS

ROTARY_RULE = Rule(r".*\.self_attn\.[qk]_proj\.(?:weight|bias)", rows=unpaired_heads)
LLAMA = DECODER | HEAD_DIM | RMS_NORM
WINDOW = "attention.sliding_window"

ARCHITECTURES = (
    Architecture(
        "llama",
        "MixtralForCausalLM",
        LLAMA | EXPERTS | {"sliding_window": lambda file: file.get(WINDOW, None)},
        (ROTARY_RULE, *EXPERT_RULES),
        when=lambda file: file.get("expert_count", 0) > 0,
    ),
    Architecture(
        "llama",
        "MistralForCausalLM",
        LLAMA | {"sliding_window": WINDOW},
        (ROTARY_RULE,),
        when=lambda file: file.get(WINDOW, 0) > 0,
    ),
    Architecture("llama", "LlamaForCausalLM", LLAMA | ATTENTION_BIAS | MLP_BIAS, (ROTARY_RULE,)),
)
