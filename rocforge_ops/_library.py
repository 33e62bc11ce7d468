"""Loads librocforge_ops, which registers the operators of `torch.ops.rocforge`."""

from __future__ import annotations

from pathlib import Path

import torch

PATH = Path(__file__).parent / "librocforge_ops.so"

if not PATH.exists():
    raise ImportError(f"{PATH} is missing: the package was not built. Run `pip install .` in its source folder.")
try:
    torch.ops.load_library(PATH)
except OSError as error:
    raise ImportError(
        f"{PATH} does not load into PyTorch {torch.__version__}: it was probably built for another one. "
        f"Run `pip install .` again in the source folder. ({error})"
    ) from error
