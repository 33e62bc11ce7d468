"""Models split over several files: opened whole from any shard, or refused with what is missing or contradicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_bytes import F32, I8, I64, STRING, TENSOR_F32, U8, U16, U64, array, gguf_file, key_value, tensor_info

import rocforge_ops as rf

COUNT = 3


def shard_name(number: int, count: int = COUNT) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.gguf"


def shard(
    number: int,
    type: int = U16,
    *,
    count: int | bytes = COUNT,
    total: int | bytes = 2 * COUNT,
    names: tuple[str, ...] | None = None,
    metadata: tuple[bytes, ...] = (),
) -> bytes:
    """Shard `number` with two tensors of one weight each, the weight being their place in the model."""
    names = (f"t{2 * number}", f"t{2 * number + 1}") if names is None else names
    keys = [key_value("split.no", type, number), key_value("split.count", type, count)]
    keys += [key_value("split.tensors.count", type, total), *metadata]
    infos = [tensor_info(name, (1,), TENSOR_F32, 32 * i) for i, name in enumerate(names)]
    weights = [np.array([2 * number + i], np.float32).tobytes().ljust(32, b"\0") for i in range(len(names))]
    return gguf_file(keys, infos, b"".join(weights))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(**replaced: bytes | None) -> Path:
        """Three shards, of which `shard0=...` and so on replace one (None: leave it out). The folder of them."""
        first = (key_value("general.architecture", STRING, "llama"),)
        for number in range(COUNT):
            content = replaced.get(f"shard{number}", shard(number, metadata=first if number == 0 else ()))
            if content is not None:
                (tmp_path / shard_name(number)).write_bytes(content)
        return tmp_path

    return write


@pytest.mark.parametrize("number", range(COUNT))
def test_opened_whole_from_any_shard(number: int, write: Callable[..., Path]) -> None:
    file = rf.GGUFFile(write() / shard_name(number))
    assert file.architecture == "llama"
    assert file.metadata["split.no"] == 0
    assert {name: tensor.dequantize().item() for name, tensor in file.items()} == {f"t{i}": i for i in range(6)}


@pytest.mark.parametrize("type", [U8, I8, U64, I64])
def test_split_keys_of_any_integer_type(type: int, write: Callable[..., Path]) -> None:
    folder = write(shard0=shard(0, type), shard1=shard(1, type))
    assert len(rf.GGUFFile(folder / shard_name(2))) == 6


def test_what_the_gguf_package_splits(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama", split_max_tensors=2)
    for i in range(5):
        writer.add_tensor(f"t{i}", np.full((2, 3), i, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for number in range(3):
        file = rf.GGUFFile(tmp_path / shard_name(number))
        assert file.architecture == "llama"
        for i in range(5):
            assert torch.equal(file[f"t{i}"].dequantize(), torch.full((2, 3), float(i)))


@pytest.mark.parametrize("count", [0, 1])
def test_merged_files_keep_their_keys(count: int, tmp_path: Path) -> None:
    file = tmp_path / "merged.gguf"
    file.write_bytes(shard(0, count=count, total=99))
    assert list(rf.GGUFFile(file)) == ["t0", "t1"]


def test_views_outlive_the_file(write: Callable[..., Path]) -> None:
    with rf.GGUFFile(write() / shard_name(0)) as file:
        views = {name: tensor.packed() for name, tensor in file.items()}
    del file
    assert [view.view(torch.float32).item() for view in views.values()] == list(range(6))


def test_a_shard_that_shrinks(write: Callable[..., Path]) -> None:
    folder = write()
    tensor = rf.GGUFFile(folder / shard_name(0))["t5"]
    with (folder / shard_name(2)).open("r+b") as out:
        out.truncate(100)
    with pytest.raises(rf.GGUFError, match=r"00003-of-00003\.gguf, byte 100, file: .* found 100 bytes"):
        tensor.packed()


LONG = {f"shard{i}": shard(i, U64, count=2**40) for i in range(COUNT)}
REFUSED = {
    "missing": ({"shard1": None}, f'key "split.count": expected shard 2 of 3 at .*{shard_name(1)}, found no such file'),
    "number of another": ({"shard1": shard(2)}, 'key "split.no": expected shard 2 of 3, found shard 3 of 3'),
    "count of another": ({"shard1": shard(1, count=4)}, "expected shard 2 of 3, found shard 2 of 4"),
    "a whole model": ({"shard1": gguf_file()}, "expected shard 2 of 3, found a file that is not split"),
    "total": ({"shard2": shard(2, total=7)}, 'key "split.tensors.count": expected 7 tensors in all shards, found 6'),
    "repeated name": ({"shard2": shard(2, names=("t4", "t0"))}, 'tensor "t0": expected every tensor name once'),
    "malformed": ({"shard1": b"GGUF"}, f"{shard_name(1)}, byte 4, header: expected 4 bytes of version"),
    "too many": (LONG, 'key "split.count": expected at most 65535 shards, found 1099511627776'),
    "negative count": ({"shard0": shard(0, I8, count=-1)}, "expected an integer of at least 0, found i8"),
    "number too high": ({"shard0": shard(3)}, "expected a shard number from 0 to 2, found 3"),
    "count is a float": ({"shard0": gguf_file([key_value("split.count", F32, 3.0)])}, "at least 0, found f32"),
    "count is an array": ({"shard0": gguf_file([array("split.count", U8, [3])])}, "found array of 1 u8"),
    "no number": (
        {"shard0": gguf_file([key_value("split.count", U16, 3)])},
        'key "split.no": expected a shard number from 0 to 2, found no such key',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, write: Callable[..., Path]) -> None:
    replaced, message = REFUSED[case]
    with pytest.raises(rf.GGUFError, match=message):
        rf.GGUFFile(write(**replaced) / shard_name(0))


def test_a_renamed_shard(write: Callable[..., Path]) -> None:
    folder = write()
    (folder / shard_name(1)).rename(folder / "renamed.gguf")
    message = r"a file name that ends in -00002-of-00003\.gguf, as it is shard 2 of 3, found renamed\.gguf"
    with pytest.raises(rf.GGUFError, match=message):
        rf.GGUFFile(folder / "renamed.gguf")


def test_a_shard_that_is_a_directory(write: Callable[..., Path]) -> None:
    folder = write(shard1=None)
    (folder / shard_name(1)).mkdir()
    with pytest.raises(IsADirectoryError, match=shard_name(1)):
        rf.GGUFFile(folder / shard_name(0))
