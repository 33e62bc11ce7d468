"""Settings of a multi-query attention layer and of its rotary embedding."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

import rocforge_ops as rf

GOOD = rf.MultiQueryConfig(
    32, 4, 64, rf.RopeConfig(rotary_dim=32), hidden_size=100, qk_norm=True, window=9, softcap=3.0
)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"num_query_heads": 0}, ["num_query_heads is 0, expected a positive integer"]),
        ({"num_kv_heads": -1}, ["num_kv_heads is -1, expected a positive integer"]),
        ({"num_query_heads": 32.0}, ["num_query_heads is 32.0, expected a positive integer"]),
        ({"num_kv_heads": 5}, ["num_query_heads is 32, expected a multiple of num_kv_heads 5"]),
        ({"num_kv_heads": 64}, ["num_query_heads is 32, expected a multiple of num_kv_heads 64"]),
        ({"hidden_size": 0}, ["hidden_size is 0"]),
        ({"rope": True}, ["rope is True, expected its settings"]),
        ({"rope": rf.RopeConfig(rotary_dim=7)}, ["rope.rotary_dim is 7, expected an even number"]),
        ({"rope": rf.RopeConfig(), "head_dim": 63}, ["rope.rotary_dim is 63, expected an even number"]),
        ({"rope": rf.RopeConfig(rotary_dim=66)}, ["rope.rotary_dim is 66, expected 2 to head_dim 64"]),
        ({"rope": rf.RopeConfig(rotary_dim=0)}, ["rope.rotary_dim is 0"]),
        ({"rope": rf.RopeConfig(base=0.0)}, ["rope.base is 0.0"]),
        ({"rope": rf.RopeConfig(base=float("nan"))}, ["rope.base is nan"]),
        ({"rope": rf.RopeConfig(scaling="ntk")}, ["rope.scaling is 'ntk', expected one of none, linear"]),
        ({"rope": rf.RopeConfig(scaling="linear", factor=0)}, ["rope.factor is 0"]),
        ({"rope": rf.RopeConfig(attention_factor=-1)}, ["rope.attention_factor is -1"]),
        (
            {"rope": rf.RopeConfig(scaling="yarn", factor=2)},
            ["rope.original_context is None, which yarn scaling needs"],
        ),
        (
            {"rope": rf.RopeConfig(scaling="yarn", original_context=64, beta_fast=1.0, beta_slow=2.0)},
            ["rope.beta_slow 2.0 must be positive and below rope.beta_fast 1.0"],
        ),
        (
            {"rope": rf.RopeConfig(scaling="llama3", original_context=64, low_freq_factor=4.0)},
            ["rope.low_freq_factor 4.0 must be positive and below rope.high_freq_factor 4.0"],
        ),
        (
            {"rope": rf.RopeConfig(scaling="longrope", factors=[1.0] * 31)},
            [
                "rope.original_context is None, which longrope scaling needs",
                "rope.factors has 31 numbers, expected 32",
                "rope.long_factors is None, which longrope scaling needs",
            ],
        ),
        ({"rope": rf.RopeConfig(scaling="factors", factors=[0.0] * 32)}, ["rope.factors holds 0.0, expected positive"]),
        ({"rope": rf.RopeConfig(scaling="factors", factors="abc")}, ["rope.factors is 'abc', expected numbers"]),
        ({"rope": rf.RopeConfig(scaling="factors", factors=[1.0] * 31 + ["x"])}, ["rope.factors holds 'x'"]),
        ({"rope": rf.RopeConfig(base="x", factor=None)}, ["rope.base is 'x'", "rope.factor is None"]),
        ({"rope": rf.RopeConfig(rotary_dim=32.0)}, ["rope.rotary_dim is 32.0, expected 2 to head_dim 64"]),
        ({"rope": rf.RopeConfig(rotary_dim="x")}, ["rope.rotary_dim is 'x'"]),
        ({"rope": rf.RopeConfig(interleaved="no")}, ["rope.interleaved is 'no', expected True or False"]),
        ({"rope": rf.RopeConfig(factor=float("inf"))}, ["rope.factor is inf, expected a positive number"]),
        (
            {"rope": rf.RopeConfig(scaling="longrope", original_context=1, factors=[1] * 16, long_factors=[1] * 16)},
            [
                "rope.original_context is 1, expected a number above 1",
                "rope.factors has 16",
                "rope.long_factors has 16",
            ],
        ),
        (
            {"rope": rf.RopeConfig(scaling="yarn", original_context="x", beta_fast=None)},
            ["rope.original_context is 'x'", "rope.beta_slow 1.0 must be positive and below rope.beta_fast None"],
        ),
        (
            {"scale": "x", "softcap": None, "qk_norm_eps": "x"},
            ["scale is 'x'", "softcap is None", "qk_norm_eps is 'x'"],
        ),
        (
            {"causal": "no", "sinks": 1},
            ["causal is 'no', expected True or False", "sinks is 1, expected True or False"],
        ),
        ({"window": 0}, ["window is 0, expected a positive integer or None"]),
        ({"causal": False}, ["window is 9 without causal"]),
        ({"scale": 0.0}, ["scale is 0.0"]),
        ({"softcap": -1.0}, ["softcap is -1.0"]),
        ({"softcap": float("inf")}, ["softcap is inf"]),
        ({"qk_norm_eps": -1e-6}, ["qk_norm_eps is -1e-06"]),
        (
            {"num_query_heads": -2, "head_dim": 0, "window": -3, "softcap": float("nan")},
            ["num_query_heads is -2", "head_dim is 0", "window is -3", "softcap is nan"],
        ),
    ],
)
def test_multi_query_config_validation(changes, lines):
    """Every inconsistent field, and nothing else, in one error; the module raises the same."""
    config = dataclasses.replace(GOOD, **changes)
    for check in (config.validate, lambda: rf.nn.MultiQueryAttention(config)):
        with pytest.raises(ValueError) as error:
            check()
        title, *found = str(error.value).splitlines()
        assert title == "inconsistent MultiQueryConfig:"
        assert len(found) == len(lines)
        assert all(line in got for line, got in zip(lines, found, strict=True))


def test_multi_query_config_validation_accepts_what_works():
    for config in (GOOD, rf.MultiQueryConfig(1), rf.MultiQueryConfig(7, 7, 3), rf.MultiQueryConfig(4, rope=None)):
        assert config.validate() is config
    assert rf.MultiQueryConfig(12, 3, 10).width == 120
    assert (GOOD.width, GOOD.sections) == (100, (2048, 256, 256))


PARAMETERS = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "yarn, gpt-oss": {
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "yarn, DeepSeek": {
        "factor": 40.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "original_max_position_embeddings": 4096,
    },
    "yarn, its own attention factor": {
        "factor": 4.0,
        "attention_factor": 1.3,
        "original_max_position_embeddings": 512,
    },
    "longrope": {
        "factor": 16.0,
        "short_factor": [1 + i / 7 for i in range(16)],
        "long_factor": [2 + i for i in range(16)],
        "original_max_position_embeddings": 512,
    },
}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_frequencies_are_those_of_transformers(name, part):
    transformers = pytest.importorskip("transformers")
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    kind, pairs = name.partition(",")[0], int(16 * part)
    parameters = {"rope_type": kind, "rope_theta": 50000.0, "partial_rotary_factor": part} | PARAMETERS[name]
    parameters |= {key: value[:pairs] for key, value in parameters.items() if isinstance(value, list)}
    rope = rf.RopeConfig.from_parameters(parameters, head_dim=32, interleaved=True)
    assert rope.problems(32) == [] and rope.interleaved
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=2, head_dim=32, rope_parameters=parameters, max_position_embeddings=16384
    )
    if kind == "default":
        torch.testing.assert_close(
            rope.frequencies(32), 50000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs), rtol=1e-12, atol=0
        )
        return
    for long in (False, True):
        expected, amplitude = rope_utils.ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=513 if long else 10)
        torch.testing.assert_close(rope.frequencies(32, long).float(), expected, rtol=2e-6, atol=0)
        assert rope.amplitude() == pytest.approx(amplitude, rel=1e-6)


def test_factors_from_a_tensor():
    factors = torch.linspace(1, 8, 16, dtype=torch.float16)
    rope = rf.RopeConfig(scaling="factors", factors=factors)
    assert rope == rf.RopeConfig(scaling="factors", factors=factors.tolist()) and rope.problems(32) == []
    expected = rf.RopeConfig().frequencies(32) / factors.double()
    torch.testing.assert_close(rope.frequencies(32), expected, rtol=1e-14, atol=0)


def test_a_factor_from_the_context():
    """Phi-3 and DeepSeek state the two lengths and no factor."""
    parameters = {"rope_type": "yarn", "original_max_position_embeddings": 512, "factor": None}
    assert rf.RopeConfig.from_parameters(parameters, 32, max_context=2048).factor == 4.0


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="rope_type is 'dynamic'; known are default, linear, llama3, yarn, longrope"):
        rf.RopeConfig.from_parameters({"rope_type": "dynamic"}, 32)


def test_angles_stay_float32_and_longrope_looks_at_the_longest_text(device):
    short, long = [1.0] * 4, [8.0] * 4
    rope = rf.RopeConfig(
        scaling="longrope", original_context=16, factors=short, long_factors=long, attention_factor=1.0
    )
    angles = rf.nn.RotaryAngles(rope, 8).to(torch.bfloat16)
    for last, factor in ((15, 1.0), (16, 8.0)):
        positions = torch.tensor([[3, 5], [1, last]], device=device)
        cos, sin = angles(positions)
        expected = positions[..., None].double() * (10000.0 ** -(torch.arange(4, device=device) / 4)) / factor
        assert cos.dtype == sin.dtype == torch.float32
        torch.testing.assert_close(cos.double(), expected.cos(), rtol=0, atol=2e-6)
        torch.testing.assert_close(sin.double(), expected.sin(), rtol=0, atol=2e-6)


def test_transformers_is_not_needed():
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import torch, rocforge_ops as rf\n"
        "config = rf.MultiQueryConfig(4, 2, 32, rf.RopeConfig(scaling='yarn', factor=2, original_context=64))\n"
        "cache = rf.KVCache.for_config(config, 1, 8, format='Q8_0')\n"
        "with torch.no_grad():\n"
        "    print(rf.nn.MultiQueryAttention(config)(torch.randn(1, 3, 128), cache=cache).shape)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "torch.Size([1, 3, 128])\n"


def test_a_longer_table_of_angles_leaves_the_shorter_one(device):
    """A captured graph goes on reading the one it was captured with."""
    angles, where = rf.nn.RotaryAngles(rf.RopeConfig(), 8), torch.zeros(0, device=device).device
    short = angles.table(5, where)
    long = angles.table(9, where)
    assert angles.table(4, where) is short and angles.table(7, where) is long
    torch.testing.assert_close(long[0][:5], short[0])
