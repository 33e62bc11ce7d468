from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch


def rocforge(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rocforge_ops", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def model(shared_models):
    return shared_models / "stories260K-Q5_1.gguf"


def test_help_lists_the_commands():
    run = rocforge("--help")
    assert run.returncode == 0
    assert all(command in run.stdout for command in ("info", "generate", "verify", "bench"))


@pytest.mark.parametrize("command", ["info", "generate", "verify", "bench"])
def test_help_of_a_command(command):
    run = rocforge(command, "--help")
    assert run.returncode == 0 and "GGUF" in run.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["info"],
        ["generate", "model.gguf"],
        ["generate", "model.gguf", "--prompt", "x", "--max-new-tokens", "0"],
        ["generate", "model.gguf", "--prompt", "x", "--top-p", "1.5"],
        ["generate", "model.gguf", "--prompt", "x", "--temperature", "-1"],
        ["generate", "model.gguf", "--prompt", "x", "--dtype", "int8"],
        ["verify", "model.gguf", "another.gguf"],
        ["bench"],
        ["bench", "nonsense"],
    ],
)
def test_bad_usage_is_status_2(arguments):
    run = rocforge(*arguments)
    assert run.returncode == 2
    assert "usage: rocforge" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("command", [["info"], ["generate", "--prompt", "x"]])
def test_what_is_wrong_with_a_file_is_one_line(command, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGML" + bytes(60))
    for path, word in [(bad, "magic"), (tmp_path / "none.gguf", "none.gguf"), (tmp_path, str(tmp_path))]:
        run = rocforge(command[0], path, *command[1:])
        assert run.returncode == 1
        assert run.stderr.startswith("rocforge: ") and word in run.stderr
        assert run.stderr.count("\n") == 1 and not run.stdout


def test_info(model):
    run = rocforge("info", model)
    assert run.returncode == 0, run.stderr
    assert "architecture llama" in run.stdout
    assert "Q5_1" in run.stdout and "bits/weight" in run.stdout and "packed" in run.stdout
    assert "(512 entries)" in run.stdout


def test_info_json(model):
    from rocforge_ops import GGUFFile

    run = rocforge("info", model, "--json")
    report = json.loads(run.stdout)
    with GGUFFile(model) as file:
        assert report["metadata"] == dict(file.metadata)
        assert [t["name"] for t in report["tensors"]] == list(file)
        assert report["memory"]["packed"] == sum(t.nbytes for t in file.values())
        assert sum(row["tensors"] for row in report["formats"].values()) == len(file)


def test_generate_continues_as_recorded(model, shared_models):
    recorded = json.loads((shared_models / "stories260K-Q5_1.json").read_text())
    run = rocforge("generate", model, "--prompt", "Once upon a time", "--max-new-tokens", 30, "--dtype", "float32")
    assert run.returncode == 0, run.stderr
    assert "30 tokens in" in run.stderr and "tokens/s" in run.stderr
    assert run.stdout.strip() == (recorded["prompt"] + recorded["exact_text"]).strip()


def test_sampling_is_seeded(model):
    arguments = [
        "generate",
        model,
        "--prompt",
        "Once",
        "--max-new-tokens",
        20,
        "--temperature",
        "0.9",
        "--top-p",
        "0.9",
    ]
    first, again, other = (rocforge(*arguments, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other


def test_chat_without_a_template(model):
    run = rocforge("generate", model, "--prompt", "x", "--chat")
    assert run.returncode == 1 and "no chat template" in run.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_generate_without_a_gpu_is_one_line(model):
    run = rocforge("generate", model, "--prompt", "x", "--device", "cuda")
    assert run.returncode == 1 and run.stderr.startswith("rocforge: no GPU") and run.stderr.count("\n") == 1


def test_generate_from_packed_weights(model):
    arguments = ["generate", model, "--prompt", "One day", "--max-new-tokens", 12, "--dtype", "float32"]
    dense, packed = rocforge(*arguments), rocforge(*arguments, "--packed")
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout == dense.stdout


def test_import_is_light():
    """Nothing of transformers, gguf or tqdm is imported before a model is loaded, but for what PyTorch imports."""
    script = "import sys, torch; before = set(sys.modules); import rocforge_ops; "
    script += "print([m for m in ('transformers', 'gguf', 'tqdm') if m in set(sys.modules) - before])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
