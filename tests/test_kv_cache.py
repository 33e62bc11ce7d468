"""KVCache: what it holds, whose it is, and how transformers uses it."""

from __future__ import annotations

import pytest
import torch
from multi_query_layers import layer
from test_transformers_attention import LENGTH, make, padded, replace, tokens
from torch import Tensor

import rocforge_ops as rf
from rocforge_ops.cache import layer as cache_layer
from rocforge_ops.cache import q8_0

WINDOWS = [None, 5]
CHUNKS = [[40], [1] * 40, [33, 1, 1, 5], [3, 20, 1, 16]]


def module_and_text(device: str, window: int | None, dtype: torch.dtype = torch.float32):
    config = rf.MultiQueryConfig(4, 1, 32, rf.RopeConfig(), hidden_size=24, window=window, qk_norm=True)
    module = layer(config, device, dtype)
    return module, torch.randn(3, 40, 24, device=device).to(dtype)


def in_chunks(module: rf.nn.MultiQueryAttention, hidden: Tensor, cache: rf.KVCache, chunks: list[int]) -> Tensor:
    return torch.cat([module(part, cache=cache) for part in hidden.split(chunks, 1)], 1)


@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: "-".join(map(str, chunks[:4])))
@pytest.mark.parametrize("window", WINDOWS)
def test_any_chunks_give_the_same(window, chunks, device):
    module, hidden = module_and_text(device, window)
    cache = rf.KVCache.for_config(module.config, 3, 41, device=device)
    torch.testing.assert_close(in_chunks(module, hidden, cache, chunks), module(hidden), rtol=1e-5, atol=1e-5)
    assert cache.lengths.tolist() == [40] * 3 and cache.lengths.dtype == torch.int32 and cache.seen == 40
    slots = 5 if window else 41
    assert cache.layers[0].keys.shape == cache.layers[0].values.shape == (3, 1, slots, 32)
    assert cache.nbytes == 2 * 3 * slots * 32 * 4


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("format", [None, "Q8_0"])
def test_sequences_of_different_length(window, format, device):
    """Prompts padded on the right, then steps in which a sequence may have no token, as if each were alone."""
    module, hidden = module_and_text(device, window)
    cache = rf.KVCache.for_config(module.config, 3, 41, device=device, format=format)
    alone = [rf.KVCache.for_config(module.config, 1, 41, device=device, format=format) for _ in range(3)]
    done = [0, 0, 0]
    for counts in ([12, 7, 1], [1, 1, 1], [1, 0, 1], [2, 9, 0], [1, 1, 1], [0, 7, 3]):
        width = max(counts)
        step = torch.full((3, width, 24), torch.nan, device=device)  # what is padding would be seen
        for b, (first, count) in enumerate(zip(done, counts, strict=True)):
            step[b, :count] = hidden[b, first : first + count]
        out = module(step, cache=cache, lengths=torch.tensor(counts, dtype=torch.int32, device=device))
        for b, count in enumerate(counts):
            if count:
                expect = module(step[b : b + 1, :count], cache=alone[b])
                torch.testing.assert_close(out[b : b + 1, :count], expect, rtol=1e-5, atol=1e-5)
        done = [a + b for a, b in zip(done, counts, strict=True)]
        assert cache.lengths.tolist() == done and cache.seen >= max(done)


