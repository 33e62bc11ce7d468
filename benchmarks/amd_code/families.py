"""What the report knows about kernels beyond their code: readable names, and the memory they are there to move."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from amd_code.instructions import Counts
from amd_code.objects import Kernel

NAME = re.compile(r"(?:void )?(?:\w+::|\(anonymous namespace\)::)*(\w+?)(?:_kernel)?(?:<(.*)>)?(?:\(|$)")
SOURCE = re.compile(r"rocforge_(.*?)(?:_kernel)?_\d+$")  # of a CMake target
DTYPES = {"float": "float32", "double": "float64", "f16": "float16", "bf16": "bfloat16"}

# Families of sources that use matrix instructions, which do without.
WITHOUT_MATRIX: frozenset[str] = frozenset()
# Beginnings of the labels of kernels known to spill (tiles of head size 256, forward kernels with every feature or in
# float64, the gradient of a mask): the check counts their problems and refuses those of all others.
KNOWN_TO_SPILL = (
    "attention_backward_mask",
    *(f"attention_backward_tiles: gradient {dtype} 256" for dtype in ("float16", "bfloat16")),
    "attention_rows",
    "attention_tiles",
)

# Scalar registers that any kernel may spill, without scratch: to lanes of a vector register, an instruction each.
FEW_SCALARS = 2


@dataclass(frozen=True)
class Label:
    family: str  # kernels worth comparing with each other
    what: str  # which one it is: format, dtype, ...

    @property
    def decodes_rows(self) -> bool:
        return self.family.startswith("decode_rows, ")

    def __str__(self) -> str:
        return f"{self.family} {self.what}".rstrip()


def label(kernel: Kernel) -> Label:
    match = NAME.match(kernel.name)
    if not match:
        return Label(kernel.name, "")
    # Without namespaces, and values without their types.
    arguments = [re.sub(r"\(.*\)|.*::", "", argument) for argument in (match[2] or "").split(", ")]
    if match[1] == "decode_rows":
        return decode_rows_label(kernel, *arguments)
    source = SOURCE.match(kernel.target)
    family = match[1] if not source else source[1] if match[1] in source[1] else f"{source[1]}: {match[1]}"
    return Label(family, " ".join(DTYPES.get(argument, argument) for argument in arguments))


def decode_rows_label(kernel: Kernel, format: str, out: str, one_row: str) -> Label:
    odd_shard = int(kernel.target.rpartition("_")[2]) % 2  # csrc/hip/decode_rows_kernel.hip: blocks at any byte
    rows = "any byte" if odd_shard else "one row" if one_row == "true" else "rows"
    return Label(f"decode_rows, {rows}", f"{format} {DTYPES[out]}")


def bytes_moved(label: Label, path: Counts, wave: int, packed_bits: Callable[[str], float]) -> float:
    """Bytes that one wave brings from memory and back on its path; `packed_bits`: of a weight, by format."""
    if label.decodes_rows:
        # Lanes read their scales together: what comes from memory is the packed bytes, once.
        format, dtype = label.what.split()
        stored = wave * sum(path.stores)
        return stored * (1 + packed_bits(format) / 8 / (4 if dtype == "float32" else 2))
    return wave * (sum(path.loads) + sum(path.stores))
