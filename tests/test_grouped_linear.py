from __future__ import annotations

import linear_cases as cases
import pytest
import torch
from blocks import DTYPES, finite_rows

import rocforge_ops as rf

OPS = torch.ops.rocforge
EXPERTS, OUT = 5, 37
# Rows of each expert, then rows of none. Some have no row, some more than the kernels of few rows take.
COUNTS = [(3, 0, 1, 33, 2, 0), (0, 0, 0, 0, 1, 4)]
if cases.KERNELS:
    COUNTS = [(3, 0, 1, 17, 2, 2)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def offsets_of(counts: tuple[int, ...], device: str = "cpu") -> torch.Tensor:
    return torch.tensor([0, *counts[:-1]], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def check(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, counts: tuple[int, ...]) -> None:
    """Rows of each expert are left @ right [experts, ...], rows of none are 0."""
    assert out.shape == (len(left), right.shape[-1]) and out.dtype == left.dtype
    parts, lefts = out.split(counts), left.split(counts)
    for e in range(len(counts) - 1):
        if counts[e]:
            cases.check(parts[e], lefts[e], right[e])
    assert not parts[-1].count_nonzero()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_expert_has_its_rows(format, dtype, device):
    packed = cases.weights(format, EXPERTS, OUT)
    right, on_device = cases.decoded(packed, format), packed.to(device)
    for counts in COUNTS:
        offsets = offsets_of(counts, device)
        x, grad = torch.randn(sum(counts), right.shape[1]).to(dtype), torch.randn(sum(counts), OUT).to(dtype)
        check(rf.grouped_linear(x.to(device), on_device, format, offsets), x, right, counts)
        gradient = OPS.grouped_linear_input_gradient(grad.to(device), on_device, format, offsets)
        check(gradient, grad, right.mT, counts)


def test_is_linear_for_one_expert(device):
    packed, x = cases.weights("Q4_K", 1, OUT).to(device), torch.randn(9, 768, device=device)
    out = rf.grouped_linear(x, packed, "Q4_K", offsets_of((9, 0), device))
    torch.testing.assert_close(out, rf.linear(x, packed[0], "Q4_K"))


def test_any_strides(device):
    counts = COUNTS[0]
    packed = cases.weights("Q5_K", OUT, EXPERTS)
    right, packed = cases.decoded(packed.transpose(0, 1), "Q5_K"), packed.to(device).transpose(0, 1)
    x = torch.randn(768, sum(counts), device=device).T
    offsets = offsets_of(counts, device).repeat_interleave(2)[::2]
    check(rf.grouped_linear(x, packed, "Q5_K", offsets), x, right, counts)


def test_empty(device):
    packed = finite_rows("Q8_0", 2, 4).to(device)
    none = torch.zeros(3, dtype=torch.int32, device=device)
    assert rf.grouped_linear(torch.randn(0, 96, device=device), packed, "Q8_0", none).shape == (0, 4)
    assert rf.grouped_linear(torch.randn(3, 96, device=device), packed[:, :0], "Q8_0", none).shape == (3, 0)
    x = torch.randn(3, 96, device=device)
    assert rf.grouped_linear(x, packed, "Q8_0", none).equal(torch.zeros(3, 4, device=device))
    assert rf.grouped_linear(x, packed[:0], "Q8_0", none[:1]).equal(torch.zeros(3, 4, device=device))
    all_of_one = torch.tensor([0, 0, 3], dtype=torch.int32, device=device)
    nothing = rf.grouped_linear(x[:, :0], packed[..., :0], "Q8_0", all_of_one)
    assert nothing.equal(torch.zeros(3, 4, device=device))


def test_gradcheck(reference_device):
    packed, offsets = finite_rows("Q4_0", 3, 5), torch.tensor([0, 2, 2, 3], dtype=torch.int32)
    x = torch.randn(4, 96, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rf.grouped_linear(x, packed, "Q4_0", offsets), x)
    assert torch.autograd.gradgradcheck(lambda x: rf.grouped_linear(x, packed, "Q4_0", offsets), x)


def test_opcheck(device):
    packed, offsets = finite_rows("Q5_1", 2, 5).to(device), torch.tensor([0, 1, 3], dtype=torch.int32, device=device)
    x, grad = torch.randn(4, 96, device=device), torch.randn(4, 5, device=device)
    torch.library.opcheck(OPS.grouped_linear.default, (x.requires_grad_(), packed, "Q5_1", offsets))
    torch.library.opcheck(OPS.grouped_linear_input_gradient.default, (grad.requires_grad_(), packed, "Q5_1", offsets))


def test_compiles_whole_graph(device):
    packed, counts = cases.weights("Q6_K", EXPERTS, OUT).to(device), COUNTS[0]
    right, offsets = cases.decoded(packed, "Q6_K"), offsets_of(counts, device)

    @torch.compile(fullgraph=True)
    def double(x):
        return 2 * rf.grouped_linear(x, packed, "Q6_K", offsets)

    x = torch.randn(sum(counts), 768, device=device, requires_grad=True)
    out = double(x)
    check(out.detach(), 2 * x.detach(), right, counts)
    out.backward(torch.ones_like(out))
    check(x.grad, torch.full_like(out, 2.0).detach(), right.mT, counts)


def test_autocast(device):
    packed, offsets = (
        cases.weights("Q4_0", 2, OUT).to(device),
        torch.tensor([0, 1, 3], dtype=torch.int32, device=device),
    )
    x = torch.randn(3, 768, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        out = rf.grouped_linear(x, packed, "Q4_0", offsets)
    assert out.equal(rf.grouped_linear(x.bfloat16(), packed, "Q4_0", offsets))


X, PACKED = torch.randn(3, 96), finite_rows("Q8_0", 2, 5)


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("x", "packed", "offsets", "error", "message"),
    [
        (X, PACKED, int32(0, 1, 3).long(), TypeError, "offsets must be int32, got Long"),
        (X, PACKED, int32(0, 3), ValueError, r"\[experts \+ 1\] = \[3\], got \[2\]"),
        (X, PACKED, int32(0, 1, 3)[None], ValueError, r"\[experts \+ 1\] = \[3\], got \[1, 3\]"),
        (X[None], PACKED, int32(0, 1, 3), ValueError, r"must be \[rows, in\], got \[1, 3, 96\]"),
        (X[0], PACKED, int32(0, 1, 3), ValueError, r"must be \[rows, in\], got \[96\]"),
        (X, PACKED[0], int32(0, 1, 3), ValueError, r"must be \[experts, out, row_bytes\], got \[5, 102\]"),
        (X[:, 1:], PACKED, int32(0, 1, 3), ValueError, r"with 96 in, as many as packed has, got \[3, 95\]"),
        (X.long(), PACKED, int32(0, 1, 3), TypeError, "input must be float16.*, got Long"),
    ],
)
def test_wrong_arguments(x, packed, offsets, error, message):
    with pytest.raises(error, match=message):
        rf.grouped_linear(x, packed, "Q8_0", offsets)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (int32(1, 2, 3), "must begin with 0, got 1"),
        (int32(0, 2, 1), "must ascend, got 2 before 1"),
        (int32(0, -1, 3), "must ascend, got 0 before -1"),
        (int32(0, 1, 4), "at most the 3 rows of input, got 4"),
    ],
)
def test_wrong_offsets(offsets, message, reference_device):
    with pytest.raises(ValueError, match=message):
        rf.grouped_linear(X, PACKED, "Q8_0", offsets)
    with pytest.raises(ValueError, match=message):
        OPS.grouped_linear_input_gradient(torch.randn(3, 5), PACKED, "Q8_0", offsets)
