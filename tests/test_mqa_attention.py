from __future__ import annotations

import attention_cases as cases
import pytest
import reference
import torch

import rocforge_ops as rf

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SIZES = [1, 3, 7, 17, 127, 129, 151]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


@pytest.mark.parametrize("lengths", [(45, 83), (83, 45)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("feature", cases.FEATURES)
def test_feature(feature, dtype, lengths, device):
    batch = 1 if feature == "cu_seqlens" else 3
    query, key, value = cases.tensors(batch, 4, 2, *lengths, 24, 40, device=device, dtype=dtype)
    cases.check(query, key, value, **cases.options_of((feature,), query, key))


@pytest.mark.parametrize("pair", cases.pairs(), ids="-".join)
def test_pair_of_features(pair, device):
    batch = 1 if "cu_seqlens" in pair else 2
    for dtype, lengths in ((torch.float32, (45, 83)), (torch.bfloat16, (83, 45))):
        query, key, value = cases.tensors(batch, 6, 2, *lengths, 24, device=device, dtype=dtype)
        cases.check(query, key, value, **cases.options_of(pair, query, key))


def test_everything_at_once(device):
    query, key, value = cases.tensors(3, 6, 2, 70, 131, 72, 24, device=device, dtype=torch.float32)
    names = ("bottom_right", "window", "mask_of_batch", "softcap", "sinks", "alibi_per_row", "kv_lengths", "scale")
    cases.check(query, key, value, **cases.options_of(names, query, key))


@pytest.mark.parametrize("keys", SIZES)
@pytest.mark.parametrize("rows", SIZES)
def test_odd_lengths(rows, keys, device):
    for causal in ("none", "top_left", "bottom_right"):
        cases.check(*cases.tensors(2, 3, 1, rows, keys, 8, device=device, dtype=torch.float32), causal=causal)


@pytest.mark.parametrize("head_dim", [*SIZES, 64, 80, 256, 1023])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_odd_head_sizes(head_dim, dtype, device):
    query, key, value = cases.tensors(1, 4, 2, 33, 71, head_dim, 9, device=device, dtype=dtype)
    cases.check(query, key, value, causal="bottom_right")
    query, key, value = cases.tensors(1, 4, 2, 33, 71, 9, head_dim, device=device, dtype=dtype)
    cases.check(query, key, value, causal="bottom_right")


@pytest.mark.parametrize("heads", [(1, 1), (2, 2), (7, 1), (8, 2), (48, 1), (71, 1)], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_decode_by_group(heads, rows, device):
    query, key, value = cases.tensors(2, *heads, rows, 151, 64, device=device, dtype=torch.bfloat16)
    cases.check(query, key, value, causal="bottom_right")


@pytest.mark.parametrize("feature", [None, "kv_lengths", "window", "sinks", "bool_mask", "mask"])
def test_decode_over_many_keys(feature, device):
    """Keys are shared out between threads and the results merged."""
    query, key, value = cases.tensors(2, 4, 1, 1, 5000, 32, device=device, dtype=torch.float32)
    names = (feature,) if feature else ()
    cases.check(query, key, value, causal="bottom_right", **cases.options_of(names, query, key))


def test_merged_results_do_not_depend_on_threads(reference_device):
    query, key, value = cases.tensors(1, 8, 1, 1, 5000, 64, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(rf.mqa_attention(query, key, value))
    torch.set_num_threads(threads)
    assert results[0].equal(results[1]) and results[0].equal(results[2])


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 4, 1, 1), (1, 1, 45, 1), (1, 1, 1, 83), (45, 83), (83,), (), (1,)])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_mask_is_broadcast(shape, kind, device):
    query, key, value = cases.tensors(2, 4, 2, 45, 83, 16, device=device, dtype=torch.float32)
    mask = torch.rand(shape, device=device)
    cases.check(query, key, value, attn_mask=mask < 0.5 if kind == torch.bool else mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_float32_numbers_beside_other_dtypes(dtype, device):
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, device=device, dtype=dtype)
    wide = query.float()
    cases.check(query, key, value, **cases.options_of(("mask", "sinks", "alibi"), wide, key))


def test_strided_views(device):
    def view(heads: int, length: int, width: int) -> torch.Tensor:
        return torch.randn(3, length, heads + 2, width + 5, device=device).transpose(1, 2)[1:, 1:-1, :, 2 : width + 2]

    query, key, value = view(6, 33, 24), view(2, 70, 24), view(2, 70, 40)
    mask = torch.randn(70, 33, 6, 2, device=device).permute(3, 2, 1, 0)
    cases.check(query, key, value, attn_mask=mask, causal="bottom_right")
    cases.check(query, key[:1].expand(2, -1, -1, -1), value, attn_mask=mask[..., ::3][..., :1])


@pytest.mark.parametrize("options", [{}, {"softcap": 20000.0}, {"causal": "top_left", "window": 5}], ids=str)
def test_large_logits(options, device):
    """Integers that float32 holds: logits up to +-12800 without rounding."""
    query, key, value = cases.tensors(2, 4, 2, 33, 71, 64, device=device, dtype=torch.float32)
    query, key = (200 * query.sign()), key.sign()
    assert (query @ key.repeat_interleave(2, 1).mT).abs().amax() > 5000
    cases.check(query, key, value, scale=1.0, **options)


def test_score_times_scale_may_overflow(device):
    query = torch.full((1, 1, 1, 1), 1e30, device=device)
    key = torch.tensor([3e8, 3e8, -1e8], device=device).view(1, 1, 3, 1)
    value = torch.tensor([1.0, 2.0, 4.0], device=device).view(1, 1, 3, 1)
    assert rf.mqa_attention(query, key, value, scale=100.0).item() == 1.5


def test_additive_mask_of_huge_numbers(device):
    """transformers' masks use the smallest finite number; a row that is hidden that way averages all keys."""
    query, key, value = cases.tensors(1, 2, 1, 5, 9, 16, device=device, dtype=torch.float32)
    mask = torch.full((5, 9), torch.finfo(torch.float32).min, device=device)
    mask[2, 3] = 0
    out = rf.mqa_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(out[:, :, 2], value[:, :, 3].expand(1, 2, 16))
    torch.testing.assert_close(out[:, :, 0], value.mean(2).expand(1, 2, 16))


def test_keys_past_their_length_are_not_read(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 150, 16, device=device, dtype=torch.float32)
    lengths = torch.tensor([70, 0], dtype=torch.int32, device=device)
    expected = rf.mqa_attention(query, key, value, kv_lengths=lengths)
    key[0, :, 70:], value[0, :, 70:], key[1], value[1] = torch.nan, torch.nan, torch.nan, torch.nan
    out = rf.mqa_attention(query, key, value, kv_lengths=lengths)
    assert out.equal(expected) and out[1].eq(0).all() and out[0].isfinite().all()


def test_nan_stays_in_its_row(device):
    query, key, value = cases.tensors(1, 2, 1, 5, 9, 16, device=device, dtype=torch.float32)
    query[0, 1, 3, 2] = torch.nan
    out, lse = rf.mqa_attention(query, key, value, return_lse=True)
    bad = torch.zeros(1, 2, 5, dtype=torch.bool, device=device)
    bad[0, 1, 3] = True
    assert out.isnan().all(-1).equal(bad) and out.isnan().any(-1).equal(bad) and lse.isnan().equal(bad)


def test_sink_of_a_row_without_keys(device):
    query, key, value = cases.tensors(1, 2, 1, 4, 2, 8, device=device, dtype=torch.float32)
    sinks = torch.tensor([0.0, 50.0], device=device)
    out, lse = rf.mqa_attention(query, key, value, causal="bottom_right", sinks=sinks, return_lse=True)
    assert out[:, :, :2].eq(0).all() and lse[:, :, :2].eq(-torch.inf).all()
    torch.testing.assert_close(lse[0, 1, 2:], torch.full((2,), 50.0, device=device))


def test_hidden_tiles_cost_nothing(reference_device):
    """Keys outside of causal rule, window or length are skipped: poisoned ones change nothing."""
    query, key, value = cases.tensors(1, 2, 1, 1, 640, 16, dtype=torch.float32)
    expected = rf.mqa_attention(query, key, value, causal="bottom_right", window=64)
    key[:, :, :512] = torch.nan
    value[:, :, :512] = torch.nan
    assert rf.mqa_attention(query, key, value, causal="bottom_right", window=64).equal(expected)
    mask = torch.zeros(640, dtype=torch.bool)
    mask[576:] = True
    assert rf.mqa_attention(query, key, value, attn_mask=mask).equal(expected)


@pytest.mark.parametrize("shape", [(0, 4, 2, 5, 7), (2, 0, 2, 5, 7), (2, 4, 2, 0, 7), (2, 4, 2, 5, 0)], ids=str)
def test_empty(shape, device):
    query, key, value = cases.tensors(*shape, 8, 6, device=device, dtype=torch.float32)
    out, lse = rf.mqa_attention(query, key, value, causal="bottom_right", return_lse=True)
    assert out.shape == (*query.shape[:3], 6) and out.eq(0).all()
    assert lse.shape == query.shape[:3] and lse.eq(-torch.inf).all()


def test_no_sequences(device):
    query, key, value = cases.tensors(1, 4, 2, 0, 0, 8, device=device, dtype=torch.float32)
    cut = torch.zeros(1, dtype=torch.int32, device=device)
    assert rf.mqa_attention(query, key, value, cu_seqlens_q=cut, cu_seqlens_k=cut).shape == query.shape


def test_rows_of_no_sequence(device):
    query, key, value = cases.tensors(1, 2, 1, 5, 5, 64, device=device, dtype=torch.float16)
    cut = torch.zeros(1, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match="names no sequence, and query has 5 rows"):
        rf.mqa_attention(query, key, value, cu_seqlens_q=cut, cu_seqlens_k=cut)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype, device):
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, device=device, dtype=torch.float32)
    options = cases.options_of(("mask", "sinks"), query, key)
    expected = rf.mqa_attention(query.to(dtype), key.to(dtype), value.to(dtype), **options)
    with torch.autocast(device, dtype):
        out = rf.mqa_attention(query, key.half(), value, **options)
        half = rf.mqa_attention(query, key, value, **(options | {"attn_mask": options["attn_mask"].half()}))
        wide = rf.mqa_attention(query.double(), key.double(), value.double())
    assert out.dtype == dtype and torch.nn.functional.mse_loss(out.float(), expected.float()) < 1e-5
    assert half.dtype == dtype and wide.dtype == torch.float64


def test_opcheck(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, device=device, dtype=torch.float32)
    query.requires_grad_()
    op = torch.ops.rocforge.mqa_attention.default
    torch.library.opcheck(op, (query, key, value))
    mask = torch.randn(4, 1, 21, device=device, requires_grad=True)
    options = cases.options_of(("bottom_right", "softcap", "sinks", "alibi", "kv_lengths"), query, key)
    torch.library.opcheck(op, (query, key, value), options | {"attn_mask": mask})


def test_compiles_whole_graph(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, device=device, dtype=torch.float32)

    def attention(query, key, value):
        return rf.mqa_attention(query, key, value, causal="bottom_right", window=4, return_lse=True)

    for result, expected in zip(
        torch.compile(attention, fullgraph=True)(query, key, value), attention(query, key, value), strict=True
    ):
        assert result.equal(expected)
    with torch.autocast(device, torch.bfloat16):
        assert torch.compile(attention, fullgraph=True)(query, key, value)[0].dtype == torch.bfloat16


def test_reference_is_what_pytorch_computes():
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, dtype=torch.float64)
    mask = torch.randn(4, 9, 21, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
    torch.testing.assert_close(reference.mqa_attention(query, key, value, attn_mask=mask)[0], expected)
