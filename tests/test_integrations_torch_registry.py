"""Switching PyTorch's flash attention to ours and back: its registry, our own switch, and what is left to PyTorch."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings

import attention_cases as cases
import pytest
import torch

from rocforge_ops.integrations import torch_sdpa

aten = torch.ops.aten
HAS_REGISTRY = torch_sdpa._has_registry()


def registered() -> bool:
    """Whether a CUDA kernel is there: on a build without CUDA it can only be ours."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("aten::_scaled_dot_product_flash_attention_backward", "CUDA")


@pytest.fixture(params=["registry", "no_registry"])
def registry(request, monkeypatch, reference_device):
    """With PyTorch's registry, and as where it has none."""
    if request.param == "no_registry":
        monkeypatch.setattr(torch_sdpa, "_has_registry", lambda: False)
    elif not HAS_REGISTRY:
        pytest.skip("this PyTorch has no registry")
    if torch.backends.cuda.is_built():
        pytest.skip("PyTorch's own kernels are registered too")
    assert torch_sdpa.active() is None and not registered()
    yield
    assert torch_sdpa.active() is None and not registered()


def test_enable_and_disable(registry):
    for _ in range(2):
        torch_sdpa.enable()
        assert torch_sdpa.active() == "rocforge" and registered()
    for _ in range(2):
        torch_sdpa.disable()
        assert torch_sdpa.active() is None and not registered()


def test_enabled(registry):
    with torch_sdpa.enabled():
        with torch_sdpa.enabled():
            assert registered()
        assert registered()
    assert not registered()
    with pytest.raises(ValueError, match="inside"), torch_sdpa.enabled():
        raise ValueError("inside")
    assert not registered()
    torch_sdpa.enable()
    with torch_sdpa.enabled():
        pass
    assert registered()
    torch_sdpa.disable()


def test_contexts_of_threads_overlap(registry):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with torch_sdpa.enabled():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with torch_sdpa.enabled():
        thread.start()
        assert entered.wait(10)
    assert registered()  # the other thread is still inside
    leave.set()
    thread.join()
    assert not registered()


@pytest.mark.skipif(not HAS_REGISTRY, reason="this PyTorch has no registry")
def test_through_pytorchs_registry():
    assert "rocforge" in torch.nn.attention.list_flash_attention_impls()
    assert torch.nn.attention.current_flash_attention_impl() is None
    torch.nn.attention.activate_flash_attention_impl("rocforge")
    assert torch.nn.attention.current_flash_attention_impl() == "rocforge" and registered()
    torch.nn.attention.restore_flash_attention_impl()
    assert torch.nn.attention.current_flash_attention_impl() is None


@pytest.mark.skipif(not HAS_REGISTRY, reason="this PyTorch has no registry")
def test_another_implementation_is_active_again_afterwards():
    class Other:
        def remove(self):
            pass

    torch.nn.attention.register_flash_attention_impl("other", register_fn=Other)
    torch.nn.attention.activate_flash_attention_impl("other")
    try:
        with torch_sdpa.enabled():
            assert torch_sdpa.active() == "rocforge"
        torch_sdpa.disable()  # not ours: stays
        assert torch_sdpa.active() == "other"
    finally:
        torch.nn.attention.restore_flash_attention_impl()
        del torch.nn.attention._registry._FLASH_ATTENTION_IMPLS["other"]


def test_import_activates_nothing_and_loads_no_host():
    code = """
import sys, rocforge_ops as rf
assert rf.integrations.torch_sdpa.active() is None
loaded = {"transformers", "diffusers", "gguf"} & set(sys.modules)
assert not loaded, loaded
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_what_we_do_not_have_is_pytorchs_and_said_once(reference_device, monkeypatch):
    monkeypatch.setattr(torch_sdpa, "_said", set())
    pytorch = torch.library.Library("aten", "IMPL", "CPU")
    calls = []

    def theirs(query, *rest, **options):
        calls.append((rest[2:], options))
        lse, seed = query.new_empty(query.shape[:-1]), torch.empty(2, dtype=torch.uint64)
        return query, lse, None, None, query.shape[2], query.shape[2], seed, seed[0], query.new_empty(0)

    pytorch.impl("_scaled_dot_product_flash_attention", theirs)
    query, key, value = cases.tensors(1, 2, 2, 5, 5, 8, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        handle = torch_sdpa.FlashAttention("CPU")
    try:
        assert not aten._scaled_dot_product_flash_attention(query, key, value, 0.0)[0].equal(query)
        assert not calls
        with pytest.warns(UserWarning, match="no dropout in flash attention: PyTorch's own kernel") as said:
            for _ in range(2):
                assert aten._scaled_dot_product_flash_attention(query, key, value, 0.5, scale=2.0)[0].equal(query)
        assert len(said) == 1 and calls == [((0.5,), {"scale": 2.0})] * 2
        handle.remove()
        assert aten._scaled_dot_product_flash_attention(query, key, value, 0.0)[0].equal(query)  # theirs is back
    finally:
        handle.remove()
        pytorch._destroy()
