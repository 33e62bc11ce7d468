"""How an architecture is described: its class, where the configuration comes from, what the converter did to weights.

docs/models.md lists all of them, and what their files leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .header import Header
from .rope import partial_rope_parameters, rope_parameters

# A configuration value: the key that holds it (without the architecture's prefix), or a function of the header.
Source = str | Callable[[Header], Any]

# (header, rows in the file) -> int64, which of the file's rows come first, second, ... in the parameter.
RowOrder = Callable[[Header, int], Tensor]


@dataclass(frozen=True)
class Rule:
    """How parameters are made that are not simply the tensor the `gguf` package's name table gives for them.

    A rule holds for the parameters whose whole name matches `pattern`, when the file has all of its `tensors`. Of
    several such rules the first counts.
    """

    pattern: str  # regular expression
    tensors: tuple[str, ...] = ()  # GGUF names, {0} {1} for the pattern's groups; empty: the table's name
    alternate: bool = False  # several tensors: their rows in turns instead of one after the other
    rows: RowOrder | None = None
    row: str = ""  # only this row, "{1}" for the pattern's second group
    transpose: bool = False  # of the last two dimensions
    subtract: float = 0.0


@dataclass(frozen=True)
class Architecture:
    gguf: str  # general.architecture
    model_class: str  # of transformers
    config: Mapping[str, Source]
    rules: tuple[Rule, ...] = ()
    when: Callable[[Header], bool] = field(default=lambda file: True)  # which of several classes one GGUF name means
    float16_overflows: bool = False
    attention_interface: bool = True  # whether the class takes attention from transformers' registry


def tied(file: Header) -> bool:
    return not file.has("output.weight")


def has(tensor: str) -> Source:
    """Whether the file has the tensor, for switches that no key records."""
    return lambda file: file.has(tensor)


def value(constant: Any) -> Source:
    """A value that every model of the architecture shares and no file records."""
    return lambda file: constant


def optional(key: str, default: Any = None) -> Source:
    return lambda file: file.get(key, default)


TOKENS: dict[str, Source] = {
    "bos_token_id": lambda file: file.token_id("bos"),
    "eos_token_id": lambda file: file.token_id("eos"),
    "pad_token_id": lambda file: file.token_id("padding"),
}

# What nearly every decoder has, under transformers' usual names.
DECODER: dict[str, Source] = {
    **TOKENS,
    "vocab_size": lambda file: file.vocab_size,
    "hidden_size": lambda file: file.width,
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": lambda file: file.layers,
    "num_attention_heads": lambda file: file.heads,
    "num_key_value_heads": lambda file: file.kv_heads,
    "max_position_embeddings": "context_length",
    "rope_parameters": rope_parameters,
    "tie_word_embeddings": tied,
}
HEAD_DIM: dict[str, Source] = {"head_dim": lambda file: file.head_dim}
RMS_NORM: dict[str, Source] = {"rms_norm_eps": "attention.layer_norm_rms_epsilon"}
PARTIAL_ROPE: dict[str, Source] = {"rope_parameters": partial_rope_parameters}

ATTENTION_BIAS: dict[str, Source] = {"attention_bias": has("blk.0.attn_q.bias")}
MLP_BIAS: dict[str, Source] = {"mlp_bias": has("blk.0.ffn_down.bias")}


def unpaired_heads(file: Header, rows: int) -> Tensor:
    """Undo of the llama converter's order: it puts rows i and i + head_dim / 2, which rotate together, side by side."""
    return _per_head(file, rows).unflatten(1, (-1, 2)).transpose(1, 2).flatten()


def _per_head(file: Header, rows: int) -> Tensor:
    """arange(rows) as [heads, head_dim]."""
    if rows % file.head_dim:
        raise ValueError(f"{rows} rows are no whole number of heads of {file.head_dim}")
    return torch.arange(rows).view(-1, file.head_dim)


def half_rotated_heads(file: Header, rows: int) -> Tensor:
    """Undo of the multi-axis-rotary GLM converter's order: in the rotated part of a head, even rows before odd ones."""
    if file.get_list("rope.dimension_sections", None) is None:
        return torch.arange(rows)
    heads = _per_head(file, rows)
    rotated, rest = heads[:, : file.rotary_dim], heads[:, file.rotary_dim :]
    return torch.cat((rotated.unflatten(1, (2, -1)).transpose(1, 2).flatten(1), rest), dim=1).flatten()


def grouped_qkv(file: Header, rows: int) -> Tensor:
    """Undo of the Falcon converter's order [all q, all k, all v]: per kv head its queries, its key, its value."""
    heads = file.heads + 2 * file.kv_heads
    if rows != heads * file.head_dim:
        raise ValueError(f"{rows} rows are not {heads} heads of {file.head_dim}")
    q, k, v = _per_head(file, rows).split((file.heads, file.kv_heads, file.kv_heads))
    groups = (q.unflatten(0, (file.kv_heads, -1)), k.unsqueeze(1), v.unsqueeze(1))
    return torch.cat(groups, dim=1).flatten()
