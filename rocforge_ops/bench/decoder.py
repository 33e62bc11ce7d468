"""A decoder of random weights to measure: multi-query attention and a gated feed-forward, packed or dense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocforge_ops.cache import KVCache
from rocforge_ops.config import MultiQueryConfig
from rocforge_ops.formats import formats
from rocforge_ops.nn import MultiQueryAttention, QuantizedEmbedding, QuantizedLinear
from rocforge_ops.ops.mqa_attention import mqa_attention
from rocforge_ops.ops.mqa_attention_q8_0 import mqa_attention_q8_0


@dataclass(frozen=True)
class Sizes:
    attention: MultiQueryConfig
    intermediate: int
    vocabulary: int
    layers: int
    format: str  # of the weights, or "dense"
    dtype: torch.dtype


def matrix(rows: int, columns: int, sizes: Sizes) -> nn.Module:
    """A linear layer, packed ones of random finite blocks."""
    if sizes.format == "dense":
        return nn.Linear(columns, rows, bias=False, dtype=sizes.dtype)
    format = formats[sizes.format]
    if columns % format.block_size:
        raise ValueError(f"{format.name} stores blocks of {format.block_size} weights, got rows of {columns}")
    row_bytes = columns // format.block_size * format.block_bytes
    # Small bytes: no scale among them is infinite.
    return QuantizedLinear(torch.randint(0, 64, (rows, row_bytes), dtype=torch.uint8), format.name)


class Layer(nn.Module):
    def __init__(self, sizes: Sizes, index: int) -> None:
        super().__init__()
        config = sizes.attention
        self.attention_norm = nn.RMSNorm(config.width, dtype=sizes.dtype)
        with torch.device("meta"):  # its projections are replaced
            self.attention = MultiQueryAttention(config, index, dtype=sizes.dtype)
        self.attention.qkv = matrix(sum(config.sections), config.width, sizes)
        self.attention.out = matrix(config.width, config.sections[0], sizes)
        self.norm = nn.RMSNorm(config.width, dtype=sizes.dtype)
        self.gate_up = matrix(2 * sizes.intermediate, config.width, sizes)
        self.down = matrix(config.width, sizes.intermediate, sizes)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.gate_up(self.norm(hidden)).chunk(2, -1)
        return hidden + self.down(F.silu(gate) * up)

    def forward(self, hidden: Tensor, cache: KVCache) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), cache=cache)
        return self.feed_forward(hidden)


class Decoder(nn.Module):
    """Token ids [B, L] -> the likeliest next token [B]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(Layer(sizes, index) for index in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.attention.width, dtype=sizes.dtype)
        head = matrix(sizes.vocabulary, sizes.attention.width, sizes)
        self.head = head  # and the table of tokens, as in tied models
        self.embedding: nn.Module
        if isinstance(head, QuantizedLinear):
            self.embedding = QuantizedEmbedding(head.packed, head.format, dtype=sizes.dtype)
        elif isinstance(head, nn.Linear):
            table = nn.Embedding(1, 1)
            table.weight = head.weight
            self.embedding = table

    @property
    def stack(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def forward(self, tokens: Tensor, cache: KVCache) -> Tensor:
        hidden = self.embedding(tokens)
        for layer in self.stack:
            hidden = layer(hidden, cache)
        return self.head(self.norm(hidden[:, -1])).argmax(-1)


@dataclass(frozen=True)
class Stage:
    """A part of a layer: `run` on `inputs`, which are all that it needs beside weights and settings."""

    name: str
    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    nbytes: int  # read and written


def weight_bytes(*modules: nn.Module) -> int:
    return sum(t.nbytes for module in modules for t in module.parameters())


def stages(layer: Layer, hidden: Tensor, cache: KVCache) -> list[Stage]:
    """The attention half of a layer in its parts, then the feed-forward half, each on what the part before gives."""
    attention, store = layer.attention, cache.layers[layer.attention.layer]
    keys, values, lengths = store.tensors
    assert attention.angles is not None
    cos, sin = attention.angles.table(cache.capacity, hidden.device) or (None, None)
    start = lengths.clone()

    def rotate_and_store(qkv: Tensor) -> Tensor:
        return attention._fused([qkv], store.open(hidden.shape[1]), start, cos, sin, position_ids=start)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        operator = mqa_attention_q8_0 if key.dtype == torch.uint8 else mqa_attention
        out = operator(query, key, value, causal="bottom_right", kv_lengths=end)
        assert isinstance(out, Tensor)
        return out.transpose(1, 2).flatten(2)

    end = start + hidden.shape[1]
    normed = layer.attention_norm(hidden)
    qkv = attention.qkv(normed)
    query = rotate_and_store(qkv)
    attended = attend(query, keys, values)
    read = 2 * int(end.sum()) * keys.shape[1] * keys.shape[3] * keys.element_size()
    return [
        Stage("norm", layer.attention_norm, (hidden,), 2 * hidden.nbytes),
        Stage("qkv projection", attention.qkv, (normed,), weight_bytes(attention.qkv) + normed.nbytes + qkv.nbytes),
        Stage("RoPE and cache", rotate_and_store, (qkv,), 2 * qkv.nbytes),
        Stage("attention", attend, (query, keys, values), read + 2 * query.nbytes),
        Stage("out projection", attention.out, (attended,), weight_bytes(attention.out) + attended.nbytes),
        Stage("feed-forward", layer.feed_forward, (hidden,), weight_bytes(layer.gate_up, layer.down)),
    ]
