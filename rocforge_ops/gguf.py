"""GGUF files: tensors as views of the mapped file, metadata as Python values.

The reader itself is C++ (csrc/gguf); docs/gguf.md says what it accepts and refuses.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rocforge_ops import _library  # noqa: F401  (registers the reader)
from rocforge_ops.formats import formats

_STRING = 8
# GGUF's type numbers and the struct codes of their numbers.
_Code = Literal["B", "b", "H", "h", "I", "i", "f", "?", "Q", "q", "d"]
_NUMBERS: dict[int, _Code] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

_FORMAT_NAMES = [format.name for format in formats]


class GGUFError(ValueError):
    """A malformed file. The message has all of the following.

    Attributes:
        path: the file; of a split model the shard.
        offset: byte of the file where the refused value stands.
        subject: the key or tensor concerned, or "header".
        expected, found: what the format asks for and what the file has.
    """

    def __init__(
        self, message: str, path: str = "", offset: int = 0, subject: str = "", expected: str = "", found: str = ""
    ) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.subject = subject
        self.expected = expected
        self.found = found


class GGUFTensor:
    """One tensor of a file. It keeps the map alive, also after its `GGUFFile` was closed.

    Attributes:
        name: as in the file.
        format: ggml's name, such as "Q4_K" (`rocforge_ops.formats` has its geometry).
        shape: torch.Size, in torch's order: slowest dimension first.
        nbytes: of the packed data.
    """

    __slots__ = ("_file", "_index", "format", "name", "nbytes", "shape")

    def __init__(
        self, file: Any, index: int, name: str, format_index: int, nbytes: int, n_dims: int, *ne: int
    ) -> None:  # a column of GGUFFile.tensor_infos (csrc/ops/gguf.cpp)
        self._file = file
        self._index = index
        self.name = name
        self.format = _FORMAT_NAMES[format_index]
        self.shape = torch.Size(ne[:n_dims][::-1])
        self.nbytes = nbytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GGUFTensor) and self._file is other._file and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._file), self._index))

    def packed(self) -> Tensor:
        """The blocks as they are in the file: uint8 [..., row_bytes], a view of the map.

        The view is read-only in spirit: the map is copy-on-write, so a write never reaches the file, but every other
        view of the tensor sees it. GGUFError when the file was cut or grown since it was opened.
        """
        _raise(self._file.check_sizes())
        return self._file.packed(self._index)

    def dequantize(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """The weights: a new tensor of `shape`, decoded on `device` (only the packed bytes move there).

        Args:
            dtype: float32, float16 or bfloat16.
        """
        return torch.ops.rocforge.dequantize(self.packed().to(device), self.format, dtype)

    def __repr__(self) -> str:
        return f"GGUFTensor({self.name!r}, {self.format}, shape={tuple(self.shape)}, nbytes={self.nbytes})"


class GGUFMetadata(Mapping[str, Any]):
    """The metadata of a file, in its order. A value is converted when it is first asked for.

    Integers of all widths are int, f32 and f64 are float, arrays are lists. Strings that are not UTF-8 keep their bytes
    as surrogates: `text.encode("utf-8", "surrogateescape")` gives them back.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._index = {key: index for index, key in enumerate(_strings(*file.keys()))}
        self._values: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._values[key] = _convert(*self._file.value(self._index[key]))
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def describe(self, key: str) -> str:
        """The type of a value in the file, such as "u32" or "array of 262144 string", without converting it."""
        return self._file.describe(self._index[key])

    def __repr__(self) -> str:
        def show(key: str) -> str:
            type = self.describe(key)
            return f"<{type}>" if type.startswith("array") else repr(self[key])

        return f"GGUFMetadata({', '.join(f'{key!r}: {show(key)}' for key in self)})"


class _Contents(NamedTuple):
    file: Any
    metadata: GGUFMetadata
    indices: dict[str, int]  # of a tensor's name in every column
    columns: list[list[int]]


class GGUFFile(Mapping[str, GGUFTensor]):
    """A GGUF model, mapped and checked: its tensors by name, in the file's order.

    A split model is opened whole from any of its shards; version, alignment and metadata are the first shard's.

    Closing (or leaving the `with` block) drops this object's hold on the map and makes it unusable. Tensors, views and
    metadata taken before stay valid; the map goes with the last of them.

    Raises:
        GGUFError: the file is malformed, or a shard is missing.
        OSError: the system refuses (FileNotFoundError, IsADirectoryError, PermissionError, ...).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fsdecode(path)
        if b"\0" in self.path.encode():  # UnicodeEncodeError for a name that is not UTF-8, as PyTorch's strings are
            raise ValueError(f"a path without NULs is needed, got {self.path!r}")
        file, failure = torch.classes.rocforge.GGUFFile.open(self.path)
        _raise(failure)
        names = _strings(*file.tensor_names())
        self._contents: _Contents | None = _Contents(
            file, GGUFMetadata(file), {name: index for index, name in enumerate(names)}, file.tensor_infos().tolist()
        )

    @property
    def _opened(self) -> _Contents:
        if self._contents is None:
            raise ValueError(f"{self.path} was closed")
        return self._contents

    @property
    def version(self) -> int:
        """The container's version, 2 or 3."""
        return self._opened.file.version()

    @property
    def alignment(self) -> int:
        """Bytes that every tensor's place in the data section is a multiple of."""
        return self._opened.file.alignment()

    @property
    def metadata(self) -> GGUFMetadata:
        """The keys and values of the file (of the first shard)."""
        return self._opened.metadata

    @property
    def architecture(self) -> str | None:
        """`general.architecture`, such as "llama"; None in a file without that key."""
        return self.metadata.get("general.architecture")

    def __getitem__(self, name: str) -> GGUFTensor:
        file, _, indices, columns = self._opened
        index = indices[name]
        return GGUFTensor(file, index, name, *(column[index] for column in columns))

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened.indices)

    def __len__(self) -> int:
        return len(self._opened.indices)

    def __contains__(self, name: object) -> bool:
        return name in self._opened.indices

    def close(self) -> None:
        self._contents = None

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._contents is None:
            return f"GGUFFile({self.path!r}, closed)"
        return f"GGUFFile({self.path!r}, {self.architecture}, {len(self)} tensors, {len(self.metadata)} keys)"


def _raise(failure: tuple[int, str, str, int, str, str, str] | None) -> None:
    """Raises what csrc/ops/gguf.cpp reports, if anything."""
    if failure is None:
        return
    errno, path, message, offset, subject, expected, found = failure
    if errno:
        raise OSError(errno, message, path)
    raise GGUFError(message, path, offset, subject, expected, found)


def _bytes(tensor: Tensor) -> bytes:
    """The memory of a contiguous CPU tensor."""
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def _strings(text: Tensor, lengths: Tensor) -> list[str]:
    """Strings from the uint8 tensor of all their bytes, each followed by a NUL, and the int64 tensor of their lengths.

    Splitting at the NULs is four times as fast as cutting one by one, which is left for strings with NULs of their own.
    """
    raw = _bytes(text)
    strings = str(raw, "utf-8", "surrogateescape").split("\0")[:-1]
    if len(strings) == len(lengths):
        return strings
    bounds = pairwise([0, *(lengths + 1).cumsum(0).tolist()])
    return [str(raw[start : end - 1], "utf-8", "surrogateescape") for start, end in bounds]


def _convert(type: int, is_array: bool, data: Tensor, lengths: Tensor) -> Any:
    values = _strings(data, lengths) if type == _STRING else memoryview(_bytes(data)).cast(_NUMBERS[type]).tolist()
    return values if is_array else values[0]
