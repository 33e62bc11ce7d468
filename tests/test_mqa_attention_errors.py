from __future__ import annotations

import pytest
import torch

import rocforge_ops as rf


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


Q, K, V = torch.zeros(2, 4, 5, 8), torch.zeros(2, 2, 7, 8), torch.zeros(2, 2, 7, 6)
PACKED = {"query": Q[:1], "key": K[:1], "value": V[:1]}

SHAPES_AND_DTYPES = [
    ({"query": Q[0]}, ValueError, r"must be \[batch, heads, length, head_dim\]"),
    ({"value": V[0]}, ValueError, r"must be \[batch, heads, length, head_dim\]"),
    ({"query": Q.long(), "key": K.long(), "value": V.long()}, TypeError, "must be float16, bfloat16.*got Long"),
    ({"key": K.half()}, TypeError, "one dtype, got Float, Half and Float"),
    ({"value": V.double()}, TypeError, "one dtype"),
    ({"key": K[:1]}, ValueError, "one batch size, got 2, 1 and 2"),
    ({"value": V[:, :1]}, ValueError, "same heads and length"),
    ({"value": V[:, :, :6]}, ValueError, "same heads and length"),
    ({"key": K[..., :7]}, ValueError, "one head_dim, got 8 and 7"),
    ({"query": Q[..., :0], "key": K[..., :0]}, ValueError, "head_dim must not be 0"),
    ({"value": V[..., :0]}, ValueError, "head_dim must not be 0"),
    ({"query": Q[:, :3]}, ValueError, "multiple of the key/value heads, got 3 and 2"),
    ({"key": K[:, :0], "value": V[:, :0]}, ValueError, "multiple of the key/value heads, got 4 and 0"),
    ({"query": torch.zeros(2, 4, 8, 5).mT}, ValueError, "query must have stride 1 in its last dimension"),
    ({"key": torch.zeros(2, 2, 8, 7).mT}, ValueError, "key must have stride 1"),
    ({"value": torch.zeros(2, 2, 7, 12)[..., ::2]}, ValueError, "value must have stride 1"),
]
OPTIONS = [
    ({"causal": "yes"}, ValueError, "causal must be 'none', 'top_left' or 'bottom_right', got 'yes'"),
    ({"scale": float("nan")}, ValueError, "scale must be finite"),
    ({"scale": float("inf")}, ValueError, "scale must be finite"),
    ({"window": 0}, ValueError, "window must be at least 1.*got 0"),
    ({"window": -5}, ValueError, "window must be at least 1"),
    ({"softcap": -1.0}, ValueError, "softcap must be positive"),
    ({"softcap": float("inf")}, ValueError, "softcap must be positive"),
    ({"attn_mask": torch.zeros(5, 7).half()}, TypeError, "must be float32 or of query's dtype"),
    ({"attn_mask": torch.zeros(5, 7).long()}, TypeError, "attn_mask, when not bool, must be"),
    ({"attn_mask": torch.zeros(5, 6)}, ValueError, r"\[5, 6\] cannot be broadcast to.*\[2, 4, 5, 7\]"),
    ({"attn_mask": torch.zeros(2, 2, 5, 7)}, ValueError, "cannot be broadcast"),
    ({"attn_mask": torch.zeros(1, 1, 1, 5, 7)}, ValueError, "cannot be broadcast"),
    ({"sinks": torch.zeros(2)}, ValueError, r"sinks must be \[query heads\]"),
    ({"sinks": torch.zeros(4, 1)}, ValueError, r"sinks must be \[query heads\]"),
    ({"sinks": torch.zeros(4).half()}, TypeError, "sinks must be float32 or"),
    ({"alibi_slopes": torch.zeros(2)}, ValueError, r"alibi_slopes must be \[query heads\] or \[batch, query heads\]"),
    ({"alibi_slopes": torch.zeros(1, 4)}, ValueError, "alibi_slopes must be"),
    ({"alibi_slopes": torch.zeros(4).double()}, TypeError, "alibi_slopes must be float32 or"),
]
LENGTHS = [
    ({"kv_lengths": torch.zeros(2)}, TypeError, "kv_lengths must be int32, got Float"),
    ({"kv_lengths": torch.zeros(2).long()}, TypeError, "kv_lengths must be int32, got Long"),
    ({"kv_lengths": int32(1, 2, 3)}, ValueError, "one length per batch row"),
    ({"kv_lengths": int32(1, 2).view(2, 1)}, ValueError, "one dimension"),
    ({"kv_lengths": int32(1, 8)}, ValueError, r"kv_lengths\[1\] = 8 is not in 0 .. 7"),
    ({"kv_lengths": int32(-1, 7)}, ValueError, r"kv_lengths\[0\] = -1 is not in"),
    ({**PACKED, "cu_seqlens_q": int32(0, 5)}, ValueError, "given together"),
    ({**PACKED, "cu_seqlens_k": int32(0, 7)}, ValueError, "given together"),
    ({"cu_seqlens_q": int32(0, 5), "cu_seqlens_k": int32(0, 7)}, ValueError, "one batch row, got batch size 2"),
    ({**PACKED, "cu_seqlens_q": int32(0, 5).long(), "cu_seqlens_k": int32(0, 7)}, TypeError, "must be int32"),
    ({**PACKED, "cu_seqlens_q": int32(0, 5), "cu_seqlens_k": int32(0, 3, 7)}, ValueError, "the same size"),
    ({**PACKED, "cu_seqlens_q": int32(), "cu_seqlens_k": int32()}, ValueError, "the same size"),
    ({**PACKED, "cu_seqlens_q": int32(0, 4), "cu_seqlens_k": int32(0, 7)}, ValueError, "end with the length 5, got 0"),
    (
        {**PACKED, "cu_seqlens_q": int32(0, 5), "cu_seqlens_k": int32(1, 7)},
        ValueError,
        "cu_seqlens_k must begin with 0",
    ),
    (
        {**PACKED, "cu_seqlens_q": int32(0, 4, 2, 5), "cu_seqlens_k": int32(0, 1, 2, 7)},
        ValueError,
        "must not decrease, got 4 before 2",
    ),
    (
        {**PACKED, "cu_seqlens_q": int32(0, 5), "cu_seqlens_k": int32(0, 7), "kv_lengths": int32(3)},
        ValueError,
        "give one of them",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), SHAPES_AND_DTYPES + OPTIONS + LENGTHS)
