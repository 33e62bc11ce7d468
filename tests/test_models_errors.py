"""Files that cannot be loaded as models, and what is said about them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rocforge_ops as rf

pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="loading models needs the hf extra")

from roundtrip import each, float32, write
from roundtrip.cases import CASES


def test_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.add_name("Mamba 130M")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"architecture mamba, 'Mamba 130M'.*known are llama, .*gemma3.*starcoder"):
        rf.load_model(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda keys: keys.pop("add_block_count"), r"no key llama\.block_count"),
        (lambda keys: keys.update(add_head_count_kv=[2, 1]), r"head_count_kv differs between layers \(\[2, 1\]\)"),
        (lambda keys: keys.update(add_rope_dimension_count=8), "rotates whole heads of 16"),
        (lambda keys: keys.update(add_value_length=8), "keys are 16 wide and values 8"),
        (lambda keys: keys.update(add_bos_token_id=96), "bos_token_id is 96, but the vocabulary has 96 entries"),
        (lambda keys: keys.update(add_embedding_length=32), "of another shape"),
        (lambda keys: keys.update(add_head_count=0), "head_count is 0, expected a positive whole number"),
        (lambda keys: keys.update(add_block_count=10**9), "block_count is 1000000000, but the file has 21 tensors"),
        (lambda keys: keys.update(add_head_count=3), "LlamaConfig refuses what the file says"),
        (lambda keys: keys.update(add_block_count=3), r"model\.layers\.2\.mlp\.down_proj\.weight \(blk\.2\.ffn_down"),
    ],
)
def test_wrong_keys(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    write(CASES["llama"], CASES["llama"].build(), tmp_path / "model.gguf", float32, change)
    with pytest.raises(ValueError, match=message):
        rf.load_model(tmp_path / "model.gguf")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64])
def test_wrong_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"dtype must be float32, float16 or bfloat16, got {dtype}"):
        rf.load_model(tmp_path / "model.gguf", dtype=dtype)


def test_wrong_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    case = dataclasses.replace(CASES["llama"], extra=lambda config: {"rope_freqs.weight": np.float32([1, 2, 3])})
    write(case, case.build(), path, float32)
    with pytest.raises(ValueError, match=r"rope_freqs\.weight has shape \[3\], expected \[8\]"):
        rf.load_model(path)

    flat = each(lambda config, name, rows: [(name, rows.ravel() if ".q_proj." in name else rows)])
    case = dataclasses.replace(CASES["llama"], convert=flat)
    write(case, case.build(), path, float32)
    with pytest.raises(ValueError, match=r"blk\.0\.attn_q\.weight is no matrix, its shape is \[4096\]"):
        rf.load_model(path)

    write(CASES["gpt2"], CASES["gpt2"].build(), path, float32, lambda keys: keys.update(add_context_length=10**6))
    with pytest.raises(ValueError, match=r"context_length is 1000000, but position_embd\.weight has 160 rows"):
        rf.load_model(path)


def test_keys_without_use_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.gguf"
    write(CASES["llama"], CASES["llama"].build(), path, float32, lambda keys: keys.update(add_embedding_scale=2.0))
    rf.load_model(path)
    assert "LlamaForCausalLM has no use for llama.embedding_scale" in caplog.text


def test_float16_gemma_warns(tmp_path: Path) -> None:
    write(CASES["gemma"], CASES["gemma"].build(), tmp_path / "model.gguf", float32)
    with pytest.warns(UserWarning, match="GemmaForCausalLM computes values above float16's largest"):
        rf.load_model(tmp_path / "model.gguf", dtype=torch.float16)


@pytest.mark.parametrize("package", ["transformers", "gguf"])
def test_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    write(CASES["llama"], CASES["llama"].build(), tmp_path / "model.gguf", float32)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs the package {package}: pip install rocforge_ops\[hf\]"):
        rf.load_model(tmp_path / "model.gguf")


def test_importing_the_package_imports_no_optional_one(tmp_path: Path) -> None:
    code = "import sys, rocforge_ops; print([name for name in ('transformers', 'gguf') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
