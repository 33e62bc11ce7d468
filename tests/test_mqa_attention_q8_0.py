"""Attention on Q8_0 blocks: the bits of attention on what they decode to."""

from __future__ import annotations

import attention_cases as cases
import pytest
import torch
from torch import Tensor

import rocforge_ops as rf
from rocforge_ops.cache import q8_0
from rocforge_ops.ops import mqa_attention_q8_0

OP = torch.ops.rocforge.mqa_attention_q8_0.default
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
FEATURES = [name for name in cases.FEATURES if name != "cu_seqlens"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def packed(*shape: int, dtype: torch.dtype, device: str, value_dim: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, and key and value as blocks, of cases.tensors' arguments."""
    query, key, value = cases.tensors(*shape, value_dim, device=device, dtype=dtype)
    blocks = [q8_0.encode(t) if t.numel() else t.new_empty((*t.shape[:3], 34), dtype=torch.uint8) for t in (key, value)]
    return query, *blocks


def check(query: Tensor, key: Tensor, value: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    actual = mqa_attention_q8_0(query, key, value, **options, return_lse=True)
    decoded = [rf.dequantize(t, "Q8_0", query.dtype) for t in (key, value)]
    expected = rf.mqa_attention(query, *decoded, **options, return_lse=True)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)
    return actual


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128, 224, 256, 288])
def test_head_sizes(head_dim, dtype, device):
    query, key, value = packed(1, 4, 2, 2, 83, head_dim, dtype=dtype, device=device)
    check(query, key, value, causal="bottom_right")


def test_many_rows(device):
    """They are decoded first."""
    query, key, value = packed(1, 6, 1, 60, 90, 64, dtype=torch.float16, device=device)
    check(query, key, value, causal="bottom_right")


@pytest.mark.parametrize("value_dim", [32, 128, 256])
def test_values_of_another_size(value_dim, device):
    query, key, value = packed(2, 4, 1, 1, 50, 96, dtype=torch.bfloat16, device=device, value_dim=value_dim)
    assert check(query, key, value)[0].shape == (2, 4, 1, value_dim)


@pytest.mark.parametrize("keys", [1, 15, 16, 17, 33, 64, 129, 1023])
def test_edges_of_tiles_and_splits(keys, device):
    for group, rows in ((1, 1), (7, 2)):
        query, key, value = packed(1, group, 1, rows, keys, 32, dtype=torch.float16, device=device)
        check(query, key, value, causal="bottom_right")


@pytest.mark.parametrize("name", FEATURES)
def test_features(name, device):
    query, key, value = packed(2, 4, 2, 2, 150, 64, dtype=torch.bfloat16, device=device)
    check(query, key, value, **cases.options_of((name,), query, key))


@pytest.mark.parametrize("skip", [0, 1, 2, 6])
def test_views(skip, device):
    """Rows that begin at any byte, heads inside of positions, as a cache may have them."""
    query, key, value = packed(2, 4, 2, 1, 50, 128, dtype=torch.float16, device=device)

    def view(blocks: Tensor) -> Tensor:
        whole = torch.full((2, 50, 2, 136 + 10), 255, dtype=torch.uint8, device=device)
        inner = whole.transpose(1, 2)[..., skip : skip + 136]
        return inner.copy_(blocks)

    expected = check(query, key, value)[0]
    assert check(query, view(key), view(value))[0].equal(expected)


def test_what_follows_the_valid_keys_is_not_read(device):
    """Blocks whose scale is NaN."""
    query, key, value = packed(3, 4, 1, 1, 90, 64, dtype=torch.bfloat16, device=device)
    lengths = torch.tensor([90, 33, 0], dtype=torch.int32, device=device)
    expected = mqa_attention_q8_0(query, key, value, kv_lengths=lengths)
    key[1, :, 33:], value[1, :, 33:], key[2], value[2] = 255, 255, 255, 255
    assert mqa_attention_q8_0(query, key, value, kv_lengths=lengths).equal(expected) and not expected[2].any()


@pytest.mark.parametrize("shape", [(0, 4, 2, 1, 7), (2, 0, 2, 1, 7), (2, 4, 2, 0, 7), (2, 4, 2, 1, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty(shape, dtype, device):
    out, lse = check(*packed(*shape, 32, dtype=dtype, device=device))
    assert out.shape == (*shape[:2], shape[3], 32) and out.eq(0).all() and lse.eq(-torch.inf).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": torch.zeros(1, 4, 1, 64).double()}, TypeError, "query must be float16, bfloat16 or float32, got D"),
        ({"key": torch.zeros(1, 2, 9, 68)}, TypeError, "key must be uint8, rows of Q8_0 blocks, got Float"),
        ({"value": torch.zeros(1, 2, 9, 64).byte()}, ValueError, "whole Q8_0 blocks, 34 bytes each, got 64 bytes"),
        ({"value": torch.zeros(1, 2, 9, 0).byte()}, ValueError, "value must have rows of whole Q8_0 blocks"),
        ({"key": torch.zeros(1, 2, 9, 34).byte()}, ValueError, "query has heads of 64, key's blocks hold 32"),
        ({"key": torch.zeros(1, 2, 8, 68).byte()}, ValueError, "key and value must have the same heads and length"),
        ({"query": torch.zeros(1, 3, 1, 64)}, ValueError, "multiple of the key/value heads, got 3 and 2"),
        ({"kv_lengths": torch.zeros(1)}, TypeError, "kv_lengths must be int32"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"query": torch.zeros(1, 4, 1, 64).requires_grad_()}, NotImplementedError, "q8_0 has no gradients"),
        ({"sinks": torch.zeros(4).requires_grad_()}, NotImplementedError, "use mqa_attention on what the blocks"),
    ],
)
def test_wrong_arguments(changes, error, message):
    blocks = torch.zeros(1, 2, 9, 68, dtype=torch.uint8)
    with pytest.raises(error, match=message):
        mqa_attention_q8_0(**({"query": torch.zeros(1, 4, 1, 64), "key": blocks, "value": blocks} | changes))


def test_opcheck(device):
    query, key, value = packed(2, 4, 2, 1, 21, 64, dtype=torch.float32, device=device)
    torch.library.opcheck(OP, (query, key, value))
    options = cases.options_of(("bottom_right", "softcap", "sinks", "mask", "kv_lengths"), query, key)
    torch.library.opcheck(OP, (query, key, value), options)


def test_compiles_whole_graph(device):
    query, key, value = packed(2, 4, 2, 1, 21, 64, dtype=torch.bfloat16, device=device, value_dim=32)
    compiled = torch.compile(mqa_attention_q8_0, fullgraph=True)
    assert compiled(query, key, value).equal(mqa_attention_q8_0(query, key, value))


@pytest.mark.gpu
def test_nothing_is_decoded_to_memory():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    query, key, value = packed(4, 32, 1, 1, 8192, 128, dtype=torch.bfloat16, device="cuda")
    mqa_attention_q8_0(query, key, value)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    mqa_attention_q8_0(query, key, value)
    # The splits' results; a decoded copy would take four times the bytes of key.
    assert torch.cuda.max_memory_allocated() - before < key.nbytes
