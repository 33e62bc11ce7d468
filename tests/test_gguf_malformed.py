"""Every malformed file is one GGUFError that says where, which key or tensor, what was expected and what was found."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
from gguf_bytes import (
    ARRAY,
    F64,
    I32,
    STRING,
    TENSOR_F32,
    TENSOR_I8,
    TENSOR_I64,
    TENSOR_Q4_0,
    TENSOR_Q4_K,
    U8,
    U32,
    U64,
    array,
    gguf_file,
    key_value,
    string,
    tensor_info,
)

import rocforge_ops as rf

INT64_MAX = 2**63 - 1
WRAPS = 0x7FFFFFFFFFFFFFC0  # twice this, padded, is 2^64 - 128


def info(ne: tuple[int, ...] = (32,), type: int = TENSOR_F32, offset: int = 0, name: str | bytes = "t") -> bytes:
    return tensor_info(name, ne, type, offset)


def one_tensor(*arguments: object, data: int = 256, **keywords: object) -> bytes:
    return gguf_file(infos=[info(*arguments, **keywords)], data=bytes(data))


def alignment(type: int, value: object) -> bytes:
    return gguf_file([key_value("general.alignment", type, value)])


HEADER = {
    "bad magic": (gguf_file(magic=b"FUGG"), 'header: expected the magic "GGUF", found "FUGG"'),
    "unprintable magic": (gguf_file(magic=b"\x80\x02\n\x00"), r'found "\x80\x02\x0a\x00"'),
    "magic cut short": (b"GG", "expected 4 bytes of magic, found the end of the file after 2"),
    "version 0": (gguf_file(version=0), "byte 4, header: expected version 2 or 3, found version 0"),
    "version 1": (gguf_file(version=1), "found version 1"),
    "version of the future": (gguf_file(version=4), "found version 4, newer than this reader"),
    "big-endian": (
        gguf_file(version=0x03000000),
        "a little-endian file, found version 50331648: a big-endian",
    ),
    "n_tensors -1": (gguf_file(n_tensors=-1), "at most 0, as 8 bytes remain, found 18446744073709551615"),
    "n_tensors too many": (gguf_file(n_tensors=3) + bytes(60), "number of tensors of at most 2, as 68 bytes remain"),
    "n_kv -1": (gguf_file(n_kv=-1), "byte 16, header: expected a number of keys of at most 0"),
    "n_kv too many": (gguf_file(n_kv=2) + bytes(27), "number of keys of at most 1"),
}

METADATA = {
    "key size -1": (gguf_file([string("k", 2**64 - 1) + bytes(20)]), "key of at most 21, as 21 bytes remain"),
    "key size beyond the file": (gguf_file([string("k", 100) + bytes(20)]), "found 100"),
    "empty key": (gguf_file([key_value("", U32, 1)]), "key: expected a key of 1 to 65535 bytes, found 0 bytes"),
    "long key": (gguf_file([key_value("k" * 65536, U8, 1)]), "found 65536 bytes"),
    "key not UTF-8": (gguf_file([key_value(b"k\xff", U8, 1)]), r'key "k\xff": expected a key in UTF-8'),
    "overlong UTF-8": (gguf_file([key_value(b"k\xc0\xaf", U8, 1)]), "expected a key in UTF-8"),
    "value type 13": (
        gguf_file([key_value("k", 13, bytes(8))]),
        '"k": expected a value type from 0 to 12, found 13',
    ),
    "value type -1": (gguf_file([key_value("k", -1, bytes(8))]), "found -1"),
    "element type 13": (gguf_file([array("k", 13, bytes(8), 1)]), "array element type from 0 to 12, found 13"),
    "array of arrays": (gguf_file([array("k", ARRAY, bytes(24), 1)]), "found an array of arrays"),
    "count wraps to 0": (gguf_file([array("k", U64, bytes(8), 2**61)]), "number of elements of at most 1"),
    "count -1": (gguf_file([array("k", F64, b"", 2**64 - 1)]), "number of elements of at most 0"),
    "count of strings": (gguf_file([array("k", STRING, bytes(16), 3)]), "number of elements of at most 2"),
    "string size": (gguf_file([key_value("k", STRING, string("v", 2**63))]), 'key "k": expected a string of at most 1'),
    "string in an array": (gguf_file([array("k", STRING, string("v") + string("w", 2), 2)]), "string of at most 1"),
    "value cut short": (gguf_file([key_value("k", U64, bytes(7))]), "expected 8 bytes of value, found the end"),
    "duplicate key": (gguf_file([key_value("k", U8, 1), key_value("k", U8, 2)]), 'key "k": expected every key once'),
    "alignment 0": (alignment(U32, 0), 'key "general.alignment": expected a power of two up to 16777216, found 0'),
    "alignment 13": (alignment(U32, 13), "found 13"),
    "alignment 2^30": (alignment(U32, 2**30), "found 1073741824"),
    "alignment i32": (alignment(I32, 32), "expected a u32, found i32"),
    "alignment u64": (alignment(U64, 32), "expected a u32, found u64"),
    "alignment string": (alignment(STRING, "32"), "expected a u32, found string"),
    "alignment array": (gguf_file([array("general.alignment", U32, [32])]), "expected a u32, found array of 1 u32"),
    "architecture": (gguf_file([key_value("general.architecture", U32, 1)]), "expected a string, found u32"),
}

TENSORS = {
    "name size -1": (
        gguf_file(infos=[string("t", 2**64 - 1) + bytes(40)]),
        "tensor: expected a tensor name of at",
    ),
    "empty name": (one_tensor(name=""), "tensor name of 1 to 64 bytes, found 0 bytes"),
    "long name": (one_tensor(name="t" * 65), "tensor name of 1 to 64 bytes, found 65 bytes"),
    "name not UTF-8": (one_tensor(name=b"t\xed\xa0\x80"), r'tensor "t\xed\xa0\x80": expected a tensor name in UTF-8'),
    "duplicate name": (
        gguf_file(infos=[info(), info(offset=128)], data=bytes(256)),
        'tensor "t": expected every tensor name once, found the name again',
    ),
    "no dimension": (one_tensor(()), "expected 1 to 4 dimensions, found 0"),
    "five dimensions": (one_tensor((1,) * 5), "expected 1 to 4 dimensions, found 5"),
    "n_dims -1": (gguf_file(infos=[tensor_info("t", (1,), 0, 0, 2**32 - 1)]), "1 to 4 dimensions, found 4294967295"),
    "dimension -1": (one_tensor((-1,)), "expected dimensions of at least 1, found -1"),
    "dimension 0": (one_tensor((32, 0)), "expected dimensions of at least 1, found 0"),
    "dimension -2^63": (one_tensor((-(2**63),)), "found -9223372036854775808"),
    "weights wrap": (
        one_tensor((2**32, 2**32), TENSOR_I8),
        "2^63 - 1 weights, found a dimension of 4294967296",
    ),
    "weights wrap to few": (one_tensor((256, 2**40, 2**40), TENSOR_Q4_K), "expected at most 2^63 - 1 weights"),
    "weights wrap in the fourth": (one_tensor((1, 2**32, 2**30, 2), TENSOR_I8), "expected at most 2^63 - 1 weights"),
    "ne too big": (one_tensor((4 * (2**31 - 1),) * 2), "expected at most 2^63 - 1 weights"),
    "nbytes too big": (one_tensor((2**31 - 1, 2**31 - 1), TENSOR_I64), "a size below 2^64 bytes"),
    "nbytes wrap to 0": (one_tensor((2**32, 2**29), TENSOR_I64), "a size below 2^64 bytes"),
    "2^42 + 1": (one_tensor((2**42 + 1,)), "expected 17592186044420 bytes at 0 of the data section"),
    "row of 33": (
        one_tensor((33,), TENSOR_Q4_0),
        "rows of whole Q4_0 blocks, 32 weights each, found rows of 33",
    ),
    "row of 128": (one_tensor((128, 2), TENSOR_Q4_K), "256 weights each, found rows of 128"),
    "type -1": (one_tensor(type=-1), 'tensor "t": expected a type of at least 0, found -1, a negative type'),
    "type -2^31": (one_tensor(type=-(2**31)), "found -2147483648, a negative type"),
    "type 43": (one_tensor(type=43), "found 43, a private type or one newer than this reader"),
    "type 100": (one_tensor(type=100), "found 100, a private type"),
    "type 2^31 - 1": (one_tensor(type=2**31 - 1), "found 2147483647, a private type"),
    "offset -1": (one_tensor(offset=-1), "a multiple of the alignment 32, found 18446744073709551615"),
    "offset -32": (one_tensor(offset=-32), "expected 128 bytes at 18446744073709551584 of the data section"),
    "offset of alignment 1": (
        gguf_file(infos=[info(), info((1,), offset=128, name="u"), info((1,), offset=132, name="v")], data=bytes(512)),
        'tensor "v": expected a data offset that is a multiple of the alignment 32, found 132',
    ),
    "offset behind the end": (one_tensor(offset=4096), "found a section of 256 bytes"),
    "one byte short": (one_tensor(data=127), "expected 128 bytes at 0 of the data section, found a section of 127"),
    "no data section": (
        gguf_file(infos=[info()]),
        "a section of 0 bytes (truncated file or unfinished download?)",
    ),
    "sizes wrap": (
        gguf_file(infos=[info((WRAPS,), TENSOR_I8), info((WRAPS,), TENSOR_I8, WRAPS, "u")], data=bytes(32)),
        f"expected {WRAPS} bytes at 0 of the data section, found a section of 32 bytes",
    ),
    "size and offset wrap": (one_tensor((INT64_MAX - 31,), TENSOR_I8, WRAPS), "found a section of 256 bytes"),
    "same data": (
        gguf_file(infos=[info(), info(name="u")], data=bytes(256)),
        "expected data of its own, found an overlap with tensor",
    ),
    "overlap by a block": (
        gguf_file(infos=[info(offset=64, name="u"), info()], data=bytes(256)),
        'tensor "u": expected data of its own, found an overlap with tensor "t"',
    ),
}
REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8"}
REMOVED |= {36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}
for id, name in REMOVED.items():
    TENSORS[f"removed {id}"] = (
        one_tensor(type=id),
        f'tensor "t": expected a type that GGUF still has, found {id}: {name}',
    )

CASES = HEADER | METADATA | TENSORS


@pytest.mark.parametrize("case", CASES)
def test_malformed(case: str, tmp_path: Path) -> None:
    content, fragment = CASES[case]
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(rf.GGUFError) as caught:
        rf.GGUFFile(file)
    error, message = caught.value, str(caught.value)
    assert fragment in message
    assert message == (f"{file}, byte {error.offset}, {error.subject}: expected {error.expected}, found {error.found}")
    assert error.path == str(file)
    assert error.offset <= len(content) + 32  # a data section may start behind the end
    assert "\n" not in message


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(rf.GGUFError, match="expected a GGUF file, found an empty file"):
        rf.GGUFFile(tmp_path / "empty.gguf")


def test_long_names_are_cut_in_messages(tmp_path: Path) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(gguf_file([key_value("k" * 60000, 13, b"")]))
    with pytest.raises(rf.GGUFError, match=r'key "k{80}\.\.\."') as caught:
        rf.GGUFFile(file)
    assert len(str(caught.value)) < 400


def test_formats_without_a_type_are_in_no_file(tmp_path: Path) -> None:
    """Their id in the registry is -1, which a file could spell."""
    without = [format.name for format in rf.formats if format.id is None]
    assert without == ["MXFP6_E2M3", "MXFP6_E3M2"]
    file = tmp_path / "bad.gguf"
    file.write_bytes(one_tensor(type=-1))
    with pytest.raises(rf.GGUFError, match="a negative type"):
        rf.GGUFFile(file)


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    """Only the padding behind the last tensor may go."""
    metadata = [
        key_value("general.architecture", STRING, "llama"),
        array("words", STRING, ["one", "", "three"]),
        array("numbers", F64, [1.5, -2.0]),
        key_value("flag", U8, 1),
    ]
    infos = [info((32, 2), TENSOR_Q4_0, 0, "a"), info((3,), TENSOR_F32, 64, "b")]
    content = gguf_file(metadata, infos, bytes(64 + 12))
    file = tmp_path / "cut.gguf"
    file.write_bytes(content + bytes(20))
    assert list(rf.GGUFFile(file)) == ["a", "b"]
    for size in range(len(content)):
        file.write_bytes(content[:size])
        with pytest.raises(rf.GGUFError, match=r"end of the file|remain|data section|empty file"):
            rf.GGUFFile(file)
    file.write_bytes(content)
    assert list(rf.GGUFFile(file)) == ["a", "b"]


def test_many_claimed_tensors_cost_no_memory(tmp_path: Path) -> None:
    """A sparse file of 64 GiB has room for 2^30 tensor infos: nothing is allocated before they are read."""
    file = tmp_path / "huge.gguf"
    with file.open("wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, 2**30, 2**30))
        out.truncate(2**36)
    with pytest.raises(rf.GGUFError, match="expected a key of 1 to 65535 bytes, found 0 bytes"):
        rf.GGUFFile(file)


def test_errors_survive_pickling(tmp_path: Path) -> None:
    """A loader's worker process sends its error home."""
    (tmp_path / "bad.gguf").write_bytes(string("not a model"))
    with pytest.raises(rf.GGUFError) as caught:
        rf.GGUFFile(tmp_path / "bad.gguf")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), error.subject, error.found) == (str(caught.value), "header", caught.value.found)
