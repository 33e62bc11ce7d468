"""`rocforge info`: what a GGUF file holds."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

LONGEST_LIST = 8
LONGEST_TEXT = 100


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="show a file's header, metadata, tensors and memory needs",
        description="Shows what a GGUF file holds: header, metadata, tensors by format, and the memory they need.",
    )
    parser.add_argument("file", help="a GGUF file; of a split model, any of its parts")
    parser.add_argument("--json", action="store_true", help="everything, each tensor included, as JSON on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from rocforge_ops.gguf import GGUFFile

    with GGUFFile(arguments.file) as file:
        report = describe(file)
        if arguments.json:
            tensors = [{"name": t.name, "format": t.format, "shape": t.shape, "bytes": t.nbytes} for t in file.values()]
            json.dump(report | {"metadata": dict(file.metadata), "tensors": tensors}, sys.stdout, indent=1)
            print()
        else:
            print_report(report, file.metadata)
    return 0


def describe(file: Any) -> dict[str, Any]:
    """Header, formats and memory of a file, as plain values (sizes in bytes)."""
    tensors, weights, nbytes = Counter[str](), Counter[str](), Counter[str]()
    for tensor in file.values():
        tensors[tensor.format] += 1
        weights[tensor.format] += _count(tensor.shape)
        nbytes[tensor.format] += tensor.nbytes
    total = weights.total()
    return {
        "version": file.version,
        "alignment": file.alignment,
        "architecture": file.architecture,
        "formats": {
            name: {"tensors": tensors[name], "weights": weights[name], "bytes": nbytes[name]} for name in tensors
        },
        "weights": total,
        "memory": {"packed": nbytes.total(), "float16 or bfloat16": 2 * total, "float32": 4 * total},
    }


def print_report(report: dict[str, Any], metadata: Any) -> None:
    print(f"GGUF version {report['version']}, architecture {report['architecture']}, alignment {report['alignment']}")
    print(f"\n{len(metadata)} metadata keys")
    for key, value in metadata.items():
        print(f"  {key} = {shorten(value)}")
    print(f"\n{sum(row['tensors'] for row in report['formats'].values())} tensors, {report['weights']:,} weights")
    print(f"  {'format':<12}{'tensors':>8}{'weights':>16}{'bytes':>16}{'bits/weight':>13}")
    for name, row in sorted(report["formats"].items(), key=lambda item: -item[1]["bytes"]):
        bits = 8 * row["bytes"] / row["weights"]
        print(f"  {name:<12}{row['tensors']:>8}{row['weights']:>16,}{row['bytes']:>16,}{bits:>13.2f}")
    print("\nmemory for the weights")
    for kind, size in report["memory"].items():
        print(f"  {kind:<20}{size / 2**20:>10,.1f} MiB")


def shorten(value: Any) -> str:
    """One line for a metadata value: long lists and texts are cut, with their length."""
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return f"[{', '.join(shorten(item) for item in value[:LONGEST_LIST])}, ...] ({len(value):,} entries)"
    text = repr(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}... ({len(value):,} characters)"


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
