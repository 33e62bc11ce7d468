"""Inputs of mqa_attention for its tests: every feature by name, and the bound that results are held to."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import reference
import torch
from conftest import KERNELS
from torch import Tensor

import rocforge_ops as rf

Options = dict[str, object]
EXCLUSIVE = ({"top_left", "bottom_right"}, {"kv_lengths", "cu_seqlens"}, {"alibi", "alibi_per_row"})


def tensors(
    batch: int, heads: int, kv_heads: int, rows: int, keys: int, head_dim: int, value_dim: int | None = None, **to
) -> tuple[Tensor, Tensor, Tensor]:
    """query, key and value, standard normal; drawn in float64 so that every dtype gets the same numbers."""
    shapes = (heads, rows, head_dim), (kv_heads, keys, head_dim), (kv_heads, keys, value_dim or head_dim)
    return tuple(torch.randn(batch, *shape, dtype=torch.float64).to(**to) for shape in shapes)


def cuts(length: int, *, device: str) -> Tensor:
    """cu_seqlens of four sequences, the second of them empty."""
    return torch.tensor([0, length // 3, length // 3, length // 2, length], dtype=torch.int32, device=device)


def bool_mask(*shape: int, device: str) -> Tensor:
    mask = torch.rand(shape) < 0.6
    mask[..., 0, :] = False  # a row without any key
    return mask.to(device)


def float_mask(*shape: int, like: Tensor) -> Tensor:
    mask = torch.randn(shape, dtype=torch.float64).masked_fill(torch.rand(shape) < 0.2, -torch.inf)
    return mask.to(like)


# name -> options for query [B, Hq, Lq, D] and key [B, Hkv, Lk, D]
FEATURES: dict[str, Callable[[Tensor, Tensor], Options]] = {
    "top_left": lambda q, k: {"causal": "top_left"},
    "bottom_right": lambda q, k: {"causal": "bottom_right"},
    "window": lambda q, k: {"window": 1 + k.shape[2] // 5},
    "bool_mask": lambda q, k: {"attn_mask": bool_mask(*q.shape[:3], k.shape[2], device=q.device)},
    "bool_mask_of_keys": lambda q, k: {"attn_mask": bool_mask(q.shape[0], 1, 1, k.shape[2], device=q.device) | True},
    "mask": lambda q, k: {"attn_mask": float_mask(*q.shape[:3], k.shape[2], like=q)},
    "mask_of_batch": lambda q, k: {"attn_mask": float_mask(q.shape[0], 1, *q.shape[2:3], k.shape[2], like=q)},
    "mask_of_heads": lambda q, k: {"attn_mask": float_mask(q.shape[1], 1, k.shape[2], like=q)},
    "softcap": lambda q, k: {"softcap": 1.5},
    "sinks": lambda q, k: {"sinks": torch.linspace(-3, 3, q.shape[1]).to(q)},
    "alibi": lambda q, k: {"alibi_slopes": torch.linspace(0.01, 1, q.shape[1]).to(q)},
    "alibi_per_row": lambda q, k: {"alibi_slopes": torch.rand(q.shape[:2]).to(q)},
    "kv_lengths": lambda q, k: {
        "kv_lengths": torch.linspace(k.shape[2], k.shape[2] // 3, q.shape[0]).to(q.device, torch.int32)
    },
    "cu_seqlens": lambda q, k: {
        "cu_seqlens_q": cuts(q.shape[2], device=q.device),
        "cu_seqlens_k": cuts(k.shape[2], device=q.device),
    },
    "scale": lambda q, k: {"scale": 0.4},
    "negative_scale": lambda q, k: {"scale": -0.3},
}


def pairs() -> list[tuple[str, str]]:
    """Any two features that do not contradict each other."""

    def contradict(pair: tuple[str, str]) -> bool:
        kinds = [{"attn_mask" if "mask" in name else "scale" if "scale" in name else name} for name in pair]
        return kinds[0] == kinds[1] or any(set(pair) <= exclusive for exclusive in EXCLUSIVE)

    return [pair for pair in itertools.combinations(FEATURES, 2) if not contradict(pair)]


def sampled(parameters: list, step: int) -> list:
    """All of them; of the slow emulation's every `step`-th."""
    return parameters[:: step if KERNELS else 1]


def options_of(names: tuple[str, ...], query: Tensor, key: Tensor) -> Options:
    return {name: option for feature in names for name, option in FEATURES[feature](query, key).items()}


def errors(result: Tensor, exact: Tensor) -> tuple[float, float]:
    """Root mean square and largest error over the entries that are finite; those that are not must be the same."""
    finite = exact.isfinite()
    assert result.shape == exact.shape and result[~finite].double().equal(exact[~finite])
    difference = (result.double() - exact)[finite]
    return (difference.square().mean().sqrt().item(), difference.abs().amax().item()) if finite.any() else (0.0, 0.0)


# Where plain PyTorch happens to be exact, and for float64, where the exact result is a float64 one itself.
ROUNDINGS = {torch.float64: 64, torch.float32: 4, torch.float16: 1, torch.bfloat16: 1}


def hold(result: Tensor, plain: Tensor, exact: Tensor, terms: float = 0.0) -> None:
    """The error is at most twice that of plain PyTorch in the same dtype, a single largest one four times.

    `terms`: size of what is summed up, where it may cancel.
    """
    finite = exact[exact.isfinite()]
    largest = max(terms, finite.abs().amax().item() if finite.numel() else 0.0)
    rounding = ROUNDINGS[plain.dtype] * torch.finfo(plain.dtype).eps / 2 * largest
    (mean, peak), (plain_mean, plain_peak) = errors(result, exact), errors(plain, exact)
    assert mean <= max(2 * plain_mean, rounding) and peak <= max(4 * plain_peak, 2 * rounding)
    assert result.dtype != torch.float32 or peak <= 1e-5 * largest


def check(query: Tensor, key: Tensor, value: Tensor, **options: object) -> Tensor:
    """Compares out and lse with float64 on the same inputs; returns out."""
    out, lse = rf.mqa_attention(query, key, value, return_lse=True, **options)
    exact_out, exact_lse = reference.mqa_attention(query, key, value, **options)
    plain_out, _ = reference.mqa_attention(query, key, value, **options, dtype=query.dtype)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    _, plain_lse = reference.mqa_attention(query, key, value, **options, dtype=wide)
    assert out.dtype == query.dtype and out.is_contiguous() and lse.dtype == torch.float32
    hold(out, plain_out, exact_out)
    hold(lse, plain_lse.float(), exact_lse)
    return out
