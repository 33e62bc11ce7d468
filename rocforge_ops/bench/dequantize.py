"""Dequantize and embedding beside what there is without this package.

On a GPU the peers are plain PyTorch decoders of a few formats (rocforge_ops/bench/torch_decoders.py), eager and through
torch.compile: what a PyTorch user runs today. On a CPU they are libgguf's native decoder and the `gguf` package's numpy
decoder, both to float32 on one thread, whatever --dtype and --threads say.

A line is a format and dtype: microseconds, million weights a second, GB/s counted as packed bytes read plus values
written, its share of the rate of a plain copy, and for each peer the times it takes longer (empty where it does not
know the format). On a GPU a time is the median of 20 runs of a graph of calls on different data, 1 GiB in all; on a
CPU the best over --seconds, where PyTorch's allocator hands out the same two outputs in turn.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from rocforge_ops.bench import environment, timing, torch_decoders
from rocforge_ops.bench.arguments import positive_float, positive_int
from rocforge_ops.bench.timing import Action
from rocforge_ops.formats import Format, formats

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROW = 4096  # weights
TABLE_ROWS, TABLE_ROW, LOOKUPS = 262_144, 640, 4096
Peer = Callable[[Format, torch.Tensor, torch.dtype], Action | None]


@dataclass(frozen=True)
class Measurement:
    name: str
    weights: int
    bytes: int  # read and written
    seconds: float
    peers: dict[str, float]  # seconds
    copy_rate: float  # bytes a second

    @property
    def share(self) -> float:
        """Of the copy rate."""
        return self.bytes / self.seconds / self.copy_rate


def _known(decoder: Action) -> Action | None:
    """The decoder, unless it refuses the format."""
    try:
        decoder()
    except (NotImplementedError, TypeError, ValueError, KeyError):
        return None
    return decoder


def _numpy_decoder(format: Format, packed: torch.Tensor, dtype: torch.dtype) -> Action | None:
    import gguf

    kind = gguf.GGMLQuantizationType.__members__.get(format.name)
    rows = packed.numpy()
    return None if kind is None else _known(lambda: gguf.quants.dequantize(rows, kind))


def _native_decoder(format: Format, packed: torch.Tensor, dtype: torch.dtype) -> Action | None:
    import libgguf
    import numpy as np

    source, out = packed.numpy(), np.empty((len(packed), ROW), np.float32)
    return _known(lambda: libgguf.dequantize_rows_into_raw(format.id, source, out, len(packed), ROW))


def _eager_decoder(format: Format, packed: torch.Tensor, dtype: torch.dtype) -> Action | None:
    known = format.name in torch_decoders.DECODERS
    return functools.partial(torch_decoders.dequantize, packed, format.name, dtype) if known else None


@functools.lru_cache(maxsize=1)
def _compiled(format: str, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    torch.compiler.reset()  # it compiles one function for so many formats and dtypes only
    return torch.compile(functools.partial(torch_decoders.dequantize, format=format, dtype=dtype), fullgraph=True)


def _compiled_decoder(format: Format, packed: torch.Tensor, dtype: torch.dtype) -> Action | None:
    known = format.name in torch_decoders.DECODERS
    return functools.partial(_compiled(format.name, dtype), packed) if known else None


PEERS: dict[str, Peer] = {
    "libgguf": _native_decoder,
    "gguf": _numpy_decoder,
    "eager": _eager_decoder,
    "compile": _compiled_decoder,
}


def random_rows(format: Format, rows: int, weights: int, device: str) -> torch.Tensor:
    """Any bytes are legal blocks."""
    return torch.randint(0, 256, (rows, format.row_bytes(weights)), dtype=torch.uint8, device=device)


def dequantize_calls(format: Format, dtype: torch.dtype, rows: int, device: str) -> tuple[list[torch.Tensor], int]:
    """(packed inputs to take in turn, bytes read and written by one call)."""
    nbytes = rows * (format.row_bytes(ROW) + ROW * dtype.itemsize)
    count = 1 if device == "cpu" else timing.rotation(nbytes)
    return [random_rows(format, rows, ROW, device) for _ in range(count)], nbytes


def embedding_calls(format: Format, dtype: torch.dtype, table_rows: int, device: str) -> tuple[list[Action], int, int]:
    """(calls to make in turn, bytes read and written by one, weights decoded by one).

    A row is 640 weights, or the next whole number of blocks.
    """
    weights = -(-TABLE_ROW // format.block_size) * format.block_size
    table = random_rows(format, table_rows, weights, device)
    nbytes = LOOKUPS * (format.row_bytes(weights) + weights * dtype.itemsize + 8)
    count = 1 if device == "cpu" else timing.rotation(nbytes)
    rows = [torch.randint(0, table_rows, (LOOKUPS,), device=device) for _ in range(count)]
    calls = [functools.partial(torch.ops.rocforge.embedding, table, format.name, r, dtype) for r in rows]
    return list(calls), nbytes, LOOKUPS * weights


def measure_dequantize(
    name: str, dtype: torch.dtype, rows: int, device: str, peers: Iterable[str], rate: float, budget: float
) -> Measurement:
    format = formats[name]
    packed, nbytes = dequantize_calls(format, dtype, rows, device)
    ours: list[Action] = [functools.partial(torch.ops.rocforge.dequantize, p, name, dtype) for p in packed]
    time = timing.seconds(ours, device, budget)
    times = {}
    for peer in peers:
        calls = [call for p in packed if (call := PEERS[peer](format, p, dtype))]
        if calls:
            times[peer] = timing.seconds(calls, device, budget)
    return Measurement(f"{name} {_name(dtype)}", rows * ROW, nbytes, time, times, rate)


def measure_embedding(
    name: str, dtype: torch.dtype, table_rows: int, device: str, rate: float, budget: float
) -> Measurement:
    calls, nbytes, weights = embedding_calls(formats[name], dtype, table_rows, device)
    time = timing.seconds(calls, device, budget)
    return Measurement(f"{name} {_name(dtype)}", weights, nbytes, time, {}, rate)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def print_header(title: str, peers: Iterable[str]) -> None:
    print(f"\n{title}")
    print(f"{'':24}{'us':>10}{'Mw/s':>10}{'GB/s':>9}{'of copy':>9}" + "".join(f"{'x ' + p:>11}" for p in peers))


def print_row(m: Measurement, peers: Iterable[str]) -> None:
    ratios = "".join(f"{m.peers[p] / m.seconds:11.2f}" if p in m.peers else " " * 11 for p in peers)
    print(
        f"{m.name:24}{m.seconds * 1e6:10.1f}{m.weights / m.seconds / 1e6:10.0f}{m.bytes / m.seconds / 1e9:9.1f}"
        f"{m.share:9.1%}{ratios}".rstrip(),
        flush=True,
    )


def plot(measurements: list[Measurement], title: str, file: str) -> None:
    """Bars: share of the copy rate of every line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.2 * len(measurements)))
    axes.barh([m.name for m in measurements], [100 * m.share for m in measurements])
    axes.invert_yaxis()
    axes.set(xlabel="share of the copy rate, %", title=title)
    axes.axvline(100, color="black", linewidth=0.5)
    figure.savefig(file, bbox_inches="tight", dpi=120)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="D")
    names = [f.name for f in formats]
    parser.add_argument("--formats", nargs="+", default=names, choices=names, metavar="NAME", help="(all)")
    parser.add_argument("--dtypes", "--dtype", nargs="+", choices=DTYPES, metavar="T", help="(GPU: all, CPU: float32)")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, metavar="P", help=f"what to compare with: {', '.join(PEERS)}"
    )
    parser.add_argument("--rows", type=positive_int, metavar="N", help=f"of {ROW} weights (GPU: 131072, CPU: 1024)")
    parser.add_argument(
        "--table-rows", type=positive_int, default=TABLE_ROWS, metavar="N", help="of the embedding table"
    )
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="on a CPU")
    parser.add_argument("--seconds", type=positive_float, default=0.5, metavar="S", help="on a CPU, for each time")
    parser.add_argument("--plot", metavar="FILE", help="a picture of the shares, by matplotlib")


