"""Layers to test with, what they should give, and how near to it they must be."""

from __future__ import annotations

import reference
import torch
from torch import Tensor

import rocforge_ops as rf


def check(actual: Tensor, exact: Tensor, plain: Tensor) -> None:
    """As near to float64 as plain PyTorch in the same dtype: within twice its error, or 1e-5 of the largest value."""
    assert actual.dtype == plain.dtype and actual.shape == exact.shape
    error, theirs = ((x.double() - exact).square().mean().sqrt() for x in (actual, plain))
    assert error <= max(2 * theirs, 1e-5 * exact.abs().max() if actual.dtype == torch.float32 else 0)
    assert (actual.double() - exact).abs().max() <= max(
        4 * (plain.double() - exact).abs().max(), 1e-5 * exact.abs().max()
    )


def layer(config: rf.MultiQueryConfig, device: str, dtype: torch.dtype = torch.float32) -> rf.nn.MultiQueryAttention:
    """With weights that give scores of order 1, on any device the same."""
    torch.manual_seed(config.num_query_heads)
    module = rf.nn.MultiQueryAttention(config)
    for name, parameter in module.named_parameters():
        spread = config.width**-0.5 if name.endswith(("qkv.weight", "out.weight")) else 0.3
        torch.nn.init.normal_(parameter, mean="norm" in name, std=spread)
    return module.to(device, dtype).requires_grad_(False)


def expected(
    module: rf.nn.MultiQueryAttention, hidden: Tensor, dtype=torch.float64, positions=None, **options
) -> Tensor:
    """tests/reference.py's layer with the module's weights and settings."""
    c = module.config
    angles = None
    if c.rope is not None:
        positions = torch.arange(hidden.shape[1], device=hidden.device) if positions is None else positions
        angles = positions.double()[..., None] * c.rope.frequencies(c.head_dim).to(hidden.device)
        angles = angles.unsqueeze(-3)
    options = {"causal": "bottom_right" if c.causal else "none", "window": c.window} | options
    return reference.multi_query_attention(
        hidden,
        module.qkv.weight,
        module.out.weight,
        heads=(c.num_query_heads, c.num_kv_heads),
        qkv_bias=module.qkv.bias,
        out_bias=module.out.bias,
        norms=None if module.q_norm is None else (module.q_norm.weight, module.k_norm.weight),
        eps=c.qk_norm_eps,
        angles=angles,
        interleaved=c.rope is not None and c.rope.interleaved,
        dtype=dtype,
        scale=c.scale,
        softcap=c.softcap,
        sinks=module.sinks,
        **options,
    )
