"""`rocforge verify`: does this machine's GPU compute what the CPU computes?"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from types import ModuleType
from typing import Any

from rocforge_ops import selftest
from rocforge_ops.gguf import GGUFFile
from rocforge_ops.selftest.case import Reference, Result, bit_difference, on_cpu


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="check a GPU against the CPU, on a file's tensors or on a self-test",
        description="With a GGUF file: decodes every tensor on the GPU and on the CPU and compares them bit for bit. "
        "Without: runs every GPU kernel against the CPU and measures it, in less than two minutes; the output is what "
        "a bug report needs. The exit status is 1 when anything differs.",
    )
    parser.add_argument("file", nargs="?", help="a GGUF file; of a split model, any of its parts")
    parser.add_argument("--device", default="cuda", metavar="D", help='"cuda" (default, also for ROCm), "cuda:1"...')
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from rocforge_ops.bench import environment

    if torch.device(arguments.device).type != "cuda":
        raise ValueError(f"verify compares a GPU with the CPU: --device {arguments.device} leaves nothing to compare")
    environment.require_gpu(arguments.device)
    for key, value in environment.describe(arguments.device).items():
        print(f"{key}: {value}")
    if arguments.file:
        with GGUFFile(arguments.file) as file:
            return verify_file(file, arguments.device)
    return verify_kernels(arguments.device)


def verify_file(file: GGUFFile, device: str, reference: Reference = on_cpu) -> int:
    """Prints a line for each format and each tensor that differs; returns the exit status."""
    import torch

    tensors, nbytes, wrong = Counter[str](), Counter[str](), defaultdict[str, list[str]](list)
    for name, tensor in file.items():
        tensors[tensor.format] += 1
        nbytes[tensor.format] += tensor.nbytes
        packed = tensor.packed()
        there = packed.to(device)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            got = torch.ops.rocforge.dequantize(there, tensor.format, dtype).cpu()
            if difference := bit_difference(got, reference("dequantize", packed, tensor.format, dtype)):
                wrong[tensor.format].append(f"{name} {str(dtype).removeprefix('torch.')}: {difference}")
    print(f"\n{'format':<12}{'tensors':>8}{'bytes':>16}  to float32, float16 and bfloat16")
    for format, count in tensors.items():
        verdict = f"{len(wrong[format])} differ" if wrong[format] else "the same bits"
        print(f"{format:<12}{count:>8}{nbytes[format]:>16,}  {verdict}")
        for line in wrong[format]:
            print(f"  {line}")
    return 1 if any(wrong.values()) else 0


def verify_kernels(device: str, reference: Reference = on_cpu, timed: bool = True) -> int:
    """Prints a table for each operator; returns the exit status."""
    from rocforge_ops.bench import timing

    start = time.perf_counter()
    if timed:
        print(f"copy: {timing.copy_rate(device, 256 << 20) / 1e9:.0f} GB/s")
    results = [result for module in selftest.OPERATORS for result in _table(module, device, reference, timed)]
    wrong = sum(bool(result.wrong) for result in results)
    print(f"\n{len(results) - wrong} of {len(results)} are right, {time.perf_counter() - start:.0f} s")
    return 1 if wrong else 0


def _table(module: ModuleType, device: str, reference: Reference, timed: bool) -> list[Result]:
    """Prints a line for each row as soon as it is complete."""
    columns = list(dict.fromkeys(case.column for case in module.cases()))
    print(f"\n{module.TITLE}\n{'':<28}" + "".join(f"{column:>14}" for column in columns))
    results: list[Result] = []
    line: dict[str, Result] = {}
    for result in selftest.run(module, device, reference, timed):
        if line and result.row not in {r.row for r in line.values()}:
            _print_line(line, columns)
            line = {}
        line[result.column] = result
        results.append(result)
    _print_line(line, columns)
    return results


def _print_line(line: dict[str, Result], columns: list[str]) -> None:
    cells = "".join(f"{_cell(line[column]) if column in line else '':>14}" for column in columns)
    print(f"{next(iter(line.values())).row:<28}{cells}", flush=True)
    for result in line.values():
        if result.wrong:
            print(f"  {result.column}: {result.wrong}")


def _cell(result: Result) -> str:
    if result.wrong:
        return "WRONG"
    return "right" if result.rate is None else f"{result.rate:.{0 if result.rate >= 10 else 2}f} {result.unit}"
