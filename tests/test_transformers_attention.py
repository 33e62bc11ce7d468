"""The drop-in attention in transformers' own models (tiny, random) against their eager attention."""

from __future__ import annotations

import copy

import pytest
import torch

import rocforge_ops as rf

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}
CONFIGS = {
    "llama": lambda t: t.LlamaConfig(**SMALL),
    "gemma2": lambda t: t.Gemma2Config(**SMALL, **LAYERS, query_pre_attn_scalar=16, attn_logit_softcapping=2.0),
    "gemma3": lambda t: t.Gemma3TextConfig(**SMALL, **LAYERS, query_pre_attn_scalar=16),
    "gpt_oss": lambda t: t.GptOssConfig(**SMALL, **LAYERS, num_local_experts=4, num_experts_per_tok=2),
    "gpt_bigcode": lambda t: t.GPTBigCodeConfig(
        vocab_size=99,
        n_embd=32,
        n_head=4,
        n_layer=2,
        n_positions=128,
        multi_query=True,
        bos_token_id=1,
        eos_token_id=None,
    ),
    "mistral": lambda t: t.MistralConfig(**SMALL, sliding_window=6),
    "phimoe": lambda t: t.PhimoeConfig(**SMALL, sliding_window=6, num_local_experts=4),
}
LENGTH = 21


def make(name: str, **options):
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](transformers), attn_implementation="eager")
    for parameter in model.parameters():  # enough to tell the tokens apart
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def replace(eager, name: str = "rocforge"):
    rf.register_attention(name)
    model = copy.deepcopy(eager)
    model.set_attn_implementation(name)
    assert model.config._attn_implementation == name
    return model


@pytest.fixture(params=CONFIGS)
def models(request, device):
    eager = make(request.param).to(device)
    return eager, replace(eager)


def tokens(device: str, batch: int = 3) -> torch.Tensor:
    torch.manual_seed(5)
    return torch.randint(3, 99, (batch, LENGTH), device=device)


