from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import rocforge_ops as rf

# A library of kernels compiled for the CPU (docs/gpu.md): its operators take the place of the CPU's in this process.
EMULATED = os.environ.get("ROCFORGE_EMULATED")
# Or AMD machine code for this architecture, executed on the CPU (tests/machine_code/run.py).
MACHINE_CODE = os.environ.get("ROCFORGE_MACHINE_CODE")
ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("ROCFORGE_SHARED", ROOT.parent / "shared"))

if EMULATED:
    torch.ops.load_library(EMULATED)
if MACHINE_CODE:
    import machine_code

    machine_code.install(MACHINE_CODE)
KERNELS = MACHINE_CODE or (EMULATED and Path(EMULATED).stem.removeprefix("librocforge_"))


def pytest_configure(config: pytest.Config) -> None:
    # xdist's workers share the cores: one thread each is faster than all of them fighting.
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of GGUF models with recorded outputs, read in place."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (ROCFORGE_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def golden_blocks() -> dict[str, np.ndarray]:
    """`<format>.bytes` and `<format>.values` as ggml's own scalar decoder gives them."""
    file = SHARED / "golden" / "ggml_blocks.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not there (ROCFORGE_SHARED names another place)")
    with np.load(file) as arrays:
        return dict(arrays)


def devices() -> list:
    if KERNELS:
        return [pytest.param("cpu", id=KERNELS)]
    return ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=devices())
def device(request: pytest.FixtureRequest) -> str:
    """Where the operators run: the CPU and a GPU, or the GPU kernels emulated on the CPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return request.param


@pytest.fixture
def reference_device() -> str:
    """The CPU with its own operators: for what only they promise."""
    if KERNELS:
        pytest.skip("the CPU's own operators are replaced in this run")
    return "cpu"


@pytest.fixture
def kernel_device(device: str) -> str:
    """A GPU, real or emulated: for what only its kernels promise."""
    if device == "cpu" and not KERNELS:
        pytest.skip("a promise of the GPU kernels")
    return device


@pytest.fixture(params=[f.name for f in rf.formats])
def format(request: pytest.FixtureRequest) -> str:
    """Every format of the registry, one after another."""
    return request.param
