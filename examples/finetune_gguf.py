"""Teaches a GGUF model another text: its packed weights stay as they are, low-rank adapters beside them are trained.

    python examples/finetune_gguf.py                          the demo model and a lighthouse keeper's log: a minute
    python examples/finetune_gguf.py --resume --steps 600     goes on from there
    python examples/finetune_gguf.py --model model.gguf --text notes.txt --device cuda

An adapter adds B A x to a layer's W x (LoRA, Hu et al. 2021, arXiv 2106.09685): A [rank, in] starts at random, B
[out, rank] at 0, so training starts from the model itself. Only A and B have gradients and states of the optimizer: a
4-bit model is trained in little more memory than its file.

Writes loss.png, adapters.pt (all there is to keep) and checkpoint.pt, and prints the loss on held-out text before and
after, and what the model writes. The same seed, number of threads and device give the same adapters bit for bit, in one
run or resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import training
from torch import Tensor, nn
from torch.nn import functional as F

import rocforge_ops as rf

MODEL = Path(rf.__file__).parent / "data" / "demo.gguf"
TEXT = Path(__file__).parent / "data" / "lighthouse_log.txt"
PROMPT = "May 7. Wind"
CONTEXT, BATCH, HELD_OUT = 96, 8, 16  # tokens, windows a step, windows never trained on
LEARNING_RATE = 4e-3


class Adapted(nn.Module):
    """A packed layer and its adapter."""

    def __init__(self, layer: rf.nn.QuantizedLinear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        device = layer.packed.device
        self.a = nn.Parameter(torch.randn(rank, layer.in_features, device=device) * layer.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype))


def adapt(model: nn.Module, rank: int) -> dict[str, nn.Parameter]:
    """Freezes the model and gives every packed layer but the head an adapter: their parameters by name."""
    head = model.get_output_embeddings()
    for parameter in model.parameters():
        parameter.requires_grad = False
    for name, module in list(model.named_modules()):
        if isinstance(module, rf.nn.QuantizedLinear) and module is not head:
            model.set_submodule(name, Adapted(module, rank))
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def loss_of(model: Any, windows: Tensor) -> Tensor:
    """Nats a token."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


def train(options: argparse.Namespace) -> dict[str, nn.Parameter]:
    training.make_repeatable(options.seed, options.threads)
    tokenizer = rf.load_tokenizer(options.model)
    ids = tokenizer(options.text.read_text(), return_tensors="pt", verbose=False).input_ids[0].to(options.device)
    if len(ids) < 2 * HELD_OUT * CONTEXT:
        raise SystemExit(f"{options.text} has {len(ids)} tokens; at least {2 * HELD_OUT * CONTEXT} are needed")
    ids, held_out = ids[: -HELD_OUT * CONTEXT - 1], ids[-HELD_OUT * CONTEXT - 1 :]
    held_out = held_out.unfold(0, CONTEXT + 1, CONTEXT)

    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    model = rf.load_model(options.model, dtype, options.device, packed=True)
    with torch.no_grad():
        before = loss_of(model, held_out).item()
    adapters = adapt(model, options.rank)
    optimizer = torch.optim.AdamW(adapters.values(), lr=LEARNING_RATE, weight_decay=0.0)
    losses: list[float] = []
    settings = {name: str(getattr(options, name)) for name in ("seed", "rank", "model", "text")}
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    if options.resume:
        saved = training.load_checkpoint(checkpoint, settings, options.device)
        with torch.no_grad():
            for name, parameter in adapters.items():
                parameter.copy_(saved["adapters"][name])
        optimizer.load_state_dict(saved["optimizer"])
        losses = saved["losses"]

    def loss_at(step: int) -> Tensor:
        return loss_of(model, training.windows(ids, CONTEXT, BATCH, options.seed, step))

    def save() -> None:
        state = {"adapters": adapters, "optimizer": optimizer.state_dict(), "losses": losses}
        training.save_checkpoint(checkpoint, settings, state)

    training.run(optimizer, LEARNING_RATE, losses, options.steps, loss_at, save)
    torch.save(adapters, options.out / "adapters.pt")
    training.plot(losses, options.out / "loss.png", "nats a token", "Adapters on packed weights")

    with torch.no_grad():
        after = loss_of(model, held_out).item()
    prompt = tokenizer(PROMPT, return_tensors="pt").to(options.device)
    written = model.generate(**prompt, max_new_tokens=options.sample, do_sample=False)
    print(tokenizer.decode(written[0], skip_special_tokens=True))
    count = sum(parameter.numel() for parameter in adapters.values())
    weights = training.digest(adapters.values())
    print(f"held out {before:.3f} -> {after:.3f} nats a token; {count:,} trained weights, {weights}")
    return adapters


def main(arguments: list[str] | None = None) -> dict[str, nn.Parameter]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="a GGUF file")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=16, help="of the adapters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU; with another number sums round differently")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune_gguf"))
    parser.add_argument("--sample", type=int, default=60, help="tokens to write at the end")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return train(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
