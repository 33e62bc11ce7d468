"""The function names that transformers, diffusers and vLLM share for GGML kernels, over this package's operators.

Compatibility names: in new code `rf.dequantize`, `rf.linear`, `rf.grouped_linear` and `rf.embedding` say the same with
formats by name. Names and argument orders are the ecosystem's, two things are not: every block format is taken, and
nothing is approximated. Elsewhere `a8` stands for activations rounded to 8 bits; here they stay as they are, products
are summed in float32 and rounded once to the activations' dtype.

Formats are ggml's type numbers (or gguf.GGMLQuantizationType, which is one). All raise ValueError for an unknown number
and for sizes that contradict the packed bytes, and otherwise what the operators raise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rocforge_ops.formats import formats
from rocforge_ops.ops import dequantize as decode
from rocforge_ops.ops import embedding, grouped_linear, linear

_FORMATS = {f.id: f for f in formats if f.id is not None}

GEMV_TYPES = frozenset(
    number for number, f in _FORMATS.items() if f.block_size > 1
)  # what transformers may keep packed
MAX_GEMV_ROWS = (
    8  # up to this many rows transformers calls mul_mat_vec, for more it multiplies with dequantize's result
)
_MOE_BLOCK_ROWS = 16


def dequantize(blocks: Tensor, ggml_type: int, rows: int, cols: int, dtype: torch.dtype) -> Tensor:
    """uint8 [rows, row_bytes] -> [rows, cols] of dtype."""
    name = _checked(blocks.shape, ggml_type, rows, cols)
    return decode(blocks, name, dtype)


def get_rows(blocks: Tensor, indices: Tensor, ggml_type: int, cols: int, dtype: torch.dtype) -> Tensor:
    """uint8 [rows, row_bytes], indices of any shape -> [*indices.shape, cols] of dtype."""
    name = _checked(blocks.shape, ggml_type, blocks.shape[0], cols)
    return embedding(blocks, name, indices, dtype)


def mul_mat_vec(blocks: Tensor, x: Tensor, ggml_type: int, out_features: int) -> Tensor:
    """uint8 [out_features, row_bytes], x [..., in] -> [..., out_features] of x's dtype."""
    return linear(x, blocks, _checked(blocks.shape, ggml_type, out_features, x.shape[-1]))


def mul_mat_id(blocks: Tensor, x: Tensor, ids: Tensor, ggml_type: int, out_features: int) -> Tensor:
    """Each row of x through the experts that ids names for it.

    Args:
        blocks: uint8 [experts, out_features, row_bytes]. x: [rows, in]. ids: int32 or int64 [rows, n].

    Returns:
        [rows, n, out_features] of x's dtype; 0 where an id is no expert's number (-1, an expert of another machine).
    """
    name = _checked(blocks.shape[1:], ggml_type, out_features, x.shape[-1])
    if x.dim() != 2 or ids.dim() != 2 or len(x) != len(ids):
        raise ValueError(f"x must be [rows, in] and ids [rows, n], got {list(x.shape)} and {list(ids.shape)}")
    if ids.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ids must be int32 or int64, got {ids.dtype}")
    experts, per_row = blocks.shape[0], ids.shape[-1]
    expert = torch.where((ids >= 0) & (ids < experts), ids, experts).reshape(-1)
    expert, order = expert.sort(stable=True)
    offsets = torch.searchsorted(
        expert, torch.arange(experts + 1, dtype=expert.dtype, device=expert.device), out_int32=True
    )
    sorted_out = grouped_linear(x[order // per_row], blocks, name, offsets)
    out = torch.empty_like(sorted_out).index_copy_(0, order, sorted_out)
    return out.reshape(*ids.shape, out_features)


def ggml_dequantize(W: Tensor, quant_type: int, m: int, n: int, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 [m, row_bytes] -> [m, n] of dtype; float16 when None, as everywhere under this name."""
    return dequantize(W, quant_type, m, n, dtype or torch.float16)


def ggml_mul_mat_vec_a8(W: Tensor, X: Tensor, quant_type: int, row: int) -> Tensor:
    """uint8 [row, row_bytes], X [..., in] -> [..., row] of X's dtype, from activations as they are."""
    return mul_mat_vec(W, X, quant_type, row)


def ggml_mul_mat_a8(W: Tensor, X: Tensor, quant_type: int, row: int) -> Tensor:
    """The same as ggml_mul_mat_vec_a8: one operator serves few rows and many."""
    return mul_mat_vec(W, X, quant_type, row)


def ggml_moe_a8_vec(
    X: Tensor, W: Tensor, topk_ids: Tensor, top_k: int, quant_type: int, row: int, tokens: int
) -> Tensor:
    """X [tokens, in], W uint8 [experts, row, row_bytes], topk_ids with top_k experts a token -> [tokens * top_k, row].

    A second projection calls it with top_k 1 and tokens * top_k rows.
    """
    return mul_mat_id(W, X, topk_ids.reshape(tokens, top_k), quant_type, row).reshape(-1, row)


def ggml_moe_get_block_size(quant_type: int) -> int:
    """Rows to which the rows of an expert are padded for ggml_moe_a8 (vLLM's moe_align_block_size)."""
    return _MOE_BLOCK_ROWS


def ggml_moe_a8(
    X: Tensor,
    W: Tensor,
    sorted_token_ids: Tensor,
    expert_ids: Tensor,
    num_tokens_post_padded: Tensor,
    quant_type: int,
    row: int,
    top_k: int,
    tokens: int,
) -> Tensor:
    """ggml_moe_a8_vec for pairs of token and expert that are already sorted by expert.

    Args:
        X: [tokens, in]. W: uint8 [experts, row, row_bytes].
        sorted_token_ids: [padded], each token * top_k + slot; numbers of tokens * top_k and above are padding.
        expert_ids: [padded / ggml_moe_get_block_size(quant_type)], the expert of each block of them.
        num_tokens_post_padded: [1], how many of sorted_token_ids count.

    Returns:
        [tokens * top_k, row] of X's dtype.
    """
    padded, pairs = sorted_token_ids.shape[0], tokens * top_k
    if expert_ids.shape[0] != -(-padded // _MOE_BLOCK_ROWS):
        raise ValueError(
            f"expert_ids must hold one expert for each {_MOE_BLOCK_ROWS} of the {padded} sorted_token_ids "
            f"(ggml_moe_get_block_size), got {expert_ids.shape[0]}"
        )
    position = torch.arange(padded, device=sorted_token_ids.device)
    counts = (sorted_token_ids < pairs) & (position < num_tokens_post_padded)
    # Padding is written beside the result; nothing here waits for the GPU.
    ids = expert_ids.new_full((pairs + 1,), -1)
    ids.scatter_(0, torch.where(counts, sorted_token_ids, pairs).long(), expert_ids[position // _MOE_BLOCK_ROWS])
    return ggml_moe_a8_vec(X, W, ids[:pairs], top_k, quant_type, row, tokens)


def _checked(shape: torch.Size, ggml_type: int, rows: int, cols: int) -> str:
    """The format's name, if `rows` rows of `cols` weights are what bytes of this shape hold."""
    if ggml_type not in _FORMATS:
        known = ", ".join(f"{number} ({f.name})" for number, f in sorted(_FORMATS.items()))
        raise ValueError(f"unknown ggml type {ggml_type}: known are {known}")
    format = _FORMATS[ggml_type]
    if tuple(shape) != (rows, format.row_bytes(cols)):
        raise ValueError(
            f"{rows} rows of {cols} {format.name} weights are bytes [{rows}, {format.row_bytes(cols)}], "
            f"got {list(shape)}"
        )
    return format.name
