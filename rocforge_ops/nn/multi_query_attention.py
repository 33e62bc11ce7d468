from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rocforge_ops.cache import KVCache, KVLayer
from rocforge_ops.cache.layer import Space
from rocforge_ops.config import MultiQueryConfig
from rocforge_ops.nn.rotary import RotaryAngles
from rocforge_ops.ops.mqa_attention import mqa_attention
from rocforge_ops.ops.mqa_attention_q8_0 import mqa_attention_q8_0
from rocforge_ops.ops.qkv_rope_cache import qkv_rope_cache
from rocforge_ops.ops.rotary_embedding import rotary_embedding


class SeparateProjections(nn.Module):
    """Three projections in place of a joint one: hidden -> (query, key, value)."""

    def __init__(self, query: nn.Module, key: nn.Module, value: nn.Module) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query(hidden), self.key(hidden), self.value(hidden)


class MultiQueryAttention(nn.Module):
    """A self-attention layer, from the projection of its input to that of its output, on one device throughout.

    projection -> RMS norm of query and key heads -> RoPE -> cache -> attention -> projection. Without gradients all
    between projection and attention is one operator (`rf.qkv_rope_cache`); with gradients it is the separate
    operators, which compute the same. Nothing waits for the host, so a decoding step can be captured in a graph, once
    an earlier call has made the table of angles.

    Args:
        config: what to compute; validated here.
        layer: which layer of a cache is this module's.
        device, dtype: of the parameters.

    Attributes:
        qkv: any module that maps hidden [B, L, hidden_size] to [B, L, (Hq + 2 Hkv) D], all query heads, then key, then
            value; or to the three as a tuple (`SeparateProjections`). `torch.nn.Linear` unless replaced, for example by
            `rf.nn.QuantizedLinear`.
        out: any module that maps [B, L, Hq D] to [B, L, hidden_size].
        q_norm, k_norm: torch.nn.RMSNorm(D), with config.qk_norm.
        sinks: [Hq], with config.sinks.
    """

    def __init__(
        self,
        config: MultiQueryConfig,
        layer: int = 0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layer = config.validate(), layer
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        query, key, value = config.sections
        self.qkv: nn.Module = nn.Linear(config.width, query + key + value, bias=config.qkv_bias, **options)
        self.out: nn.Module = nn.Linear(query, config.width, bias=config.out_bias, **options)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(config.head_dim, config.qk_norm_eps, **options)
            self.k_norm = nn.RMSNorm(config.head_dim, config.qk_norm_eps, **options)
        self.sinks = nn.Parameter(torch.zeros(config.num_query_heads, **options)) if config.sinks else None
        self.angles = None if config.rope is None else RotaryAngles(config.rope, config.head_dim)

    def forward(
        self,
        hidden: Tensor,
        position_ids: Tensor | None = None,
        attn_mask: Tensor | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """[B, L, hidden_size] -> [B, L, hidden_size].

        Args:
            hidden: L tokens of each of B sequences; with a cache those that follow the ones in it.
            position_ids: integers [B, L] or [1, L], by which heads rotate; when None a token's place in its sequence.
                What a token sees does not depend on them.
            attn_mask: [B, L, Lk] or [B, Hq, L, Lk] (sizes 1 broadcast), bool (True keeps) or float (added), over the Lk
                tokens of the sequence so far, or, with a cache, up to its capacity. Causal rule and window hold too.
            cache: written and read in place.
            lengths: int32 [B], tokens of each row of `hidden` where rows are padded on the right. The padding is not
                seen and not stored; its output has no meaning.

        Raises:
            ValueError: shapes that do not fit, more tokens than the cache has room for, gradients with a cache.
            TypeError: lengths that are not int32.
        """
        self._check(hidden, position_ids, attn_mask, cache, lengths)
        projected = self.qkv(hidden)
        parts = [projected] if isinstance(projected, Tensor) else list(projected)
        self._check_projected(parts)
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unsqueeze(1)
        if cache is None:
            query, key, value = self._uncached(parts, position_ids)
            causal = "bottom_right" if lengths is None else "top_left"
            seen: dict[str, Any] = {"causal": causal, "window": self.config.window, "kv_lengths": lengths}
        else:
            query, key, value, attn_mask, seen = self._cached(parts, position_ids, attn_mask, cache, lengths)
        if not self.config.causal:
            seen["causal"] = "none"
        scores: dict[str, Any] = {"scale": self.config.scale, "softcap": self.config.softcap, "sinks": self.sinks}
        attend = mqa_attention_q8_0 if key.dtype == torch.uint8 else mqa_attention
        attended = attend(query, key, value, attn_mask=attn_mask, **scores, **seen)
        assert isinstance(attended, Tensor)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _uncached(self, parts: list[Tensor], position_ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """query [B, Hq, L, D], key and value [B, Hkv, L, D]."""
        batch, length, _ = parts[0].shape
        cos, sin = self._angles(position_ids, length, parts[0].device)
        if self._needs_gradients(parts):
            return self._with_gradients(parts, cos, sin)
        shape = (batch, self.config.num_kv_heads, length, self.config.head_dim)
        key, value = parts[0].new_empty(shape), parts[0].new_empty(shape)
        start = torch.zeros(batch, dtype=torch.int32, device=parts[0].device)
        return self._fused(parts, Space(key, value, start), start, cos, sin), key, value

    def _with_gradients(
        self, parts: list[Tensor], cos: Tensor | None, sin: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the fused operator does, by operators that have gradients."""
        if len(parts) == 1:
            parts = list(parts[0].split(self.config.sections, -1))
        query, key, value = (part.unflatten(-1, (-1, self.config.head_dim)) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
        if cos is not None and sin is not None:
            query, key = (rotary_embedding(heads, cos, sin, self._interleaved) for heads in (query, key))
        return query, key, value

    def _cached(
        self,
        parts: list[Tensor],
        position_ids: Tensor | None,
        mask: Tensor | None,
        cache: KVCache,
        lengths: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, dict[str, Any]]:
        """query, and all keys and values that it sees; the mask over those; which of them are seen."""
        if self._needs_gradients(parts):
            raise ValueError("a cache takes no part in gradients: use torch.no_grad(), or no cache")
        length, layer = parts[0].shape[1], cache.layers[self.layer]
        space, old = layer.open(length, ordered=mask is not None), layer.tensors[2]
        slots = space.start
        if lengths is not None:
            token = torch.arange(length, device=slots.device)
            slots = torch.where(token < lengths[:, None], slots[:, None] + token, -1)  # padding is not stored
        table = None
        if self.angles is not None and position_ids is None:
            table = self.angles.table(cache.capacity, old.device)
            position_ids = old[:, None] + torch.arange(length, device=old.device) if table is None else None
        if table is not None:
            query = self._fused(parts, space, slots, *table, position_ids=old, lengths=lengths)
        else:
            angles = self._angles(position_ids, length, old.device)
            query = self._fused(parts, space, slots, *angles, lengths=lengths)
        layer.commit(space, length, lengths)
        if mask is not None:
            mask, space.keys, space.values = space.under_mask(mask)
        return query, space.keys, space.values, mask, self._seen(space, layer, length, lengths)

    def _seen(self, space: Space, layer: KVLayer, length: int, lengths: Tensor | None) -> dict[str, Any]:
        """Once the new tokens are stored: causal rule, window and valid keys for attention over `space`."""
        stored = layer.tensors[2]
        if space.ring:  # one new token, and all that a full ring holds is in its window
            return {"causal": "none", "kv_lengths": stored.clamp(max=layer.slots)}
        # Rows stand at the end of the valid keys: for the causal rule padding counts, which comes after all tokens.
        counted = lengths if lengths is not None and not self.config.causal else length
        valid = stored
        if space.staged:
            valid = space.start + counted
        elif lengths is not None:
            valid = stored - lengths + counted
        return {"causal": "bottom_right", "window": self.config.window, "kv_lengths": valid}

    def _fused(
        self,
        parts: list[Tensor],
        space: Space,
        slots: Tensor,
        cos: Tensor | None,
        sin: Tensor | None,
        position_ids: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Writes key and value into `space`; returns the query [B, Hq, L, D]."""
        keys, values, ring = space.keys, space.values, space.ring
        if space.in_blocks:  # beside it, and from there in blocks
            shape = (len(keys), self.config.num_kv_heads, parts[0].shape[1], self.config.head_dim)
            keys, values = parts[0].new_empty(shape), parts[0].new_empty(shape)
            slots, ring = torch.zeros_like(space.start), False
        query = qkv_rope_cache(
            parts,
            keys,
            values,
            slots,
            cos,
            sin,
            position_ids=position_ids,
            interleaved=self._interleaved,
            q_norm=None if self.q_norm is None else self.q_norm.weight,
            k_norm=None if self.k_norm is None else self.k_norm.weight,
            eps=self.config.qk_norm_eps,
            ring=ring,
        )
        if space.in_blocks:
            space.write(keys, values, lengths)
        return query

    @property
    def _interleaved(self) -> bool:
        return self.config.rope is not None and self.config.rope.interleaved

    def _angles(
        self, position_ids: Tensor | None, length: int, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """cos and sin, [L, R/2] or [B, L, R/2], of the positions 0, 1, ... when None."""
        if self.angles is None:
            return None, None
        return self.angles(torch.arange(length, device=device) if position_ids is None else position_ids)

    def _needs_gradients(self, parts: list[Tensor]) -> bool:
        weights = [norm.weight for norm in (self.q_norm, self.k_norm) if norm is not None]
        tensors = [*parts, *weights, *([] if self.sinks is None else [self.sinks])]
        return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)

    def _check(
        self,
        hidden: Tensor,
        position_ids: Tensor | None,
        mask: Tensor | None,
        cache: KVCache | None,
        lengths: Tensor | None,
    ) -> None:
        if hidden.dim() != 3 or hidden.shape[2] != self.config.width:
            raise ValueError(f"hidden must be [batch, length, {self.config.width}], got {list(hidden.shape)}")
        batch, length, _ = hidden.shape
        if position_ids is not None and list(position_ids.shape) not in ([batch, length], [1, length]):
            raise ValueError(f"position_ids must be [{batch}, {length}], got {list(position_ids.shape)}")
        if lengths is not None and list(lengths.shape) != [batch]:
            raise ValueError(f"lengths must be [{batch}], got {list(lengths.shape)}")
        if lengths is not None and lengths.dtype != torch.int32:
            raise TypeError(f"lengths must be int32, got {lengths.dtype}")
        if cache is not None and not 0 <= self.layer < len(cache):
            raise ValueError(f"this is layer {self.layer}, the cache has {len(cache)}")
        if cache is not None and len(cache.layers[self.layer].tensors[2]) != batch:
            raise ValueError(f"hidden has {batch} sequences, the cache {len(cache.layers[self.layer].tensors[2])}")
        if mask is not None:
            self._check_mask(mask, batch, length, cache)

    def _check_mask(self, mask: Tensor, batch: int, length: int, cache: KVCache | None) -> None:
        fewest = length if cache is None else cache.layers[self.layer].seen + length
        most = length if cache is None else max(cache.capacity, fewest)
        keys = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        wanted = [{1, batch}, {1, self.config.num_query_heads}, {1, length}]
        wanted = wanted if mask.dim() == 4 else wanted[:1] + wanted[2:]
        if (
            mask.dim() not in (3, 4)
            or any(size not in sizes for size, sizes in zip(mask.shape, wanted, strict=False))
            or not fewest <= mask.shape[-1] <= most
        ):
            heads = self.config.num_query_heads
            raise ValueError(
                f"attn_mask must be [{batch}, {length}, {keys}] or [{batch}, {heads}, {length}, {keys}], "
                f"got {list(mask.shape)}"
            )

    def _check_projected(self, parts: list[Tensor]) -> None:
        query, key, value = self.config.sections
        widths = [part.shape[-1] for part in parts]
        if widths not in ([query + key + value], [query, key, value]):
            raise ValueError(f"qkv must give {query + key + value} elements, or {[query, key, value]}, got {widths}")
