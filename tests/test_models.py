"""Loading models: recorded outputs of real files, and every architecture written and read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rocforge_ops as rf
from rocforge_ops.models import architectures, loading
from rocforge_ops.models.plan import make_plan
from rocforge_ops.models.weight import Weight, join

pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="loading models needs the hf extra")

from roundtrip import distance, float32, logits, mixed, write
from roundtrip.cases import CASES

TINY = ("tiny-llama", "tiny-qwen2", "tiny-starcoder")
STORIES = tuple(f"stories260K-{format}" for format in ("Q4_1", "Q5_0", "Q5_1", "Q8_0"))


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """The likeliest continuation, past any end-of-text token."""
    tokens = torch.tensor([ids])
    output = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, do_sample=False, eos_token_id=-1
    )
    return output[0, len(ids) :].tolist()


# ---- recorded outputs


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("attention", ["rocforge", "sdpa", "eager"])
@pytest.mark.parametrize("name", TINY)
def test_recorded_logits(shared_models: Path, name: str, attention: str, packed: bool) -> None:
    recorded = np.load(shared_models / f"{name}.npz")
    options = {"packed": packed, "attn_implementation": attention}
    model = rf.load_model(shared_models / f"{name}.gguf", dtype=torch.float32, **options)
    assert type(model).__name__ == str(recorded["model_class"])
    ids = recorded["ids"].tolist()
    with torch.inference_mode():
        difference = model(torch.tensor([ids])).logits[0] - torch.from_numpy(recorded["exact_f32_logits"])
    assert difference.abs().max() <= 1e-4
    assert greedy(model, ids, 16) == recorded["exact_f32_greedy"].tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", STORIES)
def test_recorded_stories(shared_models: Path, name: str, packed: bool) -> None:
    recorded = json.loads((shared_models / f"{name}.json").read_text())
    model = rf.load_model(shared_models / f"{name}.gguf", dtype=torch.float32, packed=packed)
    with torch.inference_mode():
        found = model(torch.tensor([recorded["ids"]])).logits[0]
    assert (found[-1] - torch.tensor(recorded["exact_float32_last_logits"])).abs().max() <= 1e-4
    assert found.argmax(-1).tolist() == recorded["exact_float32_argmax_all_positions"]
    assert greedy(model, recorded["ids"], 30) == recorded["exact_float32_greedy_30"]
    assert model.config.pad_token_id is None, "4294967295 stands for none"


@pytest.mark.parametrize(("dtype", "mean"), [(torch.float16, 0.004), (torch.bfloat16, 0.04)])
@pytest.mark.parametrize("name", TINY)
def test_recorded_logits_in_half(shared_models: Path, name: str, dtype: torch.dtype, mean: float) -> None:
    """The mean distance of the untouched transformers module in the same dtype, with room for another machine."""
    recorded = np.load(shared_models / f"{name}.npz")
    model = rf.load_model(shared_models / f"{name}.gguf", dtype=dtype)
    with torch.inference_mode():
        found = model(torch.tensor(recorded["ids"])[None]).logits[0].float()
    assert (found - torch.from_numpy(recorded["exact_f32_logits"])).abs().mean() <= 1.5 * mean


# ---- written and read back


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("formats", [float32, mixed])
@pytest.mark.parametrize("name", CASES)
def test_round_trip(tmp_path: Path, name: str, formats: Callable[[str, int], Any], packed: bool) -> None:
    """By the attention that the model was built with; test_default_attention has this package's."""
    case = CASES[name]
    model = case.build()
    path = tmp_path / "model.gguf"
    write(case, model, path, formats)
    loaded = rf.load_model(path, dtype=torch.float32, packed=packed, attn_implementation=None)
    assert type(loaded).__name__ == (case.loads_as or type(model).__name__)
    assert distance(logits(loaded), logits(model)) <= 1e-5
    assert not loaded.training
    for field in ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"):
        expected = 2048 if case.architecture == "falcon" and "max" in field else getattr(model.config, field)
        assert getattr(loaded.config, field) == expected, field
    generation = loaded.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (5, 6, 7)


@pytest.mark.parametrize("name", CASES)
def test_default_attention(tmp_path: Path, name: str) -> None:
    """As near to the logits in float64 as the class's own attention is, with room for a rounding more."""
    model = CASES[name].build()
    write(CASES[name], model, tmp_path / "model.gguf", float32)
    loaded = rf.load_model(tmp_path / "model.gguf", dtype=torch.float32)
    attention = "sdpa" if "falcon" in name else "rocforge"
    assert loaded.config._attn_implementation == attention
    own = logits(model)
    model.config._experts_implementation = "eager"  # the other one has no float64
    exact = logits(model.double())
    assert distance(logits(loaded), exact) <= max(1e-6, 2 * distance(own, exact))


# Their one rule reorders nothing: one kv head, or no multi-axis rotation.
IDENTITY = ("falcon-7b", "glm4")


