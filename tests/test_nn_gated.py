"""Gated layers and experts on packed weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from blocks import finite_rows
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import rocforge_ops as rf
from rocforge_ops.nn import ClampedSwiGLU, Gate, GroupedLinear, QuantizedExperts, fuse_gates


def close(found: Tensor, expected: Tensor) -> bool:
    """float32 against float64, where sums of a few hundred products are rounded in between."""
    return bool((found.cpu() - expected.cpu()).abs().max() <= 1e-5 * expected.abs().max())


def scaled_rows(format: str, *shape: int) -> Tensor:
    """Rows whose weights are far from overflow when they are multiplied twice: F32 values of about 0.1."""
    values = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(len(shape)))
    return (values * 0.1).view(torch.uint8) if format == "F32" else finite_rows(format, *shape)


class Launches(TorchDispatchMode):
    """Counts the calls of linear and grouped_linear."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.rocforge.linear.default, torch.ops.rocforge.grouped_linear.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "activation"),
    [("silu", F.silu), ("gelu", F.gelu), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")), (F.relu, F.relu)],
)
@pytest.mark.parametrize("formats", [("Q4_0", "Q4_0"), ("Q4_0", "Q8_0")])
def test_gated_mlp(formats: tuple[str, str], name, activation) -> None:
    gate, up = (rf.nn.QuantizedLinear(finite_rows(format, 96), format) for format in formats)
    gate.bias, up.bias = nn.Parameter(torch.randn(96)), nn.Parameter(torch.randn(96))
    down = rf.nn.QuantizedLinear(finite_rows("Q8_0", 96), "Q8_0")
    mlp = rf.nn.GatedMLP(gate, up, down, name)
    x = torch.randn(4, 96) * 0.01
    with Launches() as launches:
        found = mlp(x)
    assert launches.count == (2 if formats[0] == formats[1] else 3)
    assert close(found, down(activation(gate(x)) * up(x)).double())
    assert copy.deepcopy(mlp)(x).equal(found)


def test_gated_mlp_errors() -> None:
    square, wide = (rf.nn.QuantizedLinear(finite_rows("Q4_0", rows), "Q4_0") for rows in (96, 128))
    with pytest.raises(ValueError, match="gate and up"):
        rf.nn.GatedMLP(square, wide, square)
    with pytest.raises(ValueError, match="unknown activation 'tanhshrink': known are silu, gelu, gelu_tanh"):
        rf.nn.GatedMLP(square, square, square, "tanhshrink")


# ---- experts


def expert_layers(formats: tuple[str, ...], biased: bool) -> tuple[list[GroupedLinear], GroupedLinear]:
    rows = 96 * 2 // len(formats)
    layers = [
        GroupedLinear(scaled_rows(format, 4, rows), format, torch.randn(4, rows) if biased else None)
        for format in formats
    ]
    scale = torch.tensor([1.0, 0.5, 2.0, 1.0])
    return layers, GroupedLinear(scaled_rows("F32", 4, 96), "F32", torch.randn(4, 96) if biased else None, scale)


def one_by_one(layers: list[GroupedLinear], down: GroupedLinear, gate, x: Tensor, index: Tensor, weights: Tensor):
    """float64, a token and an expert at a time."""
    matrices = [layer.dequantize().double() for layer in layers]
    out = torch.zeros(*x.shape, dtype=torch.float64)
    for token, expert, weight in ((t, e, w) for t in range(len(x)) for e, w in zip(index[t], weights[t], strict=True)):
        parts = [
            matrix[expert] @ x[token].double() + (0 if layer.bias is None else layer.bias[expert].double())
            for matrix, layer in zip(matrices, layers, strict=True)
        ]
        hidden = gate(*torch.cat(parts).chunk(2))
        result = down.dequantize()[expert].double() @ hidden + (0 if down.bias is None else down.bias[expert].double())
        out[token] += weight.double() * result
    return out


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("formats", [("F32",), ("F32", "F32"), ("F32", "Q8_0")])
@pytest.mark.parametrize("gate", [Gate("silu"), ClampedSwiGLU(1.5, 2.0)], ids=["silu", "clamped"])
def test_experts(formats: tuple[str, ...], biased: bool, gate: nn.Module) -> None:
    layers, down = expert_layers(formats, biased)
    experts = QuantizedExperts(layers, down, gate)
    x, weights = torch.randn(5, 96) * 0.1, torch.rand(5, 2)
    index = torch.tensor([[3, 1], [1, 3], [3, 0], [0, 3], [1, 0]])  # nobody wants expert 2
    expected = one_by_one(layers, down, gate, x, index, weights)
    with Launches() as launches:
        found = experts(x, index, weights)
    assert launches.count == len(formats) + 1
    assert close(found, expected)
    experts.join_gate_up()
    with Launches() as launches:
        assert close(experts(x, index, weights), expected)
    assert launches.count == (3 if len(set(formats)) == 2 else 2)


def test_experts_gradients(reference_device: str) -> None:
    layers, down = expert_layers(("F32", "F32"), False)
    experts = QuantizedExperts(layers, down, Gate("silu"))
    x = torch.randn(3, 96, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[3, 1], [1, 3], [0, 1]])
    down.scale = None  # it is applied in float32
    assert torch.autograd.gradcheck(lambda x, w: experts(x, index, w), (x, weights), fast_mode=True)


def test_experts_without_tokens_and_in_bfloat16(device: str) -> None:
    layers, down = expert_layers(("F32",), True)
    experts = QuantizedExperts(layers, down, Gate("silu")).to(device, torch.bfloat16)
    for tokens in (0, 6):
        x = torch.randn(tokens, 96, dtype=torch.bfloat16, device=device)
        index = torch.arange(tokens * 2, device=device).view(tokens, 2) % 4
        out = experts(x, index, torch.rand(tokens, 2, device=device))
        assert out.shape == (tokens, 96) and out.dtype == torch.bfloat16 and out.isfinite().all()


def test_experts_compile_whole() -> None:
    layers, down = expert_layers(("F32", "Q8_0"), True)
    model = QuantizedExperts(layers, down, Gate("silu"))
    index = torch.tensor([[3, 1], [1, 3]])
    x, weights = torch.randn(2, 96), torch.rand(2, 2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, index, weights), model(x, index, weights))


def test_fuse_gates_leaves_other_modules() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    assert fuse_gates(model) is model
    assert [type(m).__name__ for m in model] == ["ReLU", "Linear"]
