"""What only the GPU kernels of mqa_attention promise: tiles, splits of the keys, lengths that they do not trust."""

from __future__ import annotations

import itertools

import attention_cases as cases
import pytest
import torch
from conftest import KERNELS

import rocforge_ops as rf

HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(11)


HEAD_DIMS = [32, 40, 64, 72, 80, 96, 112, 128, 192, 256]


@pytest.mark.parametrize("head_dim, dtype", cases.sampled(list(itertools.product(HEAD_DIMS, HALF)), 3), ids=str)
def test_head_sizes(head_dim, dtype, kernel_device):
    """More rows than a tile, and a number of keys that is no multiple of one; decode beside it."""
    for rows, options in ((150, {"causal": "bottom_right"}), (2, {"causal": "bottom_right"}), (37, {"softcap": 2.0})):
        cases.check(*cases.tensors(1, 4, 2, rows, 203, head_dim, device=kernel_device, dtype=dtype), **options)


@pytest.mark.parametrize("value_dim", [8, 64, 128, 200, 256])
@pytest.mark.parametrize("rows", [1, 70])
def test_values_of_another_size(rows, value_dim, kernel_device):
    query, key, value = cases.tensors(2, 4, 1, rows, 150, 96, value_dim, device=kernel_device, dtype=torch.bfloat16)
    cases.check(query, key, value, causal="bottom_right")


@pytest.mark.parametrize("keys", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1023])
@pytest.mark.parametrize("causal", ["none", "top_left", "bottom_right"])
def test_edges_of_tiles(keys, causal, kernel_device):
    for rows in (1, 16, 17, 33):
        query, key, value = cases.tensors(1, 4, 1, rows, keys, 64, device=kernel_device, dtype=torch.float16)
        cases.check(query, key, value, causal=causal)


@pytest.mark.parametrize("group", [1, 2, 3, 4, 7, 8, 16, 32, 48, 71])
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_decode_of_every_group(group, rows, kernel_device):
    query, key, value = cases.tensors(1, group, 1, rows, 700, 64, device=kernel_device, dtype=torch.bfloat16)
    cases.check(query, key, value, causal="bottom_right")


FEATURES_OF_SPLITS = [(name,) for name in cases.FEATURES if name != "cu_seqlens"] + [("sinks", "kv_lengths")]


@pytest.mark.parametrize("rows, names", cases.sampled(list(itertools.product([1, 9], FEATURES_OF_SPLITS)), 3), ids=str)
def test_split_keys(rows, names, kernel_device):
    """Long enough for several splits on any device; some of them may have no keys, or only hidden ones."""
    query, key, value = cases.tensors(2, 4, 2, rows, 2100, 64, device=kernel_device, dtype=torch.bfloat16)
    cases.check(query, key, value, **cases.options_of(names, query, key))


def test_split_keys_all_hidden(kernel_device):
    query, key, value = cases.tensors(2, 4, 1, 1, 2100, 64, device=kernel_device, dtype=torch.float16)
    lengths = torch.tensor([0, 3], dtype=torch.int32, device=kernel_device)
    out, lse = rf.mqa_attention(query, key, value, kv_lengths=lengths, return_lse=True)
    assert out[0].eq(0).all() and lse[0].eq(-torch.inf).all()
    cases.check(query, key, value, kv_lengths=lengths)
    hidden = torch.zeros(2100, dtype=torch.bool, device=kernel_device)
    out, lse = rf.mqa_attention(query, key, value, attn_mask=hidden, return_lse=True)
    assert out.eq(0).all() and lse.eq(-torch.inf).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_unaligned_views(dtype, kernel_device):
    """Rows that begin at any element are read one by one."""

    def view(heads: int, length: int, width: int, skip: int) -> torch.Tensor:
        whole = torch.randn(2, length + 1, heads, width + 5, device=kernel_device).to(dtype)
        return whole.transpose(1, 2)[:, :, 1:, skip : skip + width]

    for rows in (1, 90):
        for skip in (0, 1, 3):
            query, key, value = view(6, rows, 64, skip), view(2, 210, 64, 3 - skip), view(2, 210, 40, skip)
            cases.check(query, key, value, causal="bottom_right")


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_large_logits(dtype, kernel_device):
    """Products of +-1 are exact in every dtype: logits up to +-10^4."""
    query, key, value = cases.tensors(1, 4, 1, 40, 130, 64, device=kernel_device, dtype=dtype)
    query, key = query.sign(), key.sign()
    cases.check(query, key, value, scale=160.0)
    cases.check(query, key, value, scale=160.0, softcap=9000.0)


def test_weights_grow_tile_after_tile(kernel_device):
    """The accumulators are rescaled late: every tile of keys outweighs the ones before it, by little or by much."""
    for step in (0.01, 0.2, 3.0):
        query, key, value = cases.tensors(1, 2, 1, 40, 500, 64, device=kernel_device, dtype=torch.float16)
        query[:], key[:] = 0.125, (step * torch.arange(500).view(-1, 1)).to(key)
        cases.check(query, key, value, scale=1.0)