def measure(args: argparse.Namespace) -> Iterator[Measurement]:
    """Prints as it goes."""
    on_cpu = torch.device(args.device).type == "cpu"
    peers = args.peers if args.peers is not None else ["libgguf", "gguf"] if on_cpu else ["eager", "compile"]
    dtypes = [DTYPES[name] for name in args.dtypes or (["float32"] if on_cpu else DTYPES)]
    rows = args.rows or (1024 if on_cpu else 131_072)
    rate = timing.copy_rate(args.device, min(rows * ROW * 4, 256 << 20), args.seconds)
    print(f"copy: {rate / 1e9:.1f} GB/s")
    print_header(f"dequantize, {rows * ROW:,} weights", peers)
    for name in args.formats:
        for dtype in dtypes:
            m = measure_dequantize(name, dtype, rows, args.device, peers, rate, args.seconds)
            print_row(m, peers)
            yield m
    print_header(
        f"embedding, {LOOKUPS} rows of {args.table_rows:,} x {TABLE_ROW} weights (or the next whole blocks)", ()
    )
    for name in args.formats:
        for dtype in dtypes:
            m = measure_embedding(name, dtype, args.table_rows, args.device, rate, args.seconds)
            print_row(m, ())
            yield m


def run(args: argparse.Namespace) -> int:
    import numpy as np

    if args.plot and not importlib.util.find_spec("matplotlib"):
        raise ImportError("--plot needs matplotlib: pip install matplotlib")
    if torch.device(args.device).type == "cpu":
        torch.set_num_threads(args.threads)
    else:
        environment.require_gpu(args.device)
    lines = environment.describe(args.device) | {"command": " ".join(sys.argv)}
    for key, value in lines.items():
        print(f"{key}: {value}")
    with np.errstate(all="ignore"):  # random scales overflow
        measurements = list(measure(args))
    if args.plot:
        plot(measurements, lines["device"], args.plot)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args())
