"""How long a call takes: the median of runs on a GPU, the best of runs on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Action = Callable[[], object]
ROTATED_BYTES = 1 << 30  # calls in turn move this much before one meets its own data again: more than any cache
MOST_CALLS = 128


def rotation(nbytes: int) -> int:
    """How many calls, each on data of its own of `nbytes` bytes, keep the caches cold."""
    return max(2, min(MOST_CALLS, -(-ROTATED_BYTES // max(nbytes, 1))))


def gpu_seconds(calls: Sequence[Action], repeats: int = 20) -> float:
    """Time of one call on the current GPU: the median of `repeats` replays of a graph of all calls, over their number.

    A graph leaves out what the host needs to launch. The result of each call is kept, so that no two calls write the
    same memory.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls[0]()  # compiles, loads, allocates
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [call() for call in calls]
    times = []
    for _ in range(repeats + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    del results, graph
    torch.cuda.empty_cache()  # what a graph's results held serves no other allocation
    return statistics.median(times[2:]) / len(calls)


def cpu_seconds(action: Action, budget: float) -> float:
    """The best of runs over `budget` seconds: other work on the machine only ever slows one down."""
    action()
    best, end = float("inf"), time.perf_counter() + budget
    while (start := time.perf_counter()) < end:
        action()
        best = min(best, time.perf_counter() - start)
    return best


def seconds(calls: Sequence[Action], device: str, budget: float = 0.5) -> float:
    """Time of one call; `calls` are the same work on different data, of which a CPU takes the first."""
    if torch.device(device).type == "cpu":
        return cpu_seconds(calls[0], budget)
    with torch.cuda.device(device):
        return gpu_seconds(calls)


def copy_rate(device: str, nbytes: int, budget: float = 0.5) -> float:
    """Bytes a second, read and written, of a copy of `nbytes` bytes."""
    count = rotation(2 * nbytes) if torch.device(device).type != "cpu" else 1
    pairs = [torch.ones(2, nbytes // 4, dtype=torch.int32, device=device) for _ in range(count)]
    return 2 * nbytes / seconds([lambda pair=pair: pair[1].copy_(pair[0]) for pair in pairs], device, budget)  # type: ignore[misc]
