from __future__ import annotations

import pytest
import torch

import rocforge_ops as rf


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("n_rep", [1, 2, 7, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_is_repeat_interleave(heads, n_rep, dtype, device):
    x = torch.randn(2, heads, 33, 17, device=device).mul(100).to(dtype)
    out = torch.ops.rocforge.repeat_kv(x, n_rep)
    assert out.is_contiguous()
    assert out.equal(x.repeat_interleave(n_rep, dim=1))


def test_result_is_a_copy(device):
    x = torch.zeros(1, 1, 2, 2, device=device)
    rf.repeat_kv(x, 1).fill_(1)
    assert x.sum() == 0


def test_strided(device):
    x = torch.randn(3, 40, 4, 16, device=device).transpose(1, 2)[:, ::2, 5:]
    assert rf.repeat_kv(x, 3).equal(x.repeat_interleave(3, dim=1))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)])
def test_empty(shape, device):
    batch, heads, length, head_dim = shape
    assert rf.repeat_kv(torch.empty(shape, device=device), 5).shape == (batch, heads * 5, length, head_dim)


def test_gradient_sums_over_copies(device):
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: torch.ops.rocforge.repeat_kv(x, 3), x)
    rf.repeat_kv(x, 3).sum().backward()
    assert x.grad.equal(torch.full_like(x, 3))


@pytest.mark.parametrize(
    ("shape", "n_rep", "message"),
    [((2, 3, 4), 2, "must be .batch, kv_heads, length, head_dim"), ((1, 2, 3, 4), 0, "at least 1, got 0")],
)
def test_wrong_arguments(shape, n_rep, message):
    with pytest.raises(ValueError, match=message):
        rf.repeat_kv(torch.zeros(shape), n_rep)


def test_opcheck(device):
    x = torch.randn(2, 2, 3, 4, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.rocforge.repeat_kv.default, (x, 3))
    torch.library.opcheck(torch.ops.rocforge.repeat_kv.default, (x.detach().transpose(1, 2), 1))


def test_compiles_whole_graph(device):
    x = torch.randn(2, 2, 3, 4, device=device)
    assert torch.compile(rf.repeat_kv, fullgraph=True)(x, 3).equal(rf.repeat_kv(x, 3))
