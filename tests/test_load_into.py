"""A file's weights into a module that the caller built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import rocforge_ops as rf

pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="loading models needs the hf extra")

from roundtrip import distance, logits, mixed, write
from roundtrip.cases import CASES


@pytest.fixture
def llama_file(tmp_path: Path) -> Path:
    write(CASES["llama"], CASES["llama"].build(), tmp_path / "model.gguf", mixed)
    return tmp_path / "model.gguf"


def other_llama(**config: Any) -> Any:
    case = CASES["llama"]
    return dataclasses.replace(case, config={**case.config, **config}).build()


def test_load_into_overwrites_in_place(llama_file: Path) -> None:
    module = other_llama()
    for parameter in module.parameters():
        parameter.data.zero_()
    before = [parameter.data_ptr() for parameter in module.parameters()]
    assert rf.load_into(module, llama_file) == ([], [])
    assert [parameter.data_ptr() for parameter in module.parameters()] == before
    assert distance(logits(module), logits(rf.load_model(llama_file, dtype=torch.float32))) <= 1e-6


def test_load_into_allocates_what_is_on_meta(llama_file: Path) -> None:
    import transformers

    config = rf.models.load_config(llama_file)
    with rf.models.EmptyWeights():
        module = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert module.lm_head.weight.is_meta
    rf.load_into(module, llama_file, dtype=torch.float32)
    assert distance(logits(module), logits(rf.load_model(llama_file, dtype=torch.float32))) <= 1e-6


def test_load_into_without_strict_returns_what_was_left_out(llama_file: Path) -> None:
    import transformers

    whole = other_llama()
    base = transformers.LlamaModel(whole.config)
    with pytest.raises(ValueError, match=r"does not fit LlamaModel(.|\n)*unexpected(.|\n)*output\.weight"):
        rf.load_into(base, llama_file)
    left_out = rf.load_into(base, llama_file, strict=False)
    assert left_out == ([], ["output.weight"])
    expected = rf.load_model(llama_file, dtype=torch.float32).model
    tokens = torch.arange(8)[None]
    with torch.inference_mode():
        assert distance(base(tokens).last_hidden_state, expected(tokens).last_hidden_state) <= 1e-6


def test_everything_that_does_not_fit_is_listed_at_once(llama_file: Path) -> None:
    module = other_llama(num_hidden_layers=1, intermediate_size=128, attention_bias=True)
    with pytest.raises(ValueError) as error:
        rf.load_into(module, llama_file)
    message = str(error.value)
    assert "model.layers.0.self_attn.q_proj.bias (blk.0.attn_q.bias)" in message
    assert "\n    blk.1.attn_q.weight" in message
    assert "model.layers.0.mlp.gate_proj.weight: the module has [128, 64], the file [256, 64]" in message
    with pytest.raises(ValueError, match="of another shape"):
        rf.load_into(module, llama_file, strict=False)
