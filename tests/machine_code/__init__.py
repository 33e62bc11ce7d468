"""AMD machine code on the CPU: the library built for AMD GPUs (`make hip`), each kernel executed by an emulator.

Tests that take the `device` fixture then run what clang made of the kernels, matrix instructions included
(docs/gpu.md). run.py in this folder starts them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from amd_code.objects import MAGIC, unbundle  # noqa: E402

from machine_code.instructions import more_instructions, repair_16_bit_registers  # noqa: E402

LDS_BYTES = 64 << 10  # of a workgroup
Numbers = ctypes.POINTER(ctypes.c_uint32)
Execute = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, Numbers, Numbers, ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t
)


class Machine:
    """Executes kernels for one architecture; hip_runtime.cpp calls `launch`."""

    def __init__(self, arch: str):
        import amdemu  # on PYTHONPATH by run.py

        repair_16_bit_registers(amdemu.emu())
        amdemu.hook_for = more_instructions(amdemu.hook_for)
        self.arch = arch
        self.open = amdemu.CodeObject
        self.folder = tempfile.TemporaryDirectory()
        self.code_objects: dict[int, Any] = {}
        self.callback = Execute(self.launch)  # must live as long as C may call it
        ctypes.CDLL(None).machine_code_set_executor(self.callback)

    def launch(self, bundle: int, name: bytes, grid, block, arguments, dynamic_lds: int) -> int:
        """0 when the kernel has run, as C wants it."""
        try:
            if bundle not in self.code_objects:
                self.code_objects[bundle] = self.load(bundle)
            self.run(
                self.code_objects[bundle], name.decode(), tuple(grid[:3]), tuple(block[:3]), arguments, dynamic_lds
            )
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    def run(self, code, symbol: str, grid, block, arguments, dynamic_lds: int) -> None:
        kernel = code.kernels[symbol]
        lds = kernel[".group_segment_fixed_size"] + dynamic_lds
        if lds > LDS_BYTES:
            raise RuntimeError(f"{symbol}: {lds} bytes of LDS, a workgroup has {LDS_BYTES}")
        if block[0] * block[1] * block[2] > kernel[".max_flat_workgroup_size"]:
            raise RuntimeError(f"{symbol}: workgroup of {block}, compiled for {kernel['.max_flat_workgroup_size']}")
        code.last_register_used = symbol in code.full
        own = [a for a in kernel[".args"] if not a[".value_kind"].startswith("hidden_")]
        values = [(ctypes.c_uint8 * argument[".size"]).from_address(arguments[i]) for i, argument in enumerate(own)]
        statistics = code.run(symbol, grid, block, values, dyn_lds=dynamic_lds, order="rev")
        if "ROCFORGE_MACHINE_CODE_LOG" in os.environ:
            print(symbol, grid, block, *(f"{key} {statistics[key]}" for key in ("insts", "seconds")), file=sys.stderr)

    def load(self, bundle: int):
        """The architecture's code object of a bundle in memory."""
        head = len(MAGIC) + 8
        (entries,) = struct.unpack("<Q", ctypes.string_at(bundle + len(MAGIC), 8))
        at, end = bundle + head, head
        for _ in range(entries):
            start, size, name_size = struct.unpack("<QQQ", ctypes.string_at(at, 24))
            at += 24 + name_size
            end = max(end, start + size)
        file = Path(self.folder.name) / f"{bundle:x}.co"
        file.write_bytes(unbundle(ctypes.string_at(bundle, end), file)[self.arch])
        code = self.open(str(file))
        # amdemu refuses a kernel that uses all vector registers; more_instructions refuses what needs the last of them.
        code.full = {name for name, k in code.kernels.items() if k[".vgpr_count"] - k.get(".agpr_count", 0) == 256}
        for name in code.full:
            code.kernels[name][".vgpr_count"] -= 1
        return code


@functools.cache
def install(arch: str) -> tuple[Machine, torch.library.Library]:
    """Lets the package's GPU operators take the place of the CPU's, for the life of this process."""
    gpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    registrations = torch.library.Library("rocforge", "IMPL")
    for full_name in torch._C._dispatch_get_registrations_for_dispatch_key("CUDA"):
        namespace, _, name = full_name.partition("::")
        if namespace == "rocforge":
            redispatch = functools.partial(getattr(torch.ops.rocforge, name).default.redispatch, gpu)
            registrations.impl(name, redispatch, "CPU", allow_override=True)
    return Machine(arch), registrations
