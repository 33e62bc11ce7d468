"""Writes the README's tables; with --check, only says whether they are up to date.

Formats come from the registry, architectures from docs/models.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import rocforge_ops as rf

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def formats() -> str:
    lines = ["| format | GGUF type | weights a block | bytes a block | bits a weight |", "|---|---|---|---|---|"]
    for f in rf.formats:
        kind = "none" if f.id is None else str(f.id)
        lines.append(f"| {f.name} | {kind} | {f.block_size} | {f.block_bytes} | {f.bits_per_weight:.4g} |")
    return "\n".join(lines) + "\n"


def architectures() -> str:
    """The table of docs/models.md without its last column."""
    text = (ROOT / "docs" / "models.md").read_text()
    table = text[text.index("| GGUF architecture |") :].split("\n\n")[0]
    return "".join("|".join(line.split("|")[:-2]) + "|\n" for line in table.splitlines())


TABLES: dict[str, Callable[[], str]] = {"formats": formats, "architectures": architectures}


def updated(text: str) -> str:
    """`text` with each table between its two marks replaced."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by tools/update_readme.py -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = before + begin + table() + end + after
    return text


def main() -> int:
    text = README.read_text()
    if "--check" in sys.argv:
        if text != updated(text):
            print("the README's tables are out of date: run `make readme`", file=sys.stderr)
            return 1
        return 0
    README.write_text(updated(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
