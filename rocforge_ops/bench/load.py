"""Loading a GGUF model and generating from it, beside transformers' own loader, each in a process of its own.

"seconds" and "memory" are those of the load, beyond the imports (memory: the growth of the process's peak, mapped pages
of the file that were touched included). "first" is a first forward of three tokens, in which a packed model reads its
file. "tokens/s" is greedy decoding of one sequence after a short prompt, by its fastest step; "memory in use" is the
growth of the peak after it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rocforge_ops.bench import environment
from rocforge_ops.bench.arguments import positive_int

PROMPT = [2, 14, 15]  # any tokens
Load = Callable[[str], Any]


def _ours(dtype: torch.dtype, packed: bool) -> Load:
    def load(path: str) -> Any:
        from rocforge_ops import load_model

        return load_model(path, dtype=dtype, packed=packed)

    return load


def _transformers(path: str) -> Any:
    from transformers import AutoModelForCausalLM

    file = Path(path)
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16).eval()


CASES: dict[str, Load] = {
    "transformers, bfloat16": _transformers,
    "rocforge_ops, bfloat16": _ours(torch.bfloat16, False),
    "rocforge_ops, float32": _ours(torch.float32, False),
    "rocforge_ops, packed, bfloat16": _ours(torch.bfloat16, True),
    "rocforge_ops, packed, float32": _ours(torch.float32, True),
}


def measure(case: str, path: str, tokens: int, threads: int) -> dict[str, float]:
    """One case, in this process, which should be new."""
    torch.set_num_threads(threads)
    _import_model_class(path)
    before, start = peak_memory(), time.perf_counter()
    model = CASES[case](path)
    loaded = time.perf_counter()
    result = {"seconds": loaded - start, "memory": peak_memory() - before}
    prompt = torch.tensor([PROMPT])
    with torch.inference_mode():
        model(prompt)
        result["first"] = time.perf_counter() - loaded
        result["tokens/s"] = _rate(model, prompt, tokens)
    return result | {"memory in use": peak_memory() - before}


def _import_model_class(path: str) -> None:
    """What every loader imports is imported before the clock starts."""
    import gguf  # noqa: F401
    import transformers

    from rocforge_ops.gguf import GGUFFile
    from rocforge_ops.models.architectures import find
    from rocforge_ops.models.header import Header

    with GGUFFile(path) as file:
        getattr(transformers, find(Header(file)).model_class)
    getattr(transformers, "AutoModelForCausalLM")  # noqa: B009  (a lazy import)


def _rate(model: Any, prompt: torch.Tensor, tokens: int) -> float:
    """Tokens a second of greedy decoding, by the fastest step: other work on the machine only ever slows one down."""
    output = model(prompt, use_cache=True)
    best = float("inf")
    for _ in range(tokens):
        token = output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        output = model(token, past_key_values=output.past_key_values, use_cache=True)
        best = min(best, time.perf_counter() - start)
    return 1 / best


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes (Linux)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a GGUF file")
    parser.add_argument("--tokens", type=positive_int, default=64, metavar="N", help="tokens to generate (64)")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, help="all unless given")
    parser.add_argument("--case", choices=CASES, help="measure one case in this process and print JSON")


def run(arguments: argparse.Namespace) -> int:
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.file, arguments.tokens, arguments.threads)))
        return 0
    torch.set_num_threads(arguments.threads)
    size = Path(arguments.file).stat().st_size
    for key, value in environment.describe("cpu").items():
        print(f"{key}: {value}")
    print(f"file: {Path(arguments.file).name}, {size / 2**20:.0f} MiB\n")
    columns = ("seconds", "memory MiB", "of file", "first s", "tokens/s", "memory in use MiB")
    print(f"{'':<34}" + "".join(f"{column:>19}" for column in columns))
    for case in arguments.cases:
        result = _in_a_process(case, arguments)
        values = (
            f"{result['seconds']:.2f}",
            f"{result['memory'] / 2**20:.0f}",
            f"{result['memory'] / size:.0%}",
            f"{result['first']:.2f}",
            f"{result['tokens/s']:.1f}",
            f"{result['memory in use'] / 2**20:.0f}",
        )
        print(f"{case:<34}" + "".join(f"{value:>19}" for value in values), flush=True)
    return 0


def _in_a_process(case: str, arguments: argparse.Namespace) -> dict[str, float]:
    options = ["--case", case, "--tokens", str(arguments.tokens), "--threads", str(arguments.threads)]
    command = [sys.executable, "-m", "rocforge_ops.bench.load", arguments.file, *options]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{case} failed:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
