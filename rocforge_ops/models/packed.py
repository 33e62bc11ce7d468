"""Modules of a transformers model on weights that stay in their GGUF blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rocforge_ops.nn import (
    ClampedSwiGLU,
    Gate,
    GroupedLinear,
    PackedModule,
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
)

from .header import Header
from .plan import Step
from .require import require
from .weight import Weight


class Packer:
    """Replaces modules of `root` by such on packed weights, those that share a weight by such that share its bytes."""

    def __init__(self, root: nn.Module, file: Header) -> None:
        self.root = root
        self.file = file
        self._owners: dict[int, list[str]] = defaultdict(list)  # of a parameter, by its id
        for name, parameter in root.named_parameters(remove_duplicate=False):
            self._owners[id(parameter)].append(name.rpartition(".")[0])

    def replace(self, owner: str, steps: Mapping[str, Step], dtype: torch.dtype, device: torch.device) -> bool:
        """Whether the module `owner` has a packed form, which is then in its place.

        Args:
            steps: how the module's parameters are made.
            dtype: of biases and of embedding rows.
        """
        module = self.root.get_submodule(owner)
        if _holds_one_matrix(module) and "weight" in steps:
            (weight,) = steps["weight"].parts(self.file, device)
            bias = steps["bias"].value(self.file, dtype, device) if "bias" in steps else None
            made = _matrix_module(module, weight, bias, dtype)
            for other in self._owners[id(module.weight)]:
                if other != owner:
                    shared = Weight(made.packed, made.format, made.scale)
                    self.root.set_submodule(other, _matrix_module(self.root.get_submodule(other), shared, None, dtype))
            self.root.set_submodule(owner, made)
            return True
        if {"gate_up_proj", "down_proj"} <= steps.keys():
            self.root.set_submodule(owner, self._experts(module, steps, dtype, device))
            return True
        return False

    def rename_ties(self) -> None:
        """transformers ties parameters by name, and these have another name now."""
        ties: dict[str, str] = getattr(self.root, "all_tied_weights_keys", {})
        renamed = {self._packed_name(target): self._packed_name(source) for target, source in ties.items()}
        if renamed != ties:
            self.root._tied_weights_keys = renamed  # type: ignore[assignment]
            self.root.all_tied_weights_keys = renamed  # type: ignore[assignment]

    def _packed_name(self, parameter: str) -> str:
        owner, _, name = parameter.rpartition(".")
        is_packed = name == "weight" and isinstance(self.root.get_submodule(owner), PackedModule)
        return f"{owner}.packed" if is_packed else parameter

    def _experts(
        self, module: Any, steps: Mapping[str, Step], dtype: torch.dtype, device: torch.device
    ) -> QuantizedExperts:
        """Gate and up stay the tensors that the file has: one, or two of formats of their own."""

        def layers(name: str) -> list[GroupedLinear]:
            weights = steps[name].parts(self.file, device)
            biases: list[Tensor | None] = [None] * len(weights)
            if name + "_bias" in steps:
                biases = [part.dequantize(dtype).squeeze(-1) for part in steps[name + "_bias"].parts(self.file, device)]
            return [GroupedLinear(w.packed, w.format, b, w.scale) for w, b in zip(weights, biases, strict=True)]

        is_gpt_oss = hasattr(module, "limit")
        gate = ClampedSwiGLU(module.alpha, module.limit) if is_gpt_oss else Gate(module.act_fn)
        (down,) = layers("down_proj")
        return QuantizedExperts(layers("gate_up_proj"), down, gate)


def _holds_one_matrix(module: nn.Module) -> bool:
    # transformers' Conv1D is a linear layer with its matrix transposed; files do not transpose it.
    return isinstance(module, (nn.Linear, nn.Embedding, require("transformers.pytorch_utils").Conv1D))


def _matrix_module(module: Any, weight: Weight, bias: Tensor | None, dtype: torch.dtype) -> PackedModule:
    """A linear layer or an embedding; without `bias` it keeps the module's."""
    packed = weight.packed if weight.packed.dim() == 2 else weight.packed.view(1, -1)  # a single row is a vector
    if isinstance(module, nn.Embedding):
        factor = getattr(module, "scalar_embed_scale", None)  # of transformers' Gemmas
        return QuantizedEmbedding(packed, weight.format, dtype, module.padding_idx, factor, weight.scale)
    return QuantizedLinear(packed, weight.format, module.bias if bias is None else bias, weight.scale)
