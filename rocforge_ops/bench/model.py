"""A decoding step, part by part: one layer's stages, the layer, and a whole model's step, on random weights.

A line is a part: microseconds, MB that it must read and write (weights, cache, activations), GB/s, and the share of the
rate of a copy on the same device. On a GPU there is also "by host": the same part when its inputs are copied to the
host, computed there by this package's own CPU operators, and the result is copied back; the cache is an input of
attention. Times are of all layers in turn, over their number, so that a layer does not find its own weights in the
caches unless all of them fit: on a GPU the median of 20 runs of a graph, on a CPU the best of runs over --seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rocforge_ops.bench import environment, timing
from rocforge_ops.bench.arguments import positive_float, positive_int
from rocforge_ops.bench.decoder import Decoder, Sizes, Stage, stages, weight_bytes
from rocforge_ops.cache import KVCache
from rocforge_ops.config import MultiQueryConfig
from rocforge_ops.formats import formats
from rocforge_ops.rope import RopeConfig

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# hidden, heads, head_dim, intermediate, vocabulary, layers, context
CPU_SIZES = (1024, 8, 128, 4096, 32_000, 4, 1024)
GPU_SIZES = (4096, 32, 128, 14_336, 128_256, 16, 4096)
SPARE = 256  # slots past the context: every replay of a graph stores its tokens anew, after those of the last


@dataclass(frozen=True)
class Part:
    name: str
    seconds: float
    nbytes: int
    by_host: float | None = None


class Bench:
    """The model, its cache filled up to the context, and the inputs of a step."""

    def __init__(self, sizes: Sizes, args: argparse.Namespace, device: str) -> None:
        self.device, self.context, self.seconds = device, args.context, args.seconds
        torch.manual_seed(0)
        with torch.device(device):
            self.model = Decoder(sizes).requires_grad_(False)
        self.cache = KVCache.for_config(
            sizes.attention,
            args.batch,
            args.context + SPARE * args.length,
            sizes.layers,
            dtype=sizes.dtype,
            device=device,
            format=args.cache_format,
        )
        for layer in self.cache.layers:
            for t in layer.tensors[:2]:  # small bytes: no scale among them is infinite
                t.random_(64) if t.dtype == torch.uint8 else t.normal_()
        self.tokens = torch.randint(0, sizes.vocabulary, (args.batch, args.length), device=device)
        self.hidden = torch.randn(args.batch, args.length, sizes.attention.width, dtype=sizes.dtype, device=device)
        self.rewind()

    def rewind(self) -> None:
        """To the context: as if the steps since had not been."""
        for layer in self.cache.layers:
            layer.tensors[2].fill_(self.context)
            layer.seen = self.context

    def timed(self, calls: Sequence[Callable[[], object]]) -> float:
        """Seconds of a call, all in turn."""
        self.rewind()
        if self.device == "cpu":
            return timing.cpu_seconds(lambda: [call() for call in calls], self.seconds) / len(calls)
        return timing.seconds(calls, self.device)

    def step(self) -> Tensor:
        return self._rewound(functools.partial(self.model, self.tokens, self.cache))

    def layer(self, index: int) -> Tensor:
        return self._rewound(functools.partial(self.model.stack[index], self.hidden, self.cache))

    def _rewound(self, call: Callable[[], Tensor]) -> Tensor:
        """On a CPU every call is at the same context; on a GPU only the host's count is, the few tokens stay."""
        out = call()
        if self.device == "cpu":
            self.rewind()
        for layer in self.cache.layers:
            layer.seen = self.context
        return out

    def cache_bytes(self, layers: int) -> int:
        """Read by attention in a step."""
        tokens = self.tokens.shape[0] * (self.context + self.tokens.shape[1])
        keys = self.cache.layers[0].tensors[0]
        return 2 * layers * tokens * keys.shape[1] * keys.shape[3] * keys.element_size()


def by_host(stage: Stage, twin: Stage, device: str) -> float:
    """Seconds of: inputs to the host, the stage there, its result back; the median of 5."""
    times = []
    for _ in range(6):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        out = twin.run(*[t.cpu() for t in stage.inputs])
        out.to(device)
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def parts(bench: Bench, host: Bench | None) -> Iterator[Part]:
    """Stages of a layer, the layer, the model's step."""
    layers = bench.model.stack
    bench.rewind()
    by_layer = [stages(layer, bench.hidden, bench.cache) for layer in layers]
    twins = stages(host.model.stack[0], host.hidden, host.cache) if host else [None] * len(by_layer[0])
    slow = 0.0
    for number, (stage, twin) in enumerate(zip(by_layer[0], twins, strict=True)):
        calls = [functools.partial(each[number].run, *each[number].inputs) for each in by_layer]
        through = by_host(stage, twin, bench.device) if twin else None
        slow += through or 0.0
        yield Part(stage.name, bench.timed(calls), stage.nbytes, through)
    calls = [functools.partial(bench.layer, index) for index in range(len(layers))]
    nbytes = weight_bytes(layers[0]) + bench.cache_bytes(1)
    yield Part("layer", bench.timed(calls), nbytes, slow if host else None)
    nbytes = weight_bytes(bench.model) + bench.cache_bytes(len(layers))
    yield Part("model step", bench.timed([bench.step]), nbytes)


