"""mqa_attention as PyTorch's flash attention: what F.scaled_dot_product_attention and varlen_attn run on a GPU.

Importing rocforge_ops puts "rocforge" into PyTorch's registry and changes nothing else. It runs after
`torch.nn.attention.activate_flash_attention_impl("rocforge")`, or `enable()`, or inside `enabled()`; the last two also
where PyTorch has no registry. All of them act on the whole process, since gradients are computed in other threads.

While active, every call that PyTorch sends to its flash backend runs our kernels, forward and backward, with PyTorch's
own shapes, strides and log-sum-exp: a graph compiled before stays valid, and a backward pass may run on either side of
the switch. What we do not have (dropout above all) is left to PyTorch's kernel, and said once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rocforge_ops.integrations import versions

NAME = "rocforge"


class FlashAttention:
    """Our kernels under the names of PyTorch's, from construction until remove(): what the registry calls a handle.

    Args:
        key: the dispatch key that is taken over.
    """

    def __init__(self, key: str = "CUDA") -> None:
        versions.require("torch")
        self._library = torch.library.Library("aten", "IMPL", key)
        for name, ours in _KERNELS.items():
            if hasattr(torch.ops.aten, name):  # older PyTorch has no _flash_attention_forward_no_dropout_inplace
                kernel = _routed(name, ours, key)
                self._library.impl(name, kernel, key, with_keyset=True, allow_override=True)

    def remove(self) -> None:
        self._library._destroy()


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.AutocastCPU
)


def _routed(name: str, ours: Callable[..., Any], key: str) -> Callable[..., Any]:
    """`ours` where it can do what is asked, otherwise the kernel that PyTorch has registered now."""
    operator = getattr(torch.ops.aten, name).default
    names = [argument.name for argument in operator._schema.arguments]
    has_theirs = torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key)
    theirs = torch.library.get_kernel(operator, key) if has_theirs else None

    def kernel(keys: torch.DispatchKeySet, *values: Any, **options: Any) -> Any:
        call = dict(zip(names, values, strict=False), **options)  # defaults are not passed on
        reason = _beyond_us(call)
        if reason is None:
            with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):  # PyTorch's kernel takes the tensors as they are
                return ours(**call)
        if theirs is None:
            raise NotImplementedError(f"rocforge has no {reason} in flash attention, and PyTorch no kernel on {key}")
        _say_once(reason)
        return theirs.call_boxed(keys, *values, **options)

    return kernel


# What any of the operators may be given. alibi_slopes are not among it: PyTorch's backward is never told of them.
_UNDERSTOOD = {
    *("out", "query", "key", "value", "grad_out", "logsumexp"),
    *("cum_seq_q", "cum_seq_k", "max_q", "max_k", "scale", "is_causal", "dropout_p", "return_debug_mask"),
    *("window_size_left", "window_size_right"),
    *("rng_state", "unused", "philox_seed", "philox_offset"),  # of dropout
}


def _beyond_us(call: dict[str, Any]) -> str | None:
    """What of a call mqa_attention cannot do, in words."""
    if call.get("dropout_p", 0.0) > 0:
        return "dropout"
    if call.get("return_debug_mask"):
        return "debug mask"
    for name, value in call.items():
        if name not in _UNDERSTOOD and value is not None:
            return name
    if not call.get("is_causal") and (call.get("window_size_right") or 0) > 0:
        return "window that ends after the query"
    if call.get("cum_seq_q") is not None and call.get("cum_seq_k") is None:
        return "packed queries beside keys that are not packed"
    return None


_said: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        warnings.warn(
            f"rocforge has no {reason} in flash attention: PyTorch's own kernel runs such calls", stacklevel=3
        )


def _sdpa_forward(query: Tensor, key: Tensor, value: Tensor, **call: Any) -> tuple[Any, ...]:
    """[B, H, L, D] -> out with query's strides, lse [B, H, Lq]."""
    out, lse = torch.ops.rocforge.mqa_attention(query, key, value, **_options(call))
    lengths = query.shape[2], key.shape[2]
    return _with_strides_of(query, out), lse, None, None, *lengths, *_random_state(query), query.new_empty(0)


def _sdpa_backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, **call: Any) -> tuple[Tensor, ...]:
    grads = _backward([grad_out, query, key, value, call["out"]], call["logsumexp"], _options(call))
    return tuple(_with_strides_of(t, grad) for t, grad in zip((query, key, value), grads, strict=True))


def _flash_forward(query: Tensor, key: Tensor, value: Tensor, **call: Any) -> tuple[Any, ...]:
    """[B, L, H, D] -> out, lse [B, H, Lq]; with cum_seq_q [total, H, D] -> out, lse [H, total]."""
    out, lse = _flash(query, key, value, call)
    return _with_strides_of(query, out), lse, *_random_state(query), query.new_empty(0)


def _flash_forward_inplace(out: Tensor, query: Tensor, key: Tensor, value: Tensor, **call: Any) -> Tensor:
    result, lse = _flash(query, key, value, call)
    out.copy_(result)
    return lse


def _flash(query: Tensor, key: Tensor, value: Tensor, call: dict[str, Any]) -> tuple[Tensor, Tensor]:
    options = _options(call)
    packed = "cu_seqlens_q" in options
    out, lse = torch.ops.rocforge.mqa_attention(*(_heads_first(t, packed) for t in (query, key, value)), **options)
    return _heads_last(out, packed), lse[0] if packed else lse


