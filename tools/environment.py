"""Finds the Python environment that the Makefile works in; with --create, makes it.

An installed PyTorch is never replaced. If this Python is that of a virtual environment that has torch, it is used as
it is. Otherwise the environment is .venv: on top of this Python's packages if they include torch, else of its own.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

LOCAL = Path(".venv")


def main() -> None:
    has_torch = importlib.util.find_spec("torch") is not None
    in_environment = sys.prefix != sys.base_prefix
    if has_torch and in_environment:
        print(sys.prefix)
        return
    print(LOCAL)
    if "--create" not in sys.argv or (LOCAL / "bin" / "python").exists():
        return
    torch = sys.argv[sys.argv.index("--create") + 1]
    see_torch = ["--system-site-packages"] if has_torch else []
    subprocess.check_call([sys.executable, "-m", "venv", *see_torch, LOCAL])
    if not has_torch:
        subprocess.check_call([LOCAL / "bin" / "python", "-m", "pip", "install", "-q", torch, "numpy"])


if __name__ == "__main__":
    main()
