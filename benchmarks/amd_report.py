"""What the AMD compiler made of the kernels, and what that lets an AMD GPU do; no GPU is needed.

    python benchmarks/amd_report.py [--build build/hip] [--arch gfx942] [--match REGEX] [--all] [--check]

Builds the hip flavour (docs/gpu.md) where --build is not up to date and reads every kernel of every architecture. A
line is a kernel:

    vgpr agpr sgpr   registers; vgpr counts the accumulation registers too
    lds              bytes of a workgroup, known at compile time
    scratch spill    bytes of a lane in memory, registers that were spilled
    waves            a SIMD holds at once, by registers and that LDS (what a launch adds is not known here)
    loop             counts are of the main loop (innermost with matrix instructions, or else with global memory
                     accesses); without it of the path through the kernel: the one with the most matrix instructions,
                     then the most bytes in the widest stores and loads, then the fewest vector instructions
    mtx vec lds mem  matrix, vector, LDS and global memory instructions on it
    load store       bytes a lane of the widest load and of the narrowest and widest store on it
    bytes            moved to and from memory by one wave on it
    slots            cycles that its vector instructions take / cycles of its SIMD's share of the memory rate; with
                     matrix instructions: / cycles that those take
    bound            the larger of the two, and the share of the memory (matrix) rate that it leaves

Without --all a family shows its best and worst kernel on each architecture, by `slots`. The arithmetic is in
benchmarks/amd_code/machines.py; scalar instructions, bank conflicts and waiting are not in it.

--check exits with 1 when a kernel uses scratch or spills registers (more than two scalar ones), when one of a source
with matrix instructions has none on an architecture that knows them, or when decode_rows stores less than 16 bytes a
lane on its path. Of families.KNOWN_TO_SPILL it only counts the problems.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from amd_code import families, flow, instructions, objects
from amd_code.instructions import Counts
from amd_code.machines import MACHINES, Machine

import rocforge_ops as rf

ROOT = Path(__file__).parent.parent
HEADER = (
    f"{'':26}{'vgpr':>5}{'agpr':>5}{'sgpr':>5}{'lds':>7}{'scratch':>8}{'spill':>6}{'waves':>6} {'loop':4}"
    f"{'mtx':>5}{'vec':>5}{'lds':>5}{'mem':>5}{'load':>5}{'store':>6}{'bytes':>7}{'slots':>7}  bound"
)


@dataclass(frozen=True)
class Row:
    kernel: objects.Kernel
    label: families.Label
    machine: Machine
    waves: int
    loop: bool
    path: Counts
    bytes: float

    @property
    def bound_cycles(self) -> float:
        """Of a SIMD, for what bounds the kernel at best: its matrix instructions, or its share of the memory rate."""
        return self.path.matrix_cycles or self.bytes / self.machine.memory_rate

    @property
    def slots(self) -> float:
        return self.path.vector_cycles / self.bound_cycles if self.bound_cycles else 0.0


def analyse(kernel: objects.Kernel) -> Row | None:
    """None for a kernel that is empty on this architecture."""
    if kernel.arch not in MACHINES:
        raise ValueError(f"benchmarks/amd_code/machines.py has no numbers for {kernel.arch}")
    machine = MACHINES[kernel.arch]
    graph = flow.blocks(kernel.code)
    if not any(name.startswith(("global_", "flat_", "buffer_")) for block in graph for name in block.mnemonics):
        return None
    counts = [instructions.count(block.mnemonics, machine) for block in graph]
    path, loop = main_path(graph, counts)
    label = families.label(kernel)
    moved = families.bytes_moved(label, path, kernel.wave, lambda name: rf.formats[name].bits_per_weight)
    waves = machine.waves(kernel.vgpr, kernel.lds, kernel.threads // kernel.wave)
    return Row(kernel, label, machine, waves, loop, path, moved)


def main_path(graph: list[flow.Block], counts: list[Counts]) -> tuple[Counts, bool]:
    """The path that counts, and whether it is one of a loop: see above."""
    nodes = flow.reachable(graph)
    widest_load = max((size for i in nodes for size in counts[i].loads), default=0)
    widest_store = max((size for i in nodes for size in counts[i].stores), default=0)

    def rank(path: Counts) -> tuple[float, ...]:
        return (
            path.matrix_cycles,
            path.stores.count(widest_store),
            path.loads.count(widest_load),
            -path.vector_cycles,
        )

    whole = flow.best_path(graph, 0, nodes, counts, rank)
    found = [(loop, flow.best_path(graph, header, loop, counts, rank)) for header, loop in flow.loops(graph)]
    found = [(loop, path) for loop, path in found if path.matrix or (not whole.matrix and path.loads + path.stores)]
    innermost = [path for loop, path in found if not any(other < loop for other, _ in found)]
    return (max(innermost, key=rank), True) if innermost else (whole, False)


def uses_matrix(kernel: objects.Kernel) -> bool:
    """Whether the kernel's source includes the matrix header, itself or through another."""
    return "hip/mma.h" in includes("hip/" + re.sub(r"^rocforge_(.*)_\d+$", r"\1.hip", kernel.target))