def padded(side: str, device: str) -> torch.Tensor:
    mask = torch.ones(3, LENGTH, dtype=torch.int64, device=device)
    for row, missing in enumerate((0, 4, 9)):
        mask[row, slice(0, missing) if side == "left" else slice(LENGTH - missing, LENGTH)] = 0
    return mask


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_prompt(models, device):
    eager, model = models
    close(model(tokens(device)).logits, eager(tokens(device)).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(models, side, device):
    eager, model = models
    mask = padded(side, device)
    inputs = {"input_ids": tokens(device).masked_fill(mask == 0, 0), "attention_mask": mask}
    close(model(**inputs).logits[mask == 1], eager(**inputs).logits[mask == 1])


@torch.no_grad()
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate(models, cache, device):
    """Greedy: the same tokens, from prompts of different lengths, past the window, logits alike at every step."""
    eager, model = models
    mask = padded("left", device)
    results = [
        m.generate(
            tokens(device).masked_fill(mask == 0, 0),
            attention_mask=mask,
            max_new_tokens=12,
            do_sample=False,
            cache_implementation=cache,
            disable_compile=True,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        for m in (eager, model)
    ]
    assert results[0].sequences.equal(results[1].sequences)
    for a, b in zip(results[0].logits, results[1].logits, strict=True):
        close(a, b)


@torch.no_grad()
def test_chunked_prompt(models, device):
    """The second half of a prompt against the cache of the first: several rows, more keys than rows."""
    eager, model = models
    ids, logits = tokens(device), []
    for m in (eager, model):
        first = m(ids[:, :12], use_cache=True)
        logits.append(m(ids[:, 12:], past_key_values=first.past_key_values).logits)
    close(*logits)


@pytest.mark.parametrize("side", [None, "right"])
def test_training(models, side, device):
    """Gradients of every parameter, sinks among them, in training mode."""
    eager, model = models
    mask = torch.ones_like(padded("right", device)) if side is None else padded(side, device)
    labels = tokens(device).masked_fill(mask == 0, -100)
    for m in models:
        for module in m.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attn_dropout"):
                module.attn_dropout = 0.0
        m.train()
        m(tokens(device), attention_mask=mask, labels=labels).loss.backward()
    for (name, expected), ours in zip(eager.named_parameters(), model.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(
                ours.grad, expected.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma3", "gemma2"])
def test_compiles_whole_graph(name, device):
    eager = make(name).to(device)
    model = replace(eager)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(tokens(device), use_cache=False).logits, eager(tokens(device)).logits)
    mask = padded("left", device)
    inputs = {"input_ids": tokens(device), "attention_mask": mask, "use_cache": False}
    close(compiled(**inputs).logits[mask == 1], eager(**inputs).logits[mask == 1])


@torch.no_grad()
def test_compiled_decoding_with_a_static_cache(device):
    eager = make("llama").to(device)
    model = replace(eager)
    step = torch.compile(model, fullgraph=True, backend="aot_eager")
    ids, logits = tokens(device), []
    for prompt, decode in ((eager, eager), (model, step)):
        cache = transformers.StaticCache(config=model.config, max_cache_len=40)
        prompt(ids[:, :-2], past_key_values=cache)
        position = torch.tensor([[LENGTH - 2]], device=device).expand(3, 1)
        logits.append(decode(ids[:, -2:-1], past_key_values=cache, position_ids=position).logits)
    close(*logits)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["multi_query", "alibi", "new_decoder_architecture"])
def test_falcon_through_pytorchs_function(kind, device):
    torch.manual_seed(3)
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "num_kv_heads": 2, "num_hidden_layers": 2}
    eager = transformers.FalconForCausalLM(transformers.FalconConfig(**sizes, **{kind: True}))
    model = transformers.FalconForCausalLM._from_config(copy.deepcopy(eager.config), attn_implementation="sdpa")
    model.load_state_dict(eager.state_dict())
    eager, model = eager.to(device).eval(), model.to(device).eval()
    eager.config._attn_implementation = "eager"
    mask = padded("left", device)
    inputs = {"input_ids": tokens(device), "attention_mask": mask}
    # With alibi falcon's eager attention and its use of PyTorch's function disagree by themselves.
    expected = (model if kind == "alibi" else eager)(**inputs).logits
    calls = []
    with rf.attention.replacing_sdpa(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(rf.attention.sdpa, "mqa_attention", lambda *a, **k: calls.append(1) or rf.mqa_attention(*a, **k))
        close(model(**inputs).logits[mask == 1], expected[mask == 1])
    assert len(calls) == 2


@pytest.fixture
def mask_of(device):
    """The mask function on a plain prompt of 2 rows, with what differs."""
    config = transformers.MistralConfig(**SMALL, sliding_window=6)

    def call(**options):
        return rf.attention.transformers.attention_mask(
            **{"batch_size": 2, "q_length": 8, "kv_length": 8, "config": config, "device": device, **options}
        )

    return call


def test_no_mask_where_the_rule_says_it_all(mask_of, device):
    ones = torch.ones(2, 8, dtype=torch.bool, device=device)
    assert mask_of() is None
    assert mask_of(attention_mask=ones) is None
    assert mask_of(local_size=6) is None
    assert mask_of(local_size=6, attention_mask=ones) is None
    assert mask_of(q_length=1, q_offset=7) is None
    assert mask_of(q_length=3, q_offset=5, local_size=6) is None
    assert mask_of(q_length=3, q_offset=15, kv_offset=10, attention_mask=torch.ones(2, 18, device=device)) is None


def test_lengths_where_rows_are_padded_on_the_right(mask_of, device):
    padding = torch.tensor([[1] * 8, [1] * 5 + [0] * 3], dtype=torch.bool, device=device)
    for options in ({}, {"local_size": 6}):
        lengths = mask_of(attention_mask=padding, **options)
        assert lengths.dtype == torch.int32 and lengths.tolist() == [8, 5]


def test_lengths_in_a_static_cache(mask_of, device):
    """Keys that are not there yet follow the last query's."""
    ones = torch.ones(2, 12, dtype=torch.bool, device=device)
    for options, valid in (
        ({"kv_length": 20}, 8),
        ({"kv_length": 20, "attention_mask": ones[:, :8]}, 8),
        ({"kv_length": 20, "q_offset": 4, "attention_mask": ones}, 12),
        ({"kv_length": 20, "q_length": 1, "q_offset": torch.tensor(7, device=device)}, 8),
        ({"kv_length": 9, "q_length": 1, "q_offset": torch.tensor(7, device=device), "kv_offset": 2}, 6),
    ):
        lengths = mask_of(**options)
        assert lengths.dtype == torch.int32 and lengths.tolist() == [[[[valid]]]] * 2


def test_a_mask_where_it_must_be(mask_of, device):
    left = torch.tensor([[1] * 8, [0] * 3 + [1] * 5], dtype=torch.bool, device=device)
    for options in (
        {"attention_mask": left},
        {"attention_mask": torch.ones(2, 5, dtype=torch.bool, device=device)},
        {"allow_is_causal_skip": False},
        {"local_size": 4},  # not the config's window: a chunk
        {"allow_is_causal_skip": False, "q_length": 1, "q_offset": torch.tensor(7, device=device)},
    ):
        mask = mask_of(**options)
        assert mask.dtype == torch.bool and mask.shape == (
            2,
            1,
            options.get("q_length", 8),
            options.get("kv_length", 8),
        )


def test_registering_again_changes_nothing():
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for _ in range(2):
        rf.register_attention("another_name")
    assert ALL_ATTENTION_FUNCTIONS["another_name"] is rf.attention.transformers.attention_forward
    assert ALL_MASK_ATTENTION_FUNCTIONS["another_name"] is rf.attention.transformers.attention_mask


class Causal(torch.nn.Module):
    is_causal = True


FORWARD = rf.attention.transformers.attention_forward


def test_two_dimensional_padding_and_position_bias(device):
    query, key = torch.randn(2, 4, 5, 8, device=device), torch.randn(2, 2, 5, 8, device=device)
    padding = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]], device=device)
    bias = torch.randn(1, 4, 5, 5, device=device)
    keep = padding.bool()[:, None, None] & torch.ones(5, 5, dtype=torch.bool, device=device).tril()
    out, weights = FORWARD(Causal(), query, key, key, padding)
    assert weights is None and out.is_contiguous()
    assert out.equal(rf.mqa_attention(query, key, key, attn_mask=keep).transpose(1, 2))
    out, _ = FORWARD(Causal(), query, key, key, keep, position_bias=bias)
    expected = rf.mqa_attention(query, key, key, attn_mask=bias.where(keep, -torch.inf)).transpose(1, 2)
    assert out.equal(expected)
    out, _ = FORWARD(Causal(), query, key, key, None, position_bias=bias)
    torch.testing.assert_close(out[0], expected[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, "dropout is not supported, got 0.1"),
        ({"output_attentions": True}, "attention weights are never stored"),
        ({"sliding_window": 3, "is_causal": False}, "window on both sides needs a mask"),
    ],
)
def test_what_is_not_supported(options, message):
    query = torch.zeros(1, 2, 5, 8)
    with pytest.raises(ValueError, match=message):
        FORWARD(Causal(), query, query, query, None, **options)
