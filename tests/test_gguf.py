"""GGUFFile on well-formed files: what the `gguf` package writes is read back, and views stay valid and harmless."""

from __future__ import annotations

import errno
import gc
import math
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_bytes import (
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    TENSOR_F32,
    TENSOR_Q8_0,
    U8,
    U16,
    U32,
    U64,
    array,
    key_value,
    string,
    tensor_info,
)
from gguf_bytes import (
    gguf as gguf_bytes,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rocforge_ops as rf


@pytest.fixture
def two_tensors(tmp_path: Path) -> Path:
    """ "norm" F32 [3] and "weight" Q8_0 [2, 32], whose packed bytes count up from 1."""
    infos = [tensor_info("norm", (3,), TENSOR_F32, 0), tensor_info("weight", (32, 2), TENSOR_Q8_0, 32)]
    data = np.array([1, -2, 0.5], np.float32).tobytes() + bytes(20) + bytes(range(1, 69))
    file = tmp_path / "two.gguf"
    file.write_bytes(gguf_bytes([key_value("general.architecture", STRING, "llama")], infos, data))
    return file


# What the gguf package writes.

NUMBERS = {
    **{type: st.integers(0, 2**bits - 1) for type, bits in ((U8, 8), (U16, 16), (U32, 32), (U64, 64))},
    **{
        type: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for type, bits in ((I8, 8), (I16, 16), (I32, 32), (I64, 64))
    },
    F32: st.floats(width=32),
    F64: st.floats(),
    BOOL: st.booleans(),
}
SCALARS = {**NUMBERS, STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20)}
# All but the ones that the package does not know, and Q8_1, for whose block of 36 bytes it has 40.
PACKAGE_TYPES = gguf.GGMLQuantizationType.__members__
PACKAGE_FORMATS = [
    format
    for format in rf.formats
    if format.name in PACKAGE_TYPES
    and gguf.GGML_QUANT_SIZES[PACKAGE_TYPES[format.name]] == (format.block_size, format.block_bytes)
]


