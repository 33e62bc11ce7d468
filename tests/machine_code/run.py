"""Runs tests on AMD machine code, on a machine without an AMD GPU.

    TINYGRAD=... AMD_ISA=... python tests/machine_code/run.py gfx942 [gfx1100 ...] [-- pytest arguments]

TINYGRAD is a checkout of tinygrad (a9069c177), whose tests hold an emulator of AMD's instructions; AMD_ISA the folder
of amdemu.py, which drives it (../shared/tools/amd_isa by default). `make hip` builds the code. Architectures: gfx90a,
gfx942, gfx1100, gfx1201.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/machine_code"
RUNTIME = BUILD / "libhip_runtime.so"
# Small sizes: an emulated wave executes some 100,000 instructions a second.
DEFAULT = ("tests/test_dequantize.py", "tests/test_embedding.py", "tests/test_rotary_embedding.py")


def main() -> int:
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    archs, arguments = words[:split], words[split + 1 :] or DEFAULT
    if not archs or "TINYGRAD" not in os.environ:
        sys.exit(__doc__)
    build_runtime()
    link_package()
    return max(run(arch, arguments) for arch in archs)


def build_runtime() -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("hip_runtime.cpp")
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-D__HIP_PLATFORM_AMD__", "-w", source, "-o", RUNTIME]
    subprocess.run(command, check=True)


def link_package() -> None:
    """The package as it is, with the library for AMD GPUs in place of its own."""
    shutil.rmtree(BUILD / "rocforge_ops", ignore_errors=True)
    (BUILD / "rocforge_ops").mkdir()
    for entry in (ROOT / "rocforge_ops").iterdir():
        target = ROOT / "build/hip/librocforge_ops.so" if entry.name == "librocforge_ops.so" else entry
        (BUILD / "rocforge_ops" / entry.name).symlink_to(target)


def run(arch: str, arguments: tuple[str, ...] | list[str]) -> int:
    print(f"---- machine code for {arch}", flush=True)
    amd_isa = os.environ.get("AMD_ISA", ROOT.parent / "shared/tools/amd_isa")
    environment = os.environ | {
        "ROCFORGE_MACHINE_CODE": arch,
        "LD_PRELOAD": str(RUNTIME),
        "PYTHONPATH": os.pathsep.join([str(BUILD), str(amd_isa), os.environ.get("PYTHONPATH", "")]),
        "CC": os.environ.get("CC", "clang-19"),
    }
    # Not `python -m pytest`, which would find the package of the current folder first.
    command = [Path(sys.executable).with_name("pytest"), "-q", "-p", "no:cacheprovider", "-W", "ignore", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
