"""`rocforge bench attention` in a tiny setting."""

from __future__ import annotations

import argparse
import re

import pytest
import torch

from rocforge_ops.bench import attention

TINY = attention.Case(2, 4, 2, 24, 24, 16)
CASES = [
    TINY,
    attention.Case(2, 4, 2, 24, 24, 16, attention.CAUSAL),
    attention.Case(1, 4, 1, 24, 24, 16, attention.CAUSAL | {"window": 5, "softcap": 3.0}),
    attention.Case(1, 4, 4, 24, 24, 16, mask=True),
    attention.Case(1, 4, 1, 1, 50, 16),
]


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    attention.add_arguments(parser)
    return parser.parse_args(["--device", "cpu", "--seconds", "0.001", *words])


@pytest.mark.parametrize("backward", [(), ("--backward",)])
def test_lines(backward, monkeypatch, capsys, reference_device):
    threads = torch.get_num_threads()
    monkeypatch.setattr(attention, "CPU_PREFILL", CASES[:4])
    monkeypatch.setattr(attention, "CPU_DECODE", CASES[4:])
    assert attention.run(arguments("--dtypes", "float32", "bfloat16", *backward)) == 0
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    for word in ("device: ", "versions: rocforge_ops", "date: ", "command: ", "prefill", "x flash", "x math", "MiB"):
        assert word in out
    for case in CASES[:4] if backward else CASES:
        for dtype in ("float32", "bfloat16"):
            (numbers,) = re.findall(rf"^{dtype} {re.escape(case.name)} +([\d. ]+)$", out, re.M)
            # Ours: time, rate, memory; then ratio and memory of each of two backends that know such attention.
            assert len(numbers.split()) == (3 if "softcap" in case.options else 7)


def test_every_backend_computes_the_same(reference_device):
    for case in CASES:
        query, key, value = case.inputs("cpu", torch.float32)
        mask = torch.rand(case.batch, 1, case.rows, case.keys) < 0.9 if case.mask else None
        ours = attention.fused(case, mask)(query, key, value)
        for name in ("flash", "math"):
            for expand in (False, True):
                theirs = attention.pytorchs(case, mask, attention.BACKENDS[name], expand)
                if theirs is not None:
                    torch.testing.assert_close(theirs(query, key, value), ours)


def test_memory_is_what_is_allocated(reference_device):
    def call() -> torch.Tensor:
        kept = torch.empty(1000)
        del kept
        return torch.empty(2000) + torch.empty(2000)

    assert 24000 <= attention.peak_bytes(call, "cpu") <= 24000 + 1024


def test_flops_count_what_is_visible():
    assert TINY.flops() == 4 * 2 * 4 * 16 * 24 * 24
    assert CASES[1].flops() == 4 * 2 * 4 * 16 * (24 * 25 // 2)
    assert CASES[2].flops() == 4 * 4 * 16 * (5 * 24 - 10)
    assert attention.Case(1, 1, 1, 2, 5, 1, attention.CAUSAL).flops() == 4 * (4 + 5)


def test_the_host_has_no_round_trip(reference_device):
    with pytest.raises(ValueError, match="this is the host"):
        attention.run(arguments("--kinds", "host"))
