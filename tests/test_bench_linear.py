"""`rocforge bench linear` in a tiny setting."""

from __future__ import annotations

import argparse
import re

import pytest
import torch
from test_cli import rocforge

import rocforge_ops as rf
from rocforge_ops.bench import linear

TINY = ("--device", "cpu", "--shapes", "64x512", "--seconds", "0.001")


def test_lines(monkeypatch, capsys, reference_device):
    monkeypatch.setattr(linear, "CPU_ROTATED_BYTES", 1 << 16)
    parser = argparse.ArgumentParser()
    linear.add_arguments(parser)
    formats, rows = ("Q4_K", "BF16"), ("1", "3", "600")
    arguments = parser.parse_args([*TINY, "--formats", *formats, "--rows", *rows, "--dtypes", "float32", "bfloat16"])
    threads = torch.get_num_threads()
    assert linear.run(arguments) == 0
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    for word in ("device: ", "versions: rocforge_ops", "date: ", "command: ", "x matmul", "x decode", "of read"):
        assert word in out
    for dtype in ("float32", "bfloat16"):
        for format in formats:
            assert f"{format} 64x512 (out x in), {dtype}" in out
    lines = re.findall(r"^ +(\d+) (.*)$", out, re.M)
    assert [line[0] for line in lines] == list(rows) * 4
    for _, numbers in lines:
        us, rate, share, flops, by_matmul, by_decode, error, its_error = (float(n.rstrip("%")) for n in numbers.split())
        assert min(us, error, its_error) > 0 and min(rate, share, flops, by_matmul, by_decode) >= 0
        assert error < 0.01 and error <= 2 * its_error


@pytest.mark.parametrize("format", [f.name for f in rf.formats])
def test_weights_are_finite_and_of_one_size(format, reference_device):
    packed = linear.random_weights(rf.formats[format], linear.Shape(8, 512), "cpu")
    assert packed.shape == (8, rf.formats[format].row_bytes(512))
    largest = rf.dequantize(packed, format).abs().amax(-1)
    assert largest.isfinite().all() and largest.min() > 0 and largest.max() <= 64 * largest.min()


def test_cold_weights():
    for device in ("cpu", "cuda:0"):
        assert linear._sets(1 << 20, 1, device) * (1 << 20) >= 1 << 27
        assert linear._sets(1 << 40, 1, device) == 2
        assert linear._sets(1 << 20, 512, device) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--formats", "Q4"], "invalid choice"),
        (["--shapes", "4096"], "OUTxIN"),
        (["--dtypes", "int8"], "invalid"),
        (["--rows", "0"], "must be at least 1"),
    ],
)
def test_bad_usage(wrong, message):
    run = rocforge("bench", "linear", "--device", "cpu", *wrong)
    assert run.returncode == 2 and "usage: rocforge bench" in run.stderr and message in run.stderr


def test_rows_of_no_whole_blocks():
    run = rocforge("bench", "linear", "--device", "cpu", "--formats", "Q4_K", "--shapes", "64x100")
    assert run.returncode == 1 and "a row of Q4_K is a multiple of 256 weights, got 100" in run.stderr
