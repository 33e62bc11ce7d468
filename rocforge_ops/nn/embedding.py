from __future__ import annotations

import torch
from torch import Tensor

from rocforge_ops.gguf import GGUFTensor
from rocforge_ops.nn.packed import PackedModule


class QuantizedEmbedding(PackedModule):
    """torch.nn.Embedding on a table in GGUF blocks: indices -> [*indices.shape, embedding_dim].

    Only the rows that are asked for are decoded. There is no gradient.

    Args:
        weight: a matrix of a GGUF file, or packed bytes, uint8 [num_embeddings, row_bytes].
        format: of the bytes; a tensor of a file knows its own.
        dtype: of the output; casts of the module (`.half()`, `.to(torch.bfloat16)`) change it.
        padding_idx: kept for those who ask; a table without gradient treats all rows alike.
        embed_scale: what rows are multiplied by after they were rounded to `dtype` (Gemma's root of the width), itself
            rounded to `dtype`.
        scale: float32, one number, by which the decoded weight is multiplied.
    """

    embed_scale: Tensor | None
    _output: Tensor

    def __init__(
        self,
        weight: GGUFTensor | Tensor,
        format: str | None = None,
        dtype: torch.dtype = torch.float32,
        padding_idx: int | None = None,
        embed_scale: float | None = None,
        scale: Tensor | None = None,
    ) -> None:
        if scale is not None and scale.numel() != 1:
            raise ValueError(f"the scale of an embedding is one number, got {list(scale.shape)}")
        super().__init__(weight, format, 2, scale)
        self.padding_idx = padding_idx
        # An empty tensor of the output's dtype, because casts change that of tensors.
        self.register_buffer("_output", torch.empty(0, dtype=dtype, device=self.packed.device), persistent=False)
        factor = None if embed_scale is None else torch.tensor(embed_scale, dtype=dtype, device=self.packed.device)
        self.register_buffer("embed_scale", factor, persistent=False)

    @property
    def num_embeddings(self) -> int:
        return self.packed.shape[0]

    @property
    def embedding_dim(self) -> int:
        return self.columns

    @property
    def dtype(self) -> torch.dtype:
        return self._output.dtype

    def forward(self, input: Tensor) -> Tensor:
        decoded = self.dtype if self.scale is None else torch.float32
        rows = torch.ops.rocforge.embedding(self.packed, self.format, input, decoded)
        if self.scale is not None:
            rows = (rows * self.scale).to(self.dtype)
        return rows if self.embed_scale is None else rows * self.embed_scale

    def extra_repr(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        padding = "" if self.padding_idx is None else f"padding_idx={self.padding_idx}, "
        return f"{self.num_embeddings}, {self.embedding_dim}, {padding}dtype={dtype}, format={self.format}"