@pytest.mark.parametrize("window", WINDOWS)
def test_reset_crop_and_reorder(window, device):
    module, hidden = module_and_text(device, window)
    cache = rf.KVCache.for_config(module.config, 3, 41, device=device)
    places = [t.data_ptr() for t in cache.layers[0].tensors]
    expect = module(hidden)
    module(hidden[:, :4], cache=cache)
    cache.crop(-2)
    assert cache.lengths.tolist() == [2] * 3 and cache.seen == 2
    cache.crop(0)
    again = module(hidden[:, 2:30], cache=cache)
    torch.testing.assert_close(again, expect[:, 2:30], rtol=1e-5, atol=1e-5)
    rows = torch.tensor([2, 0, 0], device=device)
    cache.reorder(rows)
    torch.testing.assert_close(module(hidden[rows, 30:], cache=cache), expect[rows, 30:], rtol=1e-5, atol=1e-5)
    if window is not None:
        with pytest.raises(ValueError, match="a window of 5 tokens that has seen 40 has overwritten older ones"):
            cache.crop(-1)
    with pytest.raises(ValueError, match="as a negative number, got 3"):
        cache.crop(3)
    cache.reset()
    torch.testing.assert_close(in_chunks(module, hidden, cache, [3, 37]), expect, rtol=1e-5, atol=1e-5)
    assert [t.data_ptr() for t in cache.layers[0].tensors] == places


def test_layers_keep_their_own(device):
    """Two layers, one a ring: lengths advance layer by layer."""
    first, hidden = module_and_text(device, None)
    second = rf.nn.MultiQueryAttention(
        rf.MultiQueryConfig(8, 1, 32, rf.RopeConfig(), hidden_size=24, window=6), layer=1, device=device
    ).requires_grad_(False)
    cache = rf.KVCache(2, 3, 64, 1, 32, windows=[None, 6], device=device)
    for part in hidden.split([17, 1, 1, 21], 1):
        out = second(first(part, cache=cache), cache=cache)
    torch.testing.assert_close(out, second(first(hidden))[:, -21:], rtol=1e-5, atol=1e-5)
    assert [len(layer.keys[0, 0]) for layer in cache.layers] == [64, 6] and len(cache) == 2


def test_the_host_counts_the_capacity(device):
    module, hidden = module_and_text(device, None)
    cache = rf.KVCache.for_config(module.config, 3, 10, device=device)
    module(hidden[:, :6], cache=cache)
    cache.advance(3)
    for more in (lambda: module(hidden[:, :2], cache=cache), lambda: cache.advance(2)):
        with pytest.raises(ValueError, match="the cache holds 9 of 10 tokens: no room for 2 more"):
            more()
    assert cache.lengths.tolist() == [6] * 3