@pytest.mark.parametrize("name", [name for name in CASES if name not in IDENTITY])
def test_round_trip_needs_every_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without any one of its rules the model is visibly another, or does not load: the round trips can fail."""
    model = CASES[name].build()
    path = tmp_path / "model.gguf"
    write(CASES[name], model, path, float32)
    expected = logits(model)
    with rf.GGUFFile(path) as file:
        header = loading.Header(file)
        architecture = architectures.find(header)
        steps = make_plan(header, architecture, model).steps
    for rule in {step.rule for step in steps} & set(architecture.rules):
        rest = tuple(other for other in architecture.rules if other is not rule)
        monkeypatch.setattr(loading, "find", lambda file, rest=rest: dataclasses.replace(architecture, rules=rest))
        try:
            loaded = rf.load_model(path, dtype=torch.float32)
        except ValueError as error:
            assert "does not fit" in str(error), rule
        else:
            assert distance(logits(loaded), expected) > 1e-3, rule


def test_gpt_oss_with_mxfp4_experts(tmp_path: Path) -> None:
    """As it is published."""
    from gguf import GGMLQuantizationType as Format

    model = CASES["gpt-oss"].build()
    path = tmp_path / "model.gguf"
    write(CASES["gpt-oss"], model, path, lambda name, width: Format.MXFP4 if "experts" in name else Format.F32)
    assert distance(logits(rf.load_model(path, dtype=torch.float32)), logits(model)) <= 1e-5


@pytest.mark.parametrize("alternate", [False, True])
@pytest.mark.parametrize("formats", [("Q8_0", "Q8_0"), ("Q8_0", "Q4_1"), ("F32", "F16")])
def test_joined_rows(formats: tuple[str, str], alternate: bool) -> None:
    """Gate and up of the experts need not have the same format."""
    import gguf

    random = np.random.default_rng(0)
    weights, decoded = [], []
    for format in formats:
        kind = gguf.GGMLQuantizationType[format]
        packed = gguf.quants.quantize(random.standard_normal((3, 4, 64), dtype=np.float32), kind)
        decoded.append(gguf.quants.dequantize(packed, kind).astype(np.float32))
        weights.append(Weight(torch.from_numpy(packed.view(np.uint8)), format))
    expected = np.stack(decoded, axis=2).reshape(3, 8, 64) if alternate else np.concatenate(decoded, axis=1)
    joined = join(weights, alternate)
    assert joined.format == (formats[0] if formats[0] == formats[1] else "F32")
    assert torch.equal(joined.dequantize(torch.float32), torch.from_numpy(expected))


def test_split_file_loads_whole(tmp_path: Path) -> None:
    model = CASES["llama"].build()
    write(CASES["llama"], model, tmp_path / "model.gguf", float32, split_max_tensors=8)
    shards = sorted(tmp_path.glob("model-*-of-*.gguf"))
    assert len(shards) > 1
    assert distance(logits(rf.load_model(shards[-1], dtype=torch.float32)), logits(model)) <= 1e-5


def test_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    write(CASES["gemma"], CASES["gemma"].build(), tmp_path / "model.gguf", mixed)
    exact = rf.load_model(tmp_path / "model.gguf", dtype=torch.float32)
    rounded = rf.load_model(tmp_path / "model.gguf")
    assert rounded.dtype == rounded.config.dtype == torch.bfloat16
    for (name, a), b in zip(exact.named_parameters(), rounded.parameters(), strict=True):
        assert torch.equal(a.bfloat16(), b), name


def test_tied_embeddings_are_one_tensor(tmp_path: Path) -> None:
    write(CASES["qwen2-tied"], CASES["qwen2-tied"].build(), tmp_path / "model.gguf", float32)
    model = rf.load_model(tmp_path / "model.gguf")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_second_scale_multiplies_the_weight(tmp_path: Path) -> None:
    """NVFP4 files hold one more factor per matrix, or per expert, in a tensor of its own."""
    case = CASES["qwen3moe"]
    scales = {"blk.0.attn_v.scale": np.float32([2.0]), "blk.1.ffn_down_exps.scale": np.float32([1.0, 2.0, 0.5, 4.0])}
    scales["blk.0.attn_v.input_scale"] = np.float32([3.0])  # of activations
    case = dataclasses.replace(case, extra=lambda config: scales)
    model = case.build()
    write(case, model, tmp_path / "model.gguf", float32)
    layers = model.model.layers
    with torch.no_grad():
        layers[0].self_attn.v_proj.weight *= 2
        layers[1].mlp.experts.down_proj *= torch.from_numpy(scales["blk.1.ffn_down_exps.scale"]).view(-1, 1, 1)
    assert distance(logits(rf.load_model(tmp_path / "model.gguf", dtype=torch.float32)), logits(model)) <= 1e-5


def test_generation_ends_at_every_end(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(
        CASES["llama"],
        CASES["llama"].build(),
        path,
        float32,
        lambda keys: keys.update(add_eot_token_id=9, add_eom_token_id=6),
    )
    assert rf.load_model(path).generation_config.eos_token_id == [6, 9]


def test_state_dict_has_the_files_tensors(shared_models: Path) -> None:
    path = shared_models / "tiny-llama.gguf"
    state = rf.load_state_dict(path)
    with rf.GGUFFile(path) as file:
        assert list(state) == list(file)
        for name, tensor in file.items():
            assert state[name].dtype == torch.float16
            assert torch.equal(state[name], tensor.dequantize().half()), name


def test_rope_factors_of_no_known_rule_are_kept(tmp_path: Path) -> None:
    """Factors that Llama 3's rule does not give load as they are."""
    write(CASES["llama-3.1-other-rule"], CASES["llama-3.1-other-rule"].build(), tmp_path / "other.gguf", float32)
    write(CASES["llama-3.1"], CASES["llama-3.1"].build(), tmp_path / "known.gguf", float32)
    assert rf.models.load_config(tmp_path / "other.gguf").rope_parameters["rope_type"] == "longrope"
    rope = rf.models.load_config(tmp_path / "known.gguf").rope_parameters
    assert rope["rope_type"] == "llama3"
    assert rope["factor"] == 8.0


def test_the_documentation_lists_every_architecture() -> None:
    text = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    rows = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and " | yes | " in line
    ]
    described = [(architecture.gguf, architecture.model_class) for architecture in architectures.ARCHITECTURES]
    assert sorted((name.split()[0], model) for name, model, *_ in rows) == sorted(described)
    assert all((exact, packed) == ("yes", "yes") for _, _, exact, packed, *_ in rows)
