from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import rocforge_ops as rf

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("ROCFORGE_SHARED", ROOT.parent / "shared"))


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


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return request.param


@pytest.fixture(params=[f.name for f in rf.formats])
def format(request: pytest.FixtureRequest) -> str:
    """Every format of the registry, one after another."""
    return request.param
