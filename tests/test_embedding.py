from __future__ import annotations

import pytest
import torch
from blocks import DTYPES, finite_rows, random_rows, same

import rocforge_ops as rf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
def test_rows_are_those_of_dequantize(format, device, dtype, index_dtype):
    table = random_rows(format, 11).to(device)
    indices = torch.tensor([[3, 0, 10], [10, 7, 3]], dtype=index_dtype, device=device)
    out = torch.ops.rocforge.embedding(table, format, indices, dtype)
    assert same(out, rf.dequantize(table, format, dtype)[indices.long()])


def test_strided_table_and_indices(format, device):
    wide = random_rows(format, 9, 4).to(device)
    table = wide[::2, 1]
    indices = torch.arange(5, device=device).expand(3, 5).T[::2]
    assert same(rf.embedding(table, format, indices), rf.dequantize(table, format)[indices])


def test_table_at_an_odd_byte(format, device):
    rows = random_rows(format, 6)
    buffer = torch.full((rows.numel() + 9,), 0x5A, dtype=torch.uint8, device=device)
    table = buffer[5 : 5 + rows.numel()].view(rows.shape)
    table.copy_(rows)
    indices = torch.tensor([5, 1], device=device)
    assert same(rf.embedding(table, format, indices).cpu(), rf.dequantize(rows, format)[[5, 1]])


def test_empty(device):
    table = random_rows("Q8_0", 4).to(device)
    none = torch.empty(2, 0, dtype=torch.int64, device=device)
    assert rf.embedding(table, "Q8_0", none).shape == (2, 0, 96)
    assert rf.embedding(table[:0], "Q8_0", none).shape == (2, 0, 96)
    assert rf.embedding(table[:, :0], "Q8_0", torch.tensor([1], device=device)).shape == (1, 0)
    assert rf.embedding(table, "Q8_0", torch.tensor(2, device=device)).shape == (96,)


@pytest.mark.parametrize("index", [-1, 4, 2**40, -(2**40)])
def test_index_out_of_range(index, reference_device):
    with pytest.raises(IndexError, match=f"index {index} is out of range for 4 rows"):
        rf.embedding(random_rows("Q8_0", 4), "Q8_0", torch.tensor([0, index]))


def test_index_into_no_rows(reference_device):
    with pytest.raises(IndexError, match="out of range for 0 rows"):
        rf.embedding(random_rows("Q8_0", 0), "Q8_0", torch.tensor([0]))


def test_index_out_of_range_is_a_row_of_nan_on_a_gpu(kernel_device):
    """An error would need the host to wait for the GPU."""
    table = finite_rows("Q4_0", 4).to(kernel_device)
    for dtype in (torch.int64, torch.int32):
        indices = torch.tensor([1, -1, 4, 3, 2**31 - 1], dtype=dtype, device=kernel_device)
        out = rf.embedding(table, "Q4_0", indices)
        assert same(out[[0, 3]], rf.dequantize(table[[1, 3]], "Q4_0"))
        assert out[[1, 2, 4]].isnan().all()
    assert rf.embedding(table[:0], "Q4_0", indices).isnan().all()


@pytest.mark.parametrize(
    ("table", "indices", "error", "message"),
    [
        (random_rows("Q8_0", 2, 3), torch.tensor([0]), ValueError, r"\[rows, row_bytes\], got \[2, 3, 102\]"),
        (random_rows("Q8_0", 3), torch.tensor([0.0]), TypeError, "int64 or int32, got Float"),
        (random_rows("Q8_0", 3), torch.tensor([True]), TypeError, "int64 or int32, got Bool"),
        (random_rows("Q8_0", 3).float(), torch.tensor([0]), TypeError, "must be uint8, got Float"),
        (random_rows("Q8_0", 3)[:, 1:], torch.tensor([0]), ValueError, "34-byte blocks, got rows of 101 bytes"),
    ],
)
def test_wrong_arguments(table, indices, error, message):
    with pytest.raises(error, match=message):
        rf.embedding(table, "Q8_0", indices)


def test_opcheck(device):
    table, indices = finite_rows("Q4_1", 7).to(device), torch.tensor([[1, 6]], device=device)
    torch.library.opcheck(torch.ops.rocforge.embedding.default, (table, "Q4_1", indices, torch.bfloat16))
    torch.library.opcheck(torch.ops.rocforge.embedding.default, (table, "Q4_1", indices[:, :0]))


def test_compiles_whole_graph(device):
    table, indices = random_rows("Q6_K", 7).to(device), torch.tensor([1, 6, 1], device=device)

    @torch.compile(fullgraph=True)
    def double(table, indices):
        return 2 * torch.ops.rocforge.embedding(table, "Q6_K", indices)

    assert same(double(table, indices), 2 * rf.embedding(table, "Q6_K", indices))
