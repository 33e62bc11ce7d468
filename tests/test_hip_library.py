"""The library for AMD GPUs on a machine without one: it loads, and its operators say what is missing.

A PyTorch without GPU support makes no GPU tensor. The operators are called with the GPU's dispatch key on a CPU tensor:
up to the launch they do what they would do on a GPU, and the launch is the HIP runtime's own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "build/hip/librocforge_ops.so"
pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built (make hip)"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU"),
]

CALL = """
import sys, torch
torch.ops.load_library(sys.argv[1])
packed, x, angles = torch.zeros(4, 34, dtype=torch.uint8), torch.zeros(1, 2, 3, 64), torch.zeros(3, 32)
arguments = {
    "dequantize": (packed, "Q8_0"),
    "embedding": (packed, "Q8_0", torch.tensor([3])),
    "grouped_linear": (torch.zeros(2, 32), packed[None], "Q8_0", torch.tensor([0, 2], dtype=torch.int32)),
    "linear": (torch.zeros(2, 32), packed, "Q8_0"),
    "mqa_attention": (x, x, x),
    "mqa_attention_backward": (
        *(x, None, x, x, x, x, x[..., 0], None, "none", None, None, 0.0, None, None, None, None, None, False),
    ),
    "mqa_attention_q8_0": (torch.zeros(1, 2, 3, 32), packed[None, None], packed[None, None]),
    "qkv_rope_cache": ([torch.zeros(1, 3, 8 * 64)], x, x.clone(), torch.arange(3)[None], None, None),
    "rotary_embedding": (x, angles, angles),
}[sys.argv[2]]
operator = getattr(torch.ops.rocforge, sys.argv[2]).default
result = operator(*arguments)
print((result if isinstance(result, torch.Tensor) else result[0]).sum().item())
gpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
try:
    operator.redispatch(gpu, *arguments)
except RuntimeError as error:
    print(error)
"""


OPERATORS = sorted(path.stem for path in (ROOT / "csrc/hip").glob("*.cpp") if "TORCH_LIBRARY_IMPL" in path.read_text())


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_says_that_there_is_no_gpu(operator):
    run = subprocess.run([sys.executable, "-c", CALL, LIBRARY, operator], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    on_cpu, error = run.stdout.splitlines()
    assert on_cpu == "0.0"
    assert re.match(r"no GPU on this machine: .+: hipError\w+$", error)


def test_operators_are_registered_for_gpus():
    script = "import sys, torch; torch.ops.load_library(sys.argv[1])\n"
    script += "print(*(n for n in sys.argv[2:] if 'CUDA' in torch._C._dispatch_dump('rocforge::' + n)))"
    run = subprocess.run([sys.executable, "-c", script, LIBRARY, *OPERATORS], capture_output=True, text=True)
    assert run.stdout.split() == OPERATORS and OPERATORS, run.stderr
