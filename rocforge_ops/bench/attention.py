"""mqa_attention beside PyTorch's scaled_dot_product_attention, every backend that takes the case, in one run.

A line is a case: microseconds, GFLOP/s over the pairs of query and key that are visible (a fused multiply-add counts
two; backward counts forward and 2.5 times as much), GB/s of K and V read once (decode), MiB allocated beyond the
inputs, and for each backend the times it takes longer and the MiB it allocates. A backend that refuses grouped heads
gets key and value expanded to the query heads, without a copy. Empty: it refuses the case.

On a GPU a time is the median of 20 runs of a graph of calls on different data, 1 GiB in all; on a CPU the best of runs
over --seconds. On a GPU the last table holds what the same attention costs by way of the host: copied there, computed
by this package's CPU kernel on PyTorch's threads, copied back.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rocforge_ops.bench import environment, timing
from rocforge_ops.bench.arguments import positive_float, positive_int
from rocforge_ops.ops.mqa_attention import mqa_attention

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MIB = 2**20
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One attention: `options` are mqa_attention's; what PyTorch's function cannot express is compared with nothing."""

    batch: int
    heads: int
    kv_heads: int
    rows: int
    keys: int
    head_dim: int
    options: dict[str, Any] = field(default_factory=dict)
    mask: bool = False  # a bool mask [batch, 1, rows, keys] that hides a tenth, beside the options

    @property
    def name(self) -> str:
        parts = [f"B{self.batch} Hq{self.heads} Hkv{self.kv_heads} D{self.head_dim} {self.rows} x {self.keys}"]
        parts += ["causal" if name == "causal" else f"{name} {value:g}" for name, value in self.options.items()]
        return " ".join(parts + ["bool mask"] * self.mask)

    def inputs(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        query = torch.randn(self.batch, self.heads, self.rows, self.head_dim, device=device, dtype=dtype)
        key, value = torch.randn(2, self.batch, self.kv_heads, self.keys, self.head_dim, device=device, dtype=dtype)
        return query, key, value

    def bytes(self, dtype: torch.dtype) -> int:
        """Of K and V."""
        return 2 * self.batch * self.kv_heads * self.keys * self.head_dim * dtype.itemsize

    def bytes_moved(self, dtype: torch.dtype) -> int:
        """Of all inputs and the output."""
        return self.bytes(dtype) + 2 * self.batch * self.heads * self.rows * self.head_dim * dtype.itemsize

    def flops(self) -> float:
        keys = torch.arange(self.keys, dtype=torch.float64)
        last = torch.arange(self.rows, dtype=torch.float64) + (self.keys - self.rows)
        end = (last + 1).clamp(max=self.keys) if "causal" in self.options else last.new_full(last.shape, self.keys)
        begin = (last + 1 - self.options["window"]).clamp(min=0) if "window" in self.options else 0
        pairs = (end - begin).sum().item() if keys.numel() else 0.0
        return 4.0 * self.batch * self.heads * self.head_dim * pairs


CAUSAL = {"causal": "bottom_right"}
WINDOWED = CAUSAL | {"window": 128, "softcap": 30.0}
CPU_PREFILL = [
    Case(1, 4, 1, 512, 512, 256),
    Case(1, 4, 1, 512, 512, 256, CAUSAL),
    Case(1, 4, 1, 512, 512, 256, WINDOWED),
    Case(1, 8, 2, 1024, 1024, 64, CAUSAL),
    Case(1, 8, 2, 1024, 1024, 64, mask=True),
    Case(1, 8, 8, 1024, 1024, 64, CAUSAL),
]
CPU_DECODE = [
    Case(1, 8, 1, 1, 4096, 128),
    Case(1, 4, 1, 1, 4096, 256),
    Case(1, 32, 8, 1, 4096, 128),
    Case(1, 8, 8, 1, 4096, 64),
    Case(4, 8, 1, 1, 512, 128),
]
GPU_PREFILL = [
    Case(4, 32, 1, 4096, 4096, 128, CAUSAL),
    Case(4, 8, 1, 4096, 4096, 256, CAUSAL),
    Case(4, 32, 1, 4096, 4096, 64, CAUSAL),
    Case(4, 32, 8, 4096, 4096, 128, CAUSAL),
    Case(4, 32, 1, 4096, 4096, 128),
    Case(4, 32, 1, 4096, 4096, 128, mask=True),
    Case(4, 32, 1, 4096, 4096, 128, CAUSAL | {"window": 1024, "softcap": 30.0}),
]
GPU_BACKWARD = GPU_PREFILL[:4]
GPU_DECODE = [
    Case(1, 32, 1, 1, 4096, 128),
    Case(1, 32, 1, 1, 32768, 128),
    Case(1, 32, 1, 1, 131072, 128),
    Case(8, 32, 1, 1, 8192, 128),
    Case(64, 32, 1, 1, 8192, 128),
    Case(64, 32, 8, 1, 8192, 128),
]
GPU_BY_HOST = [
    Case(1, 32, 1, 1024, 1024, 128, CAUSAL),
    Case(1, 32, 1, 1, 4096, 128),
    Case(1, 32, 1, 1, 32768, 128),
]
KINDS = ("prefill", "decode", "host")


def fused(case: Case, mask: Tensor | None) -> Attention:
    return functools.partial(mqa_attention, attn_mask=mask, **case.options)  # type: ignore[return-value]


def pytorchs(case: Case, mask: Tensor | None, backend: SDPBackend, expand: bool) -> Attention | None:
    """F.scaled_dot_product_attention held to one backend; None where it has no such attention."""
    square = case.rows == case.keys  # elsewhere its causal rule is another
    if set(case.options) - {"causal"} or ("causal" in case.options and not square):
        return None

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if expand:
            key, value = (t.unsqueeze(2).expand(-1, -1, case.heads // case.kv_heads, -1, -1) for t in (key, value))
            key, value = key.flatten(1, 2), value.flatten(1, 2)
        with sdpa_kernel(backend):
            grouped = not expand and case.heads != case.kv_heads
            return F.scaled_dot_product_attention(
                query, key, value, mask, is_causal="causal" in case.options, enable_gqa=grouped
            )

    return attention


def with_gradient(attention: Attention) -> Attention:
    """Forward and backward."""

    def step(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        leaves = [t.detach().requires_grad_() for t in (query, key, value)]
        return torch.autograd.grad(attention(*leaves), leaves, query)[0]

    return step


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """The most that is allocated during a call beyond what was there before."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    total = peak = 0
    results = profile.profiler.kineto_results
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak


@dataclass(frozen=True)
class Result:
    seconds: float
    bytes: int


def measure(attention: Attention, case: Case, args: argparse.Namespace, dtype: torch.dtype) -> Result:
    count = 1 if torch.device(args.device).type == "cpu" else timing.rotation(case.bytes_moved(dtype))
    if args.backward:
        attention = with_gradient(attention)
    calls = [functools.partial(attention, *case.inputs(args.device, dtype)) for _ in range(count)]
    calls[0]()
    peak = peak_bytes(calls[0], args.device)
    return Result(timing.seconds(calls, args.device, args.seconds), peak)


def measure_backend(
    case: Case, mask: Tensor | None, backend: SDPBackend, args: argparse.Namespace, dtype: torch.dtype
) -> Result | None:
    for expand in (False, True) if case.heads != case.kv_heads else (False,):
        attention = pytorchs(case, mask, backend, expand)
        if attention is None:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # why a backend refuses
                return measure(attention, case, args, dtype)
        except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
            if "out of memory" in str(error):
                return None
    return None


def host_seconds(case: Case, dtype: torch.dtype, device: str) -> tuple[float, float]:
    """(copy to the host and back, all of it) of the attention computed there by this package's own kernel."""
    tensors = case.inputs(device, dtype)
    attention = fused(case, None)
    times = []
    for _ in range(3):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        on_host = [t.cpu() for t in tensors]
        copied = time.perf_counter()
        out = attention(*on_host)
        computed = time.perf_counter()
        out.to(device)
        torch.cuda.synchronize(device)
        end = time.perf_counter()
        times.append((end - start, (copied - start) + (end - computed)))
    whole, copies = min(times)
    return copies, whole


def lines(cases: list[Case], decode: bool, args: argparse.Namespace) -> Iterator[str]:
    rate = "GB/s" if decode and not args.backward else "GFLOP/s"
    yield f"{'':68}{'us':>10}{rate:>9}{'MiB':>8}" + "".join(f"{'x ' + b:>12}{'MiB':>8}" for b in args.backends)
    for dtype in (DTYPES[name] for name in args.dtypes):
        for case in cases:
            mask = None
            if case.mask:
                mask = torch.rand(case.batch, 1, case.rows, case.keys, device=args.device) < 0.9
            ours = measure(fused(case, mask), case, args, dtype)
            flops = case.flops() * (3.5 if args.backward else 1)
            work = case.bytes(dtype) if rate == "GB/s" else flops
            line = f"{str(dtype)[6:]} {case.name}".ljust(68)
            line += f"{ours.seconds * 1e6:10.1f}{work / ours.seconds / 1e9:9.0f}{ours.bytes / MIB:8.1f}"
            for name in args.backends:
                peer = measure_backend(case, mask, BACKENDS[name], args, dtype)
                line += f"{peer.seconds / ours.seconds:12.2f}{peer.bytes / MIB:8.1f}" if peer else " " * 20
            yield line.rstrip()


def host_lines(args: argparse.Namespace) -> Iterator[str]:
    yield f"{'':68}{'us':>10}{'copies us':>12}{'by host us':>12}{'x ours':>9}"
    for dtype in (DTYPES[name] for name in args.dtypes):
        for case in GPU_BY_HOST:
            ours = measure(fused(case, None), case, args, dtype).seconds
            copies, whole = host_seconds(case, dtype, args.device)
            line = f"{str(dtype)[6:]} {case.name}".ljust(68)
            yield line + f"{ours * 1e6:10.1f}{copies * 1e6:12.0f}{whole * 1e6:12.0f}{whole / ours:9.0f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="D")
    parser.add_argument(
        "--dtypes", "--dtype", nargs="+", choices=DTYPES, metavar="T", help="(GPU: bfloat16, CPU: float32)"
    )
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=list(BACKENDS), metavar="B", help="(all)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, metavar="K", help="prefill, decode, host (all; CPU: no host)"
    )
    parser.add_argument("--backward", action="store_true", help="forward and backward, of prefill")
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="on a CPU")
    parser.add_argument("--seconds", type=positive_float, default=0.5, metavar="S", help="on a CPU, for each time")


def run(args: argparse.Namespace) -> int:
    on_cpu = torch.device(args.device).type == "cpu"
    if on_cpu:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory says when it starts and stops
        if "host" in (args.kinds or ()):
            raise ValueError("--kinds host is for a GPU: this is the host")
        torch.set_num_threads(args.threads)
        args.backends = [name for name in args.backends if name in ("flash", "math")]  # all that a CPU has
    else:
        environment.require_gpu(args.device)
    args.dtypes = args.dtypes or ["float32" if on_cpu else "bfloat16"]
    for name, text in (environment.describe(args.device) | {"command": " ".join(sys.argv)}).items():
        print(f"{name}: {text}")
    for kind in args.kinds or KINDS[: 2 if on_cpu else 3]:
        decode = kind == "decode"
        if kind != "prefill" and args.backward:
            continue
        if kind == "host":
            print("\nby way of the host")
            for line in host_lines(args):
                print(line, flush=True)
            continue
        on_gpu = GPU_DECODE if decode else GPU_BACKWARD if args.backward else GPU_PREFILL
        cases = (CPU_DECODE if decode else CPU_PREFILL) if on_cpu else on_gpu
        print(f"\n{kind}{', forward and backward' if args.backward else ''}")
        for line in lines(cases, decode, args):
            print(line, flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args())
