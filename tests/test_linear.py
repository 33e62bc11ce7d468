from __future__ import annotations

import os
import subprocess
import sys

import linear_cases as cases
import pytest
import torch
import torch.nn.functional as F
from blocks import DTYPES, FORMATS, even_rows, finite_rows
from conftest import KERNELS

import rocforge_ops as rf
from rocforge_ops.bench.linear import PLAIN

OPS = torch.ops.rocforge


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_less_exact_than_pytorch(format, dtype, device):
    packed = cases.weights(format, cases.OUT)
    right, on_device = cases.decoded(packed, format), packed.to(device)
    cases.check_row_counts(lambda x: rf.linear(x.to(device), on_device, format), right, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_no_less_exact_than_pytorch(format, dtype, device):
    packed = cases.weights(format, cases.OUT)
    right, on_device = cases.decoded(packed, format).mT, packed.to(device)
    cases.check_row_counts(lambda g: OPS.linear_input_gradient(g.to(device), on_device, format), right, dtype)


@pytest.mark.parametrize("rows", [1, 2, 4, 16, 64])
def test_float32_over_all_formats_is_more_exact_than_pytorch(rows, reference_device):
    ours = pytorch = 0.0
    for format in FORMATS:
        packed = cases.weights(format, cases.OUT)
        x, right = torch.randn(rows, cases.in_features(format)), cases.decoded(packed, format)
        error, plain = cases.errors(rf.linear(x, packed, format), x, right)
        ours, pytorch = ours + (error / cases.rms(x @ right)) ** 2, pytorch + (plain / cases.rms(x @ right)) ** 2
    assert ours < pytorch


def test_many_rows_and_long_sums(reference_device):
    """More than one block of rows, many tiles of columns."""
    for format, width in (("F16", 1301), ("Q4_0", 1312)):
        packed = even_rows(format, 70, weights=width)
        x, grad, right = torch.randn(1100, width), torch.randn(1100, 70), cases.decoded(packed, format)
        cases.check(rf.linear(x, packed, format), x, right)
        cases.check(OPS.linear_input_gradient(grad, packed, format), grad, right.mT)


@pytest.mark.parametrize("rows", [2, 17])
def test_packed_at_any_byte_and_stride(format, rows, device):
    packed = cases.weights(format, 5)
    right, x = cases.decoded(packed, format), torch.randn(rows, cases.in_features(format))
    grad = torch.randn(rows, 5)
    for start, gap in ((1, 0), (2, 3), (16, 7)):
        buffer = torch.full((5, packed.shape[-1] + gap), 0xA5, dtype=torch.uint8)
        buffer = torch.cat([torch.zeros(start, dtype=torch.uint8), buffer.flatten()]).to(device)
        view = buffer[start:].view(5, -1)[:, : packed.shape[-1]]
        view.copy_(packed)
        cases.check(rf.linear(x.to(device), view, format), x, right)
        cases.check(OPS.linear_input_gradient(grad.to(device), view, format), grad, right.mT)
    apart = torch.stack([packed, ~packed], 1).to(device)[:, 0]
    cases.check(rf.linear(x.to(device), apart, format), x, right)
    many = torch.randn(17, x.shape[1])  # of one packed row: enough results for their error to be a measure
    repeated = apart.flip(0)[:1].expand(5, -1)
    cases.check(rf.linear(many.to(device), repeated, format), many, right[:, 4:].expand(-1, 5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_input_of_any_strides_and_dimensions(dtype, device):
    packed = cases.weights("Q5_0", cases.OUT)
    right, packed = cases.decoded(packed, "Q5_0"), packed.to(device)
    wide = torch.randn(4, 3, 2 * 768 + 1, device=device).to(dtype)
    for x in (
        wide[..., 1::2],
        wide[:, 1, 1:769],
        wide[0, 0, 5:773],
        wide.transpose(0, 1)[..., 3:771],
        wide[:1, :1, :768],
    ):
        out = rf.linear(x, packed, "Q5_0")
        assert out.shape == (*x.shape[:-1], cases.OUT) and out.is_contiguous()
        cases.check(out, x, right)
    row = torch.randn(768, device=device).to(dtype).expand(6, -1)
    cases.check(rf.linear(row, packed, "Q5_0"), row, right)
    grad = torch.randn(cases.OUT, 5, device=device).to(dtype).T
    cases.check(OPS.linear_input_gradient(grad, packed, "Q5_0"), grad, right.mT)


@pytest.mark.parametrize("rows", [1, 4, 5, 40])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bias(dtype, rows, device):
    packed = cases.weights("Q6_K", cases.OUT)
    x, right = torch.randn(rows, 768).to(dtype), cases.decoded(packed, "Q6_K")
    for bias in (30 * torch.randn(cases.OUT).to(dtype), torch.randn(2 * cases.OUT).to(dtype)[::2]):
        out = rf.linear(x.to(device), packed.to(device), "Q6_K", bias.to(device))
        cases.check(out, x, right, bias)


def test_one_block(format, device):
    packed = even_rows(format, cases.OUT, weights=rf.formats[format].block_size)
    for rows in (1, 20):
        x = torch.randn(rows, rf.formats[format].block_size)
        cases.check(rf.linear(x.to(device), packed.to(device), format), x, cases.decoded(packed, format))


def test_short_rows_of_plain_values(device):
    for width in (1, 7, 8, 9, 63, 65):
        for name in PLAIN:
            packed = even_rows(name, cases.OUT, weights=width)
            for rows in (1, 20):
                x = torch.randn(rows, width)
                cases.check(rf.linear(x.to(device), packed.to(device), name), x, cases.decoded(packed, name))


def test_empty(device):
    packed, bias = finite_rows("Q8_0", 4).to(device), torch.randn(4, device=device)
    assert rf.linear(torch.randn(2, 0, 96, device=device), packed, "Q8_0").shape == (2, 0, 4)
    assert rf.linear(torch.randn(3, 96, device=device), packed[:0], "Q8_0").shape == (3, 0)
    for rows in (1, 3, 20):
        x = torch.randn(rows, 0, device=device)
        assert rf.linear(x, packed[:, :0], "Q8_0").equal(torch.zeros(rows, 4, device=device))
        assert rf.linear(x, packed[:, :0], "Q8_0", bias).equal(bias.expand(rows, 4))
        nothing = torch.randn(rows, 0, device=device)
        gradient = OPS.linear_input_gradient(nothing, packed[:0], "Q8_0")
        assert gradient.equal(torch.zeros(rows, 96, device=device))


@pytest.mark.parametrize("rows", [3, 17])
def test_a_nan_stays_in_its_row(rows, device):
    packed, x = cases.weights("Q4_K", cases.OUT).to(device), torch.randn(rows, 768, device=device)
    expected = rf.linear(x, packed, "Q4_K")
    x[1, 300] = torch.nan
    out = rf.linear(x, packed, "Q4_K")
    others = [i for i in range(rows) if i != 1]
    assert out[1].isnan().all() and out[others].equal(expected[others])


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_the_same_bits_on_any_number_of_threads(rows, reference_device):
    packed = cases.weights("Q4_1", 700)
    x, grad, threads = torch.randn(rows, 768), torch.randn(rows, 700), torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append((rf.linear(x, packed, "Q4_1"), OPS.linear_input_gradient(grad, packed, "Q4_1")))
    torch.set_num_threads(threads)
    assert all(a.equal(b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "v3", "v4"])
def test_every_instruction_set(isa, reference_device):
    script = (
        "import sys, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import linear_cases as cases\n"
        "from blocks import FORMATS\n"
        "import rocforge_ops as rf\n"
        "for format in FORMATS:\n"
        "    packed, grad = cases.weights(format, 19), torch.randn(7, 19)\n"
        "    right = cases.decoded(packed, format)\n"
        "    for rows in (1, 2, 4, 21):\n"
        "        x = torch.randn(rows, cases.in_features(format))\n"
        "        cases.check(rf.linear(x, packed, format), x, right)\n"
        "    cases.check(torch.ops.rocforge.linear_input_gradient(grad, packed, format), grad, right.mT)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(__file__)],
        env={**os.environ, "ROCFORGE_CPU_ISA": isa},
        capture_output=True,
        text=True,
    )
    if "no such instruction set" in run.stderr:
        pytest.skip(f"this processor does not run {isa}")
    assert run.returncode == 0, run.stderr


def test_backward_is_that_of_a_matmul(device):
    packed = cases.weights("Q4_K", cases.OUT).to(device)
    right = rf.dequantize(packed, "Q4_K")
    for shape in ((768,), (3, 768), (2, 5, 768)):
        x = torch.randn(shape, device=device)
        bias, grad = torch.randn(cases.OUT, device=device), torch.randn(*shape[:-1], cases.OUT, device=device)
        ours, theirs = ([t.clone().requires_grad_() for t in (x, bias)] for _ in range(2))
        rf.linear(ours[0], packed, "Q4_K", ours[1]).backward(grad)
        F.linear(theirs[0], right, theirs[1]).backward(grad)
        cases.check(ours[0].grad, grad, right)
        assert ours[1].grad.equal(theirs[1].grad)
    only_bias = bias.clone().requires_grad_()
    rf.linear(x, packed, "Q4_K", only_bias).backward(grad)
    assert only_bias.grad.equal(theirs[1].grad)


def test_gradcheck(reference_device):
    packed = finite_rows("Q4_0", 5)
    x = torch.randn(3, 96, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: rf.linear(x, packed, "Q4_0", b), (x, bias))
    assert torch.autograd.gradgradcheck(lambda x, b: rf.linear(x, packed, "Q4_0", b), (x, bias))
    assert torch.autograd.gradcheck(lambda x: rf.linear(x, packed, "Q4_0"), x[0])


def test_float64(reference_device):
    packed = cases.weights("Q5_K", cases.OUT)
    x, right = torch.randn(9, 768, dtype=torch.float64), cases.decoded(packed, "Q5_K").double()
    bias, grad = torch.randn(cases.OUT).double(), torch.randn(9, cases.OUT).double()
    torch.testing.assert_close(rf.linear(x, packed, "Q5_K", bias), x @ right + bias)
    torch.testing.assert_close(OPS.linear_input_gradient(grad, packed, "Q5_K"), grad @ right.mT)


def test_opcheck(device):
    packed = finite_rows("Q5_1", 5).to(device)
    x, grad = torch.randn(3, 2, 96, device=device), torch.randn(3, 5, device=device)
    bias = torch.randn(5, device=device, requires_grad=True)
    torch.library.opcheck(OPS.linear.default, (x.requires_grad_(), packed, "Q5_1", bias))
    torch.library.opcheck(OPS.linear.default, (x[0, 0].detach(), packed, "Q5_1"))
    torch.library.opcheck(OPS.linear.default, (x[:0].detach().bfloat16(), packed, "Q5_1", None))
    torch.library.opcheck(OPS.linear_input_gradient.default, (grad.requires_grad_(), packed, "Q5_1"))


def test_compiles_whole_graph(device):
    packed = cases.weights("Q4_K", cases.OUT).to(device)
    right = rf.dequantize(packed, "Q4_K")

    @torch.compile(fullgraph=True)
    def double(x, bias):
        return 2 * rf.linear(x, packed, "Q4_K", bias)

    for rows in (1, 5, 9):
        x = torch.randn(rows, 768, device=device, requires_grad=True)
        bias = torch.randn(cases.OUT, device=device, requires_grad=True)
        out = double(x, bias)
        cases.check(out, 2 * x, right.mT, 2 * bias)
        out.backward(torch.ones_like(out))
        cases.check(x.grad, torch.full((rows, cases.OUT), 2.0), right)
        assert bias.grad.equal(torch.full_like(bias, 2 * rows))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_is_that_of_a_matmul(dtype, device):
    """Input and bias become the autocast dtype; float64 stays."""
    packed = cases.weights("Q4_0", cases.OUT).to(device)
    x = torch.randn(3, 768, device=device, requires_grad=True)
    bias = torch.randn(cases.OUT, device=device, requires_grad=True)
    with torch.autocast(device, dtype=dtype):
        out = rf.linear(x, packed, "Q4_0", bias)
        compiled = torch.compile(OPS.linear, fullgraph=True)(x, packed, "Q4_0", bias)
        assert F.linear(x, torch.randn(5, 768, device=device)).dtype == out.dtype == dtype
        if device == "cpu" and not KERNELS:
            assert rf.linear(x.double(), packed, "Q4_0").dtype == torch.float64
    assert out.equal(rf.linear(x.to(dtype), packed, "Q4_0", bias.to(dtype))) and out.equal(compiled)
    grad = torch.randn(3, cases.OUT, device=device)
    out.backward(grad.to(dtype))
    assert x.grad.dtype == bias.grad.dtype == torch.float32
    assert x.grad.equal(OPS.linear_input_gradient(grad.to(dtype), packed, "Q4_0").float())


X, PACKED = torch.randn(2, 96), finite_rows("Q8_0", 5)


@pytest.mark.parametrize(
    ("x", "packed", "bias", "error", "message"),
    [
        (X.int(), PACKED, None, TypeError, "input must be float16, bfloat16.* float32.*, got Int"),
        (X[0, 0], PACKED, None, ValueError, r"input must be \[..., in\], got a 0-dimensional tensor"),
        (X[:, 1:], PACKED, None, ValueError, r"with 96 in, as many as packed has, got \[2, 95\]"),
        (X, PACKED.float(), None, TypeError, "must be uint8, got Float"),
        (X, PACKED[0], None, ValueError, r"must be \[out, row_bytes\], got \[102\]"),
        (X, PACKED[None], None, ValueError, r"must be \[out, row_bytes\], got \[1, 5, 102\]"),
        (X, PACKED[:, 1:], None, ValueError, "34-byte blocks, got rows of 101 bytes"),
        (X, PACKED.repeat(1, 2)[:, ::2], None, ValueError, "must be contiguous, got stride 2"),
        (X, PACKED, torch.zeros(4), ValueError, r"bias must be \[out\] = \[5\], got \[4\]"),
        (X, PACKED, torch.zeros(1, 5), ValueError, r"bias must be \[out\] = \[5\], got \[1, 5\]"),
        (X, PACKED, torch.zeros(5).half(), TypeError, r"bias must have input's dtype \(Float\), got Half"),
    ],
)
def test_wrong_arguments(x, packed, bias, error, message):
    with pytest.raises(error, match=message):
        rf.linear(x, packed, "Q8_0", bias)


def test_wrong_format_and_gradient():
    with pytest.raises(ValueError, match="did you mean"):
        rf.linear(X, PACKED, "q8_0")
    with pytest.raises(ValueError, match=r"grad must be \[..., out\] with 5 out, as many as packed has, got \[2, 96\]"):
        OPS.linear_input_gradient(X, PACKED, "Q8_0")


def test_two_devices(kernel_device):
    if kernel_device == "cpu":
        pytest.skip("emulated kernels are on the CPU as well")
    with pytest.raises(ValueError, match="input is on cpu and packed on cuda"):
        rf.linear(X, PACKED.to(kernel_device), "Q8_0")


def test_float64_on_a_gpu_is_an_error(kernel_device):
    with pytest.raises(TypeError, match="float16, bfloat16 or float32 on this device, got Double"):
        rf.linear(X.double().to(kernel_device), PACKED.to(kernel_device), "Q8_0")
