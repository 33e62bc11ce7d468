"""Imports of the optional packages behind model loading: late, so that `import rocforge_ops` stays fast."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(name: str) -> ModuleType:
    """The module `name`; where its package is absent, an ImportError that says how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"loading models needs the package {package}: pip install rocforge_ops[hf]", name=package
        ) from None
