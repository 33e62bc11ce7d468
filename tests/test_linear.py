from __future__ import annotations

import pytest
import torch
from blocks import finite_rows

import rocforge_ops as rf


def weights(format: str, packed: torch.Tensor) -> torch.Tensor:
    return rf.dequantize(packed.cpu(), format).double()


@pytest.mark.parametrize("format", ["Q4_K", "F16"])
def test_is_a_matmul_on_decoded_weights(format, reference_device):
    packed, bias = finite_rows(format, 5), torch.randn(5)
    x = torch.randn(3, 2, rf.dequantize(packed, format).shape[-1])
    expected = x.double() @ weights(format, packed).T + bias
    torch.testing.assert_close(
        rf.linear(x, packed, format, bias), expected.float(), rtol=1e-4, atol=1e-4 * expected.std().item()
    )


def test_gradients(reference_device):
    packed = finite_rows("Q4_0", 5)
    x = torch.randn(3, 96, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: rf.linear(x, packed, "Q4_0", b), (x, bias))
    assert torch.autograd.gradgradcheck(lambda x, b: rf.linear(x, packed, "Q4_0", b), (x, bias))
    experts, offsets = finite_rows("Q4_0", 2, 5), torch.tensor([0, 1, 2], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda x: rf.grouped_linear(x, experts, "Q4_0", offsets), x)
    assert torch.autograd.gradgradcheck(lambda x: rf.grouped_linear(x, experts, "Q4_0", offsets), x)


def test_opcheck(reference_device):
    packed, experts = finite_rows("Q5_1", 5), finite_rows("Q5_1", 2, 5)
    x, offsets = torch.randn(3, 96, requires_grad=True), torch.tensor([0, 1, 2], dtype=torch.int32)
    grad = torch.randn(3, 5, requires_grad=True)
    ops = torch.ops.rocforge
    torch.library.opcheck(ops.linear.default, (x, packed, "Q5_1", torch.randn(5, requires_grad=True)))
    torch.library.opcheck(ops.linear.default, (x[0], packed, "Q5_1"))
    torch.library.opcheck(ops.linear_input_gradient.default, (grad, packed, "Q5_1"))
    torch.library.opcheck(ops.grouped_linear.default, (x, experts, "Q5_1", offsets))
    torch.library.opcheck(ops.grouped_linear_input_gradient.default, (grad, experts, "Q5_1", offsets))
