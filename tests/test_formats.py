"""The formats against independent decoders: ggml's recorded blocks, the `gguf` package, the tables of MXFP6."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from blocks import random_rows, same
from conftest import ROOT

import rocforge_ops as rf

gguf = pytest.importorskip("gguf")
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: E402

GGUF_TYPES = {t.name: t for t in GGMLQuantizationType}


def decode(format: str, blocks: np.ndarray, device: str = "cpu") -> torch.Tensor:
    return torch.ops.rocforge.dequantize(torch.from_numpy(blocks).to(device), format).cpu()


def test_every_golden_block_bit_for_bit(golden_blocks, device):
    names = [key.removesuffix(".bytes") for key in golden_blocks if key.endswith(".bytes")]
    assert names
    for name in names:
        values = torch.from_numpy(golden_blocks[f"{name}.values"])
        assert same(decode(name.upper(), golden_blocks[f"{name}.bytes"], device), values), name


def test_geometry_is_the_gguf_packages():
    for t, sizes in GGML_QUANT_SIZES.items():
        assert t.name in rf.formats, f"{t.name} is missing"
        ours = rf.formats[t.name]
        if t.name == "Q8_1":  # the package counts two float32, ggml's struct holds two float16
            sizes = (32, 36)
        assert (ours.id, ours.block_size, ours.block_bytes) == (t.value, *sizes), t.name
    assert {f.name for f in rf.formats if f.id is None} == {"MXFP6_E2M3", "MXFP6_E3M2"}


def test_documentation_lists_every_format():
    lines = (ROOT / "docs" / "formats.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:6]] for line in lines if line.startswith("| ")]
    expected = [
        [f.name, "none" if f.id is None else str(f.id), str(f.block_size), str(f.block_bytes), f"{f.bits_per_weight:g}"]
        for f in rf.formats
    ]
    assert rows[1:] == expected


def decoded_by_gguf(name: str) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, rf.formats[name].block_bytes), np.uint8), GGUF_TYPES[name])
    except (KeyError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize("name", [f.name for f in rf.formats if decoded_by_gguf(f.name)])
def test_random_blocks_as_the_gguf_package_decodes_them(name, device):
    blocks = random_rows(name, 1024, blocks=1, seed=7).numpy()
    if name == "MXFP4":  # the package decodes the NaN scale as a number
        blocks = blocks[blocks[:, 0] != 255]
    with np.errstate(over="ignore", invalid="ignore"):
        values = gguf.quants.dequantize(blocks, GGUF_TYPES[name])
    assert same(decode(name, blocks, device), torch.from_numpy(np.ascontiguousarray(values)))


def test_q8_1_leaves_its_sum_out(device):
    blocks = random_rows("Q8_1", 64, blocks=1).numpy()
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        values = d * blocks[:, 4:].view(np.int8).astype(np.float32)
    assert same(decode("Q8_1", blocks, device), torch.from_numpy(values))


def test_q8_k_scales_by_a_float32(device):
    blocks = random_rows("Q8_K", 64, blocks=1).numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        values = blocks[:, :4].copy().view(np.float32) * blocks[:, 4:260].view(np.int8).astype(np.float32)
    assert same(decode("Q8_K", blocks, device), torch.from_numpy(values))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("F64", torch.float64),
        ("F16", torch.float16),
        ("BF16", torch.bfloat16),
        ("I8", torch.int8),
        ("I16", torch.int16),
        ("I32", torch.int32),
        ("I64", torch.int64),
    ],
)
def test_plain_types_are_cast_once(name, dtype, device):
    packed = random_rows(name, 129, blocks=151)
    assert same(decode(name, packed.numpy(), device), packed.view(dtype).float())


def mxfp6_blocks(exponents: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Blocks [n, 25] of E8M0 scales [n] and six-bit codes [n, 32]."""
    bits = codes[..., None] >> np.arange(6) & 1
    packed = np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    return np.concatenate([exponents[:, None].astype(np.uint8), packed], axis=1)


# The magnitudes of codes 0 .. 31, from the OCP MX v1.0 tables: E2M3 in steps of 1/8 up to 7.5, E3M2 up to 28.
E2M3 = np.concatenate([np.arange(16) / 8, np.arange(8, 16) / 4, np.arange(8, 16) / 2])
E3M2 = np.concatenate([np.arange(4) / 16] + [(4 + np.arange(4)) / 16 * 2.0**e for e in range(7)])


@pytest.mark.parametrize(("name", "magnitudes"), [("MXFP6_E2M3", E2M3), ("MXFP6_E3M2", E3M2)])
def test_mxfp6_is_its_table(name, magnitudes, device):
    """Every code in every position under every scale; minus zero is zero."""
    assert magnitudes.max() == {"MXFP6_E2M3": 7.5, "MXFP6_E3M2": 28}[name]
    exponents = np.repeat(np.arange(256), 64)
    codes = (np.arange(32) + np.arange(256 * 64)[:, None]) % 64
    table = np.concatenate([magnitudes, 0.0 - magnitudes])
    scales = np.where(exponents == 255, np.nan, 2.0 ** (exponents - 127))
    with np.errstate(over="ignore"):
        values = (scales[:, None] * table[codes]).astype(np.float32)
    assert same(decode(name, mxfp6_blocks(exponents, codes), device), torch.from_numpy(values))


def test_nan_scales_of_mx_formats_give_nan(device):
    for name in ("MXFP4", "MXFP6_E2M3", "MXFP6_E3M2"):
        blocks = random_rows(name, 3, blocks=1).numpy()
        blocks[:, 0] = 255
        assert decode(name, blocks, device).isnan().all(), name


def test_codebooks_are_the_gguf_packages():
    """tools/make_tables.py would write what is in the tree."""
    check = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_tables.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
