from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from blocks import DTYPES, FORMATS, finite_rows, random_rows, same

import rocforge_ops as rf


def test_is_ggml_bit_for_bit(format, device, golden_blocks):
    if f"{format.lower()}.bytes" not in golden_blocks:
        pytest.skip(f"no golden blocks of {format}")
    packed = torch.from_numpy(golden_blocks[f"{format.lower()}.bytes"]).to(device)
    values = torch.from_numpy(golden_blocks[f"{format.lower()}.values"])
    assert same(torch.ops.rocforge.dequantize(packed, format).cpu(), values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_float32_rounded_to_nearest_even(format, device, dtype):
    packed = random_rows(format, 64).to(device)
    wide = torch.ops.rocforge.dequantize(packed, format)
    assert same(torch.ops.rocforge.dequantize(packed, format, dtype), wide.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_start_byte(format, device, dtype):
    """A view slid byte by byte over a buffer: any alignment reads the same."""
    rows = random_rows(format, 2)
    expected = torch.ops.rocforge.dequantize(rows, format, dtype)
    for start in range(17):
        buffer = torch.full((rows.numel() + 40,), 0xA5, dtype=torch.uint8, device=device)
        view = buffer[start : start + rows.numel()].view(rows.shape)
        view.copy_(rows)
        assert same(torch.ops.rocforge.dequantize(view, format, dtype).cpu(), expected)


def test_strided_rows(format, device):
    rows = random_rows(format, 4, 6, 5).to(device)
    expected = torch.ops.rocforge.dequantize(rows, format)
    assert same(torch.ops.rocforge.dequantize(rows.transpose(0, 2), format), expected.transpose(0, 2).contiguous())
    assert same(torch.ops.rocforge.dequantize(rows[1::2, ::3, 2:], format), expected[1::2, ::3, 2:].contiguous())
    wide = torch.zeros(7, rows.shape[-1] + 5, dtype=torch.uint8, device=device)
    wide[:, 3 : 3 + rows.shape[-1]] = rows[0, 0, 0]
    view = wide[:, 3 : 3 + rows.shape[-1]]
    assert same(torch.ops.rocforge.dequantize(view, format), expected[0, 0, 0].expand(7, -1).contiguous())
    one = rows[0, 0, 0].expand(3, 2, -1)
    assert same(torch.ops.rocforge.dequantize(one, format), expected[0, 0, 0].expand(3, 2, -1).contiguous())


@pytest.mark.parametrize("shape", [(0,), (0, 0), (3, 0), (0, 7)])
def test_empty(format, device, shape):
    nbytes = shape[-1] * rf.formats[format].block_bytes
    packed = torch.empty(*shape[:-1], nbytes, dtype=torch.uint8, device=device)
    out = torch.ops.rocforge.dequantize(packed, format)
    assert out.shape == (*shape[:-1], shape[-1] * rf.formats[format].block_size)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("format", ["Q4_1", "Q5_0", "Q6_K", "MXFP4", "F16"])
def test_many_blocks_on_many_threads(format, device):
    """65,537 blocks in one row and in many: the cut into pieces and threads leaves no seam."""
    block = rf.formats[format].block_bytes
    row = torch.randint(0, 256, (65_537 * block,), dtype=torch.uint8)
    whole = torch.ops.rocforge.dequantize(row.to(device), format).cpu()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = torch.ops.rocforge.dequantize(row, format)
    torch.set_num_threads(threads)
    by_block = torch.ops.rocforge.dequantize(row.view(-1, block).to(device), format).cpu()
    assert same(whole, alone)
    assert same(whole, by_block.view(-1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("q4_1", "did you mean"),
        ("Q4_L", "did you mean"),
        ("float32", "the formats are F32, F16"),
        ("Q" * 10_000, "unknown format 'Q"),
    ],
)
def test_unknown_format_is_an_error_that_helps(name, message):
    with pytest.raises(ValueError, match=message) as error:
        torch.ops.rocforge.dequantize(torch.zeros(20, dtype=torch.uint8), name)
    assert len(str(error.value)) < 2000


def test_near_names_are_listed():
    with pytest.raises(ValueError, match="Q4_1") as error:
        rf.dequantize(torch.zeros(20, dtype=torch.uint8), "q4_1")
    assert "IQ2_XXS" not in str(error.value)


@pytest.mark.parametrize(
    ("packed", "dtype", "error", "message"),
    [
        (torch.zeros(20, dtype=torch.int8), None, TypeError, "must be uint8"),
        (torch.zeros((), dtype=torch.uint8), None, ValueError, "0-dimensional"),
        (torch.zeros(21, dtype=torch.uint8), None, ValueError, "20-byte blocks, got rows of 21 bytes"),
        (torch.zeros(4, 40, dtype=torch.uint8)[:, ::2], None, ValueError, "must be contiguous, got stride 2"),
        (torch.zeros(20, dtype=torch.uint8), torch.float64, ValueError, "float32, float16 or bfloat16"),
        (torch.zeros(20, dtype=torch.uint8), torch.int32, ValueError, "float32, float16 or bfloat16"),
    ],
)
def test_wrong_arguments(packed, dtype, error, message):
    with pytest.raises(error, match=message):
        rf.dequantize(packed, "Q4_1", dtype)


@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_opcheck(dtype, device):
    for packed in [finite_rows("Q5_1", 3), finite_rows("Q5_1", 4, 3).transpose(0, 1), finite_rows("Q5_1", 0)]:
        torch.library.opcheck(torch.ops.rocforge.dequantize.default, (packed.to(device), "Q5_1", dtype))


def test_compiles_whole_graph(device):
    packed = random_rows("Q4_K", 3).to(device)

    @torch.compile(fullgraph=True)
    def double(packed):
        return 2 * torch.ops.rocforge.dequantize(packed, "Q4_K", torch.float16)

    assert same(double(packed), 2 * rf.dequantize(packed, "Q4_K", torch.float16))


@pytest.mark.parametrize("isa", ["baseline", "v3", "v4"])
def test_every_instruction_set_gives_the_same_bits(isa, tmp_path):
    """The library picks an instruction set; each is run in a process of its own on this process's input."""
    inputs = {f: random_rows(f, 5, seed=1) for f in FORMATS}
    outputs = {(f, d): rf.dequantize(inputs[f], f, d) for f in FORMATS for d in DTYPES}
    torch.save((inputs, outputs), tmp_path / "blocks.pt")
    script = (
        "import sys, torch, rocforge_ops as rf\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from blocks import same\n"
        "inputs, outputs = torch.load(sys.argv[1])\n"
        "for (f, d), expected in outputs.items():\n"
        "    assert same(rf.dequantize(inputs[f], f, d), expected), (f, d)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "blocks.pt", os.path.dirname(__file__)],
        env={**os.environ, "ROCFORGE_CPU_ISA": isa},
        capture_output=True,
        text=True,
    )
    if "no such instruction set" in run.stderr:
        pytest.skip(f"this processor does not run {isa}")
    assert run.returncode == 0, run.stderr
