"""What only a GPU can show: sizes beyond 2^31, graphs, streams, devices, and that the host does not wait."""

from __future__ import annotations

import pytest
import torch
from blocks import DTYPES, finite_rows, random_rows, same

import rocforge_ops as rf

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
FORMATS = ["F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ2_XXS", "MXFP4", "MXFP6_E2M3"]


@pytest.fixture
def no_waiting():
    """A synchronisation of host and GPU that PyTorch knows of is an error in the test."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def needs_memory(nbytes: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < nbytes:
        pytest.skip(f"needs {nbytes / 2**30:.0f} GiB of GPU memory, {free / 2**30:.0f} GiB are free")


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "Q4_K", "F16"])
def test_more_than_2_31_weights(format):
    """One row, and rows, beyond 32-bit indices of weights and (F16) of packed bytes."""
    weights = 2**31 + 3 * 4096
    needs_memory(4 * weights + 2**30)
    f = rf.formats[format]
    packed = torch.randint(0, 64, (f.row_bytes(weights),), dtype=torch.uint8, device="cuda")
    end = packed[-f.row_bytes(4096 * 3) :]
    expected = rf.dequantize(end.cpu(), format, torch.float16)
    out = rf.dequantize(packed, format, torch.float16)
    assert out.numel() == weights
    assert same(out[-3 * 4096 :].cpu(), expected)
    assert same(out[: 3 * 4096].cpu(), rf.dequantize(packed[: end.numel()].cpu(), format, torch.float16))
    middle = 2**31 // 4096 * 4096
    del out
    rows = rf.dequantize(packed.view(-1, f.row_bytes(4096)), format, torch.float16)
    assert same(rows[-3:].flatten().cpu(), expected)
    assert same(rows[middle // 4096].cpu(), expected[:4096])


def test_a_table_of_more_than_2_31_bytes():
    rows, f = 2**31 // 1088 + 5, rf.formats["Q8_0"]
    needs_memory(2**32)
    table = torch.randint(0, 64, (rows, f.row_bytes(1024)), dtype=torch.uint8, device="cuda")
    indices = torch.tensor([rows - 1, 0, rows - 2], device="cuda")
    expected = rf.dequantize(table[indices].cpu(), "Q8_0", torch.bfloat16)
    assert same(rf.embedding(table, "Q8_0", indices, torch.bfloat16).cpu(), expected)
    # Rows that lie far apart: a stride, and 64-bit offsets, in a view.
    far = table[:: rows - 1]
    assert same(rf.dequantize(far, "Q8_0").cpu(), rf.dequantize(far.cpu(), "Q8_0"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dequantize_in_a_graph(format, dtype):
    first, second = (random_rows(format, 7, 5, blocks=24, seed=seed) for seed in (1, 2))
    packed = first.cuda()
    views = packed, packed.transpose(0, 1), packed[:, 1:3]
    rf.dequantize(packed, format, dtype)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [rf.dequantize(view, format, dtype) for view in views]
    for content in (first, second):
        packed.copy_(content)
        graph.replay()
        for result, view in zip(results, (content, content.transpose(0, 1), content[:, 1:3]), strict=True):
            assert same(result.cpu(), rf.dequantize(view, format, dtype))


@pytest.mark.parametrize("format", FORMATS)
def test_embedding_in_a_graph(format):
    table = random_rows(format, 31, blocks=8)
    on_gpu, indices = table.cuda(), torch.tensor([3, 30, 3, 0], device="cuda")
    rf.embedding(on_gpu, format, indices)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = rf.embedding(on_gpu, format, indices)
    for rows in ([3, 30, 3, 0], [29, 1, 2, 17]):
        indices.copy_(torch.tensor(rows))
        graph.replay()
        assert same(result.cpu(), rf.embedding(table, format, torch.tensor(rows)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_host_does_not_wait(format, dtype, no_waiting):
    packed = torch.zeros(64, 24 * rf.formats[format].block_bytes, dtype=torch.uint8, device="cuda")
    indices = torch.zeros(16, dtype=torch.int64, device="cuda")
    rf.dequantize(packed, format, dtype)
    rf.dequantize(packed[::2], format, dtype)
    rf.dequantize(packed.flatten()[1 : 1 + rf.formats[format].block_bytes], format, dtype)
    rf.embedding(packed, format, indices, dtype)
    rf.embedding(packed, format, indices.int(), dtype)


def test_that_waiting_would_be_seen(no_waiting):
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.zeros(1, device="cuda").item()


def test_the_current_stream():
    """A kernel on another stream would read the zeros from before the sleep."""
    content = finite_rows("Q8_0", 4096).cuda()
    expected = rf.dequantize(content.cpu(), "Q8_0")
    packed, indices = torch.zeros_like(content), torch.arange(4096, device="cuda")
    rf.dequantize(packed, "Q8_0"), rf.embedding(packed, "Q8_0", indices)  # kernels load now, not under the sleep
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)  # cycles
        packed.copy_(content)
        results = rf.dequantize(packed, "Q8_0"), rf.embedding(packed, "Q8_0", indices)
        assert not stream.query()  # else the sleep was too short to show anything
    stream.synchronize()
    assert all(same(result.cpu(), expected) for result in results)


def test_the_device_of_the_tensor():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    packed = random_rows("Q4_K", 9)
    expected = rf.dequantize(packed, "Q4_K")
    there = packed.to("cuda:1")
    with torch.cuda.device(0):
        out = rf.dequantize(there, "Q4_K")
        rows = rf.embedding(there, "Q4_K", torch.tensor([8, 2], device="cuda:1"))
        assert torch.cuda.current_device() == 0
    assert out.device == rows.device == torch.device("cuda:1")
    assert same(out.cpu(), expected) and same(rows.cpu(), expected[[8, 2]])


def test_tensors_on_different_devices():
    with pytest.raises((ValueError, RuntimeError), match="device"):
        rf.embedding(random_rows("Q8_0", 4).cuda(), "Q8_0", torch.tensor([0]))
