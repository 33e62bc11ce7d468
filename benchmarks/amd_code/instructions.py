"""What an instruction is, from its mnemonic (CDNA, and RDNA's other spelling of the same)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from amd_code.machines import Machine

MATRIX = re.compile(r"v_(?:smfmac|mfma|swmmac|wmma)_\w+?_(\d+)x(\d+)x(\d+)_?(\w+)")
GLOBAL = re.compile(r"(?:global|flat|buffer)_(load|store)_(?:lds_)?(?:d16_)?(?:hi_)?(\w+)")
# A quarter of the ordinary rate: transcendental functions, wide products, conversions from and to float64.
QUARTER_RATE = re.compile(r"v_(?:exp|log|rcp|rsq|sqrt|sin|cos|mul_lo_u32|mul_hi_[iu]32|mad_[iu]64|cvt_\w*f64)")
DOUBLE = re.compile(r"v_\w+_f64")


def access_bytes(kind: str) -> int:
    """Bytes a lane moves, from the end of a mnemonic: dwordx4, b128, ubyte_d16, u16, ..."""
    if match := re.match(r"dwordx(\d)", kind):
        return 4 * int(match[1])
    if match := re.match(r"[bui](\d+)$", kind):
        return int(match[1]) // 8
    for name, size in {"dword": 4, "ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "sshort": 2, "short": 2}.items():
        if kind.startswith(name):
            return size
    raise ValueError(f"a memory access of unknown width: {kind}")


@dataclass
class Counts:
    """Instructions of a stretch of code, as one wave executes it."""

    vector: int = 0
    matrix: int = 0
    lds: int = 0
    scratch: int = 0
    loads: list[int] = field(default_factory=list)  # bytes a lane, of each load from global memory
    stores: list[int] = field(default_factory=list)
    vector_cycles: int = 0
    matrix_cycles: float = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def count(mnemonics: list[str], machine: Machine) -> Counts:
    counts = Counts()
    for name in mnemonics:
        if match := MATRIX.match(name):
            counts.matrix += 1
            counts.matrix_cycles += matrix_cycles(match, machine)
        elif name.startswith("v_"):
            counts.vector += 1
            counts.vector_cycles += vector_cycles(name, machine)
        elif name.startswith("ds_"):
            counts.lds += 1
        elif name.startswith("scratch_"):
            counts.scratch += 1
        elif match := GLOBAL.match(name):
            accesses = counts.loads if match[1] == "load" else counts.stores
            accesses.append(access_bytes(match[2]))
    return counts


def vector_cycles(name: str, machine: Machine) -> int:
    if QUARTER_RATE.match(name):
        return 4 * machine.vector_cycles
    return machine.double_cycles if DOUBLE.match(name) else machine.vector_cycles


def matrix_cycles(match: re.Match[str], machine: Machine) -> float:
    m, n, k = (int(match[i]) for i in (1, 2, 3))
    rate = machine.matrix_rate * (machine.int8_factor if match[4].startswith(("i8", "iu8")) else 1)
    return 2 * m * n * k / rate