def test_what_is_refused_changes_nothing(device):
    """A layer that could crop keeps its tokens where a later one cannot; one row is no order of three sequences."""
    cache = rf.KVCache(2, 3, 16, 1, 8, windows=[None, 4], device=device)
    for part in cache.layers:
        space = part.open(6)
        space.keys[:] = torch.arange(3.0, device=device).view(3, 1, 1, 1)
        part.commit(space, 6)
    before = cache.layers[0].keys.clone()
    for wrong, message in (
        (lambda: cache.crop(-1), "has overwritten older ones"),
        (lambda: cache.advance(-1), "crop forgets tokens"),
        (lambda: cache.reorder(torch.tensor([2], device=device)), r"rows must be \[3\].*got \[1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    assert cache.seen == 6 and all(part.lengths.tolist() == [6] * 3 for part in cache.layers)
    assert torch.equal(cache.layers[0].keys, before)


def test_q8_0_blocks_are_ggmls(device):
    """Decoded by the operator within half a step of a block's scale; zeros and tiny numbers stay finite."""
    x = torch.randn(2, 3, 5, 96, device=device) * torch.logspace(-7, 3, 5, device=device)[:, None]
    x[0, 0] = 0
    packed = q8_0.encode(x)
    assert packed.shape == (2, 3, 5, 3 * 34) and packed.dtype == torch.uint8
    decoded = rf.dequantize(packed, "Q8_0")
    largest = x.unflatten(-1, (3, 32)).abs().amax(-1, keepdim=True)
    error = (decoded - x).abs().unflatten(-1, (3, 32))
    # Half a step, the rounding of the scale to float16 where the largest element is cut, and float16's smallest number.
    assert (error <= largest * (0.5 / 127 + 2**-11) + 127 * 2**-24).all()
    assert not decoded[0, 0].any()


@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: "-".join(map(str, chunks[:4])))
@pytest.mark.parametrize("window", WINDOWS)
def test_q8_0_storage(window, chunks, device):
    """Every token is seen as its block says, new ones too, however the text is cut; a quarter of float32's memory."""
    module, hidden = module_and_text(device, window)
    query, *pair = module._uncached([module.qkv(hidden)], None)
    pair = [rf.dequantize(q8_0.encode(t), "Q8_0") for t in pair]
    attended = rf.mqa_attention(query, *pair, causal="bottom_right", window=window)
    plain, packed = (rf.KVCache.for_config(module.config, 3, 64, device=device, format=f) for f in (None, "Q8_0"))
    assert packed.nbytes * 128 == plain.nbytes * 34
    out = in_chunks(module, hidden, packed, chunks)
    torch.testing.assert_close(out, module.out(attended.transpose(1, 2).flatten(2)), rtol=1e-5, atol=1e-5)
    assert (out - in_chunks(module, hidden, plain, chunks)).abs().max() > 1e-4


def test_q8_0_storage_of_float64_is_refused():
    with pytest.raises(TypeError, match=r"Q8_0 storage is for float16, bfloat16 and float32, got torch\.float64"):
        rf.KVCache(1, 1, 8, 1, 32, dtype=torch.float64, format="Q8_0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0, "capacity": -1}, "num_layers is 0, expected a positive integer; capacity is -1"),
        ({"num_layers": 1.5, "head_dim": "32"}, "num_layers is 1.5, expected a positive integer; head_dim is '32'"),
        ({"windows": [3]}, "windows has 1 entries, expected 2"),
        ({"windows": 0}, "windows is 0, expected positive integers or None"),
        ({"windows": "ab"}, "windows is 'ab', expected positive integers or None"),
        ({"windows": [2.5, None]}, r"windows is \[2.5, None\], expected positive integers or None"),
        ({"format": "Q4_0"}, "format is 'Q4_0', expected None or 'Q8_0'"),
        ({"format": "Q8_0", "head_dim": 48}, "Q8_0 stores blocks of 32 elements, got heads of 48"),
    ],
)
def test_wrong_sizes(changes, message):
    sizes = {"num_layers": 2, "batch_size": 3, "capacity": 8, "num_kv_heads": 1, "head_dim": 32}
    with pytest.raises(ValueError, match=message):
        rf.KVCache(**(sizes | changes))


MODELS = ["llama", "gemma3", "gpt_bigcode"]


@pytest.fixture(params=MODELS)
def models(request, device):
    eager = make(request.param).to(device)
    return eager, replace(eager)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("side", [None, "left"])
def test_generate_as_with_transformers_own_cache(models, side, beams, device):
    """Prompts longer than the windows; with either attention; transformers' dynamic and static cache agree."""
    mask = None if side is None else padded(side, device)
    options = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    expect = models[0].generate(tokens(device), **options)
    if beams == 1:
        static = models[0].generate(tokens(device), cache_implementation="static", disable_compile=True, **options)
        assert static.equal(expect)
    for model in models:
        cache = rf.KVCache.for_model(model, 40)
        for _ in range(2 if beams == 1 else 1):
            assert model.generate(tokens(device), past_key_values=cache, **options).equal(expect)
            assert isinstance(cache, rf.KVCache) and cache.lengths.tolist() == [LENGTH + 3] * 3 * beams
            cache.reset()


@torch.no_grad()
def test_layers_of_a_model(device):
    model = make("gemma3").to(device)
    cache = rf.KVCache.for_model(model.config, 40)
    with pytest.raises(ValueError, match="the cache holds no tensors yet"):
        cache.lengths  # noqa: B018
    model(tokens(device), past_key_values=cache)
    assert [layer.keys.shape for layer in cache.layers] == [(3, 2, 6, 16), (3, 2, 40, 16)]
    with pytest.raises(ValueError, match="the cache holds 21 of 40 tokens: no room for 21 more"):
        model(tokens(device), past_key_values=cache)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 6])
