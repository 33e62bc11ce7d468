"""diffusers' GGUF layers on our kernels: a small image transformer through from_single_file, and every format."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import rocforge_ops as rf
from rocforge_ops.integrations import diffusers as plug

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
gguf = pytest.importorskip("gguf")

from diffusers import GGUFQuantizationConfig, QwenImageTransformer2DModel  # noqa: E402
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry  # noqa: E402
from diffusers.quantizers.gguf import utils  # noqa: E402

NUMBERS = {number.name: number for number in gguf.GGMLQuantizationType}
# The gguf package has another size for the blocks of Q8_1, which no file holds.
FORMATS = [f for f in rf.formats if f.name in NUMBERS and f.name != "Q8_1" and (f.block_size > 1 or f.name == "BF16")]
CONFIG = {
    "num_layers": 1,
    "in_channels": 16,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(2)


@pytest.fixture
def enabled(reference_device):
    plug.enable()
    yield
    plug.disable()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """config/ of a small Qwen-Image transformer, and dense.pt: its random weights."""
    folder = tmp_path_factory.mktemp("image_model")
    torch.manual_seed(1)
    model = QwenImageTransformer2DModel(**CONFIG)
    model.save_config(folder / "config")
    torch.save(model.state_dict(), folder / "dense.pt")
    return folder


def write(folder, format):
    """The model as a file whose matrices are in `format`; -> the file, and its weights by the gguf package."""
    file, number, values = folder / f"{format}.gguf", NUMBERS[format], {}
    writer = gguf.GGUFWriter(file, "qwen_image")
    for name, weight in torch.load(folder / "dense.pt").items():
        if weight.dim() == 2 and weight.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(weight.numpy(), number)
            values[name] = torch.from_numpy(gguf.quants.dequantize(packed, number))
            writer.add_tensor(name, packed, raw_dtype=number)
        else:
            values[name] = weight
            writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file, values


def load(folder, file, dtype=torch.float32):
    quantization = GGUFQuantizationConfig(compute_dtype=dtype)
    options = {"config": str(folder), "subfolder": "config", "quantization_config": quantization, "torch_dtype": dtype}
    return QwenImageTransformer2DModel.from_single_file(str(file), **options)


def dense(values, dtype=torch.float32):
    model = QwenImageTransformer2DModel(**CONFIG).eval()
    model.load_state_dict(values)
    return model.to(dtype)


@torch.no_grad()
def run(model):
    numbers = torch.Generator().manual_seed(4)
    image, text = (torch.randn(2, *shape, generator=numbers).to(model.dtype) for shape in ((16, 16), (6, 64)))
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    inputs = {"hidden_states": image, "encoder_hidden_states": text, "encoder_hidden_states_mask": mask}
    return model(**inputs, timestep=torch.tensor([0.5, 0.2]), img_shapes=[[(1, 4, 4)]] * 2, return_dict=False)[0]


def layers(model):
    return [m for m in model.modules() if isinstance(m, utils.GGUFLinear)]


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "BF16", "MXFP4"])
def test_image_transformer(format, folder, enabled):
    file, values = write(folder, format)
    model = load(folder, file)
    assert len(layers(model)) >= 15 and all(layer.weight.dtype == torch.uint8 for layer in layers(model))
    torch.testing.assert_close(run(model), run(dense(values)), rtol=1e-4, atol=1e-5)


def test_in_half_precision(folder, enabled):
    """No further from the float32 result than the dense model in the same dtype, twice over."""
    file, values = write(folder, "Q4_0")
    exact = run(dense(values))
    errors = [
        (run(m).float() - exact).norm() for m in (load(folder, file, torch.bfloat16), dense(values, torch.bfloat16))
    ]
    assert errors[0] <= 2 * errors[1]


def test_attention_backend(folder, enabled):
    file, _ = write(folder, "Q8_0")
    model = load(folder, file)
    expected = run(model)
    model.set_attention_backend("rocforge")
    assert _AttentionBackendRegistry.get_active_backend()[1] is plug.attention
    torch.testing.assert_close(run(model), expected, rtol=1e-4, atol=1e-5)
    model.reset_attention_backend()  # which does not reset the backend that other models use
    plug.disable()
    assert _AttentionBackendRegistry.get_active_backend()[0] is AttentionBackendName.NATIVE
    plug.enable()
    assert run(model).equal(expected)


@pytest.mark.parametrize("mask", [None, "padding", "bool", "float"])
def test_attention(mask, reference_device):
    query, key = torch.randn(2, 5, 4, 8), torch.randn(2, 7, 4, 8)
    first = [t.transpose(1, 2) for t in (query, key, key)]
    masks = {
        "padding": (torch.arange(7) < torch.tensor([[7], [3]]), lambda m: m[:, None, None]),
        "bool": (torch.rand(2, 1, 5, 7) < 0.7, lambda m: m),
        "float": (torch.randn(5, 7), lambda m: m),
    }
    given, for_pytorch = masks.get(mask, (None, lambda m: m))
    out = plug.attention(query, key, key, given, scale=0.4)
    torch.testing.assert_close(
        out.transpose(1, 2), F.scaled_dot_product_attention(*first, for_pytorch(given), scale=0.4)
    )
    with pytest.raises(ValueError, match="context parallelism"):
        plug.attention(query, key, key, _parallel_config=object())


def layer_of(format, dtype=torch.float32, bias=True):
    """A GGUFLinear [3 blocks -> 7] with random packed weights, and these decoded."""
    packed = torch.randint(0, 32, (7, 3 * format.block_bytes), dtype=torch.uint8)
    layer = utils.GGUFLinear(3 * format.block_size, 7, bias, compute_dtype=dtype)
    layer.weight = utils.GGUFParameter(packed, quant_type=NUMBERS[format.name])
    if bias:
        layer.bias = torch.nn.Parameter(torch.randn(7), requires_grad=False)
    return layer, rf.dequantize(packed, format.name)


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_layer_of_every_format(format, enabled):
    layer, weight = layer_of(format)
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)
    out = layer(x)
    assert type(out) is torch.Tensor
    exact = F.linear(x.double(), weight.double(), layer.bias.double())
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], weight.sum(0).expand_as(x), rtol=1e-5, atol=1e-5)
    decoded = utils.dequantize_gguf_tensor(layer.weight)
    assert decoded.equal(weight) and NUMBERS[format.name] in utils.SUPPORTED_GGUF_QUANT_TYPES


def test_layer_compiles_whole(enabled):
    layer, _ = layer_of(rf.formats["Q4_K"])
    x = torch.randn(2, 768)
    assert torch.compile(layer, fullgraph=True, backend="aot_eager")(x).equal(layer(x))


def test_layer_casts_to_its_compute_dtype(enabled):
    layer, weight = layer_of(rf.formats["Q4_K"], torch.bfloat16)
    out = layer(torch.ones(3, 768))
    assert out.dtype == torch.bfloat16
    exact = weight.double().sum(1) + layer.bias.bfloat16().double()
    torch.testing.assert_close(out.double(), exact.expand(3, 7), rtol=2**-8, atol=0)


def test_layer_with_packed_bias(enabled):
    """BF16 files store a bias in their own dtype too, as bytes."""
    layer, _ = layer_of(rf.formats["BF16"])
    bias = torch.randn(7).bfloat16()
    layer.bias = utils.GGUFParameter(bias.view(torch.uint8), quant_type=NUMBERS["BF16"])
    assert layer(torch.zeros(1, 3)).equal(bias.float()[None])


def test_layer_with_a_dense_weight(enabled):
    layer = utils.GGUFLinear(5, 7, True, compute_dtype=torch.float32)
    x = torch.randn(2, 5)
    assert layer(x).equal(F.linear(x, layer.weight, layer.bias))


def state():
    registry = _AttentionBackendRegistry
    tables = registry._backends, registry._constraints, registry._supported_arg_names, AttentionBackendName.__members__
    return (
        utils.GGUFLinear.forward,
        list(utils.SUPPORTED_GGUF_QUANT_TYPES),
        list(AttentionBackendName),
        registry._active_backend,
        *(dict(table) for table in (utils.dequantize_functions, *tables)),
    )


def test_disable_leaves_no_trace(reference_device):
    before = state()
    plug.enable()
    during = state()
    plug.enable()
    assert state() == during and during[0] is not before[0]
    assert AttentionBackendName("rocforge") in list(AttentionBackendName)
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName("rocforge"))
    for _ in range(2):
        plug.disable()
        assert state() == before
    with pytest.raises(ValueError, match="not a valid AttentionBackendName"):
        AttentionBackendName("rocforge")


def test_hosts_behaviour_returns(folder):
    file, _ = write(folder, "Q8_0")
    refused, _ = write(folder, "MXFP4")
    model = load(folder, file)
    expected = run(model)
    plug.enable()
    assert not run(model).equal(expected)  # diffusers computes weights in float16
    plug.disable()
    assert run(model).equal(expected)
    with pytest.raises(OSError, match="Unable to load weights") as raised:
        load(folder, refused)
    causes = [raised.value]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    assert any("has a quantization type: 39 which is unsupported" in str(cause) for cause in causes)
