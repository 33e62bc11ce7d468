"""Takes compiled objects apart: the kernels of every architecture, with their registers and their code."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LLVM = "-19"  # suffix of Debian's LLVM programs
MAGIC = b"__CLANG_OFFLOAD_BUNDLE__"
FUNCTION = re.compile(r"<(?!L\d+>)(.+)>:")


@dataclass(frozen=True)
class Kernel:
    target: str  # CMake's name of the object: rocforge_<source>_<shard>
    arch: str
    name: str  # demangled
    vgpr: int  # a lane's vector registers, the accumulation registers (agpr) included
    agpr: int
    sgpr: int
    lds: int  # bytes a workgroup, known at compile time
    scratch: int  # bytes a lane
    vector_spills: int  # registers: these go to scratch
    scalar_spills: int  # these to lanes of vector registers, or to scratch as well
    wave: int  # lanes
    threads: int  # of the largest workgroup
    code: list[str]  # lines of the disassembly


def run(*command: str | Path) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def code_objects(file: Path) -> dict[str, bytes]:
    """{architecture: ELF} of an object file that clang compiled from HIP; empty for one without device code."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bundle"
        run(f"llvm-objcopy{LLVM}", "-O", "binary", "--only-section=.hip_fatbin", file, out)
        bundle = out.read_bytes() if out.exists() else b""
    return unbundle(bundle, file) if bundle else {}


def unbundle(bundle: bytes, file: str | Path) -> dict[str, bytes]:
    if not bundle.startswith(MAGIC):
        raise ValueError(f"{file}: its device code is no uncompressed clang bundle")
    (entries,) = struct.unpack_from("<Q", bundle, len(MAGIC))
    found, at = {}, len(MAGIC) + 8
    for _ in range(entries):
        start, size, name_size = struct.unpack_from("<QQQ", bundle, at)
        name = bundle[at + 24 : at + 24 + name_size].decode()
        at += 24 + name_size
        if not name.startswith("host"):
            found[name.partition("--")[2].partition(":")[0]] = bundle[start : start + size]
    return found


def target_of(file: Path) -> str:
    """Of CMakeFiles/<target>.dir/...; the file's own name elsewhere."""
    return next((part.removesuffix(".dir") for part in file.parts if part.endswith(".dir")), file.name)


def kernels(file: Path) -> Iterator[Kernel]:
    for arch, elf in code_objects(file).items():
        with tempfile.NamedTemporaryFile(suffix=".co") as code_object:
            code_object.write(elf)
            code_object.flush()
            notes = run(f"llvm-readelf{LLVM}", "--notes", code_object.name)
            style = ("--no-show-raw-insn", "--no-leading-addr", "--symbolize-operands")
            listing = run(f"llvm-objdump{LLVM}", "-d", *style, code_object.name)
        code = functions(listing)
        numbers = metadata(notes)
        names = run(f"llvm-cxxfilt{LLVM}", *numbers).splitlines() if numbers else []
        for (symbol, number), name in zip(numbers.items(), names, strict=True):
            yield Kernel(
                target=target_of(file),
                arch=arch,
                name=name,
                vgpr=number["vgpr_count"],
                agpr=number.get("agpr_count", 0),
                sgpr=number["sgpr_count"],
                lds=number["group_segment_fixed_size"],
                scratch=number["private_segment_fixed_size"],
                vector_spills=number["vgpr_spill_count"],
                scalar_spills=number["sgpr_spill_count"],
                wave=number["wavefront_size"],
                threads=number["max_flat_workgroup_size"],
                code=code[symbol],
            )


def metadata(notes: str) -> dict[str, dict[str, int]]:
    """{symbol: {name: number}} of the kernels in the notes of a code object, as llvm-readelf prints them."""
    found = {}
    for entry in re.split(r"^  - ", notes, flags=re.M)[1:]:
        # Of the kernel itself; those of its arguments stand further in.
        values = dict(re.findall(r"^(?:    )?\.(\w+): +(\S+)$", entry, flags=re.M))
        if "vgpr_count" in values:
            found[values["name"]] = {name: int(value) for name, value in values.items() if value.isdigit()}
    return found


def functions(listing: str) -> dict[str, list[str]]:
    """{symbol: lines} of a disassembly."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in listing.splitlines():
        if match := FUNCTION.match(line):
            lines = found[match[1]] = []
        elif line.strip():
            lines.append(line)
    return found
