"""KVCache as a cache of transformers. Imported by KVCache.for_model only: everything else does without transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rocforge_ops.attention.transformers import attention_forward
from rocforge_ops.cache import q8_0
from rocforge_ops.cache.kv_cache import KVCache
from rocforge_ops.cache.layer import KVLayer, shapes_are_frozen


class TransformersLayer(KVLayer, CacheLayerMixin):  # type: ignore[override]
    """A KVLayer whose tensors are made of the first keys and values that it sees."""

    is_compileable = False  # generate() is not to compile by itself

    def __init__(self, capacity: int, window: int | None, format: str | None, config: Any) -> None:
        super().__init__(capacity, window, format)
        self.config = config

    def reads_blocks(self) -> bool:
        """Whether `rf.register_attention`'s function is the model's attention now."""
        name = self.config._attn_implementation
        return ALL_ATTENTION_FUNCTIONS.get(name) is attention_forward

    @property
    def is_initialized(self) -> bool:
        return self.keys is not None

    @property
    def is_sliding(self) -> bool:
        return self.is_ring

    @property
    def batch_size(self) -> int:
        return -1 if self.keys is None else self.keys.shape[0]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        batch, heads, _, head_dim = key_states.shape
        self.allocate(batch, heads, head_dim, value_states.shape[-1], key_states.dtype, key_states.device)
        for t in self.tensors:
            torch._dynamo.mark_static_address(t)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Stores new tokens [B, Hkv, L, D]; returns all keys and values that they see, in order: as Q8_0 blocks, where
        these are stored and the model's attention is the one that reads them.

        While shapes are frozen, with slots beyond the last token, which the causal rule hides.
        """
        if self.keys is None:
            self.lazy_initialization(key_states, value_states)
        length = key_states.shape[2]
        visible, _ = self.get_mask_sizes(length)
        space = self.open(length, ordered=True)
        space.write(key_states, value_states)
        self.commit(space, length)
        keys, values = space.keys[:, :, :visible], space.values[:, :, :visible]
        if space.in_blocks and not self.reads_blocks():
            return q8_0.decode(keys, key_states.dtype), q8_0.decode(values, key_states.dtype)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, Any]:
        """Slots that `update` will return, and the position of the first."""
        if not shapes_are_frozen():
            old = min(self.seen, self.slots - 1) if self.is_ring else self.seen
            return old + query_length, self.seen - old
        if not self.is_ring:
            return self.slots, 0
        return self.slots - 1 + query_length, (self.get_seq_length() - (self.slots - 1)).clamp(min=0)

    def get_seq_length(self) -> Any:
        """An int; while shapes are frozen the tensor of the device, as for transformers' static cache."""
        if self.lengths is not None and shapes_are_frozen():
            return self.lengths[0]
        return self.seen

    def get_max_length(self) -> int:
        return self.capacity

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.reorder(beam_idx)


class TransformersKVCache(KVCache, Cache):  # type: ignore[misc]
    def __init__(self, layers: list[Any]) -> None:
        Cache.__init__(self, layers=layers)


def cache_for_model(model: Any, capacity: int, format: str | None) -> TransformersKVCache:
    config = getattr(model, "config", model).get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = ["full_attention" if window is None else "sliding_attention"] * config.num_hidden_layers
    if unknown := sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        raise ValueError(f"KVCache holds full_attention and sliding_attention layers, the model has {unknown}")
    if capacity < 1 or format not in (None, "Q8_0"):
        raise ValueError(f"expected a positive capacity and the format None or 'Q8_0', got {capacity} and {format!r}")
    return TransformersKVCache(
        [TransformersLayer(capacity, window if kind == "sliding_attention" else None, format, config) for kind in kinds]
    )
