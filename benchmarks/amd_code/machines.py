"""AMD GPUs in numbers: public specifications and arithmetic on them, nothing measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One part of an architecture. Rates are for one SIMD and cycle at the part's clock."""

    part: str
    wave: int  # lanes
    memory_rate: float  # bytes of device memory
    matrix_rate: int  # operations of float16 matrix instructions, a multiply-add being two; 0: has none
    int8_factor: int  # int8 matrix operations for one of float16
    vector_cycles: int  # of an ordinary vector instruction of a whole wave
    double_cycles: int  # of one on float64
    registers: int  # vector registers of a SIMD, for lanes of a whole wave
    granule: int  # they are given out in multiples of this
    most_waves: int
    lds: int  # bytes that `lds_simds` SIMDs share
    lds_simds: int

    def waves(self, registers: int, lds: int, workgroup_waves: int) -> int:
        """Waves that a SIMD holds at once, each with `registers` (V + A), in workgroups that use `lds` bytes."""
        allocated = -(-max(registers, 1) // self.granule) * self.granule
        waves = min(self.most_waves, self.registers // allocated)
        if lds:
            waves = min(waves, self.lds // lds * workgroup_waves // self.lds_simds)
        return waves


def cdna(part: str, memory_rate: float, matrix_rate: int, int8_factor: int, lds: int) -> Machine:
    return Machine(part, 64, memory_rate, matrix_rate, int8_factor, 4, 4, 512, 8, 8, lds, 4)


def rdna(
    part: str, memory_rate: float, matrix_rate: int, int8_factor: int, double_cycles: int, registers: int, granule: int
) -> Machine:
    # Two compute units share LDS when they run a workgroup together, which is what compilers choose.
    return Machine(
        part, 32, memory_rate, matrix_rate, int8_factor, 1, double_cycles, registers, granule, 16, 128 << 10, 4
    )


MACHINES = {
    "gfx90a": cdna("MI250X, one die", 2.1, 256, 1, 64 << 10),
    "gfx942": cdna("MI300X", 2.1, 512, 2, 64 << 10),
    "gfx950": cdna("MI355X", 3.3, 1024, 2, 160 << 10),
    "gfx1030": rdna("RX 6900 XT", 1.4, 0, 1, 16, 1024, 16),
    "gfx1100": rdna("RX 7900 XTX", 2.0, 256, 1, 16, 1536, 24),
    "gfx1151": rdna("Strix Halo", 1.1, 256, 1, 16, 1536, 24),
    "gfx1201": rdna("RX 9070 XT", 1.7, 512, 2, 32, 1536, 24),
}
