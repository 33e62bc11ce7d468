"""One line of the self-test: an operator on small inputs against a reference, and its speed on a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.bench import timing

Reference = Callable[..., Any]  # (operator's name, *arguments, **options), on the CPU -> the right result there
UNITS = {"GB/s": 1e9, "TFLOP/s": 1e12}


def run(operator: str, *arguments: Any, **options: Any) -> Any:
    """The operator's result; for one that writes to its arguments a tuple, with those after it."""
    op = getattr(torch.ops.rocforge, operator)
    result = op(*arguments, **options)
    declared = op.default._schema.arguments
    written = [a for a, d in zip(arguments, declared, strict=False) if d.alias_info and d.alias_info.is_write]
    return (result, *written) if written else result


on_cpu: Reference = run  # the CPU's own kernel


@dataclass(frozen=True)
class Call:
    """Arguments of an operator; `options` are those that it takes by name."""

    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    row: str
    column: str
    wrong: str  # empty when everything is right
    rate: float | None  # in `unit`; None where nothing was timed
    unit: str


@dataclass(frozen=True)
class Case:
    """`row` and `column`: where the case stands in its operator's table."""

    row: str
    column: str
    # Arguments that reach each variant of the kernel: the same values for every device, made anew on it.
    inputs: Callable[[str], Iterator[Call]]
    # What is wrong with a result, given the right one; empty when nothing is.
    difference: Callable[[Any, Any], str]
    # Calls on the device to time in turn, and how many bytes or operations one of them is.
    load: Callable[[str], tuple[Sequence[timing.Action], float]] | None = None
    unit: str = "GB/s"
    # What the reference is given in place of the call, where a wider type is needed to tell right from wrong.
    exact: Callable[[Call], Call] = lambda call: call

    def run(self, operator: str, device: str, reference: Reference, timed: bool) -> Result:
        """A RuntimeError of a kernel or its launch is a wrong result, not the end of the self-test."""
        rate = None
        try:
            wrong = self._check(operator, device, reference)
            if timed and self.load and not wrong:
                calls, amount = self.load(device)
                rate = amount / timing.seconds(calls, device) / UNITS[self.unit]
        except RuntimeError as error:
            wrong = str(error).splitlines()[0]
        return Result(self.row, self.column, wrong, rate, self.unit)

    def _check(self, operator: str, device: str, reference: Reference) -> str:
        for here, there in zip(self.inputs("cpu"), self.inputs(device), strict=True):
            exact = self.exact(here)
            expected = reference(operator, *exact.arguments, **exact.options)
            actual = run(operator, *there.arguments, **there.options)
            actual = actual.cpu() if isinstance(actual, Tensor) else tuple(t.cpu() for t in actual)
            if wrong := self.difference(actual, expected):
                return wrong
        return ""


def bit_difference(actual: Tensor, expected: Tensor) -> str:
    """Empty when equal bit for bit, signed zeros included; all NaNs are one."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return f"{actual.dtype} {list(actual.shape)} instead of {expected.dtype} {list(expected.shape)}"
    differ = (_bits(actual) != _bits(expected)).flatten()
    count = int(differ.sum())
    if not count:
        return ""
    first = int(differ.nonzero()[0])
    got, want = actual.flatten()[first].item(), expected.flatten()[first].item()
    return f"{count} of {differ.numel()} values differ, the first at {first}: {got!r} instead of {want!r}"


def _bits(x: Tensor) -> Tensor:
    integers = {4: torch.int32, 2: torch.int16}[x.element_size()]
    return torch.where(x.isnan(), torch.full_like(x, torch.nan), x).view(integers)
