"""linear on packed weights beside torch.matmul on weights dequantised beforehand, and beside dequantising each time.

A line is a number of rows of the input. Its columns: microseconds; GB/s of packed bytes, and their share of the rate at
which PyTorch sums up as many bytes of float32 (a plain read); GFLOP/s; how many times longer a matmul on dequantised
weights of the input's dtype takes ("x matmul"), and dequantize followed by that matmul ("x decode"); the root mean
square of the error, relative to the result, of linear and of the matmul, both from float64.

Weights are cold: calls in turn use different ones, 1 GiB in all on a GPU, 256 MiB on a CPU; from 512 rows on, where the
arithmetic takes the time, four sets. On a GPU a time is the median of 20 runs of a graph of such calls, on a CPU the
best of calls over --seconds.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rocforge_ops.bench import environment, timing
from rocforge_ops.bench.arguments import positive_float, positive_int
from rocforge_ops.bench.timing import Action
from rocforge_ops.formats import Format, formats
from rocforge_ops.ops.dequantize import dequantize
from rocforge_ops.ops.linear import linear

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PLAIN = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
GPU_ROWS, CPU_ROWS = [1, 2, 4, 8, 16, 64, 512, 4096], [1, 2, 4, 16, 64]
GPU_SHAPES, CPU_SHAPES = ["4096x4096", "14336x4096", "4096x14336"], ["4096x4096"]
GPU_FORMATS, CPU_FORMATS = ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "MXFP4"], ["Q4_0", "Q8_0", "Q4_K", "Q6_K"]
CPU_ROTATED_BYTES = 256 << 20
COMPUTE_BOUND_ROWS, COMPUTE_BOUND_SETS = 512, 4
ERROR_ROWS = 16  # at most
Product = Callable[[Tensor, Tensor], object]  # of input and weights


@dataclass(frozen=True)
class Shape:
    out: int
    inner: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        try:
            out, inner = (int(part) for part in text.split("x"))
        except ValueError:
            raise argparse.ArgumentTypeError(f"a shape is OUTxIN, such as 4096x14336, got {text!r}") from None
        return cls(out, inner)

    def __str__(self) -> str:
        return f"{self.out}x{self.inner}"


@functools.cache
def _even_blocks(format: Format) -> Tensor:
    """[blocks, block_bytes]: those of random blocks whose largest weight is between 1/16 and 4; normal plain values."""
    generator = torch.Generator().manual_seed(0)
    if format.name in PLAIN:
        return (40 * torch.randn(1024, 1, generator=generator)).to(PLAIN[format.name]).view(torch.uint8)
    blocks = torch.randint(0, 256, (1024, format.block_bytes), dtype=torch.uint8, generator=generator)
    largest = dequantize(blocks, format.name).abs().amax(-1)
    return blocks[(largest >= 1 / 16) & (largest <= 4)]  # a NaN is neither


def random_weights(format: Format, shape: Shape, device: str, generator: torch.Generator | None = None) -> Tensor:
    """Packed [out, row_bytes] of blocks of similar size: random bytes would be a few huge blocks and nothing else."""
    format.row_bytes(shape.inner)  # ValueError unless whole blocks
    usable, blocks = _even_blocks(format).to(device), (shape.out, shape.inner // format.block_size)
    return usable[torch.randint(0, len(usable), blocks, device=device, generator=generator)].flatten(-2)


def _seconds(product: Product, x: Tensor, weights: list[Tensor], budget: float) -> float:
    """Of one product, on each of the weights in turn."""
    calls: list[Action] = [functools.partial(product, x, w) for w in weights]
    if x.device.type == "cpu":
        turn = itertools.cycle(calls)
        return timing.cpu_seconds(lambda: next(turn)(), budget)
    return timing.seconds(calls, str(x.device))


def _sets(nbytes: int, rows: int, device: str) -> int:
    """How many weights of so many bytes keep the caches cold."""
    if rows >= COMPUTE_BOUND_ROWS:
        return COMPUTE_BOUND_SETS
    return max(2, -(-CPU_ROTATED_BYTES // nbytes)) if device == "cpu" else timing.rotation(nbytes)


@functools.cache
def read_rate(nbytes: int, device: str, budget: float) -> float:
    """Bytes a second of a sum over float32 numbers of `nbytes` bytes, cold."""
    buffers = [torch.zeros(nbytes // 4, device=device) for _ in range(_sets(nbytes, 1, device))]
    return nbytes / _seconds(lambda _, buffer: buffer.sum(), buffers[0], buffers, budget)


@functools.cache
def matmul_seconds(shape: Shape, rows: int, dtype: torch.dtype, device: str, budget: float) -> float:
    """Of F.linear on weights that are there in `dtype`."""
    sets = _sets(shape.out * shape.inner * dtype.itemsize, rows, device)
    weights = [torch.randn(shape.out, shape.inner, device=device, dtype=dtype) for _ in range(sets)]
    return _seconds(F.linear, torch.randn(rows, shape.inner, device=device, dtype=dtype), weights, budget)


def relative_errors(format: Format, x: Tensor, packed: Tensor) -> tuple[float, float]:
    """(of linear, of F.linear on weights of x's dtype) from the product in float64, over the first ERROR_ROWS rows."""
    weights = dequantize(packed, format.name)
    exact = x[:ERROR_ROWS].double() @ weights.double().T
    # Of all rows: their number chooses the method.
    results = linear(x, packed, format.name), F.linear(x, weights.to(x.dtype))
    first, second = ((result[:ERROR_ROWS].double() - exact).square().mean().sqrt() for result in results)
    size = exact.square().mean().sqrt()
    return float(first / size), float(second / size)


@dataclass(frozen=True)
class Measurement:
    rows: int
    shape: Shape
    packed_bytes: int
    seconds: float
    matmul: float  # seconds
    decode: float  # seconds
    read_rate: float  # bytes a second
    error: float
    matmul_error: float

    def line(self) -> str:
        rate = self.packed_bytes / self.seconds
        flops = 2 * self.rows * self.shape.out * self.shape.inner / self.seconds
        return (
            f"{self.rows:>8}{self.seconds * 1e6:>12.1f}{rate / 1e9:>10.1f}{rate / self.read_rate:>9.1%}"
            f"{flops / 1e9:>10.0f}{self.matmul / self.seconds:>10.2f}{self.decode / self.seconds:>10.2f}"
            f"{self.error:>12.1e}{self.matmul_error:>12.1e}"
        )


HEADER = (
    f"{'rows':>8}{'us':>12}{'GB/s':>10}{'of read':>9}{'GFLOP/s':>10}{'x matmul':>10}{'x decode':>10}{'error':>12}"
    f"{'its error':>12}"
)


def measure(
    format: Format, shape: Shape, rows: int, weights: list[Tensor], dtype: torch.dtype, budget: float
) -> Measurement:
    """`weights`: packed, at least as many as keep the caches cold."""
    device, nbytes = str(weights[0].device), weights[0].nbytes
    weights = weights[: _sets(nbytes, rows, device)]
    x = torch.randn(rows, shape.inner, device=device, dtype=dtype)

    def decode(x: Tensor, packed: Tensor) -> Tensor:
        return F.linear(x, dequantize(packed, format.name, x.dtype))

    return Measurement(
        rows,
        shape,
        nbytes,
        _seconds(lambda x, packed: linear(x, packed, format.name), x, weights, budget),
        matmul_seconds(shape, rows, dtype, device, budget),
        # Each moves several times what linear reads: fewer sets are cold enough.
        _seconds(decode, x, weights[:4], budget),
        read_rate(nbytes, device, budget),
        *relative_errors(format, x, weights[0]),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="D")
    names = [f.name for f in formats]
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"(GPU: {' '.join(GPU_FORMATS)}, CPU: {' '.join(CPU_FORMATS)})",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=Shape.parse,
        metavar="OUTxIN",
        help=f"(GPU: {' '.join(GPU_SHAPES)}, CPU: {' '.join(CPU_SHAPES)})",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        type=positive_int,
        metavar="N",
        help=f"(GPU: {' '.join(map(str, GPU_ROWS))}, CPU: {' '.join(map(str, CPU_ROWS))})",
    )
    parser.add_argument(
        "--dtypes", "--dtype", nargs="+", choices=DTYPES, metavar="T", help="(GPU: bfloat16, CPU: float32)"
    )
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="on a CPU")
    parser.add_argument("--seconds", type=positive_float, default=0.2, metavar="S", help="on a CPU, for each time")


