"""The names that other packages share, against the operators' own results and plain multiplication."""

from __future__ import annotations

import blocks
import pytest
import torch

import rocforge_ops as rf
from rocforge_ops import ggml_kernel

PACKED = [f for f in rf.formats if f.id is not None and f.block_size > 1]
Q4_K, Q8_0 = rf.formats["Q4_K"].id, rf.formats["Q8_0"].id


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def bounded(format: str, *shape: int) -> torch.Tensor:
    """Random rows [*shape, row_bytes] of two blocks with small scales: sums of products stay finite in float16."""
    return torch.randint(0, 32, (*shape, 2 * rf.formats[format].block_bytes), dtype=torch.uint8)


def test_types_are_all_block_formats_of_ggml():
    assert {f.id for f in PACKED} == ggml_kernel.GEMV_TYPES
    assert ggml_kernel.MAX_GEMV_ROWS == 8


@pytest.mark.parametrize("format", PACKED, ids=lambda f: f.name)
def test_every_format(format, device):
    packed, cols = blocks.finite_rows(format.name, 5).to(device), 3 * format.block_size
    x = torch.randn(3, cols, device=device)
    for dtype in blocks.DTYPES:
        values = rf.dequantize(packed, format.name, dtype)
        assert blocks.same(ggml_kernel.dequantize(packed, format.id, 5, cols, dtype), values)
        assert blocks.same(ggml_kernel.ggml_dequantize(packed, format.id, 5, cols, dtype), values)
    assert ggml_kernel.ggml_dequantize(packed, format.id, 5, cols).dtype == torch.float16
    indices = torch.tensor([[4, 0], [2, 2]], device=device)
    rows = ggml_kernel.get_rows(packed, indices, format.id, cols, torch.float32)
    assert blocks.same(rows, rf.embedding(packed, format.name, indices, torch.float32))
    expected = rf.linear(x, packed, format.name)
    for multiply in (ggml_kernel.mul_mat_vec, ggml_kernel.ggml_mul_mat_vec_a8, ggml_kernel.ggml_mul_mat_a8):
        out = multiply(packed, x, format.id, 5)
        assert out.shape == (3, 5) and blocks.same(out, expected)


