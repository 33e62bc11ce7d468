#!/usr/bin/env python3
"""Make rocforge_ops/data/demo.gguf: train a small multi-query llama on stories from a grammar and quantise it.

The same arguments, machine and package versions give the same bytes. Needs torch, transformers, tokenizers and gguf.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from demo_model.export import write_gguf
from demo_model.grammar import story
from demo_model.tokenizer import train_tokenizer
from demo_model.train import train

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "rocforge_ops" / "data" / "demo.gguf"
TOKENIZER_STORIES = 4000


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)  # sums are split by thread, so their rounding depends on the count
    torch.use_deterministic_algorithms(True)
    rng = random.Random(args.seed)
    tokenizer = train_tokenizer(story(rng) for _ in range(TOKENIZER_STORIES))
    model = train(tokenizer, args.steps, args.stories, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(args.out, model, tokenizer)
    print(f"{args.out}: {args.out.stat().st_size} bytes")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the GGUF file to write (default: %(default)s)")
    parser.add_argument("--steps", type=_positive, default=3600, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--stories", type=_positive, default=8, help="stories of a batch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of stories and weights (default: %(default)s)")
    parser.add_argument("--threads", type=_positive, default=2, help="CPU threads (default: %(default)s)")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
