"""What the public converter does to weights. All of it moves whole rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import Rows, each

Converted = Iterable[tuple[str, np.ndarray]]


def pair_rows(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows i and i + width / 2 of every head side by side."""
    return rows.reshape(-1, 2, width // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@each
def llama_rows(c: Any, name: str, rows: np.ndarray) -> Converted:
    if ".q_proj." in name or ".k_proj." in name:
        rows = pair_rows(rows, c.head_dim)
    if ".experts.gate_up_proj" in name:
        gate, up = np.split(rows, 2, axis=1)
        name = name.replace("model.layers", "layers").replace(
            "mlp.experts.gate_up_proj", "feed_forward.experts.{}.weight"
        )
        yield name.format("w1"), gate
        yield name.format("w3"), up
    elif ".experts.down_proj" in name:
        yield (
            name.replace("model.layers", "layers").replace("mlp.experts.down_proj", "feed_forward.experts.w2.weight"),
            rows,
        )
    else:
        yield name, rows


@each
def expert_rows(c: Any, name: str, rows: np.ndarray) -> Converted:
    if name.endswith("experts.gate_up_proj"):
        gate, up = np.split(rows, 2, axis=1)
        yield name.replace("gate_up_proj", "gate_proj.weight"), gate
        yield name.replace("gate_up_proj", "up_proj.weight"), up
    elif name.endswith("experts.down_proj"):
        yield name + ".weight", rows
    elif name.endswith("shared_expert_gate.weight"):
        yield name, rows.squeeze()
    else:
        yield name, rows


@each
def fused_expert_rows(c: Any, name: str, rows: np.ndarray) -> Converted:
    """The converter's option to keep gate and up together; the package has no name for that here."""
    if name.endswith("experts.gate_up_proj"):
        name = f"blk.{name.split('.')[2]}.ffn_gate_up_exps.weight"
    yield name + (".weight" if name.endswith("experts.down_proj") else ""), rows


@each
def gpt_oss_rows(c: Any, name: str, rows: np.ndarray) -> Converted:
    """Expert matrices arrive transposed: their columns are rows here."""
    if name.endswith(("gate_up_proj", "gate_up_proj_bias")):
        suffix = "bias" if name.endswith("bias") else "weight"
        base = name.removesuffix("_bias").removesuffix("gate_up_proj")
        yield f"{base}gate_proj.{suffix}", rows[:, ::2]
        yield f"{base}up_proj.{suffix}", rows[:, 1::2]
    elif name.endswith(("down_proj_bias", "experts.down_proj")):
        yield name.replace("down_proj_bias", "down_proj.bias") if name.endswith("bias") else name + ".weight", rows
    elif name.endswith("sinks"):
        yield name + ".weight", rows
    else:
        yield name, rows


@each
def glm_multi_axis_rows(c: Any, name: str, rows: np.ndarray) -> Converted:
    """In the rotated part of every head, even rows before odd ones."""
    if ".q_proj." in name or ".k_proj." in name:
        heads = rows.reshape(-1, c.head_dim, *rows.shape[1:])
        rotated = int(c.head_dim * c.rope_parameters["partial_rotary_factor"])
        parts = (heads[:, 0:rotated:2], heads[:, 1:rotated:2], heads[:, rotated:])
        rows = np.concatenate(parts, axis=1).reshape(rows.shape)
    yield name, rows


@each
def falcon_rows(c: Any, name: str, rows: np.ndarray) -> Converted:
    """Queries, key and value of each kv head, to all queries, all keys, all values."""
    if "query_key_value" in name:
        queries = c.num_attention_heads // c.num_kv_heads
        groups = rows.reshape(c.num_kv_heads, queries + 2, c.head_dim, *rows.shape[1:])
        parts = (groups[:, :-2], groups[:, -2:-1], groups[:, -1:])
        rows = np.concatenate([part.reshape(-1, *rows.shape[1:]) for part in parts])
    yield name, rows


def stacked_head_norms(c: Any, parameters: dict[str, Rows]) -> dict[str, Rows]:
    """One norm per head becomes one matrix of all heads."""
    converted = {name: rows for name, rows in parameters.items() if ".norms." not in name}
    for layer in range(c.num_hidden_layers):
        for kind, heads in (("q", c.num_attention_heads), ("k", c.num_key_value_heads)):
            name = f"model.layers.{layer}.self_attn.{kind}_layernorm"
            norms = [parameters[f"{name}.norms.{head}.weight"] for head in range(heads)]
            converted[f"{name}.weight"] = (np.stack([rows for rows, _ in norms]), norms[0][1])
    return converted
