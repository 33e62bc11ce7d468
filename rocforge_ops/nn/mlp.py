"""Gated feed-forward layers on packed weights, gate and up in one launch where their formats agree."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rocforge_ops.nn.experts import QuantizedExperts
from rocforge_ops.nn.gate import Gate
from rocforge_ops.nn.joined import joined, one_format
from rocforge_ops.nn.linear import QuantizedLinear


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)), [..., width] -> [..., width].

    Where gate and up have one format, their rows are copied into one buffer, and one launch computes both.

    Args:
        gate, up: width -> intermediate width.
        down: intermediate width -> width.
        activation: "silu", "gelu" (exact), "gelu_tanh", or a function of one tensor.
    """

    def __init__(
        self,
        gate: QuantizedLinear,
        up: QuantizedLinear,
        down: QuantizedLinear,
        activation: str | Callable[[Tensor], Tensor] = "silu",
    ) -> None:
        super().__init__()
        if gate.shape != up.shape or down.in_features != up.out_features:
            shapes = ", ".join(str(list(layer.shape)) for layer in (gate, up, down))
            raise ValueError(f"gate and up [n, width] and down [width, n] are needed, got {shapes}")
        self.gate_up = nn.ModuleList(joined([gate, up]))
        self.down = down
        self.gate = Gate(activation)

    def forward(self, input: Tensor) -> Tensor:
        parts = [part(input) for part in self.gate_up]
        gate, up = parts if len(parts) == 2 else parts[0].chunk(2, -1)
        return self.down(self.gate(gate, up))


def fuse_gates(model: nn.Module) -> nn.Module:
    """Makes gate and up of all gated layers of a packed model one launch each, in place where formats agree.

    transformers' gated layers become `GatedMLP` (their parts then have other names), and experts' gate and up are
    joined. This copies their bytes: on the CPU they are no longer views of the file.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedExperts):
            module.join_gate_up()
            continue
        children = dict(module.named_children())
        if children.keys() == {"gate_proj", "up_proj", "down_proj", "act_fn"}:
            gate, up, down = (children[part] for part in ("gate_proj", "up_proj", "down_proj"))
            if type(gate) is type(up) is type(down) is QuantizedLinear and one_format([gate, up]):
                model.set_submodule(name, GatedMLP(gate, up, down, children["act_fn"]))
    return model
