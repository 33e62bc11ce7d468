"""The library for AMD GPUs on a machine without one: it loads, and its operators say what is missing.

A PyTorch without GPU support makes no GPU tensor. The operators are called with the GPU's dispatch key on a CPU tensor:
up to the launch they do what they would do on a GPU, and the launch is the HIP runtime's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LIBRARY = Path(__file__).parent.parent / "build/hip/librocforge_ops.so"
pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built (make hip)"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU"),
]

CALL = """
import sys, torch
torch.ops.load_library(sys.argv[1])
packed = torch.zeros(4, 34, dtype=torch.uint8)
operator, rest = {
    "dequantize": (torch.ops.rocforge.dequantize.default, ()),
    "embedding": (torch.ops.rocforge.embedding.default, (torch.tensor([3]),)),
}[sys.argv[2]]
arguments = packed, "Q8_0", *rest
print(operator(*arguments).sum().item())
gpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
try:
    operator.redispatch(gpu, *arguments)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize("operator", ["dequantize", "embedding"])
def test_an_operator_says_that_there_is_no_gpu(operator):
    run = subprocess.run([sys.executable, "-c", CALL, LIBRARY, operator], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    on_cpu, error = run.stdout.splitlines()
    assert on_cpu == "0.0"
    assert error.startswith("no GPU on this machine: decode_rows: hipError")


def test_operators_are_registered_for_gpus():
    script = "import sys, torch; torch.ops.load_library(sys.argv[1])\n"
    script += "print(*(n for n in sys.argv[2:] if 'CUDA' in torch._C._dispatch_dump('rocforge::' + n)))"
    sources = (LIBRARY.parent.parent.parent / "csrc/hip").glob("*.cpp")
    operators = sorted(path.stem for path in sources if "TORCH_LIBRARY_IMPL" in path.read_text())
    command = [sys.executable, "-c", script, LIBRARY, *operators]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert run.stdout.split() == operators and operators, run.stderr