@st.composite
def metadata(draw: st.DrawFn) -> dict[str, tuple[int, Any]]:
    """Keys and (type, value); a list is an array of that type."""
    keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).map(lambda key: "x." + key)
    pairs = st.sampled_from(sorted(SCALARS)).flatmap(
        lambda type: st.tuples(st.just(type), SCALARS[type] | st.lists(SCALARS[type], min_size=1, max_size=8))
    )
    return draw(st.dictionaries(keys, pairs, max_size=12))


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, tuple[Any, np.ndarray]]:
    """Names and (format, random packed bytes [..., row_bytes])."""
    names = draw(st.lists(st.text("abcdefghij._0123é", min_size=1, max_size=30), max_size=6, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    result = {}
    for name in names:
        format = draw(st.sampled_from(PACKAGE_FORMATS))
        shape = draw(st.lists(st.integers(1, 4), max_size=3))
        row_bytes = draw(st.integers(1, 3)) * format.block_bytes
        result[name] = (format, random.integers(0, 256, (*shape, row_bytes), np.uint8))
    return result


def same(a: Any, b: Any) -> bool:
    """Equality of type and value, NaN being equal to itself."""
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=metadata(), tensors=tensors(), alignment=st.sampled_from([None, 1, 8, 32, 64, 4096]))
def test_reads_what_the_gguf_package_writes(
    metadata: dict[str, Any], tensors: dict[str, Any], alignment: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, (type, value) in metadata.items():
        value_type = gguf.GGUFValueType(type)
        if isinstance(value, list):
            writer.add_key_value(key, value, gguf.GGUFValueType.ARRAY, sub_type=value_type)
        else:
            writer.add_key_value(key, value, value_type)
    for name, (format, packed) in tensors.items():
        writer.add_tensor(name, packed, raw_dtype=PACKAGE_TYPES[format.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with rf.GGUFFile(path) as file:
        assert (file.version, file.alignment, file.architecture) == (3, alignment or 32, "llama")
        expected = {"general.architecture": "llama"}
        expected |= {} if alignment is None else {"general.alignment": alignment}
        expected |= {key: value for key, (_, value) in metadata.items()}
        assert list(file.metadata) == list(expected)
        assert all(same(file.metadata[key], value) for key, value in expected.items())
        assert list(file) == list(tensors)
        for name, (format, packed) in tensors.items():
            tensor = file[name]
            weights = packed.shape[-1] // format.block_bytes * format.block_size
            assert (tensor.name, tensor.format, tensor.nbytes) == (name, format.name, packed.nbytes)
            assert tensor.shape == (*packed.shape[:-1], weights)
            assert torch.equal(tensor.packed(), torch.from_numpy(packed))


def test_reads_real_files_like_the_gguf_package(shared_models: Path) -> None:
    files = sorted(shared_models.glob("*.gguf"))
    assert files
    for path in files:
        reader, file = gguf.GGUFReader(path), rf.GGUFFile(path)
        fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        assert list(file.metadata) == list(fields)
        assert all(same(file.metadata[key], field.contents()) for key, field in fields.items())
        assert [tensor.name for tensor in reader.tensors] == list(file)
        for expected in reader.tensors:
            tensor = file[expected.name]
            assert (tensor.format, tensor.nbytes) == (expected.tensor_type.name, expected.n_bytes)
            assert list(tensor.shape) == expected.shape.tolist()[::-1]
            assert tensor.packed().numpy().tobytes() == expected.data.tobytes()
            decoded = torch.tensor(gguf.dequantize(expected.data, expected.tensor_type))
            assert torch.equal(tensor.dequantize(), decoded.reshape(tensor.shape))


# Metadata that is legal and odd.


def read_metadata(tmp_path: Path, *entries: bytes, **keywords: Any) -> Mapping[str, Any]:
    file = tmp_path / "metadata.gguf"
    file.write_bytes(gguf_bytes(entries, **keywords))
    return rf.GGUFFile(file).metadata


def test_extreme_numbers(tmp_path: Path) -> None:
    metadata = read_metadata(
        tmp_path,
        key_value("u64", U64, 2**64 - 1),
        key_value("i64", I64, -(2**63)),
        key_value("tokenizer.ggml.padding_token_id", U32, 2**32 - 1),
        array("u64s", U64, [2**64 - 1, 0]),
        key_value("f32", F32, float("-inf")),
    )
    assert dict(metadata) == {
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "tokenizer.ggml.padding_token_id": 4294967295,
        "u64s": [2**64 - 1, 0],
        "f32": float("-inf"),
    }


def test_bools_of_any_byte(tmp_path: Path) -> None:
    metadata = read_metadata(tmp_path, key_value("one", BOOL, b"\x02"), array("many", BOOL, b"\x00\x01\xff", 3))
    assert dict(metadata) == {"one": True, "many": [False, True, True]}
    assert type(metadata["one"]) is bool


@pytest.mark.parametrize("type", [*SCALARS], ids=str)
def test_empty_arrays(type: int, tmp_path: Path) -> None:
    assert read_metadata(tmp_path, array("none", type, []))["none"] == []


def test_strings_with_nuls_and_without_utf8(tmp_path: Path) -> None:
    """Both the fast and the slow way of cutting strings; bytes that are not UTF-8 survive as surrogates."""
    words = [b"plain", b"", b"\xe2\x96", b"\x81", b"\xff\xfe", "▁é😀".encode()]
    metadata = read_metadata(
        tmp_path,
        array("words", STRING, words),
        array("with NUL", STRING, [*words, b"\0", b"a\0\0", b""]),
        key_value("text", STRING, string(b"\0\xff")),
    )
    assert [word.encode("utf-8", "surrogateescape") for word in metadata["words"]] == words
    assert metadata["with NUL"] == [*metadata["words"], "\0", "a\0\0", ""]
    assert metadata["words"][-1] == "▁é😀"
    assert metadata["text"] == "\0\udcff"


def test_version_2_without_tensors_or_architecture(tmp_path: Path) -> None:
    """A vocabulary-only file ends after its keys."""
    file = tmp_path / "vocabulary.gguf"
    file.write_bytes(gguf_bytes([array("tokens", STRING, ["a", "b"])], version=2))
    opened = rf.GGUFFile(file)
    assert (opened.version, opened.alignment, opened.architecture, list(opened)) == (2, 32, None, [])
    assert opened.metadata == {"tokens": ["a", "b"]}


def test_metadata_is_a_mapping_that_describes_itself(tmp_path: Path) -> None:
    metadata = read_metadata(tmp_path, key_value("n", I16, -3), array("words", STRING, ["a", "b"]))
    assert (len(metadata), "n" in metadata, "m" in metadata, metadata.get("m")) == (2, True, False, None)
    assert metadata.describe("n") == "i16"
    assert metadata.describe("words") == "array of 2 string"
    assert repr(metadata) == "GGUFMetadata('n': -3, 'words': <array of 2 string>)"
    with pytest.raises(KeyError, match="'m'"):
        metadata["m"]


def test_gaps_and_any_order_of_tensors(tmp_path: Path) -> None:
    infos = [tensor_info("last", (1,), TENSOR_F32, 128), tensor_info("first", (2,), TENSOR_F32, 32)]
    data = bytearray(132)
    data[32:40] = np.array([1, 2], np.float32).tobytes()
    data[128:132] = np.array([3], np.float32).tobytes()
    file = tmp_path / "gaps.gguf"
    file.write_bytes(gguf_bytes([], infos, bytes(data)))
    assert {name: tensor.dequantize().tolist() for name, tensor in rf.GGUFFile(file).items()} == {
        "last": [3.0],
        "first": [1.0, 2.0],
    }


# Tensors and their views.


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


# What the system refuses.


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
    file.write_bytes(gguf_bytes())
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
    file.write_bytes(gguf_bytes())
    assert rf.GGUFFile(os.fsencode(file)).path == str(file)


def test_errors_survive_pickling(tmp_path: Path) -> None:
    """A loader's worker process sends its error home."""
    (tmp_path / "bad.gguf").write_bytes(string("not a model"))
    with pytest.raises(rf.GGUFError) as caught:
        rf.GGUFFile(tmp_path / "bad.gguf")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), error.subject, error.found) == (str(caught.value), "header", caught.value.found)
