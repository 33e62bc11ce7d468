from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.cache.layer import KVLayer
from rocforge_ops.config import MultiQueryConfig
from rocforge_ops.rope import is_positive_integer


class KVCache:
    """Keys and values of a model's layers: allocated once, on the device, each key/value head once.

    A layer is [B, Hkv, capacity, D] for keys and for values. Sequences of a batch have lengths of their own, which live
    on the device: no call waits for it. Layers with a window smaller than the capacity are ring buffers of the window's
    size. `rf.nn.MultiQueryAttention` writes and reads it; `for_model` makes one for transformers.

    With `format` "Q8_0" the tokens are stored in Q8_0 blocks, 8.5 bits an element. Attention sees every token as its
    block says, new ones too. A decoding step reads the blocks themselves; a call of many tokens decodes all that are
    stored into a temporary tensor of the model's dtype (on a GPU).

    The host checks the capacity by counting calls. What a captured graph stores when it is replayed is not seen: tell
    it by `advance`.

    Args:
        num_layers, batch_size: how many of each.
        capacity: the most tokens of a sequence, windows or not.
        num_kv_heads, head_dim: Hkv and D; D a multiple of 32 for Q8_0.
        windows: tokens that a layer's queries see, themselves included; one for all layers, or one a layer; None: all.
        dtype, device: of keys and values.
        format: None or "Q8_0".

    Attributes:
        layers: a KVLayer each.
        lengths: int32 [B] on the device.
    """

    def __init__(
        self,
        num_layers: int,
        batch_size: int,
        capacity: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        windows: int | Sequence[int | None] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        format: str | None = None,
    ) -> None:
        sizes = {"num_layers": num_layers, "batch_size": batch_size, "capacity": capacity}
        sizes |= {"num_kv_heads": num_kv_heads, "head_dim": head_dim}
        wrong = [
            f"{name} is {size!r}, expected a positive integer"
            for name, size in sizes.items()
            if not is_positive_integer(size)
        ]
        per_layer: list[Any] = [windows] * (num_layers if is_positive_integer(num_layers) else 1)
        if isinstance(windows, Sequence) and not isinstance(windows, str):
            per_layer = list(windows)
        if len(per_layer) != num_layers and not wrong:
            wrong.append(f"windows has {len(per_layer)} entries, expected {num_layers}, one a layer")
        if not all(window is None or is_positive_integer(window) for window in per_layer):
            wrong.append(f"windows is {windows!r}, expected positive integers or None")
        if format not in (None, "Q8_0"):
            wrong.append(f"format is {format!r}, expected None or 'Q8_0'")
        if wrong:
            raise ValueError("; ".join(wrong))
        self.layers = [KVLayer(capacity, window, format) for window in per_layer]
        for layer in self.layers:
            layer.allocate(batch_size, num_kv_heads, head_dim, head_dim, dtype, device)

    @staticmethod
    def for_config(
        config: MultiQueryConfig,
        batch_size: int,
        capacity: int,
        num_layers: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        format: str | None = None,
    ) -> KVCache:
        """For `num_layers` layers of one configuration."""
        return KVCache(
            num_layers,
            batch_size,
            capacity,
            config.num_kv_heads,
            config.head_dim,
            windows=config.window,
            dtype=dtype,
            device=device,
            format=format,
        )

    @staticmethod
    def for_model(model: Any, capacity: int, format: str | None = None) -> KVCache:
        """For a model of transformers, or its configuration: a cache that is a transformers.Cache too.

            model.generate(**tokens, past_key_values=rf.KVCache.for_model(model, 4096))

        Batch size, heads, dtype and device are those of the first tokens. Any attention implementation may read it. The
        rows of a batch have one length there: transformers pads shorter texts on the left and masks them. While a graph
        is captured or compiled all sizes are constant and positions come from the device; give position_ids, and no
        attention_mask, whose padding would have to be read.

        Raises:
            ValueError: layers that are neither full nor sliding-window attention.
        """
        from rocforge_ops.cache.transformers import cache_for_model

        return cache_for_model(model, capacity, format)

    @property
    def capacity(self) -> int:
        return self.layers[0].capacity

    @property
    def lengths(self) -> Tensor:
        return self.layers[0].tensors[2]

    @property
    def seen(self) -> int:
        """The host's count of tokens, an upper bound of all lengths."""
        return self.layers[0].seen

    @property
    def nbytes(self) -> int:
        """Of keys and values of all layers."""
        return sum(t.nbytes for layer in self.layers for t in layer.tensors[:2])

    def __len__(self) -> int:
        return len(self.layers)

    def reset(self) -> None:
        """Forgets all tokens; the tensors stay where they are, so that captured graphs stay valid."""
        for layer in self.layers:
            layer.reset()

    def crop(self, tokens: int) -> None:
        """Forgets the last -tokens tokens of each sequence; negative or 0, as in transformers.

        Raises:
            ValueError: a positive number, or a ring buffer that has overwritten what would be visible again; then no
                layer has forgotten anything.
        """
        for layer in self.layers:
            layer.check_crop(tokens)
        for layer in self.layers:
            layer.crop(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Sequence b becomes what sequence rows[b] was, in place; rows int64 or int32 [B].

        Raises:
            ValueError: rows of another shape.
        """
        for layer in self.layers:
            layer.reorder(rows)

    def advance(self, tokens: int) -> None:
        """Counts tokens of each sequence that the replay of a captured graph stores, before it does.

        Raises:
            ValueError: more than the capacity (what is stored beyond it is lost, and results are undefined), or a
                negative number.
        """
        if tokens < 0:
            raise ValueError(f"advance counts tokens that are stored, got {tokens}: crop forgets tokens")
        if self.seen + tokens > self.capacity:
            raise ValueError(f"the cache holds {self.seen} of {self.capacity} tokens: no room for {tokens} more")
        for layer in self.layers:
            layer.seen += tokens
