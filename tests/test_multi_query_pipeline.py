"""From packed weights to a layer's output: projection, heads, RoPE, cache, attention; against float64."""

from __future__ import annotations

import pytest
import reference
import torch
from multi_query_layers import check, expected, layer
from torch import Tensor

import rocforge_ops as rf

GROUPS = [(4, 4), (4, 2), (4, 1), (7, 1), (8, 1), (32, 1), (14, 2), (8, 8)]  # Hq, Hkv
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def packed_blocks(format: str, *shape: int) -> Tensor:
    """Blocks with float16 numbers of order 1 and any levels, [*shape, row_bytes]."""
    generator = torch.Generator().manual_seed(7)
    size, numbers = rf.formats[format].block_bytes, {"Q4_1": 2, "Q5_0": 1, "Q5_1": 2}[format]
    blocks = torch.randint(0, 256, (*shape, 3, size), dtype=torch.uint8, generator=generator)
    head = torch.randn(*shape, 3, numbers, generator=generator).half()
    blocks[..., : 2 * numbers] = head.view(torch.uint8)
    return blocks.flatten(-2)


def check_dequantization(format: str, device: str) -> None:
    packed = packed_blocks(format, 5, 67).to(device)
    exact = reference.dequantize(packed, format)
    for dtype in DTYPES:
        values = torch.ops.rocforge.dequantize(packed, format, dtype)
        assert values.dtype == dtype and values.shape == (5, 67, 96)
        # float32: product and sum are rounded once each, of numbers up to 31 and a minimum of at most 5.
        step = torch.finfo(dtype).eps
        assert ((values.double() - exact).abs() <= exact.abs() * step / 2 + 2**-24 * 256).all()
    rows = torch.tensor([[66, 0], [3, 3]], device=device)
    assert torch.ops.rocforge.embedding(packed[1], format, rows).equal(
        torch.ops.rocforge.dequantize(packed[1], format)[rows]
    )


def test_q4_1_dequantization(device):
    check_dequantization("Q4_1", device)


def test_q5_0_dequantization(device):
    check_dequantization("Q5_0", device)


def test_q5_1_dequantization(device):
    check_dequantization("Q5_1", device)


