"""`rocforge generate`: text from a GGUF model."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from rocforge_ops.bench.arguments import positive_float, positive_int, probability

DTYPES = ("float32", "bfloat16", "float16")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "generate",
        help="continue a text with a model",
        description="Loads a GGUF model into its ordinary transformers class and continues a prompt, token by token. "
        "Text goes to stdout, everything else to stderr.",
    )
    parser.add_argument("file", help="a GGUF file; of a split model, any of its parts")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the text to continue")
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's own chat template first")
    parser.add_argument(
        "--max-new-tokens", type=positive_int, default=256, metavar="N", help="stop after N tokens (256)"
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help='"cpu" (default), "cuda" (also for ROCm), "cuda:1"...'
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="dtype of the weights (bfloat16)")
    parser.add_argument("--packed", action="store_true", help="keep the weights in their GGUF blocks")
    sampling = parser.add_argument_group("sampling", "Without these the likeliest token is taken each time.")
    sampling.add_argument(
        "--temperature", type=positive_float, metavar="T", help="sample; 1 is the model's distribution"
    )
    sampling.add_argument("--top-p", type=probability, metavar="P", help="sample from the likeliest tokens of total P")
    sampling.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sampling (0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import torch

    import rocforge_ops as rf
    from rocforge_ops.bench import environment

    if torch.device(arguments.device).type == "cuda":
        environment.require_gpu(arguments.device)
    start = time.perf_counter()
    dtype = getattr(torch, arguments.dtype)
    model = rf.load_model(arguments.file, dtype=dtype, device=arguments.device, packed=arguments.packed)
    tokenizer = rf.load_tokenizer(arguments.file)
    loaded = time.perf_counter()
    print(f"loaded in {loaded - start:.1f} s", file=sys.stderr)

    tokens = prompt_tokens(tokenizer, arguments.prompt, arguments.chat).to(arguments.device)
    torch.manual_seed(arguments.seed)
    started = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            streamer=_streamer(tokenizer, skip_prompt=arguments.chat),
            max_new_tokens=arguments.max_new_tokens,
            **sampling_options(arguments),
        )
    seconds, count = time.perf_counter() - started, output.shape[1] - tokens.shape[1]
    print(f"{count} tokens in {seconds:.1f} s: {count / seconds:.1f} tokens/s", file=sys.stderr)
    return 0


def prompt_tokens(tokenizer: Any, prompt: str, chat: bool) -> Any:
    """Token ids [1, length] of the prompt, int64."""
    if not chat:
        return tokenizer(prompt, return_tensors="pt").input_ids
    if not tokenizer.chat_template:
        raise ValueError("this file has no chat template: leave out --chat")
    messages = [{"role": "user", "content": prompt}]
    template = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(template, return_tensors="pt", add_special_tokens=False).input_ids


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.temperature is None and arguments.top_p is None:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": arguments.temperature or 1.0, "top_p": arguments.top_p or 1.0, "top_k": 0}


def _streamer(tokenizer: Any, skip_prompt: bool) -> Any:
    from transformers import TextStreamer

    return TextStreamer(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
