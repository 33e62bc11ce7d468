"""Dequantize on the CPU beside libgguf's native decoder and the `gguf` package's numpy decoder.

    taskset -c 0 python benchmarks/bench_dequantize.py [--formats Q4_0 Q6_K ...] [--dtype float32] [--threads 1]

A line is a format: million weights a second on the same random rows of 4096 weights, the best over --seconds of runs
(other work on the machine only ever slows one down), GB/s counted as packed bytes read plus values written, and the
ratio to the faster of the two others. They decode to float32 on one thread, whatever --dtype and --threads say; a
column is empty where they do not know the format. The last line is a float32 copy.
At the default size the peers write one 16 MiB buffer over and over, PyTorch's allocator hands out two in turn.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np
import torch

import rocforge_ops as rf

Action = Callable[[], object]
PEERS = ("libgguf", "gguf")
ROW = 4096  # weights


def numpy_decoder(format: rf.formats.Format, packed: torch.Tensor) -> Action | None:
    import gguf

    kind = gguf.GGMLQuantizationType.__members__.get(format.name)
    rows = packed.numpy()
    return kind and known(lambda: gguf.quants.dequantize(rows, kind))


def native_decoder(format: rf.formats.Format, packed: torch.Tensor) -> Action | None:
    import libgguf

    source, out = packed.numpy(), np.empty((len(packed), ROW), np.float32)
    return known(lambda: libgguf.dequantize_rows_into_raw(format.id, source, out, len(packed), ROW))


def known(decoder: Action) -> Action | None:
    """The decoder, unless it refuses the format."""
    try:
        decoder()
    except (NotImplementedError, TypeError, ValueError, KeyError):
        return None
    return decoder


def seconds(action: Action, budget: float) -> float:
    """The best time of consecutive runs over `budget` seconds: the output stays in the cache where it fits."""
    best, end = float("inf"), time.perf_counter() + budget
    while (start := time.perf_counter()) < end:
        action()
        best = min(best, time.perf_counter() - start)
    return best


def print_row(name: str, weights: int, nbytes: int, times: dict[str, float]) -> None:
    rates = [f"{weights / times[key] / 1e6:10.0f}" if key in times else " " * 10 for key in ("ours", *PEERS)]
    peers = [times[key] for key in PEERS if key in times]
    ratio = f"{min(peers) / times['ours']:7.2f}" if peers else ""
    print(f"{name:12s}{rates[0]}{nbytes / times['ours'] / 1e9:8.1f}{rates[1]}{rates[2]}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=[f.name for f in rf.formats], metavar="NAME")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each decoder and format")
    args = parser.parse_args()

    weights = args.rows * ROW
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    print(f"{weights} weights to {args.dtype}, {args.threads} thread(s), best over {args.seconds} s, M weights/s")
    print(f"{'':12s}{'ours':>10s}{'GB/s':>8s}{'libgguf':>10s}{'gguf':>10s}{'ratio':>7s}")
    for name in args.formats:
        format = rf.formats[name]
        packed = torch.randint(0, 256, (args.rows, format.row_bytes(ROW)), dtype=torch.uint8)
        decoders = {
            "ours": functools.partial(torch.ops.rocforge.dequantize, packed, name, dtype),
            "libgguf": native_decoder(format, packed),
            "gguf": numpy_decoder(format, packed),
        }
        times = {key: seconds(decoder, args.seconds) for key, decoder in decoders.items() if decoder}
        print_row(name, weights, packed.nbytes + weights * dtype.itemsize, times)
    source, out = torch.randn(weights), torch.empty(weights)
    copy = seconds(lambda: out.copy_(source), args.seconds)
    print_row("copy", weights, 8 * weights, {"ours": copy})


if __name__ == "__main__":
    with np.errstate(all="ignore"):  # random scales overflow
        main()
