from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib", reason="the examples draw pictures")
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def train_mqa(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("train_mqa")
    monkeypatch.setattr(module, "CONTEXT", 32)
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_two_runs_and_a_resumed_one_give_the_same_weights(train_mqa, tmp_path, reference_device):
    def run(folder: str, steps: int, *more: str) -> dict[str, torch.Tensor]:
        options = ["--out", str(tmp_path / folder), "--steps", str(steps), "--sample", "5", *more]
        return train_mqa.main(options).state_dict()

    whole, again = run("whole", 8), run("again", 8)
    run("resumed", 3)
    resumed, other_seed = run("resumed", 8, "--resume"), run("other", 8, "--seed", "1")
    for name, weights in whole.items():
        assert weights.equal(again[name]) and weights.equal(resumed[name])
    assert not whole["head.weight"].equal(other_seed["head.weight"])

    losses = [torch.load(tmp_path / folder / "checkpoint.pt")["losses"] for folder in ("whole", "resumed")]
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]
    assert (tmp_path / "whole" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_resuming_nothing_is_refused(train_mqa, tmp_path):
    with pytest.raises(SystemExit, match="nothing to resume"):
        train_mqa.main(["--out", str(tmp_path), "--resume"])


def test_resuming_with_another_seed_is_refused(train_mqa, tmp_path, reference_device):
    train_mqa.main(["--out", str(tmp_path), "--steps", "1", "--sample", "1"])
    with pytest.raises(SystemExit, match="was trained with --seed 0, not 1"):
        train_mqa.main(["--out", str(tmp_path), "--steps", "2", "--seed", "1", "--resume"])


def test_without_matplotlib_nothing_is_trained(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "training", raising=False)
    with pytest.raises(SystemExit, match="pip install matplotlib"):
        importlib.import_module("training")
