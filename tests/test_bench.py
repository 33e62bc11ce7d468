"""`rocforge bench` in a tiny setting, and the plain PyTorch decoders that it compares with."""

from __future__ import annotations

import re

import pytest
import torch
from blocks import DTYPES, finite_rows, same
from test_cli import rocforge

import rocforge_ops as rf
from rocforge_ops.bench import dequantize, timing, torch_decoders

TINY = ("--rows", 4, "--table-rows", 64, "--seconds", 0.001)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("format", torch_decoders.DECODERS)
def test_the_baseline_decodes_what_the_operator_decodes(format, dtype, reference_device):
    packed = finite_rows(format, 5)
    assert same(torch_decoders.dequantize(packed, format, dtype), rf.dequantize(packed, format, dtype))


def test_lines_of_a_benchmark(tmp_path):
    names, dtypes = ("Q4_K", "F32", "MXFP6_E2M3"), ("float32", "bfloat16")
    picture = tmp_path / "shares.png"
    plot = ("--plot", picture) if _has_matplotlib() else ()
    arguments = ("--device", "cpu", "--formats", *names, "--dtypes", *dtypes, "--peers", "eager", *TINY, *plot)
    run = rocforge("bench", "dequantize", *arguments)
    assert run.returncode == 0, run.stderr
    for word in ("device: ", "versions: rocforge_ops", "date: ", "command: ", "copy: ", "16,384 weights", "x eager"):
        assert word in run.stdout
    number = r" +([\d.]+)"
    for name in names:
        for dtype in dtypes:
            lines = re.findall(rf"^{name} {dtype}{number}{number}{number}{number}%(.*)$", run.stdout, re.M)
            assert len(lines) == 2, run.stdout  # dequantize and embedding
            assert all(float(value) > 0 for value in lines[0][:3])
            assert bool(lines[0][4].strip()) == (name in torch_decoders.DECODERS)
    assert not plot or picture.read_bytes().startswith(b"\x89PNG")


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("peer", dequantize.PEERS)
def test_every_peer(peer):
    pytest.importorskip({"libgguf": "libgguf", "gguf": "gguf"}.get(peer, "torch"))
    m = dequantize.measure_dequantize("Q8_0", torch.float32, 4, "cpu", [peer], rate=1e9, budget=0.001)
    assert m.peers[peer] > 0 and m.seconds > 0
    assert (m.weights, m.bytes) == (4 * 4096, 4 * 4096 * 4 + 4 * 128 * 34)
    assert m.share == pytest.approx(m.bytes / m.seconds / 1e9)
    unknown = dequantize.measure_dequantize("MXFP6_E3M2", torch.float32, 4, "cpu", [peer], rate=1e9, budget=0.001)
    assert not unknown.peers


def test_calls_in_turn_outgrow_the_caches():
    for nbytes in (1, 10**6, 10**8, 10**10):
        count = timing.rotation(nbytes)
        assert 2 <= count <= timing.MOST_CALLS
        assert count * nbytes >= timing.ROTATED_BYTES or count == timing.MOST_CALLS


@pytest.mark.parametrize("wrong", [["--formats", "Q4"], ["--dtypes", "int8"], ["--peers", "nobody"]])
def test_bad_usage(wrong):
    run = rocforge("bench", "dequantize", "--device", "cpu", *wrong)
    assert run.returncode == 2 and "usage: rocforge bench" in run.stderr


def test_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    run = rocforge("bench", "dequantize", "--device", "cuda", *TINY)
    assert run.returncode == 1 and not run.stdout
    assert run.stderr.startswith("rocforge: no GPU: ") and run.stderr.count("\n") == 1


@pytest.mark.gpu
def test_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    run = rocforge("bench", "dequantize", "--formats", "Q4_0", "IQ2_XXS", "--rows", 1024, "--table-rows", 4096)
    assert run.returncode == 0, run.stderr
    assert "wave size" in run.stdout and "x compile" in run.stdout
    assert len(re.findall(r"^(?:Q4_0|IQ2_XXS) \w+ ", run.stdout, re.M)) == 12
