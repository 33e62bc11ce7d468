from __future__ import annotations

import torch
from torch import Tensor

from rocforge_ops.formats import formats


def embedding(packed: Tensor, format: str, indices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Decode chosen rows of a packed table; the other rows are not read.

    Args:
        packed: uint8 [rows, row_bytes], as for `dequantize`.
        format: name of the block format.
        indices: int64 or int32, any shape, each in [0, rows).
        dtype: float32 (when None), float16 or bfloat16.

    Returns:
        [*indices.shape, weights of a row], the rows that `dequantize` would give, bit for bit.

    Raises:
        IndexError: an index out of range, on the CPU. A GPU gives a row of NaN instead: it does not wait for the host.
        ValueError, TypeError: as for `dequantize`; a table that is not two-dimensional; indices of another dtype
            or on another device.
    """
    return torch.ops.rocforge.embedding(packed, format, indices, dtype)


@torch.library.register_fake("rocforge::embedding")
def _(packed: Tensor, format: str, indices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    torch.ops.rocforge._check_embedding(packed, format, indices, dtype)
    weights = packed.shape[-1] // formats[format].block_bytes * formats[format].block_size
    return packed.new_empty((*indices.shape, weights), dtype=dtype or torch.float32)