def _flash_backward(grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, **call: Any) -> tuple[Tensor, ...]:
    options = _options(call)
    packed = "cu_seqlens_q" in options
    lse = call["logsumexp"][None] if packed else call["logsumexp"]
    inputs = grad_out, query, key, value, call["out"]
    grads = _backward([_heads_first(t, packed) for t in inputs], lse, options)
    pairs = zip((query, key, value), grads, strict=True)
    return tuple(_with_strides_of(t, _heads_last(grad, packed)) for t, grad in pairs)


_KERNELS: dict[str, Callable[..., Any]] = {
    "_scaled_dot_product_flash_attention": _sdpa_forward,
    "_scaled_dot_product_flash_attention_backward": _sdpa_backward,
    "_flash_attention_forward": _flash_forward,
    "_flash_attention_forward_no_dropout_inplace": _flash_forward_inplace,
    "_flash_attention_backward": _flash_backward,
}


def _options(call: dict[str, Any]) -> dict[str, Any]:
    """mqa_attention's options for those of a flash operator.

    As in FlashAttention 2.1 and later, the last query stands at the last key. F.scaled_dot_product_attention, whose
    causal rule begins at the first, sends no causal call of unequal lengths here.
    """
    left, right = call.get("window_size_left"), call.get("window_size_right")
    causal = call.get("is_causal") or right == 0
    options: dict[str, Any] = {"causal": "bottom_right" if causal else "none", "scale": call.get("scale")}
    if left is not None and left >= 0:
        options["window"] = left + 1  # ours counts the query's own position
    if call.get("cum_seq_q") is not None:
        options |= {"cu_seqlens_q": call["cum_seq_q"], "cu_seqlens_k": call["cum_seq_k"]}
    return options


def _backward(inputs: list[Tensor], lse: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value from grad_out, query, key, value and out, all [B, H, L, D]."""
    grad_out, query, key, value, out = inputs
    grad_query, grad_key, grad_value, *_ = torch.ops.rocforge.mqa_attention_backward(
        *(grad_out, None, query, key, value, out, lse, None),  # no gradient of lse, no mask
        *(options["causal"], options["scale"], options.get("window"), 0.0),  # no softcap
        *(None, None, None, options.get("cu_seqlens_q"), options.get("cu_seqlens_k")),  # no sinks, slopes, lengths
        False,
    )
    return grad_query, grad_key, grad_value


def _heads_first(t: Tensor, packed: bool) -> Tensor:
    """[B, L, H, D], or [total, H, D], as [B, H, L, D]."""
    return (t[None] if packed else t).transpose(1, 2)


def _heads_last(t: Tensor, packed: bool) -> Tensor:
    t = t.transpose(1, 2)
    return t[0] if packed else t


def _with_strides_of(model: Tensor, t: Tensor) -> Tensor:
    """`t` laid out as PyTorch's kernel lays out its result, which torch.compile relies on."""
    result = torch.empty_like(model)
    return t if t.stride() == result.stride() else result.copy_(t)


def _random_state(query: Tensor) -> tuple[Tensor, Tensor]:
    """What dropout would have drawn; read by nobody, but of the type that PyTorch's backward takes."""
    shape, dtype = ((), torch.int64) if torch.version.hip else ((2,), torch.uint64)
    state = torch.empty(shape, dtype=dtype, device=query.device)
    return state, torch.empty((), dtype=dtype, device=query.device)


_lock = threading.Lock()
_own_handle: FlashAttention | None = None  # where PyTorch has no registry
_contexts = 0  # enabled() blocks entered and not left, in all threads
_before: str | None = None  # what was active when the first of them was entered


def _has_registry() -> bool:
    return hasattr(torch.nn.attention, "register_flash_attention_impl")


def register() -> None:
    """Make the name known to PyTorch's registry, where there is one; what importing rocforge_ops does."""
    if _has_registry():
        torch.nn.attention.register_flash_attention_impl(NAME, register_fn=FlashAttention)


def active() -> str | None:
    """Name of the flash attention that has taken the place of PyTorch's own, ours or another's."""
    if _has_registry():
        return torch.nn.attention.current_flash_attention_impl()
    return None if _own_handle is None else NAME


def enable() -> None:
    """Run our kernels for all that PyTorch sends to its flash backend, in the whole process. Repeating it is harmless.

    Raises:
        RuntimeError: a version of PyTorch that this was not tested with.
    """
    with _lock:
        _switch(NAME)


def disable() -> None:
    """Give PyTorch its own kernels back; nothing happens unless ours are active."""
    with _lock:
        if active() == NAME:
            _switch(None)


@contextmanager
def enabled() -> Iterator[None]:
    """Context in which our kernels are active, in all threads; what was active before returns with the last exit."""
    global _contexts, _before
    with _lock:
        if _contexts == 0:
            _before = active()
        _switch(NAME)
        _contexts += 1
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1
            if _contexts == 0:
                _switch(_before)


def _switch(name: str | None) -> None:
    global _own_handle
    if active() == name:
        return
    if _has_registry():
        if name is None:
            torch.nn.attention.restore_flash_attention_impl()
        else:
            torch.nn.attention.activate_flash_attention_impl(name)
    elif name is None:
        assert _own_handle is not None
        _own_handle.remove()
        _own_handle = None
    else:
        _own_handle = FlashAttention()
