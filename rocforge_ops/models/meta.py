"""Building a module without allocating or initialising its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class EmptyWeights(TorchFunctionMode):
    """Inside, `torch.empty` allocates on the meta device, and `torch.nn.init` leaves such tensors alone.

    Modules take their weights from `torch.empty` and compute their buffers (rotary frequencies, causal masks, embedding
    scales), so weights cost nothing and buffers, which no file holds, are real. Building on the meta device altogether
    would lose them. Affects the current thread only.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            return func(*args, **{**kwargs, "device": "meta"})
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
