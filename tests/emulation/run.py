"""Runs the operators' pytest files on emulated GPU kernels, once for each library that the emulate build made.

python tests/emulation/run.py build/emulate/emulation [-n WORKERS] [pytest arguments]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
# Files whose tests take the `device` fixture, so that the kernels are what they test.
FILES = (
    "test_dequantize.py",
    "test_embedding.py",
    "test_grouped_linear.py",
    "test_linear.py",
    "test_mqa_attention.py",
    "test_mqa_attention_backward.py",
    "test_mqa_attention_gpu.py",
    "test_mqa_attention_q8_0.py",
    "test_multi_query_pipeline.py",
    "test_qkv_rope_cache.py",
    "test_rotary_embedding.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the libraries are")
    parser.add_argument("-n", dest="workers", default="2", help="pytest workers (2)")
    arguments, extra = parser.parse_known_args()
    libraries = sorted(arguments.folder.glob("librocforge_emulated_*.so"))
    if not libraries:
        parser.error(f"no librocforge_emulated_*.so in {arguments.folder}: build with -DROCFORGE_GPU=emulate first")
    # One seed for all runs of a call, another for the next call; a failing run is repeated with the seed it printed.
    seed = os.environ.get("ROCFORGE_EMU_SEED", str(int(time.time())))
    failed = [library.stem for library in libraries if not passes(library, seed, ["-n", arguments.workers, *extra])]
    print(f"emulated kernels: {len(libraries) - len(failed)} of {len(libraries)} libraries passed (seed {seed})")
    for name in failed:
        print(f"  failed: {name}")
    return bool(failed)


def passes(library: Path, seed: str, arguments: list[str]) -> bool:
    print(f"---- {library.stem}, random order, ROCFORGE_EMU_SEED={seed}", flush=True)
    environment = os.environ | {
        "ROCFORGE_EMULATED": str(library.resolve()),
        "ROCFORGE_EMU_ORDER": "random",
        "ROCFORGE_EMU_SEED": seed,
    }
    if library.stem.endswith("_asan"):
        # Python is not built with the sanitizers: they must be loaded before it.
        environment["LD_PRELOAD"] = " ".join(runtime(name) for name in ("libasan.so", "libubsan.so"))
        environment["ASAN_OPTIONS"] = "detect_leaks=0:detect_stack_use_after_return=0"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--no-header"]
    return not subprocess.run(
        [*command, "-r", "fE", *arguments, *(TESTS / name for name in FILES)], env=environment
    ).returncode


def runtime(name: str) -> str:
    """Path of a sanitizer's runtime, as the compiler knows it."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
