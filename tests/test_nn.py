"""Modules on packed weights."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from blocks import finite_rows
from torch import Tensor, nn

import rocforge_ops as rf
from rocforge_ops.nn import GroupedLinear

COLUMNS = {"Q4_0": 96, "Q8_0": 96, "Q4_K": 768}  # of finite_rows


def close(found: Tensor, expected: Tensor) -> bool:
    """float32 against float64, where sums of a few hundred products are rounded in between."""
    return bool((found.cpu() - expected.cpu()).abs().max() <= 1e-5 * expected.abs().max())


# ---- linear


@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_is_torch_linear_on_decoded_weights(device: str, with_bias: bool) -> None:
    packed, bias = finite_rows("Q4_K", 7), torch.randn(7) if with_bias else None
    layer = rf.nn.QuantizedLinear(packed, "Q4_K", bias).to(device)
    x = torch.randn(2, 3, COLUMNS["Q4_K"])
    expected = F.linear(x.double(), layer.dequantize().cpu().double(), None if bias is None else bias.double())
    assert close(layer(x.to(device)), expected)
    assert (layer.in_features, layer.out_features, layer.shape) == (768, 7, (7, 768))


def test_linear_of_a_file_is_a_view_of_it(shared_models: Path) -> None:
    with rf.GGUFFile(shared_models / "tiny-qwen2.gguf") as file:
        weight, bias = file["blk.0.attn_q.weight"], file["blk.0.attn_q.bias"]
        layer = rf.nn.QuantizedLinear(weight, bias=bias)
        assert layer.packed.data_ptr() == weight.packed().data_ptr()
        assert layer.format == weight.format
        assert layer.bias is not None and torch.equal(layer.bias, bias.dequantize())
        with pytest.raises(ValueError, match=rf"{weight.name} is {weight.format}, not Q2_K"):
            rf.nn.QuantizedLinear(weight, "Q2_K")
    assert layer(torch.ones(1, layer.in_features)).isfinite().all(), "the map outlives the file"


def test_linear_gradients(reference_device: str) -> None:
    layer = rf.nn.QuantizedLinear(finite_rows("Q4_0", 5), "Q4_0", torch.randn(5, dtype=torch.float64))
    x = torch.randn(3, 96, dtype=torch.float64, requires_grad=True)
    assert layer.bias is not None
    assert torch.autograd.gradcheck(
        lambda x, b: torch.func.functional_call(layer, {"bias": b}, x), (x, layer.bias), fast_mode=True
    )
    layer(x).sum().backward()
    assert layer.bias.grad is not None and layer.packed.grad is None
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["bias"]


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casts_leave_the_bytes(cast: str) -> None:
    packed = finite_rows("Q8_0", 4)
    layer = rf.nn.QuantizedLinear(packed, "Q8_0", torch.zeros(4), scale=torch.tensor(1 / 3))
    getattr(layer, cast)()
    assert layer.packed.dtype == torch.uint8 and torch.equal(layer.packed, packed)
    assert layer.bias is not None and layer.bias.dtype == {"half": torch.float16}.get(cast, getattr(torch, cast, None))
    assert layer.scale is not None and layer.scale.dtype == torch.float32 and layer.scale == torch.tensor(1 / 3)


def test_moving_moves_the_bytes(kernel_device: str) -> None:
    layer = rf.nn.QuantizedLinear(finite_rows("Q8_0", 4), "Q8_0", torch.zeros(4), scale=torch.tensor(0.5))
    layer.to(kernel_device)
    assert {t.device.type for t in (layer.packed, layer.bias, layer.scale)} == {torch.device(kernel_device).type}


def test_repr_shows_format_and_shape() -> None:
    layer = rf.nn.QuantizedLinear(finite_rows("Q4_K", 7), "Q4_K")
    assert repr(layer) == "QuantizedLinear(in_features=768, out_features=7, bias=False, format=Q4_K)"
    table = rf.nn.QuantizedEmbedding(finite_rows("Q8_0", 9), "Q8_0", torch.bfloat16, padding_idx=1)
    assert repr(table) == "QuantizedEmbedding(9, 96, padding_idx=1, dtype=bfloat16, format=Q8_0)"
    experts = GroupedLinear(finite_rows("Q4_0", 3, 5), "Q4_0")
    assert repr(experts) == "GroupedLinear(experts=3, in_features=96, out_features=5, bias=False, format=Q4_0)"


@pytest.mark.parametrize("scale", [torch.tensor(0.25), torch.arange(1.0, 6.0)])
def test_scale_multiplies_the_weight(device: str, scale: Tensor) -> None:
    layer = rf.nn.QuantizedLinear(finite_rows("Q4_0", 5), "Q4_0", torch.ones(5), scale).to(device)
    x = torch.randn(3, 96)
    weight = rf.dequantize(layer.packed.cpu(), "Q4_0") * scale.view(-1, 1)
    assert torch.equal(layer.dequantize().cpu(), weight)
    assert close(layer(x.to(device)), F.linear(x.double(), weight.double(), torch.ones(5).double()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((finite_rows("Q4_0", 5),), TypeError, "need the name of their format"),
        ((finite_rows("Q4_0", 5), "q4_0"), ValueError, "Q4_0"),
        ((finite_rows("Q4_0", 5)[:, :-1], "Q4_0"), ValueError, "rows of Q4_0 are blocks of 18 bytes, got 53 bytes"),
        ((finite_rows("Q4_0", 5)[0], "Q4_0"), ValueError, r"of 2 dimensions is needed, got shape \[54\]"),
        ((torch.zeros(5, 54), "Q4_0"), TypeError, "uint8, got torch.float32"),
        ((finite_rows("Q4_0", 5), "Q4_0", torch.zeros(4)), ValueError, r"a bias of shape \[5\] is needed, got \[4\]"),
        ((finite_rows("Q4_0", 5).numpy(), "Q4_0"), TypeError, "uint8 tensor or a tensor of a GGUF file, got ndarray"),
        (
            (finite_rows("Q4_0", 5), "Q4_0", torch.zeros(5).int()),
            TypeError,
            "floating-point numbers .* got torch.int32",
        ),
        ((finite_rows("Q4_0", 5), "Q4_0", None, torch.ones(4)), ValueError, r"one number or \[5\], got \[4\]"),
        ((finite_rows("Q4_0", 5), "Q4_0", None, torch.ones(5, 1)), ValueError, r"one number or \[5\], got \[5, 1\]"),
        ((finite_rows("Q4_0", 5), "Q4_0", None, torch.ones(5).half()), TypeError, "float32, got torch.float16"),
    ],
)
def test_errors(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rf.nn.QuantizedLinear(*arguments)


# ---- copies and state_dict


def tied_pair() -> nn.ModuleDict:
    table = rf.nn.QuantizedEmbedding(finite_rows("Q8_0", 9), "Q8_0")
    return nn.ModuleDict({"table": table, "head": rf.nn.QuantizedLinear(table.packed, "Q8_0")})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_tied_head_stays_tied(copied) -> None:
    pair = copied(tied_pair())
    assert pair["head"].packed is pair["table"].packed
    assert pair["head"].format == "Q8_0"
    assert len(list(pair.parameters())) == 1


def test_a_tied_head_stays_tied_on_a_gpu(kernel_device: str) -> None:
    pair = tied_pair().to(kernel_device)
    assert pair["head"].packed is pair["table"].packed


def test_state_dict_round_trip(tmp_path: Path) -> None:
    layer = rf.nn.QuantizedLinear(finite_rows("Q4_K", 7), "Q4_K", torch.randn(7), torch.tensor(0.5))
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = rf.nn.QuantizedLinear(torch.zeros(7, 3 * 144, dtype=torch.uint8), "Q4_K", torch.zeros(7), torch.ones(()))
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    x = torch.randn(2, 768)
    assert torch.equal(other(x), layer(x))
    assert all(isinstance(value, Tensor) for value in layer.state_dict().values()), "containers of tensors can hold it"


def test_state_dict_brings_its_format() -> None:
    """Also where the bytes have the same shape, and to a tied pair, which stays one."""
    pair = tied_pair()
    same_bytes = rf.nn.QuantizedLinear(finite_rows("IQ4_NL", 9), "IQ4_NL")
    for source in (rf.nn.QuantizedLinear(finite_rows("Q4_0", 9), "Q4_0"), same_bytes):
        pair.load_state_dict(
            {f"{name}.{key}": value for name in ("table", "head") for key, value in source.state_dict().items()}
        )
        assert pair["head"].format == pair["table"].format == source.format
        assert pair["head"].packed is pair["table"].packed
        assert torch.equal(pair["head"].dequantize(), source.dequantize())
    with pytest.raises(RuntimeError, match=r"table.packed holds a weight of \[8, 96\], expected \[9, 96\]"):
        wrong = rf.nn.QuantizedLinear(finite_rows("Q8_0", 8), "Q8_0").state_dict()
        pair.load_state_dict({f"table.{key}": value for key, value in wrong.items()}, strict=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"_extra_state": torch.tensor(list(b"Q9_9"), dtype=torch.uint8)},
        {"_extra_state": torch.tensor([255, 254], dtype=torch.uint8)},
        {"packed": torch.zeros(9, 55, dtype=torch.uint8)},
        {"packed": torch.zeros(9, 54)},
    ],
    ids=["unknown format", "no letters", "part of a block", "no bytes"],
)
def test_state_dict_that_holds_no_rows_is_refused(wrong: dict[str, Tensor]) -> None:
    layer = rf.nn.QuantizedLinear(finite_rows("Q4_0", 9), "Q4_0")
    before = layer.dequantize()
    with pytest.raises(RuntimeError, match=r"packed, torch.* does not hold rows of format"):
        layer.load_state_dict(layer.state_dict() | wrong)
    assert torch.equal(layer.dequantize(), before)


# ---- embedding


def test_embedding_has_one_scale() -> None:
    """96 scales would fit the width of its rows, 9 the number of them."""
    for entries in (9, 96):
        with pytest.raises(ValueError, match=rf"one number, got \[{entries}\]"):
            rf.nn.QuantizedEmbedding(finite_rows("Q4_0", 9), "Q4_0", scale=torch.ones(entries))


def test_embedding_is_torch_embedding_on_decoded_rows(device: str) -> None:
    table = rf.nn.QuantizedEmbedding(finite_rows("Q4_K", 9), "Q4_K", padding_idx=0).to(device)
    indices = torch.tensor([[3, 0], [8, 3]])
    expected = F.embedding(indices, table.dequantize().cpu(), padding_idx=0)
    assert torch.equal(table(indices.to(device)).cpu(), expected)
    assert (table.num_embeddings, table.embedding_dim, table.padding_idx, table.dtype) == (9, 768, 0, torch.float32)
    assert torch.equal(table.bfloat16()(indices.to(device)).cpu(), expected.bfloat16())
    assert torch.equal(table.half()(indices.to(device)).cpu(), expected.half())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embedding_scaled_as_gemmas(dtype: torch.dtype) -> None:
    """The factor, too, is rounded to the dtype."""
    packed = finite_rows("Q8_0", 9)
    table = rf.nn.QuantizedEmbedding(packed, "Q8_0", dtype, embed_scale=96**0.5)
    indices = torch.arange(9)
    rows = F.embedding(indices, rf.dequantize(packed, "Q8_0", dtype))
    assert torch.equal(table(indices), rows * torch.tensor(96**0.5, dtype=dtype))
    assert table(indices).dtype == dtype


def test_modules_compile_whole() -> None:
    pair = tied_pair()
    chain = torch.compile(lambda i: pair["head"](pair["table"](i)), fullgraph=True, backend="aot_eager")
    assert torch.equal(chain(torch.arange(3)), pair["head"](pair["table"](torch.arange(3))))