@functools.cache
def includes(name: str) -> frozenset[str]:
    """Headers of csrc that a file of csrc includes, itself or through others."""
    file = ROOT / "csrc" / name
    direct = re.findall(r'^ *#include "(.+)"', file.read_text(), re.M) if file.exists() else []
    return frozenset(direct).union(*map(includes, direct))


def problems(row: Row) -> Iterator[str]:
    kernel, path = row.kernel, row.path
    if kernel.scratch or path.scratch:
        yield f"{kernel.scratch} bytes of scratch"
    if kernel.vector_spills or kernel.scalar_spills > families.FEW_SCALARS:
        yield f"{kernel.vector_spills} vector and {kernel.scalar_spills} scalar registers spilled"
    expects_matrix = uses_matrix(kernel) and row.label.family not in families.WITHOUT_MATRIX
    if row.machine.matrix_rate and expects_matrix and not path.matrix:
        yield "no matrix instructions"
    if row.label.decodes_rows and min(path.stores, default=0) < 16:
        yield f"stores {min(path.stores, default=0)} bytes a lane, not 16"


def line(row: Row) -> str:
    kernel, path = row.kernel, row.path
    spills = kernel.vector_spills + kernel.scalar_spills
    stores = "-".join(map(str, sorted({min(path.stores), max(path.stores)}))) if path.stores else ""
    kind = "matrix" if path.matrix else "memory"
    bound = f"{kind} 100 %" if row.slots <= 1 else f"vector: {kind} {100 / row.slots:.0f} %"
    return (
        f"  {row.label.what:24}{kernel.vgpr:5}{kernel.agpr:5}{kernel.sgpr:5}{kernel.lds:7}{kernel.scratch:8}"
        f"{spills:6}{row.waves:6} {'loop' if row.loop else '':4}{path.matrix:5}{path.vector:5}{path.lds:5}"
        f"{len(path.loads) + len(path.stores):5}{max(path.loads, default=0):5}{stores:>6}{row.bytes:7.0f}"
        f"{row.slots:7.0%}  {bound}"
    )


def print_table(rows: Iterable[Row], all_kernels: bool) -> None:
    def key(row: Row) -> tuple[int, str]:
        return list(MACHINES).index(row.kernel.arch), row.label.family

    arch = None
    for (_, family), group in itertools.groupby(sorted(rows, key=key), key):
        ranked = sorted(group, key=lambda row: row.slots)
        if ranked[0].kernel.arch != arch:
            arch = ranked[0].kernel.arch
            print(f"\n{arch} ({MACHINES[arch].part})\n{HEADER}")
        bound = sum(row.slots > 1 for row in ranked)
        print(f" {family}: {len(ranked)} kernels, {bound} bound by vector instructions")
        for row in ranked if all_kernels or len(ranked) < 3 else (ranked[0], ranked[-1]):
            print(line(row))


def build(folder: Path) -> None:
    if not (folder / "build.ninja").exists():
        for program in ("clang++-19", f"llvm-objdump{objects.LLVM}"):
            if not shutil.which(program):
                sys.exit(f"{program} is missing: docs/gpu.md lists the packages")
        subprocess.run(
            ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "--toolchain", ROOT / "cmake/debian-hip.cmake",
             "-DROCFORGE_GPU=hip", f"-DPython_EXECUTABLE={sys.executable}"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    subprocess.run(["cmake", "--build", folder, "--parallel", str(os.cpu_count())], check=True, stdout=sys.stderr)


def rows_of(file: Path) -> list[Row]:
    return [row for kernel in objects.kernels(file) if (row := analyse(kernel))]


def read(files: list[Path]) -> list[Row]:
    with ProcessPoolExecutor() as pool:
        return [row for rows in pool.map(rows_of, files) for row in rows]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/hip", metavar="DIR")
    parser.add_argument("--objects", type=Path, nargs="+", metavar="FILE", help="read these and build nothing")
    parser.add_argument("--arch", choices=MACHINES, action="append", help="these architectures only")
    parser.add_argument("--match", default="", metavar="REGEX", help="kernels whose family and name match")
    parser.add_argument("--all", action="store_true", help="every kernel")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    if not args.objects:
        build(args.build)
    rows = [
        row
        for row in read(args.objects or sorted(args.build.glob("CMakeFiles/rocforge_*.dir/**/*.hip.o")))
        if (not args.arch or row.kernel.arch in args.arch) and re.search(args.match, str(row.label))
    ]
    print_table(rows, args.all)
    if not args.check:
        return 0
    found = [(row, f"{row.kernel.arch} {row.label}: {p}") for row in rows for p in problems(row)]
    refused = [text for row, text in found if not str(row.label).startswith(families.KNOWN_TO_SPILL)]
    known = f"{len(found) - len(refused)} known ones of {', '.join(families.KNOWN_TO_SPILL)}"
    print("", *(text for _, text in found), f"{len(refused)} problems in {len(rows)} kernels, and {known}", sep="\n")
    return 1 if refused or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
