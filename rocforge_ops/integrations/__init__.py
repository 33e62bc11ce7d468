"""Our kernels in places where models already look for kernels; nothing is active on import.

`torch_sdpa` is PyTorch's flash attention, `transformers` and `diffusers` are those packages' GGUF weights. Each has
enable() and disable(). The host packages are imported by enable(), `versions` says which of their versions were tested.
"""

from rocforge_ops.integrations import diffusers, torch_sdpa, transformers

__all__ = ["diffusers", "torch_sdpa", "transformers"]

torch_sdpa.register()
