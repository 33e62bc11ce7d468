"""What the plugs of rocforge_ops.integrations change in code that does not know of them.

python benchmarks/bench_integrations.py                      on the GPU
python benchmarks/bench_integrations.py --device cpu --layers 2 --hidden 256
python benchmarks/bench_integrations.py --only sdpa

sdpa: the same F.scaled_dot_product_attention, forward and backward, held to PyTorch's flash backend, before and after
activation: time of a call as the script makes it ("eager", with the host's share) and in a graph of calls without the
host, and the error of out and of the gradients against float64, root mean square over that of the exact result.

transformers: one file of random Q4_K and Q6_K weights in the lfm2 architecture, loaded by from_pretrained with the
weights packed by the plug, and dequantised as transformers does by itself: seconds to load, bytes of the weights, most
memory allocated while loading and while generating, tokens a second of generate() for one prompt, prefill included,
how long the GPU is busy for a token after the prompt (the rest is Python), and how far the logits are from those of
the dequantised model in float32 with transformers' own attention.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from lfm2_file import write_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

import rocforge_ops as rf
from rocforge_ops.bench import environment, timing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIB = 2**20
# batch, query heads, key/value heads, length, head size, causal
CASES = [
    (4, 32, 32, 2048, 128, True),
    (4, 32, 8, 2048, 128, True),
    (4, 32, 8, 4096, 128, True),
    (4, 32, 32, 2048, 64, True),
    (8, 16, 16, 1024, 64, False),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=["sdpa", "transformers"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    parser.add_argument("--hidden", type=int, default=2560, help="of the model, a multiple of 256")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=65536)
    parser.add_argument("--tokens", type=int, default=64, help="how many are generated")
    args = parser.parse_args()
    if args.device != "cpu":
        environment.require_gpu(args.device)
    for name, line in environment.describe(args.device).items():
        print(f"{name}: {line}")
    print("command:", " ".join(sys.argv), flush=True)
    dtype = getattr(torch, args.dtype)
    if args.only != "transformers":
        sdpa(args.device, dtype)
    if args.only != "sdpa":
        transformers(args, dtype)
    return 0


def sdpa(device: str, dtype: torch.dtype) -> None:
    print("\nF.scaled_dot_product_attention, forward + backward, us a call")
    if device == "cpu":
        print("skipped: PyTorch has a flash backend that can be replaced on GPUs only")
        return
    columns = f"{'eager before':>13}{'after':>9}{'':>8}{'graph before':>14}{'after':>9}{'':>8}"
    print(f"{'case':44}{'PyTorch would take':>20}{columns}   errors before -> after (out, dQ, dK, dV)")
    for case in CASES:
        batch, heads, kv_heads, length, head_dim, causal = case
        inputs = [attention_inputs(case, device, dtype) for _ in range(4)]
        calls = [functools.partial(script, *tensors, causal) for tensors in inputs]
        query, key, value, _ = inputs[0]
        choice = SDPBackend(torch._fused_sdp_choice(query, key, value, is_causal=causal, enable_gqa=True))
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            before = (eager_seconds(calls), timing.gpu_seconds(calls), errors(inputs[0], causal))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a kernel is overridden
                rf.integrations.torch_sdpa.enable()
            after = (eager_seconds(calls), timing.gpu_seconds(calls), errors(inputs[0], causal))
            rf.integrations.torch_sdpa.disable()
        name = f"B{batch} Hq{heads} Hkv{kv_heads} L{length} D{head_dim}{' causal' * causal} {str(dtype)[6:]}"
        times = "".join(
            f"{1e6 * old:{13 + i}.1f}{1e6 * new:9.1f}{old / new:7.2f}x"
            for i, (old, new) in enumerate(zip(before[:2], after[:2], strict=True))
        )
        pairs = " ".join(f"{old:.1e}->{new:.1e}" for old, new in zip(before[2], after[2], strict=True))
        print(f"{name:44}{choice.name.lower():>20}{times}   {pairs}", flush=True)


def script(query: Tensor, key: Tensor, value: Tensor, grad: Tensor, causal: bool) -> tuple[Tensor, ...]:
    """What a model does, here without knowing of us."""
    leaves = [t.detach().requires_grad_() for t in (query, key, value)]
    grouped = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(*leaves, is_causal=causal, enable_gqa=grouped)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def attention_inputs(case: tuple[int, ...], device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """query, key, value and grad [B, H, L, D], in memory [B, L, H, D] as projections leave them."""
    batch, heads, kv_heads, length, head_dim, _ = case
    shapes = [(batch, length, n, head_dim) for n in (heads, kv_heads, kv_heads, heads)]
    return tuple(torch.randn(shape, device=device, dtype=dtype).transpose(1, 2) for shape in shapes)


def eager_seconds(calls: list[Callable[[], object]], repeats: int = 20) -> float:
    """Median time of a call from one synchronization to the next, launches and Python included."""
    times = []
    for index in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        calls[index % len(calls)]()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def errors(inputs: tuple[Tensor, ...], causal: bool) -> list[float]:
    """Of out, dQ, dK and dV, for the first key/value head's group of the first batch row."""
    query, key, _, _ = inputs
    group = query.shape[1] // key.shape[1]
    cut = [t[:1, : group if t.shape[1] == query.shape[1] else 1] for t in inputs]
    results = [t[:1, : c.shape[1]] for t, c in zip(script(*inputs, causal), (cut[0], *cut[:3]), strict=True)]
    with sdpa_kernel(SDPBackend.MATH):
        exact = script(*(t.double() for t in cut), causal)
    return [((r.double() - e).norm() / e.norm()).item() for r, e in zip(results, exact, strict=True)]


