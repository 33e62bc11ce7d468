"""examples/cpp as an outside project builds it: against the installed package and PyTorch, in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import rocforge_ops as rf
from rocforge_ops.gguf import GGUFFile

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "rocforge_ops" / "data" / "demo.gguf"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Where the example's programs are, built from a copy of its folder."""
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "examples" / "cpp", folder / "source", ignore=shutil.ignore_patterns("build"))
    prefixes = f"{torch.utils.cmake_prefix_path};{rf.cmake_prefix_path}"
    run("cmake", "-S", folder / "source", "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefixes}")
    run("cmake", "--build", folder / "build")
    return folder / "build"


def run(*command) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_lists_tensors(example):
    lines = run(example / "list_tensors", DEMO).splitlines()
    with GGUFFile(DEMO) as file:
        assert lines[0].split() == ["architecture", file.architecture]
        listed = {line.split()[0]: line.split()[1:] for line in lines[1:]}
        assert listed == {name: [t.format, *map(str, t.shape)] for name, t in file.items()}


def test_runs_a_layer(example):
    """The number it prints is what the Python functions make of the same layer."""
    text = run(example / "first_layer", DEMO)
    with GGUFFile(DEMO) as file:
        heads, kv_heads = (file.metadata[f"{file.architecture}.attention.head_count{k}"] for k in ("", "_kv"))
        weight = {name: t.dequantize() for name, t in file.items() if name.startswith(("blk.0.attn", "token_embd"))}
    x = weight["token_embd.weight"][1:9]
    hidden = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight["blk.0.attn_norm.weight"]
    q, k, v = (
        (hidden @ weight[f"blk.0.attn_{name}.weight"].T).unflatten(-1, (count, -1)).transpose(0, 1)[None]
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    )
    angles = torch.outer(torch.arange(8.0), 10000.0 ** -(torch.arange(0, q.shape[-1], 2) / q.shape[-1]))
    q, k = (rf.rotary_embedding(t, angles.cos(), angles.sin(), interleaved=True) for t in (q, k))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    layer = x + out[0].transpose(0, 1).flatten(1) @ weight["blk.0.attn_output.weight"].T
    assert f"{heads} query heads on {kv_heads} key/value heads of size {q.shape[-1]}" in text
    assert float(text.split()[-2]) == pytest.approx(layer[-1].norm().item(), rel=1e-3)


def test_says_what_is_wrong_with_a_file(example, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(DEMO.read_bytes()[:1000])
    done = subprocess.run([example / "list_tensors", path], capture_output=True, text=True)
    assert done.returncode == 1 and str(path) in done.stderr
