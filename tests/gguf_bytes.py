"""GGUF files byte by byte, so that tests can also write what no writer would."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
TENSOR_F32, TENSOR_F16, TENSOR_Q4_0, TENSOR_Q8_0, TENSOR_Q4_K, TENSOR_I8, TENSOR_I64 = 0, 1, 2, 8, 12, 24, 27

_CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def string(text: str | bytes, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def key_value(key: str | bytes, type: int, value: object) -> bytes:
    """One value; `value` as bytes is written as it is."""
    if not isinstance(value, bytes):
        value = string(value) if type == STRING else struct.pack("<" + _CODES[type], value)
    return string(key) + struct.pack("<i", type) + value


def array(key: str, type: int, values: Sequence[object] | bytes, count: int | None = None) -> bytes:
    """An array; `values` as bytes are written as they are."""
    if not isinstance(values, bytes):
        count = len(values) if count is None else count
        strings = type == STRING
        values = b"".join(map(string, values)) if strings else struct.pack(f"<{len(values)}{_CODES[type]}", *values)
    return string(key) + struct.pack("<iiQ", ARRAY, type, count) + values


def tensor_info(name: str | bytes, ne: Sequence[int], type: int, offset: int, n_dims: int | None = None) -> bytes:
    """`ne` in ggml's order, fastest dimension first."""
    shape = struct.pack(f"<I{len(ne)}q", len(ne) if n_dims is None else n_dims, *ne)
    return string(name) + shape + struct.pack("<iQ", type, offset % 2**64)


def gguf_file(
    metadata: Sequence[bytes] = (),
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_kv: int | None = None,
    alignment: int = 32,
) -> bytes:
    n_tensors = len(infos) if n_tensors is None else n_tensors
    n_kv = len(metadata) if n_kv is None else n_kv
    header = magic + struct.pack("<Iqq", version, n_tensors, n_kv) + b"".join(metadata) + b"".join(infos)
    padding = -len(header) % alignment if data else 0
    return header + bytes(padding) + data
