"""Writes csrc/formats/tables/ from the codebooks of the `gguf` package: python tools/make_tables.py [--check]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from gguf import quants

TABLES = Path(__file__).resolve().parent.parent / "csrc" / "formats" / "tables"
HEADER = """// {comment}
// Written by tools/make_tables.py from the `gguf` package.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {{

{body}
}}  // namespace rocforge::formats
"""


def grid(quant: type) -> np.ndarray:
    """The codebook of an IQ type as int8 [entries, weights per entry]."""
    quant.init_grid()
    return quant.grid.reshape(quant.grid_shape).astype(np.int8)


def words_of(entries: np.ndarray, dtype: type) -> list[int]:
    """Each entry's bytes as one little-endian integer."""
    return np.ascontiguousarray(entries).view(dtype).reshape(-1).tolist()


def nibbles_of(entries: np.ndarray) -> list[int]:
    """Eight values 0 .. 15 an entry as one 32-bit integer: byte i holds value i below value i + 4."""
    return words_of((entries[:, :4] | entries[:, 4:] << 4).astype(np.uint8), np.dtype("<u4"))


def array(name: str, values: list[int], bits: int) -> str:
    """A C++ table of unsigned integers, in lines of at most 120 columns."""
    texts = [f"0x{v:0{bits // 4}x}" for v in values]
    per_line = 116 // (len(texts[0]) + 2)
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return f"ROCFORGE_TABLE uint{bits}_t {name}[{len(values)}] = {{\n    " + ",\n    ".join(lines) + ",\n};\n"


def levels16(name: str, levels: tuple[int, ...]) -> str:
    """A table of 16 signed bytes for lookup16: constants, because a GPU keeps it in registers."""
    lo, hi = words_of(np.array(levels, dtype=np.int8), np.dtype("<u8"))
    listed = ", ".join(map(str, levels))
    return f"// {listed}\nstruct {name} {{\n  static constexpr uint64_t lo = 0x{lo:016x}, hi = 0x{hi:016x};\n}};\n"


def tables() -> dict[str, str]:
    """File name to text."""
    u64, u32 = np.dtype("<u8"), np.dtype("<u4")
    ternary = (grid(quants.IQ1_S) + 1).astype(np.uint8)
    bodies = {
        "iq1.h": (
            "Codebook of IQ1_S and IQ1_M: eight digits 0 .. 2 (for -1 .. 1) an entry; byte i holds digit i in its low "
            "nibble,\n// digit i + 4 in its high one.",
            array("kIQ1Grid", nibbles_of(ternary), 32),
        ),
        "iq4.h": ("Levels of IQ4_NL and IQ4_XS.", levels16("IQ4Levels", quants.IQ4_NL.kvalues)),
        "fp4.h": ("Twice the values of FP4 E2M1.", levels16("FP4Levels", quants.MXFP4.kvalues)),
    }
    for name, dtype in [("IQ2_XXS", u64), ("IQ2_XS", u64), ("IQ2_S", u64), ("IQ3_XXS", u32), ("IQ3_S", u32)]:
        entries = words_of(grid(getattr(quants, name)), dtype)
        bodies[f"{name.lower()}.h"] = (
            f"Codebook of {name}: {dtype.itemsize} magnitudes an entry, one a byte, the first lowest.",
            array(f"k{name.replace('_', '')}Grid", entries, 8 * dtype.itemsize),
        )
    return {file: HEADER.format(comment=comment, body=body) for file, (comment, body) in bodies.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    check = parser.parse_args().check
    texts = tables()
    stale = [name for name in texts if not (TABLES / name).exists() or (TABLES / name).read_text() != texts[name]]
    if not check:
        for name in stale:
            (TABLES / name).write_text(texts[name])
    print(f"{'differ' if check else 'written'}: {', '.join(stale) or 'none'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
