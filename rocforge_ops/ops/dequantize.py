from __future__ import annotations

import torch
from torch import Tensor

from rocforge_ops.formats import formats


def dequantize(packed: Tensor, format: str, dtype: torch.dtype | None = None) -> Tensor:
    """Decode rows of packed GGUF blocks.

    Args:
        packed: uint8 [..., row_bytes], a row being a whole number of blocks. The last dimension is contiguous; the
            rows may have any stride and start at any byte.
        format: a ggml name such as "Q4_K", or "MXFP6_E2M3" / "MXFP6_E3M2" (`rocforge_ops.formats` lists all).
        dtype: float32 (when None), float16 or bfloat16.

    Returns:
        [..., weights of a row] of `dtype`. float32 is ggml's own result bit for bit (docs/formats.md has the
        formulas); float16 and bfloat16 are that value rounded to nearest even.

    Raises:
        ValueError: unknown format or dtype, rows that are no whole blocks, last dimension not contiguous.
        TypeError: `packed` is not uint8.
    """
    return torch.ops.rocforge.dequantize(packed, format, dtype)


@torch.library.register_fake("rocforge::dequantize")
def _(packed: Tensor, format: str, dtype: torch.dtype | None = None) -> Tensor:
    torch.ops.rocforge._check_dequantize(packed, format, dtype)
    weights = packed.shape[-1] // formats[format].block_bytes * formats[format].block_size
    return packed.new_empty((*packed.shape[:-1], weights), dtype=dtype or torch.float32)
