"""Instructions that the emulator lacks or gets wrong."""

from __future__ import annotations

import ctypes
import inspect
import struct
import textwrap
from collections.abc import Callable
from types import ModuleType

import numpy as np

WRITTEN_REGISTERS = {0x0D: 1, 0x4D: 2, 0xDE: 3, 0xDF: 4}  # of ds_write_b32, _b64, _b96, _b128
PART_OF_REGISTER = 0xF9  # as the first operand: the next word says which part
NEGATIVE, ABSOLUTE = 1 << 20, 1 << 21  # in that word, of the first operand; of the second, 8 bits higher
SIGNS = (NEGATIVE | ABSOLUTE) * 0x101


def repair_16_bit_registers(emulator: ModuleType) -> None:
    """Gives 16-bit instructions of wave64 architectures their registers 128 to 255.

    The emulator takes those numbers for upper halves of registers 0 to 127. They are that on RDNA 3 and 4 only.
    """
    for name in ("_compile_vop12", "_load_vsrc0", "_compile_vopc"):
        function = getattr(emulator, name)
        source = textwrap.dedent(inspect.getsource(function))
        for first in ("128", "384"):  # as a vector register, and as an operand of any kind
            source = source.replace(f">= _c({first})", f">= _c({first} if ctx.wave_size == 32 else 512)")
        if "512" not in source:
            raise RuntimeError(f"{emulator.__file__}: {name} is not that of tinygrad a9069c177")
        repaired: dict[str, Callable] = {}
        exec(compile(source, inspect.getsourcefile(function) or name, "exec"), vars(emulator), repaired)
        function.__code__ = repaired[name].__code__  # in place: the emulator's tables hold the function


def more_instructions(hook_for: Callable) -> Callable:
    """What amdemu.hook_for returns, after a look at

    - s_getpc_b64, by which code finds its tables;
    - stores of accumulation registers to LDS, which the emulator takes from the vector registers of the same numbers;
    - signs of operands that are parts of a register (SDWA), which it ignores;
    - generic addresses, which it takes for global memory: one in LDS or scratch then ends the process;
    - moves between lanes (DPP), for which amdemu takes the last vector register.
    """

    def hook(code, pc: int):
        low, high = struct.unpack("<II", ctypes.string_at(pc, 8))
        cdna = code.arch == "cdna"
        if low >> 23 == 0x17D and low >> 8 & 0xFF == (0x1C if cdna else 0x47):
            return getpc(low >> 16 & 0x7F), 4
        if cdna and low >> 25 == 0x6D:  # the bit of LDS instructions that means accumulation registers
            opcode = low >> 17 & 0xFF
            if opcode not in WRITTEN_REGISTERS:
                raise NotImplementedError(f"LDS instruction {opcode:#x} with accumulation registers")
            return write_lds(WRITTEN_REGISTERS[opcode], low & 0xFFFF, high & 0xFF, high >> 8 & 0xFF), 8
        if cdna and low >> 31 == 0 and low & 0x1FF == PART_OF_REGISTER and high & SIGNS:
            return convert_half(low, high), 8
        flat_to_global(code.arch, pc, low, high)
        found = hook_for(code, pc)
        if found and found[0].__name__ == "dpp" and code.last_register_used:
            raise NotImplementedError("a lane move in a kernel that uses all vector registers")
        return found

    return hook


def flat_to_global(arch: str, pc: int, low: int, high: int) -> None:
    """Rewrites a flat instruction of the loaded code as the global one."""
    segment, no_scalar = (14, 0x7F) if arch == "cdna" else (16, 0x7C)
    if arch == "rdna4" and low >> 24 == 0xEC:
        low |= 2 << 24
    elif arch != "rdna4" and low >> 26 == 0x37 and low >> segment & 3 == 0:
        low, high = low | 2 << segment, high & ~(0x7F << 16) | no_scalar << 16
    else:
        return
    ctypes.memmove(pc, struct.pack("<II", low, high), 8)


def getpc(register: int) -> Callable:
    def run(wave) -> None:
        wave.next(4)
        wave.S[register : register + 2] = wave.S[256:258]  # where the emulator keeps the address

    return run


def write_lds(registers: int, offset: int, address: int, data: int) -> Callable:
    def run(wave) -> None:
        lanes = wave.exec()
        first = wave.V[address].astype(np.int64)[lanes] + offset
        if lanes.any() and first.max() + 4 * registers > wave.nlds:
            raise RuntimeError("write past the end of LDS")
        words = np.ascontiguousarray(wave.A[data : data + registers, lanes].T).view(np.uint8)
        wave.L[first[:, None] + np.arange(4 * registers)] = words
        wave.next(8)

    return run


def convert_half(low: int, high: int) -> Callable:
    """v_cvt_f32_f16 of half a register, its sign changed: what a product with the negative of a half becomes."""
    source, destination, part = high & 0xFF, low >> 17 & 0xFF, high >> 16 & 7
    is_convert = low >> 25 == 0x3F and low >> 9 & 0xFF == 0x0B
    # All of the destination, no clamping or scaling, half of a vector register.
    if not is_convert or high & 0xFF00 != 0x0600 or part not in (4, 5) or high & 0xFFC80000:
        raise NotImplementedError(f"signs of the operands of {low:#010x} {high:#010x}")

    def run(wave) -> None:
        lanes = wave.exec()
        half = (wave.V[source] >> np.uint32(16 * (part - 4))).astype(np.uint16)
        if high & ABSOLUTE:
            half &= np.uint16(0x7FFF)
        if high & NEGATIVE:
            half ^= np.uint16(0x8000)
        wave.V[destination][lanes] = half.view(np.float16).astype(np.float32).view(np.uint32)[lanes]
        wave.next(8)

    return run
