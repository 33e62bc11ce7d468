"""Mixtures of experts: transformers holds gate and up rows of all experts in one parameter, GGUF in one tensor each."""

from __future__ import annotations

from ..architecture import Rule, Source
from ..header import Header

EXPERTS: dict[str, Source] = {
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}

EXPERT_RULES = (
    Rule(r".*\.layers\.(\d+)\.mlp\.experts\.gate_up_proj", ("blk.{0}.ffn_gate_up_exps.weight",)),
    Rule(
        r".*\.layers\.(\d+)\.mlp\.experts\.gate_up_proj",
        ("blk.{0}.ffn_gate_exps.weight", "blk.{0}.ffn_up_exps.weight"),
    ),
    Rule(r".*\.layers\.(\d+)\.mlp\.experts\.down_proj", ("blk.{0}.ffn_down_exps.weight",)),
)


def expert_width(file: Header) -> int:
    """Intermediate size of one expert; files without the key show it in the shape [experts, hidden, width]."""
    dense = dense_layers(file)
    layer = next((layer for layer in range(file.layers) if layer not in dense), 0)
    return file.get("expert_feed_forward_length", file.shape(f"blk.{layer}.ffn_down_exps.weight")[-1])


def dense_layers(file: Header) -> list[int]:
    """Layers without experts."""
    return [layer for layer in range(file.layers) if not file.has(f"blk.{layer}.ffn_gate_inp.weight")]
