"""Holds the package against what it promises its users: operators, Python names and signatures, command line, C++.

    python tools/check_contract.py               what exists must be as promised; what is missing is listed
    python tools/check_contract.py --complete    nothing may be missing

Names and meanings in these tables are fixed: adding is welcome (parameters with defaults, behind the others), changing
breaks somebody's program. Prints a line for each thing that differs or is missing; the exit status is 1 if any counts.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import rocforge_ops as rf

ROOT = Path(__file__).parent.parent

SCHEMAS = {
    "dequantize": "(Tensor packed, str format, ScalarType? dtype=None) -> Tensor",
    "embedding": "(Tensor packed, str format, Tensor indices, ScalarType? dtype=None) -> Tensor",
    "linear": "(Tensor input, Tensor packed, str format, Tensor? bias=None) -> Tensor",
    "grouped_linear": "(Tensor input, Tensor packed, str format, Tensor offsets) -> Tensor",
    "repeat_kv": "(Tensor x, int n_rep) -> Tensor",
    "rotary_embedding": "(Tensor x, Tensor cos, Tensor sin, bool interleaved=False) -> Tensor",
    "mqa_attention": (
        "(Tensor query, Tensor key, Tensor value, *, Tensor? attn_mask=None, str causal='none', float? scale=None, "
        "int? window=None, float softcap=0., Tensor? sinks=None, Tensor? alibi_slopes=None, Tensor? kv_lengths=None, "
        "Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None) -> (Tensor out, Tensor lse)"
    ),
}

# A signature is a function that has it. `self` is left out.
SIGNATURES: dict[str, Callable[..., Any]] = {
    "GGUFFile": lambda path: ...,
    "GGUFTensor.packed": lambda: ...,
    "GGUFTensor.dequantize": lambda dtype=torch.float32, device="cpu": ...,
    "load_state_dict": lambda path, dtype=torch.float16, device="cpu": ...,
    "load_model": lambda path, dtype=torch.bfloat16, device="cpu", packed=False, attn_implementation="rocforge": ...,
    "load_into": lambda module, path: ...,
    "load_tokenizer": lambda path: ...,
    "dequantize": lambda packed, format, dtype=None: ...,
    "embedding": lambda packed, format, indices, dtype=None: ...,
    "linear": lambda input, packed, format, bias=None: ...,
    "repeat_kv": lambda x, n_rep: ...,
    "rotary_embedding": lambda x, cos, sin, interleaved=False: ...,
    "mqa_attention": (
        lambda query, key, value, *, attn_mask=None, causal="none", scale=None, window=None, softcap=0.0, sinks=None,
        alibi_slopes=None, kv_lengths=None, cu_seqlens_q=None, cu_seqlens_k=None, return_lse=False: ...
    ),
    "scaled_dot_product_attention": (
        lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: ...
    ),
    "register_attention": lambda name="rocforge": ...,
    "nn.MultiQueryAttention": lambda config: ...,
    "nn.MultiQueryAttention.forward": lambda hidden, position_ids=None, attn_mask=None, cache=None: ...,
    "MultiQueryConfig.validate": lambda: ...,
    "integrations.torch_sdpa.enable": lambda: ...,
    "integrations.torch_sdpa.disable": lambda: ...,
    "integrations.transformers.enable": lambda: ...,
    "integrations.transformers.disable": lambda: ...,
    "integrations.diffusers.enable": lambda: ...,
    "integrations.diffusers.disable": lambda: ...,
}  # fmt: skip

NAMES = """
    GGUFFile.version GGUFFile.alignment GGUFFile.architecture GGUFFile.metadata
    GGUFTensor.name GGUFTensor.format GGUFTensor.shape GGUFTensor.nbytes
    GGUFError formats nn.QuantizedLinear nn.QuantizedEmbedding nn.GatedMLP MultiQueryConfig KVCache ggml_kernel
"""

FORMATS = """
    F32 F16 BF16 F64 I8 I16 I32 I64 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
    IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0
    MXFP4 NVFP4 Q1_0 Q2_0 MXFP6_E2M3 MXFP6_E3M2
