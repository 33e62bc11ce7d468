"""gpt-oss: attention sinks, every second layer windowed, experts [in, out] with gate and up columns in turns."""

from __future__ import annotations

from typing import Any

from ..architecture import ATTENTION_BIAS, DECODER, HEAD_DIM, RMS_NORM, Architecture, Rule
from ..header import Header
from ..rope import rope_parameters
from .experts import EXPERTS

EXPERT = r".*\.layers\.(\d+)\.mlp\.experts\."


def rope(file: Header) -> dict[str, Any]:
    """The published yarn scaling does not round its bounds to whole dimensions; no key says so."""
    parameters = rope_parameters(file)
    return parameters | {"truncate": False} if parameters["rope_type"] == "yarn" else parameters


def layer_types(file: Header) -> list[str]:
    return ["full_attention" if layer % 2 else "sliding_attention" for layer in range(file.layers)]


ARCHITECTURES = (
    Architecture(
        "gpt-oss",
        "GptOssForCausalLM",
        DECODER
        | HEAD_DIM
        | RMS_NORM
        | ATTENTION_BIAS
        | EXPERTS
        | {
            "intermediate_size": lambda file: file.get(
                "expert_feed_forward_length", file.get("feed_forward_length", None)
            ),
            "sliding_window": "attention.sliding_window",
            "layer_types": layer_types,
            "rope_parameters": rope,
        },
        (
            Rule(r".*\.layers\.(\d+)\.self_attn\.sinks", ("blk.{0}.attn_sinks.weight",)),
            Rule(
                EXPERT + "gate_up_proj",
                ("blk.{0}.ffn_gate_exps.weight", "blk.{0}.ffn_up_exps.weight"),
                alternate=True,
                transpose=True,
            ),
            Rule(
                EXPERT + "gate_up_proj_bias",
                ("blk.{0}.ffn_gate_exps.bias", "blk.{0}.ffn_up_exps.bias"),
                alternate=True,
            ),
            Rule(EXPERT + "down_proj", ("blk.{0}.ffn_down_exps.weight",), transpose=True),
            Rule(EXPERT + "down_proj_bias", ("blk.{0}.ffn_down_exps.bias",)),
        ),
    ),
)
