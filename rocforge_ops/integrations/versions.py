"""Which versions of the packages that host our kernels were tried, and the one place where that is checked."""

from __future__ import annotations

import re
from importlib import metadata

# package -> (oldest that works, first that was not tried); the hosts' interfaces are private or young.
TESTED = {
    "torch": ("2.11", "2.14"),
    "transformers": ("5.20", "5.25"),
    "diffusers": ("0.40", "0.43"),
}


def require(package: str) -> None:
    """Raise unless a version of `package` is installed that this package was tested with.

    Raises:
        ModuleNotFoundError: it is not installed. RuntimeError: it is too old or too new.
    """
    oldest, beyond = TESTED[package]
    tested = f"rocforge_ops.integrations needs {package} >= {oldest}, < {beyond}"
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(f"{tested}, and it is not installed", name=package) from None
    if _numbers(installed) < _numbers(oldest):
        raise RuntimeError(f"{tested}: {installed} is too old")
    if _numbers(installed) >= _numbers(beyond):
        raise RuntimeError(f"{tested}: {installed} is newer than what was tested")


def _numbers(version: str) -> tuple[int, int]:
    """(major, minor), which is what the ranges are made of; a release candidate counts as its release."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise RuntimeError(f"not a version: {version!r}")
    return int(found[1]), int(found[2])
