"""How a gate and a value become one: the activations of gated feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class Gate(nn.Module):
    """activation(gate) * up.

    Args:
        activation: "silu", "gelu" (exact), "gelu_tanh", or a function of one tensor.
    """

    def __init__(self, activation: str | Callable[[Tensor], Tensor] = "silu") -> None:
        super().__init__()
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                raise ValueError(f"unknown activation {activation!r}: known are {', '.join(ACTIVATIONS)}")
            self.name, self.activation = activation, ACTIVATIONS[activation]
        else:
            self.name, self.activation = getattr(activation, "__name__", type(activation).__name__), activation

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.activation(gate) * up

    def extra_repr(self) -> str:
        return self.name


class ClampedSwiGLU(nn.Module):
    """(up + 1) * gate * sigmoid(alpha * gate), gate at most `limit` and up within +-`limit`, as gpt-oss has it."""

    def __init__(self, alpha: float = 1.702, limit: float = 7.0) -> None:
        super().__init__()
        self.alpha, self.limit = alpha, limit

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (up + 1) * gate * torch.sigmoid(gate * self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, limit={self.limit}"
