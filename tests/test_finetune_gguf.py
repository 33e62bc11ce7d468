from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import rocforge_ops as rf

pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="loading models needs the hf extra")
pytest.importorskip("matplotlib", reason="the examples draw pictures")
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def finetune(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("finetune_gguf")
    for name, value in {"CONTEXT": 24, "BATCH": 2, "HELD_OUT": 2}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.training, "WARMUP", 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_two_runs_and_a_resumed_one_give_the_same_adapters(finetune, tmp_path, capsys, reference_device):
    def run(folder: str, steps: int, *more: str) -> dict[str, torch.Tensor]:
        options = ["--out", str(tmp_path / folder), "--steps", str(steps), "--rank", "2", "--sample", "2", *more]
        return {name: parameter.detach() for name, parameter in finetune.main(options).items()}

    whole, again = run("whole", 8), run("again", 8)
    run("resumed", 3)
    resumed, other_seed = run("resumed", 8, "--resume"), run("other", 8, "--seed", "1")
    assert len(whole) == 2 * 3 * 7, "two matrices for each of seven layers in three blocks, and nothing else"
    for name, weights in whole.items():
        assert weights.equal(again[name]) and weights.equal(resumed[name])
        assert not weights.equal(other_seed[name])

    losses = [torch.load(tmp_path / folder / "checkpoint.pt")["losses"] for folder in ("whole", "resumed")]
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]
    assert (tmp_path / "whole" / "loss.png").read_bytes().startswith(b"\x89PNG")
    saved = torch.load(tmp_path / "whole" / "adapters.pt")
    assert all(weights.equal(saved[name]) for name, weights in whole.items())
    before, after = capsys.readouterr().out.split("held out ")[1].split(" nats")[0].split(" -> ")
    assert float(after) < float(before)


def test_adapters_start_from_the_model_itself(finetune):
    model = rf.load_model(finetune.MODEL, torch.float32, packed=True)
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        expected = model(tokens).logits
        adapters = finetune.adapt(model, 2)
        assert torch.equal(model(tokens).logits, expected)
    assert all(parameter.requires_grad == (name in adapters) for name, parameter in model.named_parameters())


def test_what_cannot_be_resumed_is_refused(finetune, tmp_path, reference_device):
    options = ["--out", str(tmp_path), "--rank", "2", "--sample", "1"]
    with pytest.raises(SystemExit, match="nothing to resume"):
        finetune.main([*options, "--resume"])
    finetune.main([*options, "--steps", "1"])
    with pytest.raises(SystemExit, match="was trained with --seed 0, not 1"):
        finetune.main([*options, "--steps", "2", "--seed", "1", "--resume"])


def test_a_short_text_is_refused(finetune, tmp_path):
    (tmp_path / "text.txt").write_text("May 7. Rain.")
    with pytest.raises(SystemExit, match="tokens; at least 96 are needed"):
        finetune.main(["--text", str(tmp_path / "text.txt"), "--out", str(tmp_path)])
