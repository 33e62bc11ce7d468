"""Models whose weights stay in their GGUF blocks. test_models.py has the logits of every architecture."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rocforge_ops as rf
from rocforge_ops.nn import PackedModule, QuantizedEmbedding, QuantizedExperts, QuantizedLinear

pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="loading models needs the hf extra")

from roundtrip import distance, float32, logits, mixed, write
from roundtrip.cases import CASES

DEMO = Path(rf.__file__).parent / "data" / "demo.gguf"


def file_of(tmp_path: Path, name: str, formats: Any = mixed) -> Path:
    path = tmp_path / f"{name}.gguf"
    write(CASES[name], CASES[name].build(), path, formats)
    return path


@pytest.mark.parametrize("name", CASES)
def test_every_matrix_is_packed(tmp_path: Path, name: str) -> None:
    """What stays dense: norms, biases, sinks, and routers that are no linear layer of their class."""
    model = rf.load_model(file_of(tmp_path, name), packed=True)
    for key, parameter in model.named_parameters():
        packed = key.endswith(".packed")
        assert parameter.dtype == (torch.uint8 if packed else torch.bfloat16), key
        dense = ("mlp.gate.weight", "mlp.router.weight", "down.bias", "gate_up.0.bias", "gate_up.1.bias")
        assert packed or parameter.ndim == 1 or "_norm." in key or key.endswith(dense), key
    assert not [m for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))]
    assert isinstance(model.get_input_embeddings(), QuantizedEmbedding)
    assert isinstance(model.get_output_embeddings(), QuantizedLinear)


def test_formats_are_those_of_the_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, "mixtral")
    model = rf.load_model(path, packed=True)
    with rf.GGUFFile(path) as file:
        layer = model.model.layers[1]
        assert layer.self_attn.o_proj.format == file["blk.1.attn_output.weight"].format
        experts = layer.mlp.experts
        assert isinstance(experts, QuantizedExperts)
        found = [part.format for part in (*experts.gate_up, experts.down)]
        assert found == [file[f"blk.1.ffn_{part}_exps.weight"].format for part in ("gate", "up", "down")]
        assert layer.mlp.experts.down.shape == file["blk.1.ffn_down_exps.weight"].shape


def test_weights_on_the_cpu_are_views_of_the_file(tmp_path: Path) -> None:
    """Only rows in another order are copied: q and k of the llama architecture."""
    path = file_of(tmp_path, "llama")
    model = rf.load_model(path, packed=True)
    maps = mapped_ranges(path)
    assert maps
    copied = [name for name, m in model.named_modules() if isinstance(m, PackedModule) and not inside(m, maps)]
    assert {name.rpartition(".")[2] for name in copied} == {"q_proj", "k_proj"}


def mapped_ranges(path: Path) -> list[range]:
    if not Path("/proc/self/maps").exists():
        pytest.skip("the map is looked for in /proc")
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return [range(*(int(address, 16) for address in line.split()[0].split("-"))) for line in lines]


def inside(module: PackedModule, maps: list[range]) -> bool:
    return any(module.packed.data_ptr() in addresses for addresses in maps)


@pytest.mark.parametrize("name", ["qwen2-tied", "gemma3", "gpt2", "starcoder", "falcon-7b", "command-r"])
def test_tied_heads_are_one_parameter(tmp_path: Path, name: str) -> None:
    model = rf.load_model(file_of(tmp_path, name), packed=True)
    for candidate in (model, copy.deepcopy(model)):
        table, head = candidate.get_input_embeddings(), candidate.get_output_embeddings()
        assert head.packed is table.packed
        head.packed = torch.nn.Parameter(head.packed.clone(), requires_grad=False)
        candidate.tie_weights()
        assert head.packed is table.packed
    assert distance(logits(copy.deepcopy(model)), logits(model)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_casting_a_model_leaves_its_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    path = file_of(tmp_path, "qwen2")
    exact = rf.load_model(path, torch.float32, packed=True)
    cast = rf.load_model(path, torch.float32, packed=True).to(dtype)
    assert logits(cast).dtype == dtype
    assert 0 < distance(logits(cast).float(), logits(exact)) <= 0.05
    for a, b in zip(exact.modules(), cast.modules(), strict=True):
        assert not isinstance(a, PackedModule) or torch.equal(a.packed, b.packed)


def test_greedy_tokens_of_the_demo_model() -> None:
    tokenizer = rf.load_tokenizer(DEMO)
    tokens = tokenizer("Once upon a time", return_tensors="pt")
    texts = [
        rf.load_model(DEMO, torch.float32, packed=packed).generate(**tokens, max_new_tokens=40, do_sample=False)
        for packed in (False, True)
    ]
    assert torch.equal(*texts)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "qwen2moe", "gpt-oss", "starcoder2"])
@pytest.mark.parametrize("formats", [float32, mixed])
def test_fused_gates_compute_the_same(tmp_path: Path, name: str, formats: Any) -> None:
    model = rf.load_model(file_of(tmp_path, name, formats), torch.float32, packed=True)
    expected = logits(model)
    gated = [module for module in model.modules() if hasattr(module, "gate_proj")]
    alike = sum(module.gate_proj.format == module.up_proj.format for module in gated)
    rf.nn.fuse_gates(model)
    assert sum(isinstance(module, rf.nn.GatedMLP) for module in model.modules()) == alike
    assert alike == len(gated) or formats is mixed
    assert distance(logits(model), expected) <= 1e-6


def test_mxfp4_experts_of_gpt_oss(tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType as Format

    model = CASES["gpt-oss"].build()
    path = tmp_path / "model.gguf"
    write(CASES["gpt-oss"], model, path, lambda name, width: Format.MXFP4 if "experts" in name else Format.F32)
    loaded = rf.load_model(path, torch.float32, packed=True)
    experts = loaded.model.layers[0].mlp.experts
    assert [part.format for part in (*experts.gate_up, experts.down)] == ["MXFP4"] * 3
    assert distance(logits(loaded), logits(model)) <= 1e-5


def test_second_scales_stay_scales(tmp_path: Path) -> None:
    """The factor of an NVFP4 matrix, or of an expert, is applied to the product."""
    scales = {
        "blk.0.attn_v.scale": np.float32([2.0]),
        "blk.0.attn_q.scale": np.float32([0.5]),
        "blk.1.ffn_down_exps.scale": np.float32([1.0, 2.0, 0.5, 4.0]),
        "token_embd.scale": np.float32([1.5]),
    }
    case = dataclasses.replace(CASES["mixtral"], extra=lambda config: scales)
    write(case, case.build(), tmp_path / "model.gguf", mixed)
    dense = rf.load_model(tmp_path / "model.gguf", torch.float32)
    model = rf.load_model(tmp_path / "model.gguf", torch.float32, packed=True)
    assert model.model.layers[0].self_attn.v_proj.scale == 2
    assert model.model.layers[1].mlp.experts.down.scale.tolist() == [1.0, 2.0, 0.5, 4.0]
    assert distance(logits(model), logits(dense)) <= 1e-5
    assert torch.equal(model.model.embed_tokens.dequantize(), dense.model.embed_tokens.weight)


def test_load_into_a_module_of_the_callers(tmp_path: Path) -> None:
    import transformers

    path = file_of(tmp_path, "gemma3")
    with rf.models.EmptyWeights():
        module = transformers.AutoModelForCausalLM.from_config(rf.models.load_config(path)).eval()
    assert rf.load_into(module, path, torch.float32, packed=True) == ([], [])
    assert module.lm_head.packed is module.model.embed_tokens.packed
    expected = rf.load_model(path, torch.float32, attn_implementation=None)
    assert distance(logits(module), logits(expected)) <= 1e-5


def test_gradients_reach_the_input_embeddings(tmp_path: Path) -> None:
    """As low-rank adapters need it: weights are constant, everything else is differentiable."""
    path = file_of(tmp_path, "llama")
    packed, dense = (rf.load_model(path, torch.float32, packed=packed) for packed in (True, False))
    tokens = torch.arange(6)[None]
    gradients = []
    for model in (packed, dense):
        rows = model.get_input_embeddings()(tokens).detach().requires_grad_()
        model(inputs_embeds=rows, labels=tokens).loss.backward()
        gradients += [rows.grad, model.model.norm.weight.grad]
    assert distance(gradients[0], gradients[2]) <= 1e-5
    assert distance(gradients[1], gradients[3]) <= 1e-5