def transformers(args: argparse.Namespace, dtype: torch.dtype) -> None:
    print("\ntransformers, a model of random weights")
    missing = [p for p in ("transformers", "accelerate", "gguf") if importlib.util.find_spec(p) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write_model(file, args.hidden, args.layers, args.vocabulary)
        print(
            f"{file.stat().st_size / MIB:.0f} MiB file, lfm2, hidden size {args.hidden}, {args.layers} layers, {dtype}"
        )
        memory = f"{'MiB':>7}{'peak MiB':>10}{'loading':>9}"
        print(f"{'weights':12}{'load s':>8}{memory}{'tokens/s':>10}{'GPU ms a token':>16}{'error':>9}")
        rf.integrations.transformers.enable()
        exact = load_model(file, args.device, "dequantised", torch.float32, "sdpa")
        expected = short_logits(exact)
        del exact
        for name in ("dequantised", "packed"):
            measure_model(name, file, args, dtype, expected)
        rf.integrations.transformers.disable()


def load_model(file: Path, device: str, weights: str, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=dtype,
        device_map=device,
        attn_implementation=attention,
        quantization_config=GgufConfig(dequantize=weights == "dequantised"),
    ).eval()


@torch.no_grad()
def short_logits(model: PreTrainedModel) -> Tensor:
    """Of a prompt as short as mul_mat_vec takes."""
    return model(torch.arange(4, device=model.device)[None]).logits.double()


def measure_model(name: str, file: Path, args: argparse.Namespace, dtype: torch.dtype, expected: Tensor) -> None:
    """Prints the line of one form of the weights."""
    reset_peak(args.device)
    start = time.perf_counter()
    model = load_model(file, args.device, name, dtype, "rocforge")
    line = f"{name:12}{time.perf_counter() - start:8.1f}{sum(p.nbytes for p in model.parameters()) / MIB:7.0f}"
    loading = peak_mib(args.device)
    error = ((short_logits(model) - expected).norm() / expected.norm()).item()
    prompt = torch.arange(32, device=args.device)[None]

    def generate(tokens: int = args.tokens) -> None:
        model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
        if args.device != "cpu":
            torch.cuda.synchronize()

    generate()
    reset_peak(args.device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        generate()
        times.append(time.perf_counter() - start)
    line += f"{peak_mib(args.device):>10}{loading:>9}{args.tokens / statistics.median(times):10.1f}"
    if args.device == "cpu":
        busy = "-"
    else:
        busy = f"{1e3 * (busy_seconds(lambda: generate(9)) - busy_seconds(lambda: generate(1))) / 8:.2f}"
    print(f"{line}{busy:>16}{error:9.1e}", flush=True)


def reset_peak(device: str) -> None:
    if device != "cpu":
        gc.collect()  # a model that was measured before may be held by a cycle
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_mib(device: str) -> str:
    return "-" if device == "cpu" else f"{torch.cuda.max_memory_allocated() / MIB:.0f}"


def busy_seconds(call: Callable[[], None]) -> float:
    """Time of all kernels and copies of a call, without the gaps between them."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
    return 1e-6 * sum(event.self_device_time_total for event in profiler.key_averages())


if __name__ == "__main__":
    sys.exit(main())