"""

COMMANDS = {
    "info": ["--json"],
    "generate": ["--prompt", "--max-new-tokens", "--device", "--dtype", "--packed"],
    "verify": ["--device"],
    "bench": ["dequantize", "linear", "attention", "model"],
}

# Files of the source tree and what stands in them.
CPP = {
    "csrc/gguf/file.h": ["static File open("],
    "csrc/rocforge/ops.h": ["dequantize(", "mqa_attention("],
    "CMakeLists.txt": ["rocforge::ops"],
}

# What each check yields: whether the thing is missing (else it differs), and a line about it.
Problem = tuple[bool, str]


def operators() -> Iterator[Problem]:
    for name, promised in SCHEMAS.items():
        operator = getattr(torch.ops.rocforge, name, None)
        if operator is None:
            yield True, f"torch.ops.rocforge.{name}"
            continue
        found = str(operator.default._schema).partition(name)[2]
        if _plain(found) != _plain(promised):
            yield False, f"torch.ops.rocforge.{name}{found}, promised is {promised}"


def _plain(schema: str) -> str:
    return schema.replace(" ", "").replace('"', "'").replace("0.0", "0.")


def python_names() -> Iterator[Problem]:
    for name in (*NAMES.split(), *SIGNATURES):
        thing = _find(name)
        if thing is None:
            yield True, f"rocforge_ops.{name}"
        elif name in SIGNATURES and (difference := _difference(thing, SIGNATURES[name])):
            yield False, f"rocforge_ops.{name}: {difference}"
    if not issubclass(rf.GGUFError, ValueError):
        yield False, "rocforge_ops.GGUFError is no ValueError"


def _find(name: str) -> Any:
    thing: Any = rf
    for part in name.split("."):
        thing = getattr(thing, part, None)
    return thing


def _difference(function: Any, promised: Callable[..., Any]) -> str:
    """How a signature breaks calls that the promised one allows; empty if it does not."""
    found = {name: p for name, p in inspect.signature(function).parameters.items() if name != "self"}
    wanted = inspect.signature(promised).parameters
    if list(found)[: len(wanted)] != list(wanted):
        return f"has parameters ({', '.join(found)}), promised are ({', '.join(wanted)})"
    for name, parameter in wanted.items():
        if (found[name].default, found[name].kind) != (parameter.default, parameter.kind):
            kinds = found[name].kind.description, parameter.kind.description
            return f"has {found[name]} ({kinds[0]}), promised is {parameter} ({kinds[1]})"
    more = [p for p in list(found.values())[len(wanted) :] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p.name for p in more if p.default is p.empty]
    return f"needs {', '.join(required)} too" if required else ""


def formats() -> Iterator[Problem]:
    found = {format.name for format in rf.formats}
    yield from ((True, f"format {name}") for name in FORMATS.split() if name not in found)
    attributes = ("name", "id", "block_size", "block_bytes", "bits_per_weight")
    yield from ((True, f"format attribute {name}") for name in attributes if not hasattr(rf.formats["Q4_K"], name))


def command_line() -> Iterator[Problem]:
    for command, words in COMMANDS.items():
        run = subprocess.run(
            [sys.executable, "-m", "rocforge_ops", command, "--help"], capture_output=True, text=True, cwd=ROOT
        )
        if run.returncode:
            yield True, f"rocforge {command}"
            continue
        listed = {word.strip("[],") for word in run.stdout.split()}
        yield from ((True, f"rocforge {command} {word}") for word in words if word not in listed)


def cpp() -> Iterator[Problem]:
    for file, words in CPP.items():
        text = (ROOT / file).read_text() if (ROOT / file).exists() else ""
        yield from ((True, f"{word!r} in {file}") for word in words if word not in text)


CHECKS = (operators, python_names, formats, command_line, cpp)


def main(arguments: list[str]) -> int:
    problems = [problem for check in CHECKS for problem in check()]
    for is_missing, line in problems:
        print("missing:" if is_missing else "differs:", line)
    missing = sum(is_missing for is_missing, _ in problems)
    differing = len(problems) - missing
    print(f"{missing} missing, {differing} different")
    return 1 if differing or ("--complete" in arguments and missing) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
