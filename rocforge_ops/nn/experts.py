"""Mixtures of experts on stacked packed weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rocforge_ops.nn.joined import joined
from rocforge_ops.nn.packed import PackedLayer


class GroupedLinear(PackedLayer):
    """One linear layer per expert, each for its own run of the input's rows, in one launch.

    Args:
        weight: a stacked tensor of a GGUF file, or packed bytes, uint8 [experts, out_features, row_bytes].
        format: of the bytes; a tensor of a file knows its own.
        bias: [experts, out_features].
        scale: float32, one number or [experts], by which the decoded weights are multiplied.
    """

    dims = 3

    def forward(self, input: Tensor, offsets: Tensor, experts: Tensor) -> Tensor:
        """[rows, out_features] of input's dtype.

        Args:
            input: [rows, in_features], the rows of expert 0 first, then those of expert 1...
            offsets: int32 [experts + 1], where each expert's rows begin, and their number.
            experts: int64 [rows], each row's expert.
        """
        output = torch.ops.rocforge.grouped_linear(input, self.packed, self.format, offsets)
        if self.scale is not None:
            scale = self.scale[experts, None] if self.scale.dim() else self.scale
            output = (output.float() * scale).to(output.dtype)
        return output if self.bias is None else output + self.bias[experts]

    def extra_repr(self) -> str:
        return f"experts={self.packed.shape[0]}, {super().extra_repr()}"


class QuantizedExperts(nn.Module):
    """What transformers' modules named `experts` do: each token through its chosen gated layers, then the weighted sum.

    Nothing waits for the host, so the whole can be captured in a graph.

    Args:
        gate_up: one layer whose rows are gate's, then up's; or two, gate and up.
        down: back to the tokens' width.
        gate: of (gate, up), such as `Gate("silu")`.
    """

    def __init__(self, gate_up: Sequence[GroupedLinear], down: GroupedLinear, gate: nn.Module) -> None:
        super().__init__()
        if len(gate_up) not in (1, 2):
            raise ValueError(f"gate and up are one layer or two, got {len(gate_up)}")
        self.gate_up = nn.ModuleList(gate_up)
        self.down = down
        self.gate = gate

    def join_gate_up(self) -> None:
        """Copies gate's and up's rows into one buffer for one launch, where they have one format."""
        self.gate_up = nn.ModuleList(joined([part for part in self.gate_up if isinstance(part, GroupedLinear)]))

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """[tokens, width].

        Args:
            hidden_states: [tokens, width].
            top_k_index: int64 [tokens, k], the experts of each token.
            top_k_weights: [tokens, k], of any floating dtype.
        """
        tokens, k = top_k_index.shape
        experts, order = top_k_index.flatten().sort(stable=True)
        numbers = torch.arange(self.down.packed.shape[0] + 1, device=experts.device)
        offsets = torch.searchsorted(experts, numbers, out_int32=True)
        rows = hidden_states[order // k]
        parts = [part(rows, offsets, experts) for part in self.gate_up]
        gate, up = parts if len(parts) == 2 else parts[0].chunk(2, -1)
        output = self.down(self.gate(gate, up), offsets, experts)
        weighted = output * top_k_weights.flatten()[order, None]
        by_token = torch.empty_like(weighted).index_copy(0, order, weighted)
        return by_token.unflatten(0, (tokens, k)).sum(1).to(hidden_states.dtype)
