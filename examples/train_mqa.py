"""Trains a small character model with multi-query attention on a text that is shipped beside it.

    python examples/train_mqa.py                          about a minute; results in runs/train_mqa
    python examples/train_mqa.py --resume --steps 800     goes on from there
    python examples/train_mqa.py --device cuda

Writes loss.png, checkpoint.pt and a sample, and prints a digest of the weights: the same seed, number of threads and
device give the same weights bit for bit, in one run or resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rocforge_ops as rf

TEXT = Path(__file__).parent / "data" / "lighthouse_log.txt"
CONTEXT, BATCH = 128, 16
WIDTH, LAYERS, HEADS, HEAD_DIM = 128, 4, 4, 32
WARMUP, LEARNING_RATE = 20, 2e-3


class Attention(nn.Module):
    """Four query heads on one key/value head."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, HEADS * HEAD_DIM, bias=False)
        self.key_value = nn.Linear(WIDTH, 2 * HEAD_DIM, bias=False)
        self.out = nn.Linear(HEADS * HEAD_DIM, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
        key, value = self.key_value(x).unsqueeze(1).chunk(2, -1)  # [B, 1, L, head_dim]
        query, key = (rf.rotary_embedding(t, cos, sin) for t in (query, key))
        out = rf.mqa_attention(query, key, value, causal="bottom_right")
        return self.out(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(WIDTH), Attention()
        self.norm2 = nn.RMSNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, characters)
        frequencies = 10000 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.outer(torch.arange(CONTEXT), frequencies)  # [context, head_dim / 2]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x, length = self.embedding(ids), ids.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        return self.head(self.norm(x))


def batch(ids: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """A function of seed and step alone, so that a resumed run sees what the whole one would have."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    starts = torch.randint(len(ids) - CONTEXT, (BATCH, 1), generator=generator)
    windows = ids[starts + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def sample(model: Model, characters: str, prompt: str, length: int, seed: int) -> str:
    device, generator = model.cos.device, torch.Generator().manual_seed(seed)
    ids = [characters.index(c) for c in prompt]
    for _ in range(length):
        logits = model(torch.tensor([ids[-CONTEXT:]], device=device))[0, -1].cpu()
        ids.append(int(torch.multinomial(torch.softmax(logits / 0.7, -1), 1, generator=generator)))
    return "".join(characters[i] for i in ids)


def digest(model: Model) -> str:
    content = hashlib.sha256()
    for tensor in model.state_dict().values():
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def plot(losses: list[float], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1)
    axes.set(xlabel="step", ylabel="loss (nats a character)", title="Character model with multi-query attention")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def train(options: argparse.Namespace) -> Model:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products need on a GPU
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    text = TEXT.read_text()
    characters = "".join(sorted(set(text)))
    ids = torch.tensor([characters.index(c) for c in text])
    held_out = ids[-CONTEXT * 16 - 1 :]
    ids = ids[: -len(held_out)]

    model = Model(len(characters)).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    losses: list[float] = []
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    if options.resume:
        if not checkpoint.exists():
            raise SystemExit(f"nothing to resume: {checkpoint} is not there")
        saved = torch.load(checkpoint, map_location=options.device)
        if saved["seed"] != options.seed:
            raise SystemExit(f"{checkpoint} was trained with --seed {saved['seed']}, not {options.seed}")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        losses = saved["losses"]

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
        torch.save(state | {"seed": options.seed}, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    start = time.perf_counter()
    for step in range(len(losses), options.steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP)
        inputs, targets = (t.to(options.device) for t in batch(ids, options.seed, step))
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: loss {losses[-1]:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
            save()
    save()
    plot(losses, options.out / "loss.png")

    with torch.no_grad():
        inputs, targets = (t.view(16, CONTEXT).to(options.device) for t in (held_out[:-1], held_out[1:]))
        held_out_loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item()
    print(sample(model, characters, "\nMay 7. ", options.sample, options.seed))
    print(f"loss {losses[-1]:.3f}, held out {held_out_loss:.3f} nats a character; weights {digest(model)}")
    return model


def main(arguments: list[str] | None = None) -> Model:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU; with another number sums round differently")
    parser.add_argument("--out", type=Path, default=Path("runs/train_mqa"))
    parser.add_argument("--sample", type=int, default=300, help="characters to write at the end")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return train(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
