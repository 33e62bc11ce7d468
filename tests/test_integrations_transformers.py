"""transformers' packed GGUF path on our kernels, with files of every architecture it knows."""

from __future__ import annotations

import threading

import gguf_models
import pytest
import torch

import rocforge_ops as rf
from rocforge_ops.integrations import transformers as plug

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import AttentionInterface, AutoModelForCausalLM, GgufConfig
from transformers.integrations.gguf import dequant, kernels
from transformers.integrations.gguf.utils import GgufEmbedding, GgufExperts, GgufLinear
from transformers.masking_utils import AttentionMaskInterface

ARCHITECTURES = list(gguf_models.SHAPES)
IDS = torch.arange(24).reshape(2, 12) % gguf_models.VOCABULARY


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: gguf_models.write(folder / f"{name}.gguf", name) for name in ARCHITECTURES}


@pytest.fixture
def enabled(reference_device):
    plug.enable()
    yield
    plug.disable()


@pytest.fixture(autouse=True)
def unregistered(monkeypatch):
    """As in a process of its own: another test may have registered our attention for good."""
    for interface in (AttentionInterface, AttentionMaskInterface):
        monkeypatch.delitem(interface._global_mapping, "rocforge", raising=False)


def load(file, attention="rocforge", **options):
    options = {"attn_implementation": attention, "dtype": torch.float32, **options}
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, **options).eval()


@pytest.fixture(scope="module")
def dequantised(files):
    """Logits [2, 12, vocabulary] of each model as transformers loads it by itself."""
    plug.disable()
    with torch.no_grad():
        return {name: load(file, "sdpa")(IDS).logits for name, file in files.items()}


def packed_modules(model):
    return [m for m in model.modules() if isinstance(m, GgufLinear | GgufEmbedding | GgufExperts)]


@pytest.mark.parametrize("host", ["cpu", "as_on_a_gpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_packed_weights(architecture, host, files, dequantised, enabled, monkeypatch):
    if host == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    if host == "as_on_a_gpu":  # where transformers leaves decoding to the kernel module too
        monkeypatch.setattr(kernels, "kernel_can_read", lambda tensor: True)
    device = "cuda" if host == "cuda" else "cpu"
    model = load(files[architecture], device_map=device)
    modules = packed_modules(model)
    assert len(modules) >= 14 and model.config._attn_implementation == "rocforge"
    assert all(p.device.type == device for module in modules for p in module.parameters())
    with torch.no_grad():
        many_rows, few_rows = (model(ids.to(device)).logits.cpu() for ids in (IDS, IDS[:1, :5]))
    expected = dequantised[architecture]
    torch.testing.assert_close(many_rows, expected, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(few_rows, expected[:1, :5], rtol=1e-4, atol=2e-5)


def test_weights_stay_packed(files, enabled):
    def size(model):
        return sum(p.nbytes for p in model.parameters())

    packed, dense = load(files["lfm2"]), load(files["lfm2"], quantization_config=GgufConfig(dequantize=True))
    assert not packed_modules(dense)
    assert size(packed) < 0.3 * size(dense)


def test_generates_the_same_text(files, enabled):
    packed, dense = load(files["qwen35"]), load(files["qwen35"], quantization_config=GgufConfig(dequantize=True))
    texts = [
        model.generate(IDS[:1, :4], max_new_tokens=8, do_sample=False, pad_token_id=0) for model in (packed, dense)
    ]
    assert texts[0].equal(texts[1]) and texts[0].shape == (1, 12)


def test_formats_that_transformers_refuses(tmp_path, enabled):
    file = gguf_models.write(tmp_path / "model.gguf", "lfm2", "Q5_0", "MXFP4")
    packed, dense = load(file), load(file, quantization_config=GgufConfig(dequantize=True))
    with torch.no_grad(), rf.GGUFFile(file) as opened:
        assert dense.model.embed_tokens.weight.equal(opened["token_embd.weight"].dequantize())
        torch.testing.assert_close(packed(IDS).logits, dense(IDS).logits, rtol=1e-4, atol=2e-5)
    plug.disable()
    with pytest.raises(ValueError, match="not supported yet"):
        load(file)


def test_layers_compile_whole(enabled, monkeypatch):
    monkeypatch.setattr(kernels, "kernel_can_read", lambda tensor: True)
    layer, table = GgufLinear(64, 7, rf.formats["Q8_0"].id), GgufEmbedding(5, 64, rf.formats["Q8_0"].id)
    experts = GgufExperts(3, 64, 32, rf.formats["Q8_0"].id, rf.formats["Q4_0"].id, torch.nn.functional.silu)
    for weight in (layer.weight, table.weight, experts.gate_up_proj, experts.down_proj):
        weight.random_(0, 32)
    picked = torch.tensor([[0, 2], [1, 0]])
    calls = [
        (layer, (torch.randn(3, 64),)),
        (layer, (torch.randn(20, 64),)),
        (table, (torch.tensor([[4, 0, 2]]),)),
        (experts, (torch.randn(2, 64), picked, torch.rand(2, 2))),
    ]
    for module, inputs in calls:
        assert torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs).equal(module(*inputs))


def state():
    tables = dequant.GGML_BLOCK, dequant.GGML_NAME, dequant._DEQUANT
    names = AttentionInterface._global_mapping, AttentionMaskInterface._global_mapping
    return kernels._gguf_kernel, *(dict(table) for table in tables + names)


def test_disable_leaves_no_trace(reference_device):
    before = state()
    plug.enable()
    during = state()
    plug.enable()
    assert state() == during and during[0] is not before[0]
    assert all(after.keys() > old.keys() for after, old in zip(during[1:], before[1:], strict=True))
    plug.disable()
    assert state() == before
    plug.disable()
    assert state() == before


def test_attention_that_was_registered_before_stays():
    rf.register_attention()
    plug.enable()
    plug.disable()
    for interface in (AttentionInterface, AttentionMaskInterface):
        assert interface._global_mapping.pop("rocforge")


def test_kernel_that_someone_else_put_there_stays():
    before = kernels._gguf_kernel
    plug.enable()
    kernels._gguf_kernel = other = object()
    try:
        plug.disable()
        assert kernels._gguf_kernel is other
    finally:
        kernels._gguf_kernel = before


def test_hosts_behaviour_returns(files, dequantised):
    plug.enable()
    plug.disable()
    model = load(files["lfm2"], "sdpa")
    assert not packed_modules(model)
    with torch.no_grad():
        assert model(IDS).logits.equal(dequantised["lfm2"])


def test_threads():
    before, go = state(), threading.Barrier(8)

    def switch(method):
        go.wait()
        for _ in range(50):
            method()

    threads = [threading.Thread(target=switch, args=(m,)) for m in [plug.enable, plug.disable] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plug.disable()
    assert state() == before
