"""The block formats, as the C++ registry lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rocforge_ops import _library  # noqa: F401  (registers _formats)


@dataclass(frozen=True)
class Format:
    """One way to store weights: `block_size` weights in `block_bytes` bytes."""

    name: str
    id: int | None  # ggml's type number; None for a format that no GGUF file can hold
    block_size: int
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_size

    def row_bytes(self, weights: int) -> int:
        """Bytes of a row of `weights` weights; ValueError unless they fill whole blocks."""
        if weights % self.block_size:
            raise ValueError(f"a row of {self.name} is a multiple of {self.block_size} weights, got {weights}")
        return weights // self.block_size * self.block_bytes


class Formats:
    """All formats, in the registry's order: iterate, or look one up by name."""

    def __init__(self) -> None:
        columns = torch.ops.rocforge._formats()
        rows = (
            Format(name, id if id >= 0 else None, size, nbytes) for name, id, size, nbytes in zip(*columns, strict=True)
        )
        self._by_name = {row.name: row for row in rows}

    def __iter__(self) -> Iterator[Format]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Format:
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(f"unknown format {name!r}: the formats are {', '.join(self._by_name)}") from None

    def __repr__(self) -> str:
        return f"formats({', '.join(self._by_name)})"


formats = Formats()
