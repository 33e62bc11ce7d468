from __future__ import annotations

import torch
from torch import Tensor, nn

from rocforge_ops.rope import RopeConfig


class RotaryAngles(nn.Module):
    """Cosines and sines of a model's rotary embedding, float32, one for each rotated pair.

    They stay float32 whatever the module is cast to: half precision holds no positions.
    """

    def __init__(self, config: RopeConfig, head_dim: int) -> None:
        super().__init__()
        self.config = config
        self.amplitude = config.amplitude()
        # Plain attributes, which casts of the module leave alone.
        self._frequencies = config.frequencies(head_dim).float()
        self._long = config.frequencies(head_dim, long=True).float() if config.scaling == "longrope" else None
        self._tables: list[tuple[Tensor, Tensor]] = []

    def forward(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos, sin [..., R/2] for positions [...] of any integer type.

        longrope takes its long factors for all positions as soon as one of them reaches the original context.
        """
        frequencies = self._on(position_ids.device)
        if self._long is not None and self.config.original_context is not None:
            reached = (position_ids >= self.config.original_context).any()
            frequencies = torch.where(reached, self._long, frequencies)
        angles = position_ids.unsqueeze(-1).float() * frequencies
        return angles.cos() * self.amplitude, angles.sin() * self.amplitude

    def table(self, length: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """cos, sin [at least `length`, R/2] of the positions 0, 1, ...; None where they depend on the longest text.

        All are kept: a captured graph reads the table that an earlier call made, also after one for a longer cache.
        """
        if self._long is not None:
            return None
        for table in self._tables:
            if len(table[0]) >= length and table[0].device == device:
                return table
        self._tables.append(self(torch.arange(length, device=device)))
        return self._tables[-1]

    def _on(self, device: torch.device) -> Tensor:
        if self._frequencies.device != device:
            self._frequencies = self._frequencies.to(device)
            self._long = None if self._long is None else self._long.to(device)
        return self._frequencies

    def extra_repr(self) -> str:
        return f"{self.config}"
