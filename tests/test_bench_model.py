"""`rocforge bench model` in a tiny setting."""

from __future__ import annotations

import argparse
import re

import pytest
import torch

from rocforge_ops.bench import model

TINY = {"hidden": 256, "heads": 8, "head-dim": 32, "intermediate": 512, "vocabulary": 300, "layers": 2, "context": 40}
STAGES = ["norm", "qkv projection", "RoPE and cache", "attention", "out projection", "feed-forward"]


def arguments(*words: str, device: str = "cpu") -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    model.add_arguments(parser)
    sizes = [word for name, size in TINY.items() for word in (f"--{name}", str(size))]
    return parser.parse_args(["--device", device, "--seconds", "0.001", "--batch", "2", *sizes, *words])


@pytest.mark.parametrize("words", [(), ("--format", "dense", "--length", "3"), ("--dtype", "bfloat16")], ids=str)
def test_lines(words, tmp_path, capsys, reference_device):
    threads, picture = torch.get_num_threads(), tmp_path / "step.png"
    pytest.importorskip("matplotlib")
    assert model.run(arguments(*words, "--plot", str(picture))) == 0
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    for word in ("device: ", "versions: rocforge_ops", "date: ", "command: ", "copy: ", "B2 L", "Hq8 Hkv1 D32"):
        assert word in out
    for name in (*STAGES, "layer", "model step"):
        (numbers,) = re.findall(rf"^{re.escape(name)} +([\d.% ]+)$", out, re.M)
        assert len(numbers.split()) == 4 and float(numbers.split()[0]) > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@torch.inference_mode()
def test_stages_are_the_layer(reference_device):
    """One after another they compute what the layer does, and they count the bytes that a step moves."""
    args = arguments("--format", "dense")
    bench = model.Bench(model.sizes_of(args, True), args, "cpu")
    layer = bench.model.stack[1]
    norm, project, store, attend, out, feed = model.stages(layer, bench.hidden, bench.cache)
    query = store.run(project.run(norm.run(bench.hidden)))
    middle = bench.hidden + out.run(attend.run(query, *attend.inputs[1:]))
    torch.testing.assert_close(feed.run(middle), bench.layer(1))
    assert project.nbytes == 4 * (256 * (8 + 2) * 32 + 2 * 256 + 2 * 10 * 32)
    assert attend.nbytes == 4 * 2 * (2 * 41 * 32 + 2 * 8 * 32)
    assert bench.cache_bytes(2) == 2 * 2 * 2 * 41 * 32 * 4


@torch.inference_mode()
def test_a_step_leaves_the_cache_as_it_was(reference_device):
    args = arguments()
    bench = model.Bench(model.sizes_of(args, True), args, "cpu")
    assert bench.step().shape == (2,)
    assert bench.cache.seen == 40 and bench.cache.lengths.tolist() == [40, 40]


@pytest.mark.gpu
def test_on_a_gpu(capsys, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    picture = tmp_path / "step.png"
    plot = ("--plot", str(picture)) if model.importlib.util.find_spec("matplotlib") else ()
    assert model.run(arguments(*plot, device="cuda")) == 0
    out = capsys.readouterr().out
    assert "by host us" in out
    for name in (*STAGES, "layer"):
        (numbers,) = re.findall(rf"^{re.escape(name)} +([\d.% ]+)$", out, re.M)
        assert len(numbers.split()) == 5
    assert not plot or picture.read_bytes().startswith(b"\x89PNG")
