"""Our kernels for the GGUF weights that transformers keeps packed, on ROCm, CUDA and the CPU.

transformers has a path that leaves a file's weights in their blocks and looks for a kernel module to multiply with
them; without one it dequantises the whole model while loading. `enable()` is that module, for the architectures of that
path (qwen35, qwen35moe, lfm2); the others go through transformers' older reader as before.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from rocforge_ops import ggml_kernel
from rocforge_ops.attention.transformers import attention_forward, attention_mask
from rocforge_ops.formats import Format, formats
from rocforge_ops.integrations.patches import Plug, set_attribute, set_item
from rocforge_ops.ops import dequantize


def enable() -> None:
    """Models loaded from now on with from_pretrained(..., gguf_file=...) keep their weights packed. Repeatable.

    Also lets transformers read the block formats that it refuses (Q5_0, MXFP4, TQ1_0 and others), and makes
    attn_implementation="rocforge" known.

    Raises:
        ModuleNotFoundError: transformers is not installed. RuntimeError: its version is not one that was tested.
    """
    _plug.enable()


def disable() -> None:
    """Undo enable(). A model that was loaded packed in between needs it on: it has no other kernels."""
    _plug.disable()


def _install(undo: ExitStack) -> None:
    from transformers import AttentionInterface
    from transformers.integrations.gguf import dequant, kernels
    from transformers.masking_utils import AttentionMaskInterface

    set_attribute(undo, kernels, "_gguf_kernel", kernels.GgufKernel(ggml_kernel))
    for format in formats:
        if format.id in ggml_kernel.GEMV_TYPES and format.id not in dequant.GGML_BLOCK:
            set_item(undo, dequant.GGML_BLOCK, format.id, (format.block_size, format.block_bytes))
            set_item(undo, dequant.GGML_NAME, format.id, format.name)
            set_item(undo, dequant._DEQUANT, format.id, _Decoder(format))
    set_item(undo, AttentionInterface._global_mapping, "rocforge", attention_forward)
    set_item(undo, AttentionMaskInterface._global_mapping, "rocforge", attention_mask)


class _Decoder:
    """uint8 [blocks, block_bytes] -> [blocks, block_size] of dtype: an entry of transformers' table of formats."""

    def __init__(self, format: Format) -> None:
        self.format = format.name

    def __call__(self, blocks: Tensor, dtype: torch.dtype) -> Tensor:
        return dequantize(blocks, self.format, dtype)


_plug = Plug("transformers", _install)
