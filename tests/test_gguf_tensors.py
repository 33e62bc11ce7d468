"""GGUFTensor and its views: zero-copy, alive as long as they are used, harmless; and files that the system refuses."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_bytes import (
    STRING,
    TENSOR_F32,
    TENSOR_Q8_0,
    gguf_file,
    key_value,
    tensor_info,
)

import rocforge_ops as rf


@pytest.fixture
def two_tensors(tmp_path: Path) -> Path:
    """A file of `norm`, F32 [3], and `weight`, Q8_0 [2, 32], whose packed bytes count up from 1."""
    infos = [tensor_info("norm", (3,), TENSOR_F32, 0), tensor_info("weight", (32, 2), TENSOR_Q8_0, 32)]
    data = np.array([1, -2, 0.5], np.float32).tobytes() + bytes(20) + bytes(range(1, 69))
    file = tmp_path / "two.gguf"
    file.write_bytes(gguf_file([key_value("general.architecture", STRING, "llama")], infos, data))
    return file


def test_tensor_attributes(two_tensors: Path) -> None:
    file = rf.GGUFFile(two_tensors)
    tensor = file["weight"]
    assert (tensor.name, tensor.format, tensor.shape, tensor.nbytes) == ("weight", "Q8_0", (2, 32), 68)
    assert repr(tensor) == "GGUFTensor('weight', Q8_0, shape=(2, 32), nbytes=68)"
    assert repr(file) == f"GGUFFile({str(two_tensors)!r}, llama, 2 tensors, 1 keys)"
    assert tensor == file["weight"] and hash(tensor) == hash(file["weight"]) and tensor != file["norm"]
    with pytest.raises(KeyError, match="'nothing'"):
        file["nothing"]


def test_dequantize(two_tensors: Path) -> None:
    file = rf.GGUFFile(two_tensors)
    assert file["norm"].dequantize().tolist() == [1.0, -2.0, 0.5]
    blocks = np.frombuffer(bytes(range(1, 69)), np.dtype([("d", "<f2"), ("levels", "i1", 32)]))
    expected = torch.from_numpy(blocks["d"][:, None].astype(np.float32) * blocks["levels"])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(file["weight"].dequantize(dtype), expected.to(dtype))


def test_dequantize_on_a_device(two_tensors: Path, device: str) -> None:
    tensor = rf.GGUFFile(two_tensors)["weight"]
    decoded = tensor.dequantize(torch.float16, device)
    assert decoded.device.type == device
    assert torch.equal(decoded.cpu(), tensor.dequantize(torch.float16))


def mapped_ranges(path: Path) -> list[range]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    bounds = [line.split()[0].split("-") for line in maps if line.endswith(str(path))]
    return [range(int(start, 16), int(end, 16)) for start, end in bounds]


def test_packed_is_a_view_of_the_map_and_keeps_it_alive(two_tensors: Path) -> None:
    file = rf.GGUFFile(two_tensors)
    view, again = file["weight"].packed(), file["weight"].packed()
    assert (view.dtype, view.shape, view.is_contiguous()) == (torch.uint8, (2, 34), True)
    assert view.data_ptr() == again.data_ptr()
    assert any(view.data_ptr() in mapped for mapped in mapped_ranges(two_tensors))
    assert view.untyped_storage().nbytes() == 68  # not the file's: copying or saving a view stays cheap
    file.close()
    two_tensors.unlink()
    del file, again
    gc.collect()
    assert view.flatten().tolist() == list(range(1, 69))
    row = view[1]
    del view
    gc.collect()
    assert row.tolist() == list(range(35, 69))
    del row
    gc.collect()
    assert not mapped_ranges(two_tensors)


def test_a_write_into_a_view_stays_in_the_process(two_tensors: Path) -> None:
    before = two_tensors.read_bytes()
    file = rf.GGUFFile(two_tensors)
    file["weight"].packed().fill_(7)
    assert file["weight"].packed().unique().tolist() == [7]
    assert two_tensors.read_bytes() == before
    assert rf.GGUFFile(two_tensors)["weight"].packed().flatten().tolist() == list(range(1, 69))


def test_close(two_tensors: Path) -> None:
    with rf.GGUFFile(two_tensors) as file:
        tensor, metadata = file["norm"], file.metadata
    file.close()  # again: nothing happens
    assert tensor.dequantize().tolist() == [1.0, -2.0, 0.5]
    assert metadata["general.architecture"] == "llama"
    assert repr(file) == f"GGUFFile({str(two_tensors)!r}, closed)"
    uses: list[Callable[[], object]] = [
        lambda: file["norm"],
        lambda: len(file),
        lambda: list(file),
        lambda: "x" in file,
    ]
    uses += [lambda: file.metadata, lambda: file.version, lambda: file.alignment, lambda: file.architecture]
    for use in uses:
        with pytest.raises(ValueError, match=r"two\.gguf was closed"):
            use()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_its_size_under_the_map(two_tensors: Path, change: int) -> None:
    """Reading behind the new end would kill the process."""
    tensor = rf.GGUFFile(two_tensors)["weight"]
    size = two_tensors.stat().st_size
    os.truncate(two_tensors, size + change)
    with pytest.raises(rf.GGUFError, match=f"the {size} bytes that were there .* found {size + change} bytes"):
        tensor.packed()
    os.truncate(two_tensors, size)
    tensor.packed()


def test_a_file_that_is_replaced_stays_readable(two_tensors: Path, tmp_path: Path) -> None:
    tensor = rf.GGUFFile(two_tensors)["weight"]
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(two_tensors)
    assert tensor.packed().flatten().tolist() == list(range(1, 69))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        rf.GGUFFile(tmp_path / "none.gguf")
    assert caught.value.filename == str(tmp_path / "none.gguf")
    assert "No such file or directory" in str(caught.value)


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        rf.GGUFFile(str(tmp_path))


def test_a_file_as_directory(two_tensors: Path) -> None:
    with pytest.raises(NotADirectoryError):
        rf.GGUFFile(two_tensors / "inner.gguf")


def test_a_fifo_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(rf.GGUFError, match="expected a regular file, found a pipe"):
        rf.GGUFFile(tmp_path / "fifo")


def test_no_permission(tmp_path: Path) -> None:
    file = tmp_path / "secret.gguf"
    file.write_bytes(gguf_file())
    file.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError) as caught:
            rf.GGUFFile(file)
    finally:
        os.seteuid(user)
    assert caught.value.errno == errno.EACCES


def test_paths_as_bytes_and_in_unicode(tmp_path: Path) -> None:
    file = tmp_path / "modèle ▁.gguf"
    file.write_bytes(gguf_file())
    assert rf.GGUFFile(os.fsencode(file)).path == str(file)
    with pytest.raises(ValueError, match="a path without NULs"):
        rf.GGUFFile(f"{file}\0")
    with pytest.raises(UnicodeEncodeError):
        rf.GGUFFile(tmp_path / "\udcff")