def test_keys_past_their_length_are_not_used(kernel_device):
    query, key, value = cases.tensors(2, 4, 2, 9, 150, 64, device=kernel_device, dtype=torch.bfloat16)
    lengths = torch.tensor([70, 0], dtype=torch.int32, device=kernel_device)
    expected = rf.mqa_attention(query, key, value, kv_lengths=lengths)
    key[0, :, 70:], value[0, :, 70:], key[1], value[1] = torch.nan, torch.nan, torch.nan, torch.nan
    assert rf.mqa_attention(query, key, value, kv_lengths=lengths).equal(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lengths_outside_of_the_tensors_are_clamped(dtype, kernel_device):
    """They are on the device, where no one checks them: they must not make a kernel read past the end."""
    query, key, value = cases.tensors(2, 4, 2, 9, 70, 64, device=kernel_device, dtype=dtype)

    def integers(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=kernel_device)

    lengths = rf.mqa_attention(query, key, value, kv_lengths=integers(2**31 - 1, -5))
    assert lengths.equal(rf.mqa_attention(query, key, value, kv_lengths=integers(70, 0)))
    one = query[:1], key[:1], value[:1]
    out_of_range = [(-7, 4, 4, 2**31 - 1), (5, 0, 0, 0), (2**31 - 1, 80, 75, 75)]
    overlapping = [(-7, 4, 3, 2**31 - 1), (0, 2**31 - 1, -1, 9)]
    # Rows of two sequences are written by both: no check of the order may see that.
    for cuts in out_of_range if KERNELS and KERNELS.endswith("_race") else out_of_range + overlapping:
        out = rf.mqa_attention(*one, cu_seqlens_q=integers(*cuts), cu_seqlens_k=integers(*cuts))
        assert out.shape == one[0].shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_sequences(dtype, kernel_device):
    """Sequences shorter than a tile, longer than several, and empty ones."""
    lengths = torch.tensor([0, 1, 130, 0, 7, 64, 0, 200, 33])
    cuts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(kernel_device, torch.int32)
    total = int(lengths.sum())
    query, key, value = cases.tensors(1, 6, 2, total, total, 64, device=kernel_device, dtype=dtype)
    for options in cases.sampled([{"causal": "bottom_right", "window": 9}, {"causal": "bottom_right"}, {}], 2):
        cases.check(query, key, value, cu_seqlens_q=cuts, cu_seqlens_k=cuts, **options)


@pytest.mark.parametrize("cuts, orphans", [((3, 40, 60), 3), ((30, 10, 40), 70), ((70, 70), 70)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_left_out_by_their_sequences(dtype, cuts, orphans, kernel_device):
    """Rows before the first sequence and after the last one see no key; where the cuts decrease, none does."""
    query, key, value = (
        t.requires_grad_() for t in cases.tensors(1, 2, 1, 70, 70, 64, device=kernel_device, dtype=dtype)
    )
    ends = torch.tensor(cuts, dtype=torch.int32, device=kernel_device)
    out, lse = rf.mqa_attention(query, key, value, cu_seqlens_q=ends, cu_seqlens_k=ends, return_lse=True)
    out.float().square().sum().backward()
    left_out = torch.ones(70, dtype=torch.bool, device=kernel_device)
    if orphans < 70:
        left_out[cuts[0] : cuts[-1]] = False
    elif dtype == torch.float32:
        return
    assert out[:, :, left_out].eq(0).all() and lse[:, :, left_out].eq(-torch.inf).all()
    assert query.grad[:, :, left_out].eq(0).all() and lse[:, :, ~left_out].isfinite().all()
    assert key.grad.isfinite().all() and value.grad[:, :, left_out].eq(0).all()


def test_head_sizes_without_a_kernel(kernel_device):
    query, key, value = cases.tensors(1, 1, 1, 1, 1, 20000, device=kernel_device, dtype=torch.float32)
    with pytest.raises(RuntimeError, match=r"head sizes 20000 and 20000 .* are too large: together, at most"):
        rf.mqa_attention(query, key, value)


@pytest.mark.gpu
def test_decode_in_a_graph(kernel_device):
    """Captured once, replayed with other lengths."""
    if kernel_device != "cuda":
        pytest.skip("graphs are a GPU's")
    query, key, value = cases.tensors(2, 8, 1, 1, 5000, 128, device="cuda", dtype=torch.bfloat16)
    lengths = torch.tensor([5000, 17], dtype=torch.int32, device="cuda")
    rf.mqa_attention(query, key, value, causal="bottom_right", kv_lengths=lengths)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = rf.mqa_attention(query, key, value, causal="bottom_right", kv_lengths=lengths)
    for values in ([5000, 17], [1, 4999], [0, 2500]):
        lengths.copy_(torch.tensor(values, dtype=torch.int32))
        graph.replay()
        assert out.equal(rf.mqa_attention(query, key, value, causal="bottom_right", kv_lengths=lengths))
