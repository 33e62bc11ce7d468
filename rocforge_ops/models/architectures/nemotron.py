"""nemotron: Nemotron-3, Nemotron-4, Minitron. Its LayerNorms multiply by 1 + weight; the files hold 1 + weight."""

from __future__ import annotations

from ..architecture import ATTENTION_BIAS, DECODER, HEAD_DIM, MLP_BIAS, PARTIAL_ROPE, Architecture, Rule

RMS_EPS = "attention.layer_norm_rms_epsilon"

ARCHITECTURES = (
    Architecture(
        "nemotron",
        "NemotronForCausalLM",
        DECODER
        | HEAD_DIM
        | PARTIAL_ROPE
        | ATTENTION_BIAS
        | MLP_BIAS
        # Written under both names.
        | {"norm_eps": lambda file: file.get("attention.layer_norm_epsilon", file.get(RMS_EPS, None))},
        (Rule(r".*norm\.weight", subtract=1.0),),
    ),
)
