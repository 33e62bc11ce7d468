"""GGUFFile on well-formed files: what the `gguf` package writes is read back, odd metadata is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    U8,
    U16,
    U32,
    U64,
    array,
    gguf_file,
    key_value,
    string,
    tensor_info,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rocforge_ops as rf

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
    file.write_bytes(gguf_file(entries, **keywords))
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
    file.write_bytes(gguf_file([array("tokens", STRING, ["a", "b"])], version=2))
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
    file.write_bytes(gguf_file([], infos, bytes(data)))
    assert {name: tensor.dequantize().tolist() for name, tensor in rf.GGUFFile(file).items()} == {
        "last": [3.0],
        "first": [1.0, 2.0],
    }
