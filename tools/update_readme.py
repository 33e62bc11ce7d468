"""Writes the README's table of formats from the registry; with --check, only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

import rocforge_ops as rf

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- formats: written by tools/update_readme.py -->\n", "<!-- end of formats -->\n"


def table() -> str:
    lines = ["| format | GGUF type | weights a block | bytes a block | bits a weight |", "|---|---|---|---|---|"]
    for f in rf.formats:
        kind = "none" if f.id is None else str(f.id)
        lines.append(f"| {f.name} | {kind} | {f.block_size} | {f.block_bytes} | {f.bits_per_weight:.4g} |")
    return "\n".join(lines) + "\n"


def updated(text: str) -> str:
    """`text` with the table between its two marks replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


def main() -> int:
    text = README.read_text()
    if "--check" in sys.argv:
        if text != updated(text):
            print("the README's table of formats is out of date: run `make readme`", file=sys.stderr)
            return 1
        return 0
    README.write_text(updated(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