def through_experts(packed, x, ids, format):
    """[rows, n, out] in float64, one pair at a time."""
    weights = rf.dequantize(packed.cpu(), format).double()
    rows = [[weights[e] @ row if 0 <= e < len(weights) else weights.new_zeros(weights.shape[1]) for e in picked]
            for row, picked in zip(x.cpu().double(), ids.tolist(), strict=True)]  # fmt: skip
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("dtype", blocks.DTYPES, ids=str)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_experts(dtype, index_dtype, device):
    packed, x = bounded("Q8_0", 5, 7).to(device), torch.randn(6, 64, device=device, dtype=dtype)
    ids = torch.tensor([[4, 0], [1, 1], [-1, 3], [0, 4], [5, 0], [4, 4]], dtype=index_dtype, device=device)
    out = ggml_kernel.mul_mat_id(packed, x, ids, Q8_0, 7)
    assert out.dtype == dtype and out.shape == (6, 2, 7)
    exact = through_experts(packed, x, ids, "Q8_0")
    torch.testing.assert_close(out.double().cpu(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    assert out[2, 0].eq(0).all() and out[4, 0].eq(0).all()
    vec = ggml_kernel.ggml_moe_a8_vec(x, packed, ids, 2, Q8_0, 7, 6)
    assert vec.equal(out.reshape(12, 7))
    assert ggml_kernel.mul_mat_id(packed, x[:0], ids[:0], Q8_0, 7).shape == (0, 2, 7)


def aligned(topk_ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What vLLM's moe_align_block_size makes of them: pairs sorted by expert, each expert's padded to whole blocks."""
    block = ggml_kernel.ggml_moe_get_block_size(Q8_0)
    flat, ids, owners = topk_ids.flatten().tolist(), [], []
    for expert in range(experts):
        mine = [pair for pair, e in enumerate(flat) if e == expert]
        mine += [len(flat)] * (-len(mine) % block)
        ids += mine
        owners += [expert] * (len(mine) // block)
    used = len(ids)
    capacity = len(flat) + experts * (block - 1)  # allocated for the worst case; the rest is never written
    ids += [7] * (capacity - used)
    owners += [0] * (-(-capacity // block) - len(owners))
    return tuple(torch.tensor(values, dtype=torch.int32) for values in (ids, owners, [used]))


def test_experts_sorted_beforehand(device):
    packed, x = bounded("Q8_0", 3, 7).to(device), torch.randn(20, 64, device=device)
    ids = torch.stack([torch.randperm(3)[:2] for _ in range(20)]).int()
    sorted_ids, owners, used = (t.to(device) for t in aligned(ids, 3))
    out = ggml_kernel.ggml_moe_a8(x, packed, sorted_ids, owners, used, Q8_0, 7, 2, 20)
    assert out.equal(ggml_kernel.ggml_moe_a8_vec(x, packed, ids.to(device), 2, Q8_0, 7, 20))
    with pytest.raises(ValueError, match="expert_ids must hold one expert for each 16"):
        ggml_kernel.ggml_moe_a8(x, packed, sorted_ids, owners[1:], used, Q8_0, 7, 2, 20)


def test_activations_are_not_rounded_to_8_bits(device):
    packed = bounded("Q4_K", 7).to(device)
    x = torch.ones(1, 512, device=device)
    x[0, 0] = 1000.0  # an 8-bit activation of a block with this one could not tell 1 from 0
    exact = x.double() @ rf.dequantize(packed, "Q4_K").double().T
    out = ggml_kernel.ggml_mul_mat_vec_a8(packed, x, Q4_K, 7)
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: ggml_kernel.dequantize(w, 4, 5, 256, torch.float32), r"unknown ggml type 4: known are 0 \(F32\)"),
        (lambda w: ggml_kernel.dequantize(w, Q4_K, 4, 256, torch.float32), r"bytes \[4, 144\], got \[5, 144\]"),
        (lambda w: ggml_kernel.dequantize(w, Q4_K, 5, 512, torch.float32), r"bytes \[5, 288\], got \[5, 144\]"),
        (lambda w: ggml_kernel.dequantize(w, Q4_K, 5, 100, torch.float32), "multiple of 256 weights, got 100"),
        (lambda w: ggml_kernel.mul_mat_vec(w, torch.ones(1, 256), Q4_K, 6), r"bytes \[6, 144\], got \[5, 144\]"),
        (lambda w: ggml_kernel.mul_mat_vec(w, torch.ones(1, 512), Q4_K, 5), r"bytes \[5, 288\], got \[5, 144\]"),
    ],
)
def test_sizes_that_contradict_the_bytes(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(5, 144, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("rows", "ids"), [([3, 256], [3]), ([3, 256], [2, 2]), ([3, 256], [4, 2]), ([1, 3, 256], [3, 2])]
)
def test_each_row_needs_its_experts(rows, ids):
    weights = torch.zeros(2, 5, 144, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"x must be \[rows, in\] and ids \[rows, n\]"):
        ggml_kernel.mul_mat_id(weights, torch.ones(rows), torch.zeros(ids, dtype=torch.int64), Q4_K, 5)


def test_no_experts():
    weights, ids = torch.zeros(0, 5, 144, dtype=torch.uint8), torch.full((3, 2), -1)
    assert not ggml_kernel.mul_mat_id(weights, torch.ones(3, 256), ids, Q4_K, 5).any()


def test_experts_are_whole_numbers():
    weights = torch.zeros(2, 5, 144, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"ids must be int32 or int64, got torch\.float32"):
        ggml_kernel.mul_mat_id(weights, torch.zeros(3, 256), torch.zeros(3, 2), Q4_K, 5)
