"""One line of the self-test: an operator on small inputs against a reference, and its speed on a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.bench import timing

Reference = Callable[..., Tensor]  # (operator's name, *arguments on the CPU) -> the right result on the CPU


def on_cpu(operator: str, *arguments: Any) -> Tensor:
    """The reference: the CPU's own kernel."""
    return getattr(torch.ops.rocforge, operator)(*arguments)


@dataclass(frozen=True)
class Result:
    row: str
    column: str
    wrong: str  # empty when everything is right
    rate: float | None  # units a second; None where nothing was timed


@dataclass(frozen=True)
class Case:
    """`row` and `column`: where the case stands in its operator's table."""

    row: str
    column: str
    # Arguments that reach each variant of the kernel: the same values for every device, made anew on it.
    inputs: Callable[[str], Iterator[tuple[Any, ...]]]
    # What is wrong with a result, given the right one; empty when nothing is.
    difference: Callable[[Tensor, Tensor], str]
    # Calls on the device to time in turn, and how many units (bytes, operations) one of them is.
    load: Callable[[str], tuple[Sequence[timing.Action], float]]

    def run(self, operator: str, device: str, reference: Reference, timed: bool) -> Result:
        """A RuntimeError of a kernel or its launch is a wrong result, not the end of the self-test."""
        try:
            wrong = self._check(operator, device, reference)
            rate = self._rate(device) if timed and not wrong else None
        except RuntimeError as error:
            return Result(self.row, self.column, str(error).splitlines()[0], None)
        return Result(self.row, self.column, wrong, rate)

    def _check(self, operator: str, device: str, reference: Reference) -> str:
        call = getattr(torch.ops.rocforge, operator)
        for here, there in zip(self.inputs("cpu"), self.inputs(device), strict=True):
            if wrong := self.difference(call(*there).cpu(), reference(operator, *here)):
                return wrong
        return ""

    def _rate(self, device: str) -> float:
        calls, units = self.load(device)
        return units / timing.seconds(calls, device)


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
