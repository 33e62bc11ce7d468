"""What the training examples share: runs that can be repeated and resumed bit for bit, and a picture of the losses."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:  # at once, not when a run ends
    import matplotlib
except ImportError:
    raise SystemExit("the examples draw their losses with matplotlib: pip install matplotlib") from None

WARMUP = 20  # steps over which the learning rate grows to its value


def make_repeatable(seed: int, threads: int) -> None:
    """The same seed, number of threads and device then give the same weights bit for bit."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products need on a GPU
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)


def windows(ids: Tensor, context: int, count: int, seed: int, step: int) -> Tensor:
    """[count, context + 1], a function of seed and step alone: a resumed run sees what the whole one would have."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    starts = torch.randint(len(ids) - context, (count, 1), generator=generator)
    return ids[starts + torch.arange(context + 1)]


def run(
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    losses: list[float],
    steps: int,
    loss_at: Callable[[int], Tensor],
    save: Callable[[], None],
) -> None:
    """Steps len(losses) .. steps - 1, appending each one's loss; saves every 50 and at the end."""
    start = time.perf_counter()
    for step in range(len(losses), steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / WARMUP)
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: loss {losses[-1]:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
            save()
    save()


def save_checkpoint(file: Path, settings: dict[str, str], state: dict[str, Any]) -> None:
    """At once or not at all: a run that is stopped while it writes leaves the checkpoint before."""
    torch.save(state | {"settings": settings}, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


def load_checkpoint(file: Path, settings: dict[str, str], device: str) -> dict[str, Any]:
    """What was saved, if by a run of the same settings."""
    if not file.exists():
        raise SystemExit(f"nothing to resume: {file} is not there")
    saved = torch.load(file, map_location=device)
    for name, value in settings.items():
        if saved["settings"][name] != value:
            raise SystemExit(f"{file} was trained with --{name} {saved['settings'][name]}, not {value}")
    return saved


def digest(tensors: Iterable[Tensor]) -> str:
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.detach().cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def plot(losses: list[float], file: Path, unit: str, title: str) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1)
    axes.set(xlabel="step", ylabel=f"loss ({unit})", title=title)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