def test_q8_0_in_a_model(window, device):
    """One step on 20 tokens in Q8_0 blocks is near that on exact ones, and not it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 99, "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    torch.manual_seed(3)
    model = transformers.MistralForCausalLM(
        transformers.MistralConfig(**sizes, num_key_value_heads=1, sliding_window=window, pad_token_id=0)
    )
    model = replace(model.to(device).eval())
    caches = [rf.KVCache.for_model(model, 40, format) for format in (None, "Q8_0")]
    logits = []
    for cache in caches:
        model(tokens(device)[:, :-1], past_key_values=cache)
        logits.append(model(tokens(device)[:, -1:], past_key_values=cache).logits)
    assert caches[1].nbytes * 128 == caches[0].nbytes * 34
    error = (logits[1] - logits[0]).abs().max() / logits[0].abs().max()
    assert 0 < error < 0.01


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 6])
def test_a_model_reads_blocks_or_what_they_decode_to(window, device):
    """Our attention gets the blocks, any other gets tensors."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 99, "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = transformers.MistralConfig(**sizes, num_key_value_heads=1, sliding_window=window, pad_token_id=0)
    torch.manual_seed(3)
    model = transformers.MistralForCausalLM(config).to(device).eval()
    rf.register_attention()
    logits, kinds = [], []
    for name in ("eager", "rocforge"):
        model.set_attn_implementation(name)
        cache = rf.KVCache.for_model(model, 40, "Q8_0")
        steps = [model(part, past_key_values=cache).logits for part in tokens(device).split([15, 1, 1, 4], 1)]
        logits.append(torch.cat(steps, 1))
        row = torch.zeros(3, 1, 1, 32, device=device)
        kinds.append(cache.layers[0].update(row, row)[0].dtype)
    assert kinds == [torch.float32, torch.uint8]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_steps_as_a_graph_runs_them(models, device, monkeypatch):
    """While shapes are frozen (graph capture) nothing depends on the host's count: the same logits, at every step."""
    model = models[1]
    ids = tokens(device)
    expect = model(ids).logits
    cache = rf.KVCache.for_model(model, 40)
    model(ids[:, :4], past_key_values=cache)
    monkeypatch.setattr(cache_layer, "shapes_are_frozen", lambda: True)
    monkeypatch.setattr("rocforge_ops.cache.transformers.shapes_are_frozen", lambda: True)
    for i in range(4, 13):  # past the windows of 6
        for part in cache.layers:
            part.seen = 4  # as a replay leaves it
        position = torch.full((3, 1), i, device=device)
        step = model(ids[:, i : i + 1], position_ids=position, past_key_values=cache).logits
        torch.testing.assert_close(step[:, 0], expect[:, i], rtol=1e-4, atol=1e-4)
    assert cache.lengths.tolist() == [13] * 3


@torch.no_grad()
def test_compiled_steps(device):
    """One graph serves all steps of a kind: the cache's lengths are no constants of it."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = replace(make("gemma3").to(device))
    ids = tokens(device)
    expect = model(ids).logits
    cache = rf.KVCache.for_model(model, 40)
    model(ids[:, :4], past_key_values=cache)
    step = torch.compile(model, fullgraph=True, backend="aot_eager")
    for i in range(4, 16):  # past the windows of 6
        position = torch.full((3, 1), i, device=device)
        logits = step(ids[:, i : i + 1], position_ids=position, past_key_values=cache).logits
        torch.testing.assert_close(logits[:, 0], expect[:, i], rtol=1e-4, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_other_kinds_of_layers_are_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.Llama4TextConfig(num_hidden_layers=2, layer_types=["chunked_attention", "full_attention"])
    with pytest.raises(ValueError, match=r"the model has \['chunked_attention'\]"):
        rf.KVCache.for_model(config, 8)
    with pytest.raises(ValueError, match="expected a positive capacity and the format None or 'Q8_0', got 0"):
        rf.KVCache.for_model(transformers.LlamaConfig(), 0)
