"""A decoding step asks nothing of the host, neither by operators nor of the driver, and can be captured in a graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from multi_query_layers import layer
from test_transformers_attention import make, replace
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import rocforge_ops as rf

transformers = pytest.importorskip("transformers")

BATCH, PROMPT, STEPS, CAPACITY = 3, 33, 6, 64
MODULES = {
    "multi-query": {},
    "window": {"window": 7},
    "all": {"window": 40, "qk_norm": True, "softcap": 2.0, "sinks": True, "qkv_bias": True},
    "Q8_0": {},
    "Q8_0, window": {"window": 7},
    "different lengths": {},
}
MODELS = ["llama", "gemma3", "gpt_bigcode"]
Step = Callable[[int], Tensor]


class Decoding:
    """Something that has read a prompt and goes on token by token.

    Attributes:
        step: writes the inputs of token i, from device to device, and runs it; [B, 1, ...].
        expect: what all tokens give when they are read at once, [B, PROMPT + STEPS, ...].
    """

    step: Step
    expect: Tensor
    run: Callable[[], Tensor]
    write: Callable[[int], None]
    cache: object

    def __call__(self, i: int) -> Tensor:
        self.write(i)
        return self.run()


def module_decoding(name: str, device: str) -> Decoding:
    config = rf.MultiQueryConfig(8, 1, 32, rf.RopeConfig(), hidden_size=48, **MODULES[name])
    module = layer(config, device)
    hidden = torch.randn(BATCH, PROMPT + STEPS, 48, device=device)
    self, token = Decoding(), hidden[:, :1].clone()
    self.cache = rf.KVCache.for_config(
        config, BATCH, CAPACITY, device=device, format="Q8_0" if name.startswith("Q8_0") else None
    )
    lengths = torch.ones(BATCH, dtype=torch.int32, device=device) if name == "different lengths" else None
    self.write = lambda i: token.copy_(hidden[:, i : i + 1])
    self.run = lambda: module(token, cache=self.cache, lengths=lengths)
    self.expect = module(hidden)
    module(hidden[:, :PROMPT], cache=self.cache)
    return self


def model_decoding(name: str, cache: str, device: str) -> Decoding:
    model = replace(make(name).to(device))
    torch.manual_seed(1)
    ids = torch.randint(3, 99, (BATCH, PROMPT + STEPS), device=device)
    positions = torch.arange(PROMPT + STEPS, device=device).expand(BATCH, -1).contiguous()
    self, token, position = Decoding(), ids[:, :1].clone(), positions[:, :1].clone()
    if cache == "KVCache":
        self.cache = rf.KVCache.for_model(model, CAPACITY)
    else:
        self.cache = transformers.StaticCache(config=model.config, max_cache_len=CAPACITY)

    def write(i: int) -> None:
        token.copy_(ids[:, i : i + 1])
        position.copy_(positions[:, i : i + 1])

    self.write = write
    self.run = lambda: model(token, position_ids=position, past_key_values=self.cache).logits
    self.expect = model(ids, use_cache=False).logits
    model(ids[:, :PROMPT], past_key_values=self.cache)
    return self


CASES = [f"module {name}" for name in MODULES] + [f"{name} KVCache" for name in MODELS] + ["llama StaticCache"]


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


def decoding(case: str, device: str) -> Decoding:
    if case.startswith("module "):
        return module_decoding(case.removeprefix("module "), device)
    return model_decoding(*case.split(), device)


def close(case: str, actual: Tensor, expect: Tensor) -> None:
    tolerance = 0.05 if "Q8_0" in case else 1e-3
    torch.testing.assert_close(actual[:, 0], expect, rtol=tolerance, atol=tolerance)


class RefusesToAnswer(TorchDispatchMode):
    """Every operator that must wait for a device, or copies from the host, is an error."""

    QUESTIONS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique", "masked_select", "lift_fresh")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        by_mask = name in ("index", "index_put_") and any(t is not None and t.dtype == torch.bool for t in args[1])
        assert name not in self.QUESTIONS and not by_mask, f"{func} asks the host"
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_no_operator_of_a_step_asks_the_host(case, device):
    run = decoding(case, device)
    close(case, run(PROMPT), run.expect[:, PROMPT])  # makes tables
    for i in range(PROMPT + 1, PROMPT + STEPS):
        with RefusesToAnswer():
            out = run(i)
        close(case, out, run.expect[:, i])


def test_what_asks_is_found(device):
    x = torch.ones(3, device=device)
    for question in (lambda: x.sum().item(), lambda: x[x > 0], lambda: torch.tensor([1.0]), lambda: bool(x.any())):
        with pytest.raises(AssertionError, match="asks the host"), RefusesToAnswer():
            question()


@pytest.fixture
def gpu() -> Iterator[str]:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    yield "cuda"
    torch.cuda.synchronize()


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@torch.no_grad()
def test_a_step_never_waits(case, gpu):
    run = decoding(case, gpu)
    run(PROMPT)
    with waiting_is_an_error():
        outs = [run(i).clone() for i in range(PROMPT + 1, PROMPT + STEPS)]
    for i, out in enumerate(outs, PROMPT + 1):
        close(case, out, run.expect[:, i])
    with pytest.raises(RuntimeError, match="synchronizing"), waiting_is_an_error():
        outs[0].sum().item()


@pytest.mark.gpu
@torch.no_grad()
def test_a_step_in_a_graph(case, gpu):
    """Captured once and replayed: each replay reads its token and writes the cache where the last one stopped."""
    run = decoding(case, gpu)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as PyTorch asks before a capture: the first step for real
        close(case, run(PROMPT), run.expect[:, PROMPT])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run.run()
    for i in range(PROMPT + 1, PROMPT + STEPS):
        run.write(i)
        graph.replay()
        close(case, out, run.expect[:, i])
    if isinstance(run.cache, rf.KVCache):
        assert run.cache.lengths.tolist() == [PROMPT + STEPS] * BATCH
        run.cache.advance(STEPS - 2)  # capturing counted one
        assert run.cache.seen == PROMPT + STEPS


@pytest.mark.gpu
@torch.no_grad()
def test_a_step_copies_nothing_to_or_from_the_host(case, gpu):
    from torch.profiler import ProfilerActivity, profile

    run = decoding(case, gpu)
    run(PROMPT)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for i in range(PROMPT + 1, PROMPT + STEPS):
            run(i)
        torch.cuda.synchronize()
    on_device = [event.name for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [name for name in on_device if "DtoH" in name or "HtoD" in name]
    assert len(on_device) > STEPS and not copies
