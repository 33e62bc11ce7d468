"""benchmarks/bench_integrations.py in a tiny setting."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rocforge_ops as rf

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("bench_integrations")


def test_lines(bench, monkeypatch, capsys, reference_device):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    words = ["--device", "cpu", "--layers", "3", "--hidden", "256", "--vocabulary", "64", "--tokens", "2"]
    monkeypatch.setattr(sys, "argv", ["bench_integrations.py", *words])
    assert bench.main() == 0
    out = capsys.readouterr().out
    assert "skipped: PyTorch has a flash backend that can be replaced on GPUs only" in out
    rows = {name: row.split() for name, row in re.findall(r"^(dequantised|packed) +(.+)$", out, re.M)}
    assert int(rows["packed"][1]) < int(rows["dequantised"][1])
    assert all(0 < float(row[-1]) < 0.05 for row in rows.values())  # bfloat16; dequantised weights are rounded too


def test_errors_are_those_of_rounding(bench, reference_device):
    for causal in (False, True):
        inputs = bench.attention_inputs((2, 4, 2, 32, 16, causal), "cpu", torch.bfloat16)
        assert all(1e-4 < error < 1e-2 for error in bench.errors(inputs, causal))


@pytest.mark.parametrize("format", ["Q4_K", "Q6_K"])
def test_random_weights(monkeypatch, format):
    monkeypatch.syspath_prepend(FOLDER)
    from lfm2_file import random_blocks

    packed = torch.from_numpy(random_blocks(format, 64, 1024, np.random.default_rng(0)))
    weights = rf.dequantize(packed, format)
    assert weights.shape == (64, 1024)
    assert abs(weights.mean()) < 1e-3 and 0.9 < weights.std() * 32 < 1.1