def measurements(args: argparse.Namespace) -> Iterator[Measurement]:
    """Prints as it goes."""
    on_cpu = torch.device(args.device).type == "cpu"
    device = "cpu" if on_cpu else str(torch.empty(0, device=args.device).device)
    rows = args.rows or (CPU_ROWS if on_cpu else GPU_ROWS)
    shapes = args.shapes or [Shape.parse(text) for text in (CPU_SHAPES if on_cpu else GPU_SHAPES)]
    for dtype in (DTYPES[name] for name in args.dtypes or (["float32"] if on_cpu else ["bfloat16"])):
        for name in args.formats or (CPU_FORMATS if on_cpu else GPU_FORMATS):
            format = formats[name]
            for shape in shapes:
                count = max(_sets(shape.out * format.row_bytes(shape.inner), n, device) for n in rows)
                weights = [random_weights(format, shape, device) for _ in range(count)]
                print(f"\n{name} {shape} (out x in), {str(dtype)[6:]}, {weights[0].nbytes / 2**20:.1f} MiB\n{HEADER}")
                for n in rows:
                    m = measure(format, shape, n, weights, dtype, args.seconds)
                    print(m.line(), flush=True)
                    yield m


def run(args: argparse.Namespace) -> int:
    if torch.device(args.device).type == "cpu":
        torch.set_num_threads(args.threads)
    else:
        environment.require_gpu(args.device)
    for key, value in (environment.describe(args.device) | {"command": " ".join(sys.argv)}).items():
        print(f"{key}: {value}")
    with torch.no_grad():
        for _ in measurements(args):
            pass
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args())
