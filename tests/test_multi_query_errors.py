"""What a multi-query layer refuses, in words, before it touches the cache."""

from __future__ import annotations

import pytest
import torch

import rocforge_ops as rf

GOOD = rf.MultiQueryConfig(4, 2, 16, rf.RopeConfig(), hidden_size=20)
HIDDEN = torch.zeros(2, 5, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": HIDDEN[0]}, r"hidden must be \[batch, length, 20\], got \[5, 20\]"),
        ({"hidden": HIDDEN[..., :19]}, r"hidden must be \[batch, length, 20\], got \[2, 5, 19\]"),
        ({"position_ids": torch.arange(5)}, r"position_ids must be \[2, 5\], got \[5\]"),
        ({"lengths": torch.tensor([1, 2, 3])}, r"lengths must be \[2\], got \[3\]"),
        ({"attn_mask": torch.zeros(5, 5)}, r"attn_mask must be \[2, 5, 5\] or \[2, 4, 5, 5\], got \[5, 5\]"),
        ({"attn_mask": torch.zeros(2, 5, 6)}, r"attn_mask must be \[2, 5, 5\] or .* got \[2, 5, 6\]"),
        ({"attn_mask": torch.zeros(2, 3, 5, 5)}, r"or \[2, 4, 5, 5\], got \[2, 3, 5, 5\]"),
        ({"cache": rf.KVCache(1, 3, 9, 2, 16)}, "hidden has 2 sequences, the cache 3"),
        ({"cache": rf.KVCache(1, 2, 4, 2, 16)}, "the cache holds 0 of 4 tokens: no room for 5 more"),
        (
            {"cache": rf.KVCache(1, 2, 9, 2, 16), "attn_mask": torch.zeros(2, 5, 4)},
            r"attn_mask must be \[2, 5, 5 to 9\] or",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    module = rf.nn.MultiQueryAttention(GOOD).requires_grad_(False)
    with pytest.raises(ValueError, match=message):
        module(**({"hidden": HIDDEN} | arguments))
    if "cache" in arguments:
        assert arguments["cache"].seen == 0


def test_gradients_and_a_cache_are_refused():
    module = rf.nn.MultiQueryAttention(GOOD)
    with pytest.raises(ValueError, match="a cache takes no part in gradients"):
        module(HIDDEN, cache=rf.KVCache(1, 2, 9, 2, 16))


def test_a_layer_that_the_cache_lacks():
    module = rf.nn.MultiQueryAttention(GOOD, layer=1).requires_grad_(False)
    with pytest.raises(ValueError, match="this is layer 1, the cache has 1"):
        module(HIDDEN, cache=rf.KVCache(1, 2, 9, 2, 16))


def test_a_projection_of_another_width():
    module = rf.nn.MultiQueryAttention(GOOD).requires_grad_(False)
    module.qkv = torch.nn.Linear(20, 100)
    with pytest.raises(ValueError, match=r"qkv must give 128 elements, or \[64, 32, 32\], got \[100\]"):
        module(HIDDEN)


def test_lengths_of_another_type():
    with pytest.raises(TypeError, match=r"lengths must be int32, got torch.int64"):
        rf.nn.MultiQueryAttention(GOOD)(HIDDEN, lengths=torch.tensor([1, 2]))
