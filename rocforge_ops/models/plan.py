"""Which tensors of a file make which parameters of a module, checked before any data is touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .architecture import Architecture, Rule
from .header import Header
from .require import require
from .rope import FACTOR_TENSORS
from .weight import Weight, join

AS_NAMED = Rule("")
# A file without an output matrix shares the embedding's, whether or not the module does.
HEAD_RULES = (Rule("lm_head.weight", ("output.weight",)), Rule("lm_head.weight", ("token_embd.weight",)))


@dataclass(frozen=True)
class Step:
    """One parameter and how it is made."""

    parameter: str
    tensors: tuple[str, ...]
    rule: Rule
    order: Tensor | None  # int64, which rows of the (joined) tensors in which order; None: all as they are

    def parts(self, file: Header, device: torch.device) -> list[Weight]:
        """The packed rows of each tensor on `device`, several of them not joined. On the CPU views of the file."""
        weights = [_read(file, name, device) for name in self.tensors]
        if _is_vector(self.tensors):
            weights = [weight.columns_as_rows() for weight in weights]
        if self.order is None:
            return weights
        weight = join(weights, self.rule.alternate) if len(weights) > 1 else weights[0]
        return [weight.rows(self.order)]

    def weight(self, file: Header, device: torch.device) -> Weight:
        """The packed rows in the parameter's order, on `device`."""
        weights = self.parts(file, device)
        return join(weights, self.rule.alternate) if len(weights) > 1 else weights[0]

    def value(self, file: Header, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The parameter's value; where something is subtracted, in float32 and rounded to `dtype` after it."""
        value = self.weight(file, device).dequantize(torch.float32 if self.rule.subtract else dtype)
        if _is_vector(self.tensors):
            value = value.squeeze(-1)
        if self.rule.subtract:
            value = (value - self.rule.subtract).to(dtype)
        return value.transpose(-1, -2).contiguous() if self.rule.transpose else value


@dataclass(frozen=True)
class Plan:
    steps: list[Step]
    missing: list[str]  # parameters the file has no tensors for
    unexpected: list[str]  # tensors the module has no use for
    misshaped: list[str]  # one line each

    def check(self, strict: bool, what: str) -> None:
        """ValueError that lists everything wrong; without `strict` only shapes are wrong."""
        groups = [("of another shape", self.misshaped)]
        if strict:
            groups += [
                ("missing, in the module but not in the file", self.missing),
                ("unexpected, in the file but not in the module", self.unexpected),
            ]
        lines = [f"\n  {title}:" + "".join(f"\n    {line}" for line in group) for title, group in groups if group]
        if lines:
            raise ValueError(what + "".join(lines))


def make_plan(file: Header, architecture: Architecture, module: nn.Module) -> Plan:
    """Assigns tensors to parameters by name and compares all shapes."""
    table = _name_table(file)
    plan = Plan([], [], [], [])
    used: set[str] = set()
    for parameter, full_name, expected in _parameters(module):
        rule, tensors = _find(full_name, (*HEAD_RULES, *architecture.rules), file, table)
        if not all(file.has(tensor) for tensor in tensors) or not tensors:
            plan.missing.append(f"{parameter} ({', '.join(tensors) or 'no tensor has this part'})")
            continue
        used.update(tensors)
        try:
            order, shape = _order_and_shape(file, rule, full_name, tensors)
        except ValueError as error:
            plan.misshaped.append(f"{parameter}: {error}")
            continue
        if _significant(shape) != _significant(expected):
            plan.misshaped.append(f"{parameter}: the module has {list(expected)}, the file {shape}")
        plan.steps.append(Step(parameter, tensors, rule, order))
    plan.unexpected.extend(sorted(file.file.keys() - used - set(FACTOR_TENSORS) - _second_scales(used)))
    return plan


def _parameters(module: nn.Module) -> Iterable[tuple[str, str, torch.Size]]:
    """(name in the module, name in the whole causal model, shape); shared parameters once."""
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    parameters = list(module.named_parameters())
    whole = prefix == "." or any(name.startswith(prefix) for name, _ in parameters)
    for name, parameter in parameters:
        yield name, name if whole else prefix + name, parameter.shape


def _name_table(file: Header) -> Callable[[str], str | None]:
    """The `gguf` package's table for the architecture, from a parameter's name to a tensor's."""
    gguf = require("gguf")
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if file.architecture not in kinds:
        raise ImportError(
            f"the installed gguf package does not know {file.architecture}: pip install -U rocforge_ops[hf]"
        )
    names = gguf.get_tensor_name_map(kinds[file.architecture], file.layers)
    return lambda parameter: names.get_name(parameter, try_suffixes=(".weight", ".bias"))


def _find(
    parameter: str, rules: Iterable[Rule], file: Header, table: Callable[[str], str | None]
) -> tuple[Rule, tuple[str, ...]]:
    """The rule that holds and its tensors. Where none has all its tensors, the last that would; () if none does."""
    named = table(parameter)
    candidates: list[tuple[Rule, tuple[str, ...]]] = []
    for rule in rules:
        if match := re.fullmatch(rule.pattern, parameter):
            tensors = tuple(name.format(*match.groups()) for name in rule.tensors)
            candidates.append((rule, tensors or ((named,) if named else ())))
    candidates = candidates or [(AS_NAMED, (named,) if named else ())]
    complete = (found for found in candidates if all(file.has(tensor) for tensor in found[1]))
    return next(complete, candidates[-1])


def _order_and_shape(
    file: Header, rule: Rule, parameter: str, tensors: tuple[str, ...]
) -> tuple[Tensor | None, list[int]]:
    """Row order and shape of the value, from the header alone; ValueError where tensors do not fit the rule."""
    shapes = [list(file.shape(name)) for name in tensors]
    if any(other != shapes[0] for other in shapes[1:]):
        raise ValueError(f"{', '.join(tensors)} have different shapes {shapes}")
    shape, axis = shapes[0], -1 if _is_vector(tensors) else -2
    if len(shape) < 2 and axis == -2 and (len(shapes) > 1 or rule.rows or rule.row):
        raise ValueError(f"{tensors[0]} is no matrix, its shape is {shape}")
    if len(shapes) > 1:
        shape[axis] *= len(shapes)
    order = None
    if rule.rows is not None:
        order = rule.rows(file, shape[axis])
    elif rule.row:
        match = re.fullmatch(rule.pattern, parameter)
        assert match is not None  # _find matched it
        order = torch.tensor([int(rule.row.format(*match.groups()))])
    if order is not None:
        shape[axis] = len(order)
    return order, shape[:-2] + shape[:-3:-1] if rule.transpose else shape


def _is_vector(tensors: tuple[str, ...]) -> bool:
    """Whether the last dimension counts what are rows in the matrix that the tensors belong to."""
    return tensors[0].endswith(".bias")


def _significant(shape: Iterable[int]) -> list[int]:
    """Converters drop dimensions of size one."""
    return [size for size in shape if size != 1]


def _read(file: Header, name: str, device: torch.device) -> Weight:
    tensor = file.file[name]
    name = name.removesuffix(".weight") + ".scale"  # second level of NVFP4: per tensor or per expert
    scale = file.file[name].dequantize(torch.float32, device) if file.has(name) else None
    if scale is not None and scale.numel() == 1:
        scale = scale.view(())
    return Weight(tensor.packed().to(device), tensor.format, scale)


def _second_scales(tensors: Iterable[str]) -> set[str]:
    """Scales of weights, which `_read` applies, and of activations, which concern integer kernels only."""
    return {tensor.removesuffix(".weight") + end for tensor in tensors for end in (".scale", ".input_scale")}
