"""What all modules with packed weights share: the bytes, their format, state_dict, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rocforge_ops.formats import formats
from rocforge_ops.gguf import GGUFTensor


class PackedModule(nn.Module):
    """One weight in GGUF blocks.

    The bytes are a parameter without gradient: `.to(device)` moves them, casts leave them as they are (they are
    integers), and modules that share them, as a tied head does, go on sharing them wherever the model is moved, copied
    or saved. The state_dict has the format too, as a tensor of its letters, so that any container of tensors can hold
    it; loading one of another format changes this module's.

    Attributes:
        packed: uint8 [..., rows, row_bytes]. Of a file on the CPU it is a view of the map: no copy is made.
        format: ggml's name, such as "Q4_K".
        scale: float32, what the decoded weight is multiplied by (the second level of NVFP4), or None. It stays float32.
    """

    packed: nn.Parameter
    scale: Tensor | None

    def __init__(self, weight: GGUFTensor | Tensor, format: str | None, dims: int, scale: Tensor | None) -> None:
        super().__init__()
        packed, self.format = _packed_and_format(weight, format)
        if packed.dtype != torch.uint8:
            raise TypeError(f"packed weights are uint8, got {packed.dtype}")
        if packed.dim() != dims:
            raise ValueError(f"a packed weight of {dims} dimensions is needed, got shape {list(packed.shape)}")
        block_bytes = formats[self.format].block_bytes
        if packed.shape[-1] % block_bytes:
            raise ValueError(f"rows of {self.format} are blocks of {block_bytes} bytes, got {packed.shape[-1]} bytes")
        self.columns = _row_weights(packed, self.format)
        # A parameter is taken as it is: that is how weights are tied.
        self.packed = packed if isinstance(packed, nn.Parameter) else nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scale", None if scale is None else _checked_scale(scale, packed.shape[0]))

    @property
    def shape(self) -> torch.Size:
        """Of the weight that the blocks hold: [..., rows, weights of a row]."""
        return torch.Size((*self.packed.shape[:-1], self.columns))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [..., rows, weights of a row], decoded into a new tensor of `dtype`."""
        if self.scale is None:
            return torch.ops.rocforge.dequantize(self.packed, self.format, dtype)
        value = torch.ops.rocforge.dequantize(self.packed, self.format, torch.float32)
        return (value * self.scale.view(-1, *[1] * (value.dim() - 1))).to(dtype)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(list(self.format.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self.format = _text(state)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Makes room for bytes of another format; the weight in them must have this module's shape."""
        packed, state = state_dict.get(prefix + "packed"), state_dict.get(prefix + "_extra_state")
        if packed is not None and state is not None:
            format = _text(state)
            block_bytes = formats[format].block_bytes if format in formats else 0
            if packed.dtype != torch.uint8 or not block_bytes or packed.shape[-1] % block_bytes:
                held = f"{packed.dtype} {list(packed.shape)}"
                error_msgs.append(f"{prefix}packed, {held}, does not hold rows of format {format!r}")
                return
            shape = (*packed.shape[:-1], _row_weights(packed, format))
            if shape != self.shape:
                error_msgs.append(f"{prefix}packed holds a weight of {list(shape)}, expected {list(self.shape)}")
                return
            if packed.shape != self.packed.shape:  # in place, so that what is tied stays tied
                self.packed.data = self.packed.new_empty(packed.shape)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedModule:
        scale = self.scale
        super()._apply(fn, recurse)
        if scale is not None:
            self.scale = scale.to(self.packed.device)
        return self


class PackedLayer(PackedModule):
    """A packed weight [..., out_features, row_bytes] and a bias [..., out_features]."""

    dims: int  # of the packed weight
    bias: nn.Parameter | None

    def __init__(
        self,
        weight: GGUFTensor | Tensor,
        format: str | None = None,
        bias: GGUFTensor | Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__(weight, format, self.dims, scale)
        if isinstance(bias, GGUFTensor):
            bias = bias.dequantize()
        if bias is not None and not bias.is_floating_point():
            raise TypeError(f"a bias of floating-point numbers is needed, got {bias.dtype}")
        if bias is not None and bias.shape != self.shape[:-1]:
            raise ValueError(f"a bias of shape {list(self.shape[:-1])} is needed, got {list(bias.shape)}")
        self.bias = nn.Parameter(bias) if bias is not None and not isinstance(bias, nn.Parameter) else bias

    @property
    def in_features(self) -> int:
        return self.columns

    @property
    def out_features(self) -> int:
        return self.packed.shape[-2]

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}, format={self.format}"


def _packed_and_format(weight: GGUFTensor | Tensor, format: str | None) -> tuple[Tensor, str]:
    if isinstance(weight, GGUFTensor):
        if format not in (None, weight.format):
            raise ValueError(f"{weight.name} is {weight.format}, not {format}: leave the format out")
        return weight.packed(), weight.format
    if not isinstance(weight, Tensor):
        raise TypeError(f"packed weights are a uint8 tensor or a tensor of a GGUF file, got {type(weight).__name__}")
    if format is None:
        raise TypeError("packed bytes need the name of their format")
    if format not in formats:
        torch.ops.rocforge.dequantize(weight, format)  # raises, with the near names
    return weight, format


def _checked_scale(scale: Tensor, entries: int) -> Tensor:
    """float32, of no dimension or [entries]."""
    if scale.dtype != torch.float32:
        raise TypeError(f"a scale is float32, got {scale.dtype}")
    if scale.numel() != 1 and list(scale.shape) != [entries]:
        raise ValueError(f"a scale is one number or [{entries}], got {list(scale.shape)}")
    return scale.reshape(()) if scale.numel() == 1 else scale


def _row_weights(packed: Tensor, format: str) -> int:
    return packed.shape[-1] // formats[format].block_bytes * formats[format].block_size


def _text(letters: Tensor) -> str:
    return bytes(letters.tolist()).decode(errors="replace")