def plot(found: list[Part], title: str, file: str) -> None:
    """The stages' times on top of one another: on the device and, where measured, by way of the host."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    inner = found[:-2]
    rows = {"on the device": [1e6 * part.seconds for part in inner]}
    if inner[0].by_host is not None:
        rows["by way of the host"] = [1e6 * (part.by_host or 0.0) for part in inner]
    figure, axes = pyplot.subplots(len(rows), figsize=(9, 1.2 + 1.3 * len(rows)), squeeze=False)
    for (name, times), axis in zip(rows.items(), axes[:, 0], strict=True):
        left = 0.0
        for part, microseconds in zip(inner, times, strict=True):
            axis.barh([name], [microseconds], left=left, label=f"{part.name}")
            left += microseconds
        axis.set(xlabel="us", yticks=[], title=f"{name}: {left:.0f} us a layer")
    axes[0, 0].legend(bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(file, bbox_inches="tight", dpi=120)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="D")
    names = ["dense", *(f.name for f in formats)]
    parser.add_argument(
        "--format", default="Q4_K", choices=names, metavar="NAME", help="of the weights, or dense (Q4_K)"
    )
    parser.add_argument("--dtype", choices=DTYPES, metavar="T", help="of activations (GPU: bfloat16, CPU: float32)")
    for option, gpu, cpu in zip(
        ("hidden", "heads", "head-dim", "intermediate", "vocabulary", "layers", "context"),
        GPU_SIZES,
        CPU_SIZES,
        strict=True,
    ):
        parser.add_argument(f"--{option}", type=positive_int, metavar="N", help=f"(GPU: {gpu}, CPU: {cpu})")
    parser.add_argument("--kv-heads", type=positive_int, default=1, metavar="N", help="(1)")
    parser.add_argument("--cache-format", choices=["Q8_0"], metavar="NAME", help="of the cache: Q8_0 (the dtype)")
    parser.add_argument("--batch", type=positive_int, default=1, metavar="B", help="sequences (1)")
    parser.add_argument("--length", type=positive_int, default=1, metavar="L", help="new tokens of each in a step (1)")
    parser.add_argument("--threads", type=positive_int, default=1, metavar="N", help="on a CPU")
    parser.add_argument("--seconds", type=positive_float, default=0.5, metavar="S", help="on a CPU, for each time")
    parser.add_argument("--plot", metavar="FILE", help="a picture of a layer's stages, by matplotlib")


def sizes_of(args: argparse.Namespace, on_cpu: bool) -> Sizes:
    """Fills in what depends on the device."""
    names = ("hidden", "heads", "head_dim", "intermediate", "vocabulary", "layers", "context")
    for name, default in zip(names, CPU_SIZES if on_cpu else GPU_SIZES, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, default)
    config = MultiQueryConfig(args.heads, args.kv_heads, args.head_dim, RopeConfig(), hidden_size=args.hidden)
    dtype = DTYPES[args.dtype or ("float32" if on_cpu else "bfloat16")]
    return Sizes(config.validate(), args.intermediate, args.vocabulary, args.layers, args.format, dtype)


def run(args: argparse.Namespace) -> int:
    if args.plot and not importlib.util.find_spec("matplotlib"):
        raise ImportError("--plot needs matplotlib: pip install matplotlib")
    on_cpu = torch.device(args.device).type == "cpu"
    if on_cpu:
        torch.set_num_threads(args.threads)
    else:
        environment.require_gpu(args.device)
    sizes = sizes_of(args, on_cpu)
    lines = environment.describe(args.device) | {"command": " ".join(sys.argv)}
    for name, text in lines.items():
        print(f"{name}: {text}")
    rate = timing.copy_rate(args.device, (64 if on_cpu else 256) << 20, args.seconds)
    print(f"copy: {rate / 1e9:.1f} GB/s")
    title = (
        f"B{args.batch} L{args.length}, {args.context} tokens of context, {args.layers} layers: hidden {args.hidden}, "
        f"Hq{args.heads} Hkv{args.kv_heads} D{args.head_dim}, feed-forward {args.intermediate}, {args.format}, "
        f"{str(sizes.dtype)[6:]}"
    )
    print(f"\n{title}\n{'':16}{'us':>10}{'MB':>9}{'GB/s':>9}{'of copy':>9}" + ("" if on_cpu else f"{'by host us':>12}"))
    found = []
    with torch.inference_mode():
        bench = Bench(sizes, args, args.device)
        host = None if on_cpu else Bench(dataclasses.replace(sizes, layers=1, vocabulary=32), args, "cpu")
        for part in parts(bench, host):
            through = "" if part.by_host is None else f"{1e6 * part.by_host:12.0f}"
            speed = part.nbytes / part.seconds
            print(
                f"{part.name:16}{1e6 * part.seconds:10.1f}{part.nbytes / 1e6:9.2f}{speed / 1e9:9.1f}{speed / rate:9.1%}"
                f"{through}",
                flush=True,
            )
            found.append(part)
    if args.plot:
        plot(found, f"{lines['device']}\n{title}", args.plot)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return run(parser.parse_args())