@pytest.mark.parametrize("format", ["Q4_1", "Q5_0", "Q5_1"])
def test_mqa_qkv_projection_gpu(format, kernel_device):
    """Packed projection, then split, rotation and cache write in one operator, for 8 query heads and one of K and V."""
    heads, kv_heads, head_dim, batch, length = 8, 1, 32, 3, 37
    packed = packed_blocks(format, (heads + 2 * kv_heads) * head_dim).to(kernel_device)
    hidden = torch.randn(batch, length, 96, device=kernel_device)
    angles = torch.randn(length, head_dim // 2, dtype=torch.float64, device=kernel_device)
    key, value = torch.zeros(2, batch, kv_heads, 50, head_dim, device=kernel_device)
    start = torch.tensor([0, 5, 13], dtype=torch.int32, device=kernel_device)
    projected = torch.ops.rocforge.linear(hidden, packed, format)
    query = rf.qkv_rope_cache(projected, key, value, start, angles.cos().float(), angles.sin().float())
    assert query.device == key.device == projected.device == hidden.device

    def through(dtype):
        x = hidden.to(dtype) @ reference.dequantize(packed, format).to(dtype).mT
        q, k, v = x.unflatten(-1, (-1, head_dim)).transpose(1, 2).split((heads, kv_heads, kv_heads), 1)
        return [reference.rotary_embedding(t, angles, False).to(dtype) for t in (q, k)] + [v]

    for actual, exact, plain in zip((query, key, value), through(torch.float64), through(torch.float32), strict=True):
        if actual is not query:
            actual = torch.stack([row[:, s : s + length] for row, s in zip(actual, start.tolist(), strict=True)])
        check(actual, exact, plain)
    for row, s in zip(key, start.tolist(), strict=True):  # nothing else is written
        assert not row[:, :s].any() and not row[:, s + length :].any()


@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_mqa_kv_replication_gpu(heads, kv_heads, kernel_device):
    """repeat_kv copies each head for its group, and attention on the heads as they are sees just those copies."""
    query = torch.randn(2, heads, 35, 16, device=kernel_device)
    key, value = torch.randn(2, 2, kv_heads, 41, 16, device=kernel_device)
    copies = [torch.ops.rocforge.repeat_kv(t, heads // kv_heads) for t in (key, value)]
    for copy, t in zip(copies, (key, value), strict=True):
        assert copy.equal(t.repeat_interleave(heads // kv_heads, 1)) and copy.is_contiguous()
    grouped = rf.mqa_attention(query, key, value, causal="bottom_right")
    replicated = rf.mqa_attention(query, *copies, causal="bottom_right")
    exact, _ = reference.mqa_attention(query, *copies, causal="bottom_right")
    plain, _ = reference.mqa_attention(query, *copies, causal="bottom_right", dtype=torch.float32)
    check(grouped, exact, plain)
    check(replicated, exact, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_gqa_variable_heads_gpu(heads, kv_heads, dtype, kernel_device):
    """A whole layer for every ratio of heads, prompt and one decoding step."""
    config = rf.MultiQueryConfig(heads, kv_heads, 16, rf.RopeConfig(), hidden_size=40)
    module = layer(config, kernel_device, dtype)
    hidden = torch.randn(2, 36, 40, device=kernel_device).to(dtype)
    cache = rf.KVCache.for_config(config, 2, 36, dtype=dtype, device=kernel_device)
    parts = [module(hidden[:, :35], cache=cache), module(hidden[:, 35:], cache=cache)]
    check(torch.cat(parts, 1), expected(module, hidden), expected(module, hidden, dtype))


@pytest.mark.parametrize("hidden_size", [None, 24])
def test_multi_query_attention_basic(hidden_size, device):
    """B > 1, L > 32, one key/value head, biases; the whole text at once."""
    config = rf.MultiQueryConfig(4, 1, 16, hidden_size=hidden_size, qkv_bias=True, out_bias=True)
    module = layer(config, device)
    hidden = torch.randn(3, 45, config.width, device=device)
    out = module(hidden)
    assert out.shape == hidden.shape
    check(out, expected(module, hidden), expected(module, hidden, torch.float32))
    assert module(hidden[:0]).shape == (0, 45, config.width)
    check(module(hidden[:, :1]), expected(module, hidden[:, :1]), expected(module, hidden[:, :1], torch.float32))


ROPES = {
    "whole heads": rf.RopeConfig(),
    "interleaved": rf.RopeConfig(interleaved=True, base=500.0),
    "partial": rf.RopeConfig(rotary_dim=6),
    "partial, interleaved": rf.RopeConfig(rotary_dim=6, interleaved=True),
    "scaled": rf.RopeConfig(scaling="llama3", factor=8.0, original_context=16),
}


@pytest.mark.parametrize("rope", ROPES)
def test_multi_query_with_rope(rope, device):
    config = rf.MultiQueryConfig(7, 1, 16, ROPES[rope], hidden_size=30)
    module = layer(config, device)
    hidden = torch.randn(2, 33, 30, device=device)
    check(module(hidden), expected(module, hidden), expected(module, hidden, torch.float32))
    for positions in (torch.randint(0, 300, (2, 33), device=device), torch.arange(7, 40, device=device)[None]):
        options = {"positions": positions}
        check(
            module(hidden, position_ids=positions),
            expected(module, hidden, **options),
            expected(module, hidden, torch.float32, **options),
        )


FEATURES = {
    "norm": {"qk_norm": True, "qk_norm_eps": 1e-3},
    "window": {"window": 5},
    "softcap and scale": {"softcap": 2.0, "scale": 0.4},
    "sinks": {"sinks": True},
    "all": {"qk_norm": True, "window": 9, "softcap": 2.0, "sinks": True, "qkv_bias": True, "rope": rf.RopeConfig()},
    "not causal": {"causal": False},
}


@pytest.mark.parametrize("features", FEATURES)
def test_features(features, device):
    module = layer(rf.MultiQueryConfig(6, 3, 16, hidden_size=20, **FEATURES[features]), device)
    hidden = torch.randn(2, 34, 20, device=device)
    check(module(hidden), expected(module, hidden), expected(module, hidden, torch.float32))


def masks(batch: int, heads: int, rows: int, keys: int, device: str) -> list[Tensor]:
    shapes = [(batch, rows, keys), (batch, heads, rows, keys), (1, rows, keys), (batch, 1, 1, keys)]
    bools = [torch.rand(shape, device=device) < 0.7 for shape in shapes]
    return [*bools, *(torch.randn(shape, device=device) for shape in shapes)]


def four_dimensional(mask: Tensor) -> Tensor:
    return mask if mask.dim() == 4 else mask.unsqueeze(1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("index", range(8))
def test_masks(index, causal, device):
    module = layer(rf.MultiQueryConfig(4, 2, 16, hidden_size=20, causal=causal), device)
    hidden = torch.randn(3, 34, 20, device=device)
    mask = masks(3, 4, 34, 34, device)[index]
    options = {"attn_mask": four_dimensional(mask)}
    plain = expected(module, hidden, torch.float32, **options)
    check(module(hidden, attn_mask=mask), expected(module, hidden, **options), plain)


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("window", [None, 8])
def test_masks_over_a_cache(index, window, device):
    """Lk != L: 3 new tokens on 30 old ones, by position also where the layer is a ring buffer."""
    module = layer(rf.MultiQueryConfig(4, 2, 16, rf.RopeConfig(), hidden_size=20, window=window), device)
    hidden = torch.randn(3, 33, 20, device=device)
    mask = masks(3, 4, 3, 33, device)[index]
    rows = torch.zeros(3, 4, 33, 33, dtype=mask.dtype, device=device)
    rows[:, :, 30:] = four_dimensional(mask).expand(3, 4, -1, -1)
    exact, plain = (expected(module, hidden, dtype, attn_mask=rows)[:, 30:] for dtype in (torch.float64, torch.float32))
    for wider in (0, 4):  # columns for tokens to come
        cache = rf.KVCache.for_config(module.config, 3, 40, device=device)
        module(hidden[:, :30], cache=cache)
        padded = torch.nn.functional.pad(mask, (0, wider))
        check(module(hidden[:, 30:], cache=cache, attn_mask=padded), exact, plain)


@pytest.mark.parametrize("features", FEATURES)
def test_training_computes_the_same(features, device):
    """With gradients the separate operators run; their result is the fused one's, and gradients reach every weight."""
    config = rf.MultiQueryConfig(
        6, 3, 16, hidden_size=20, **({"rope": rf.RopeConfig(rotary_dim=8)} | FEATURES[features])
    )
    module = layer(config, device)
    hidden = torch.randn(2, 34, 20, device=device)
    mask = torch.rand(2, 34, 34, device=device) < 0.8
    fused = module(hidden, attn_mask=mask)
    module.requires_grad_(True)
    trained = module(hidden, attn_mask=mask)
    torch.testing.assert_close(trained, fused, rtol=1e-5, atol=1e-5)
    trained.square().sum().backward()
    leaves = dict(module.named_parameters())
    exact = expected(module, hidden, attn_mask=mask[:, None]).square().sum()
    for (name, leaf), gradient in zip(leaves.items(), torch.autograd.grad(exact, list(leaves.values())), strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    with torch.no_grad():
        torch.testing.assert_close(module(hidden, attn_mask=mask), fused, rtol=0, atol=0)


def test_padding_on_the_right(device):
    """Rows of different length: what follows a row's tokens changes nothing, whatever it holds."""
    module = layer(rf.MultiQueryConfig(4, 1, 16, rf.RopeConfig(), hidden_size=20), device)
    hidden = torch.randn(3, 34, 20, device=device)
    lengths = torch.tensor([34, 12, 1], dtype=torch.int32, device=device)
    expect = module(hidden)
    for b, n in enumerate(lengths.tolist()):
        hidden[b, n:] = torch.nan
    out = module(hidden, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(out[b, :n], expect[b, :n], rtol=1e-5, atol=1e-5)


def test_projections_that_give_three_tensors(device):
    config = rf.MultiQueryConfig(4, 2, 16, rf.RopeConfig(), hidden_size=32, qk_norm=True)
    module = layer(config, device)
    hidden = torch.randn(2, 33, 32, device=device)
    expect = module(hidden)
    weights = module.qkv.weight.split(config.sections)
    separate = [torch.nn.Linear(32, len(w), bias=False, device=device) for w in weights]
    for projection, weight in zip(separate, weights, strict=True):
        projection.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    module.qkv = rf.nn.SeparateProjections(*separate)
    torch.testing.assert_close(module(hidden), expect, rtol=1e-5, atol=1e-5)


def test_packed_projections(device):
    """Both projections on GGUF blocks, prompt and a step; the reference has their decoded values."""
    config = rf.MultiQueryConfig(6, 1, 16, rf.RopeConfig(), hidden_size=96)
    module = layer(config, device)
    blocks = packed_blocks("Q5_0", 128).to(device), packed_blocks("Q4_1", 96).to(device)
    module.qkv.weight = torch.nn.Parameter(reference.dequantize(blocks[0], "Q5_0"), requires_grad=False)
    module.out.weight = torch.nn.Parameter(reference.dequantize(blocks[1], "Q4_1"), requires_grad=False)
    hidden = 0.02 * torch.randn(2, 35, 96, device=device)
    exact, plain = (expected(module, hidden, dtype) for dtype in (torch.float64, torch.float32))
    module.qkv, module.out = rf.nn.QuantizedLinear(blocks[0], "Q5_0"), rf.nn.QuantizedLinear(blocks[1], "Q4_1")
    check(module(hidden), exact, plain)
    cache = rf.KVCache.for_config(config, 2, 40, device=device)
    check(torch.cat([module(part, cache=cache) for part in hidden.split([34, 1], 1)], 1), exact, plain)


@pytest.mark.parametrize("formats", [("Q4_1", "Q4_1", "Q5_1"), ("Q4_1", "Q5_0", "Q5_1")], ids="-".join)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gated_mlp_on_packed_weights(formats, dtype, device):
    """down(silu(gate(x)) * up(x)) for prompts and for few tokens; one launch for gate and up where formats agree."""
    blocks = [packed_blocks(format, rows).to(device) for format, rows in zip(formats, (96, 96, 48), strict=True)]
    mlp = rf.nn.GatedMLP(*(rf.nn.QuantizedLinear(b, format) for b, format in zip(blocks, formats, strict=True)))
    weights = [reference.dequantize(b, format) for b, format in zip(blocks, formats, strict=True)]
    hidden = (0.05 * torch.randn(2, 35, 96, device=device)).to(dtype)

    def through(dtype):
        gate, up, down = (w.to(dtype).mT for w in weights)
        x = hidden.to(dtype)
        return (torch.nn.functional.silu(x @ gate) * (x @ up)) @ down

    exact, plain = through(torch.float64), through(dtype)
    assert len(mlp.gate_up) == len(set(formats[:2]))
    check(mlp(hidden), exact, plain)
    check(mlp(hidden[:, :1]), exact[:, :1], plain[:, :1])


def test_glm4_model(device):
    """GLM-4: interleaved rotation of half a head, 2 key/value heads; against transformers' layer."""
    glm = pytest.importorskip("transformers.models.glm4.modeling_glm4")
    settings = {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    theirs_config = glm.Glm4Config(**settings, attention_bias=True, rope_parameters=rope)
    theirs_config._attn_implementation = "eager"
    torch.manual_seed(2)
    theirs = glm.Glm4Attention(theirs_config, 0).to(device).requires_grad_(False)
    rotary = glm.Glm4RotaryEmbedding(theirs_config).to(device)
    config = rf.MultiQueryConfig(
        8, 2, 16, rf.RopeConfig.from_parameters(rope, 16, interleaved=True), hidden_size=48, qkv_bias=True
    )
    module = rf.nn.MultiQueryAttention(config, device=device).requires_grad_(False)
    module.qkv = rf.nn.SeparateProjections(theirs.q_proj, theirs.k_proj, theirs.v_proj)
    module.out = theirs.o_proj
    hidden = torch.randn(2, 40, 48, device=device)
    positions = torch.stack([torch.arange(40, device=device), torch.arange(5, 45, device=device)])
    hidden_from_future = torch.full((40, 40), -torch.inf, device=device).triu(1)[None, None]
    expect, _ = theirs(hidden, rotary(hidden, positions), hidden_from_future)
    torch.testing.assert_close(module(hidden, position_ids=positions), expect, rtol=1e-4, atol=1e-5)
    cache = rf.KVCache.for_config(config, 2, 48, device=device)
    steps = [module(hidden[:, a:b], positions[:, a:b], cache=cache) for a, b in ((0, 35), (35, 36), (36, 40))]
    torch.testing.assert_close(torch.cat(steps, 1), expect, rtol=1e-4, atol=1e-5)


def test_compiles_whole_graph(device):
    module = layer(rf.MultiQueryConfig(4, 2, 16, rf.RopeConfig(), hidden_size=20, window=6, qk_norm=True), device)
    hidden = torch.randn(2, 12, 20, device=device)
    expect = module(hidden)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(hidden), expect)
    cache = rf.KVCache.for_config(module.config, 2, 16, device=device)
    steps = [module(hidden[:, :9], cache=cache)] + [compiled(hidden[:, i : i + 1], cache=cache) for i in range(9, 12)]
    torch.testing.assert_close(torch.cat(steps, 1), expect)
    assert cache.lengths.tolist() == [12, 12] and cache.seen == 12
