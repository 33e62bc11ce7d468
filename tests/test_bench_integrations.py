"""benchmarks/bench_integrations.py in a tiny setting."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rocforge_ops as rf

FILE = Path(__file__).parent.parent / "benchmarks" / "bench_integrations.py"


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench_integrations", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lines(bench, monkeypatch, capsys, reference_device):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    words = ["--device", "cpu", "--layers", "3", "--hidden", "256", "--vocabulary", "64", "--tokens", "2"]
    monkeypatch.setattr(sys, "argv", ["bench_integrations.py", *words])
    assert bench.main() == 0
    out = capsys.readouterr().out
    assert "skipped: PyTorch has a flash backend that can be replaced on GPUs only" in out
    sizes = {name: int(size) for name, size in re.findall(r"^(dequantised|packed) +[\d.]+ +(\d+) ", out, re.M)}
    assert sizes["packed"] < sizes["dequantised"]
    (difference,) = re.findall(r"differ by (\S+) of their norm", out)
    assert 0 < float(difference) < 0.05  # bfloat16 activations; the dequantised weights are rounded too


def test_errors_are_those_of_rounding(bench, reference_device):
    for causal in (False, True):
        inputs = bench.attention_inputs((2, 4, 2, 32, 16, causal), "cpu", torch.bfloat16)
        assert all(1e-4 < error < 1e-2 for error in bench.errors(inputs, causal))


@pytest.mark.parametrize("format", ["Q4_K", "Q6_K"])
def test_random_weights(bench, format):
    packed = torch.from_numpy(bench.random_blocks(format, 64, 1024, np.random.default_rng(0)))
    weights = rf.dequantize(packed, format)
    assert weights.shape == (64, 1024)
    assert abs(weights.mean()) < 1e-3 and 0.9 < weights.std() * 32 < 1.1
