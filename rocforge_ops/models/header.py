"""What a GGUF file says about its model: keys, token ids and tensor shapes, without any tensor data."""

from __future__ import annotations

import struct
from typing import Any

import torch

from rocforge_ops.gguf import GGUFFile

REQUIRED: Any = object()
NO_TOKEN = 0xFFFFFFFF  # minus one, written as an unsigned number: "this model has no such token"

# Keys that say nothing about how the model computes, or that repeat what tensors and other keys say.
UNUSED_KEYS = frozenset(
    ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length")
)


class Header:
    """Keys of the file's architecture (without their prefix), special tokens and tensor shapes."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.architecture = file.architecture or ""
        self._read = set(UNUSED_KEYS)

    def get(self, key: str, default: Any = REQUIRED) -> Any:
        """The value of `<architecture>.<key>`; ValueError when it is neither there nor has a default.

        A list with one entry per layer is the entry where all agree, and a ValueError where they differ.
        """
        value = self.get_list(key, default)
        if not isinstance(value, list) or value is default:
            return value
        if len(set(value)) != 1:
            raise ValueError(f"{self.architecture}.{key} differs between layers ({value}), which no model class allows")
        return value[0]

    def get_list(self, key: str, default: Any = REQUIRED) -> Any:
        """Like `get`, but a list stays one."""
        self._read.add(key)
        name = f"{self.architecture}.{key}"
        value = self.file.metadata.get(name, default)
        if value is REQUIRED:
            raise ValueError(f"the file has no key {name}, without which its model cannot be built")
        return _decimal(value) if isinstance(value, float) else value

    def count(self, key: str, default: Any = REQUIRED) -> int:
        """Like `get`; ValueError unless it is a positive whole number."""
        value = self.get(key, default)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.architecture}.{key} is {value!r}, expected a positive whole number")
        return value

    def unread(self) -> list[str]:
        """Keys of the architecture that nothing has asked for."""
        prefix = self.architecture + "."
        keys = [name.removeprefix(prefix) for name in self.file.metadata if name.startswith(prefix)]
        return [prefix + key for key in keys if key not in self._read]

    def has(self, tensor: str) -> bool:
        return tensor in self.file

    def shape(self, tensor: str) -> torch.Size:
        if tensor not in self.file:
            raise ValueError(f"the file has no tensor {tensor}, without which its model cannot be built")
        return self.file[tensor].shape

    def floats(self, tensor: str) -> list[float]:
        """All values of a (small) tensor."""
        return self.file[tensor].dequantize(torch.float32).flatten().tolist()

    def token_id(self, name: str, vocab_size: int | None = None) -> int | None:
        """Id of the special token `name` ("bos", "eos", "eot", "padding"...), None when the file has none.

        ValueError outside of the vocabulary, whose size is the embedding's unless given.
        """
        key = f"tokenizer.ggml.{name}_token_id"
        id = self.file.metadata.get(key)
        if id is None or id in (-1, NO_TOKEN):
            return None
        vocab_size = self.vocab_size if vocab_size is None else vocab_size
        if not isinstance(id, int) or not 0 <= id < vocab_size:
            raise ValueError(f"{key} is {id!r}, but the vocabulary has {vocab_size} entries")
        return id

    @property
    def vocab_size(self) -> int:
        return self.shape("token_embd.weight")[0]

    @property
    def layers(self) -> int:
        layers = self.count("block_count")
        if layers > len(self.file):
            raise ValueError(f"{self.architecture}.block_count is {layers}, but the file has {len(self.file)} tensors")
        return layers

    @property
    def width(self) -> int:
        return self.count("embedding_length")

    @property
    def heads(self) -> int:
        return self.count("attention.head_count")

    @property
    def kv_heads(self) -> int:
        return self.count("attention.head_count_kv", self.heads)

    @property
    def head_dim(self) -> int:
        key, value = self.get("attention.key_length", None), self.get("attention.value_length", None)
        if key != value:
            raise ValueError(f"keys are {key} wide and values {value} per head: no model class here allows that")
        return self.width // self.heads if key is None else self.count("attention.key_length")

    @property
    def rotary_dim(self) -> int:
        """How many of the head_dim elements are rotated."""
        return self.count("rope.dimension_count", self.head_dim)


def _decimal(value: float) -> float:
    """The shortest decimal that float32 rounds to `value`: 1e-6 for 9.999999974752427e-07, as its author wrote it."""
    for digits in range(1, 10):
        decimal = float(f"{value:.{digits}g}")
        if abs(decimal) < 3e38 and struct.unpack("f", struct.pack("f", decimal))[0] == value:
            return decimal
    return value