def test_wrong_arguments(arguments, error, message, reference_device):
    with pytest.raises(error, match=message):
        rf.mqa_attention(**{"query": Q, "key": K, "value": V, **arguments})


@pytest.mark.gpu
def test_tensors_on_two_devices():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    with pytest.raises(ValueError, match="all tensors must be on one device: query is on cuda:0, value on cpu"):
        rf.mqa_attention(Q.cuda(), K.cuda(), V)


def test_slopes_have_no_gradient(device):
    slopes = torch.zeros(4, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="not differentiable in alibi_slopes"):
        rf.mqa_attention(Q.to(device), K.to(device), V.to(device), alibi_slopes=slopes)


def test_no_second_derivative(device):
    query, key = Q.to(device).requires_grad_(), K.to(device)
    (grad,) = torch.autograd.grad(rf.mqa_attention(query, key, key).sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="mqa_attention has no second derivative"):
        grad.sum().backward()


def test_wrong_gradients(reference_device):
    out, lse = rf.mqa_attention(Q, K, V, return_lse=True)

    def backward(grad_out=out, grad_lse=None, lse=lse, mask=None):
        options = (mask, "none", None, None, 0.0, None, None, None, None, None, mask is not None)
        return torch.ops.rocforge.mqa_attention_backward(grad_out, grad_lse, Q, K, V, out, lse, *options)

    for arguments, error, message in [
        ({"grad_out": out[..., :5]}, ValueError, "out and grad_out must be"),
        ({"grad_out": out.half()}, TypeError, "must have query's dtype"),
        ({"lse": lse[..., :3]}, ValueError, "lse and grad_lse must be"),
        ({"grad_lse": lse.double()}, TypeError, "must be float32"),
        ({"mask": torch.ones(5, 7, dtype=torch.bool)}, ValueError, "only a float attn_mask has a gradient"),
    ]:
        with pytest.raises(error, match=message):
            backward(**arguments)
