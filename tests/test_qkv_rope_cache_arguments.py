from __future__ import annotations

import pytest
import torch

import rocforge_ops as rf


def with_default(**changed) -> dict:
    """Two rows of five tokens, four query heads on two key/value heads of size 16."""
    cache = torch.zeros(2, 2, 9, 16)
    return {
        "qkv": [torch.zeros(2, 5, 128)],
        "key_cache": cache,
        "value_cache": cache.clone(),
        "cache_positions": torch.tensor([0, 0]),
        "cos": torch.zeros(2, 5, 8),
        "sin": torch.zeros(2, 5, 8),
    } | changed


X = torch.zeros(2, 5, 128)
CACHE = torch.zeros(2, 2, 9, 16)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"qkv": [X, X]}, ValueError, "one tensor or three .* got 2"),
        ({"qkv": [X.long()]}, TypeError, "qkv must be float16"),
        ({"qkv": [X[0]]}, ValueError, r"must be \[batch, length, heads \* head_dim\]"),
        ({"qkv": [X[..., :120]]}, ValueError, "width 120 does not hold a multiple of the 2 key/value heads"),
        ({"qkv": [X[..., :64]]}, ValueError, "width 64 does not hold"),
        ({"qkv": [X.mT.contiguous().mT]}, ValueError, "stride 1 in its last dimension"),
        ({"qkv": [X[..., :64], X[..., :32], X[..., :16]]}, ValueError, "32 and 32 wide.*got 32 and 16"),
        ({"qkv": [X[..., :64], X[..., :32].half(), X[..., :32]]}, TypeError, "one dtype"),
        ({"qkv": [X[..., :64], X[:1, :, :32], X[..., :32]]}, ValueError, "one batch size and length"),
        ({"key_cache": CACHE.half()}, TypeError, "key_cache must have qkv's dtype"),
        ({"value_cache": CACHE[0]}, ValueError, r"value_cache must be \[batch, kv_heads, capacity, head_dim\]"),
        ({"key_cache": CACHE[:1]}, ValueError, r"qkv's batch \(2\)"),
        ({"key_cache": CACHE[:, :, :8]}, ValueError, "same heads and capacity"),
        ({"key_cache": CACHE, "value_cache": CACHE}, ValueError, "must not share memory"),
        ({"key_cache": CACHE[:, :, :1].expand(2, 2, 9, 16)}, RuntimeError, "unsupported operation"),
        ({"cache_positions": torch.zeros(2)}, TypeError, "cache_positions must be int32 or int64"),
        ({"cache_positions": torch.zeros(3, dtype=torch.int32)}, ValueError, r"\[batch, length\] or the start"),
        ({"sin": None}, ValueError, "cos and sin must be given together"),
        ({"cos": torch.zeros(2, 6, 8), "sin": torch.zeros(2, 6, 8)}, ValueError, "cannot be broadcast"),
        ({"cos": torch.zeros(2, 4, 5, 8), "sin": torch.zeros(2, 4, 5, 8)}, ValueError, "the same for all heads"),
        ({"position_ids": torch.tensor([0, 0])}, ValueError, r"tables \[positions, width\]"),
        ({"cos": None, "sin": None, "position_ids": torch.tensor([0, 0])}, ValueError, "position_ids are rows"),
        ({"bias": torch.zeros(64)}, ValueError, r"bias must be \[128\], got \[64\]"),
        ({"q_norm": torch.zeros(16).half()}, TypeError, "q_norm must be float32 or of qkv's dtype"),
        ({"k_norm": torch.zeros(2, 16)}, ValueError, r"k_norm must be \[16\]"),
        ({"eps": -1.0}, ValueError, "eps must not be negative"),
    ],
)
def test_wrong_arguments(changed, error, message):
    with pytest.raises(error, match=message):
        rf.qkv_rope_cache(**with_default(**changed))
