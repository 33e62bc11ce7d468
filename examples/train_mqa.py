"""Trains a small character model with multi-query attention on a text that is shipped beside it.

    python examples/train_mqa.py                          about a minute; results in runs/train_mqa
    python examples/train_mqa.py --resume --steps 800     goes on from there
    python examples/train_mqa.py --device cuda

Writes loss.png, checkpoint.pt and a sample, and prints a digest of the weights: the same seed, number of threads and
device give the same weights bit for bit, in one run or resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import training
from torch import Tensor, nn
from torch.nn import functional as F

import rocforge_ops as rf

TEXT = Path(__file__).parent / "data" / "lighthouse_log.txt"
CONTEXT, BATCH = 128, 16
WIDTH, LAYERS, HEADS, HEAD_DIM = 128, 4, 4, 32
LEARNING_RATE = 2e-3


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


def loss_of(model: Model, windows: Tensor) -> Tensor:
    """Nats a character."""
    windows = windows.to(model.cos.device)
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def sample(model: Model, characters: str, prompt: str, length: int, seed: int) -> str:
    device, generator = model.cos.device, torch.Generator().manual_seed(seed)
    ids = [characters.index(c) for c in prompt]
    for _ in range(length):
        logits = model(torch.tensor([ids[-CONTEXT:]], device=device))[0, -1].cpu()
        ids.append(int(torch.multinomial(torch.softmax(logits / 0.7, -1), 1, generator=generator)))
    return "".join(characters[i] for i in ids)


def train(options: argparse.Namespace) -> Model:
    training.make_repeatable(options.seed, options.threads)
    text = TEXT.read_text()
    characters = "".join(sorted(set(text)))
    ids = torch.tensor([characters.index(c) for c in text])
    held_out = ids[-CONTEXT * 16 - 1 :]
    ids = ids[: -len(held_out)]

    model = Model(len(characters)).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1)
    losses: list[float] = []
    settings = {"seed": str(options.seed)}
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    if options.resume:
        saved = training.load_checkpoint(checkpoint, settings, options.device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        losses = saved["losses"]

    def loss_at(step: int) -> Tensor:
        return loss_of(model, training.windows(ids, CONTEXT, BATCH, options.seed, step))

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
        training.save_checkpoint(checkpoint, settings, state)

    training.run(optimizer, LEARNING_RATE, losses, options.steps, loss_at, save)
    training.plot(losses, options.out / "loss.png", "nats a character", "Character model with multi-query attention")

    with torch.no_grad():
        held_out_loss = loss_of(model, held_out.unfold(0, CONTEXT + 1, CONTEXT)).item()
    print(sample(model, characters, "\nMay 7. ", options.sample, options.seed))
    weights = training.digest(model.state_dict().values())
    print(f"loss {losses[-1]:.3f}, held out {held_out_loss:.3f} nats a character; weights {weights}")
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
