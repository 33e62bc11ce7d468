from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rocforge_ops.cache import q8_0


def shapes_are_frozen() -> bool:
    """Whether what is called now will be run again later: while a graph is captured or compiled."""
    if torch.compiler.is_compiling():
        return True
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


@dataclass
class Space:
    """Where new tokens go and what they attend to; slot j of row b holds the token at position first[b] + j.

    Attributes:
        keys, values: [B, Hkv, slots, D], or as Q8_0 blocks; the new tokens are not yet in them.
        start: int32 [B], slot of each row's first new token; with `ring`, its position.
        first: int32 [B], or None for 0 everywhere. With `ring` the slots have no order.
        ring: position p goes to slot p % slots.
        staged: keys and values are a copy, whose new tokens `KVLayer.commit` stores.
    """

    keys: Tensor
    values: Tensor
    start: Tensor
    first: Tensor | None = None
    ring: bool = False
    staged: bool = False

    @property
    def in_blocks(self) -> bool:
        return self.keys.dtype == torch.uint8

    def write(self, keys: Tensor, values: Tensor, counts: Tensor | None = None) -> None:
        """New tokens [B, Hkv, L, D] from `start` on; the first counts[b] of them (int32 [B]) where that is given."""
        token = torch.arange(keys.shape[2], device=self.start.device)
        slots = self.start[:, None] + token
        slots = slots % self.keys.shape[2] if self.ring else slots
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        for stored, new in ((self.keys, keys), (self.values, values)):
            by_slot, new = stored.transpose(1, 2), new.transpose(1, 2)
            new = q8_0.encode(new) if self.in_blocks else new
            if counts is not None:
                new = torch.where((token < counts[:, None])[..., None, None], new, by_slot[rows, slots])
            by_slot[rows, slots] = new

    def under_mask(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mask over these slots, from one [B, H, L, Lk] over positions (Lk covers all tokens); keys and values."""
        if self.first is None:
            return mask, self.keys[:, :, : mask.shape[-1]], self.values[:, :, : mask.shape[-1]]
        positions = self.first[:, None] + torch.arange(self.keys.shape[2], device=mask.device)
        positions = positions.clamp(max=mask.shape[-1] - 1)  # slots without a token: not valid keys
        wide = mask.expand(len(positions), -1, -1, -1)
        return wide.gather(-1, positions[:, None, None].expand(*wide.shape[:3], -1)), self.keys, self.values


class KVLayer:
    """Keys and values of one attention layer for B sequences, each of its own length.

    A layer with a window that is smaller than the capacity is a ring buffer: position p is in slot p % window, and what
    falls out of the window is overwritten. Lengths are on the device, so that a step can be captured in a graph; the
    host only counts calls, for the check of the capacity.

    Attributes:
        keys, values: [B, Hkv, slots, D]; with `format` "Q8_0" uint8 [B, Hkv, slots, row_bytes]. None before `allocate`.
        lengths: int32 [B], tokens of each sequence so far, those that left the window included.
        seen: the host's count, an upper bound of lengths.
    """

    def __init__(self, capacity: int, window: int | None = None, format: str | None = None) -> None:
        self.capacity, self.window, self.format = capacity, window, format
        self.is_ring = window is not None and window < capacity
        self.slots = window if window is not None and window < capacity else capacity
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.lengths: Tensor | None = None
        self.seen = 0

    def allocate(
        self, batch_size: int, heads: int, head_dim: int, value_dim: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.dtype = dtype
        rows, stored = (head_dim, value_dim), dtype
        if self.format is not None:
            if dtype not in q8_0.DTYPES:
                raise TypeError(f"Q8_0 storage is for float16, bfloat16 and float32, got {dtype}")
            rows, stored = (q8_0.row_bytes(head_dim), q8_0.row_bytes(value_dim)), torch.uint8
        self.keys, self.values = (
            torch.zeros(batch_size, heads, self.slots, row, dtype=stored, device=device) for row in rows
        )
        self.lengths = torch.zeros(batch_size, dtype=torch.int32, device=device)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """keys, values, lengths."""
        if self.keys is None or self.values is None or self.lengths is None:
            raise ValueError("the cache holds no tensors yet: the first tokens make them")
        return self.keys, self.values, self.lengths

    def open(self, length: int, ordered: bool = False) -> Space:
        """Room for `length` new tokens of each sequence, beside the old ones that they see.

        In place, but where the new tokens of a ring would overwrite what the first of them sees. `ordered` asks for
        slots in the order of positions.

        Raises:
            ValueError: more tokens than the capacity.
        """
        if self.seen + length > self.capacity:
            raise ValueError(f"the cache holds {self.seen} of {self.capacity} tokens: no room for {length} more")
        keys, values, lengths = self.tensors
        if not self.is_ring:
            # Many rows decode all blocks that they are given.
            end = self.capacity if self.format is None or shapes_are_frozen() else self.seen + length
            return Space(keys[:, :, :end], values[:, :, :end], lengths)
        if length == 1 and not ordered:
            return Space(keys, values, lengths, ring=True)
        old = min(self.slots - 1, self.capacity if shapes_are_frozen() else self.seen)
        first = (lengths - old).clamp_(min=0)
        keys, values = (self._staged(t, first, old, length) for t in (keys, values))
        return Space(keys, values, lengths - first, first, staged=True)

    def _staged(self, stored: Tensor, first: Tensor, old: int, length: int) -> Tensor:
        """`old` slots of a ring from position `first` on, and `length` empty ones."""
        slots = (first[:, None] + torch.arange(old, device=first.device)) % self.slots
        past = stored.gather(2, slots[:, None, :, None].expand(-1, stored.shape[1], -1, stored.shape[3]))
        return torch.nn.functional.pad(past, (0, 0, 0, length))

    def commit(self, space: Space, length: int, new_lengths: Tensor | None = None) -> None:
        """Counts the new tokens that are now in `space`, and stores them where it was a copy.

        Args:
            length: as given to `open`.
            new_lengths: int32 [B], how many of them are tokens, the first ones; all when None.
        """
        _, _, lengths = self.tensors
        if space.staged:
            self._store(space, length, new_lengths)
        lengths.add_(length if new_lengths is None else new_lengths)
        self.seen += length

    def _store(self, space: Space, length: int, new_lengths: Tensor | None) -> None:
        """Copies the last tokens, no more than there are slots, so that no two go to one slot."""
        keys, values, lengths = self.tensors
        count = min(length, self.slots)
        end = length if new_lengths is None else new_lengths[:, None]
        token = torch.arange(count, device=lengths.device) - count + end  # [B or 1, count], negative: there is none
        token = token.expand(len(lengths), -1)
        slots = (lengths[:, None] + token) % self.slots
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        source = space.start[:, None] + token.clamp(min=0)
        for stored, staged in ((keys, space.keys), (values, space.values)):
            new = staged.transpose(1, 2)[rows, source]  # [B, count, Hkv, D]
            by_slot = stored.transpose(1, 2)
            if new_lengths is not None:
                new = torch.where((token >= 0)[..., None, None], new, by_slot[rows, slots])
            by_slot[rows, slots] = new

    def reset(self) -> None:
        """Forgets all tokens; the tensors stay where they are."""
        if self.lengths is not None:
            self.lengths.zero_()
        self.seen = 0

    def crop(self, tokens: int) -> None:
        """Forgets the last -tokens tokens of each sequence (`tokens` is negative or 0, as transformers has it).

        Raises:
            ValueError: a positive number, or a ring that has overwritten what would be in the window again.
        """
        self.check_crop(tokens)
        if self.lengths is not None:
            self.lengths.add_(tokens).clamp_(min=0)
        self.seen = max(self.seen + tokens, 0)

    def check_crop(self, tokens: int) -> None:
        """Raises where `crop` would, and changes nothing."""
        if tokens > 0:
            raise ValueError(f"crop takes the number of tokens to forget as a negative number, got {tokens}")
        if tokens < 0 and not self.is_croppable:
            raise ValueError(f"a window of {self.slots} tokens that has seen {self.seen} has overwritten older ones")

    @property
    def is_croppable(self) -> bool:
        return not self.is_ring or self.seen <= self.slots

    def reorder(self, rows: Tensor) -> None:
        """Sequence b becomes what sequence rows[b] was (beam search); rows int64 or int32 [B], in place."""
        if self.keys is not None:
            if list(rows.shape) != [len(self.keys)]:
                raise ValueError(f"rows must be [{len(self.keys)}], a sequence for each, got {list(rows.shape)}")
            for t in self.tensors:
                t.copy_(t.index_select(0, rows.to(t.device)))
