from __future__ import annotations

import attention_cases as cases
import pytest
import torch
import torch.nn.functional as F

import rocforge_ops as rf


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def check(*arguments, **options) -> None:
    """As close to PyTorch's function in float64 as PyTorch's own in the same dtype is."""

    def wide(t):
        return t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t

    exact = F.scaled_dot_product_attention(*map(wide, arguments), **{n: wide(t) for n, t in options.items()})
    plain = F.scaled_dot_product_attention(*arguments, **options)
    out = rf.scaled_dot_product_attention(*arguments, **options)
    assert out.dtype == plain.dtype
    cases.hold(out, plain, exact)


MASKS = {
    "none": lambda shape, dtype: None,
    "bool": lambda shape, dtype: torch.rand(shape) < 0.7,
    "float": lambda shape, dtype: torch.randn(shape).masked_fill(torch.rand(shape) < 0.2, -torch.inf).to(dtype),
    "bool_of_keys": lambda shape, dtype: torch.rand(shape[0], 1, 1, shape[-1]) < 0.7,
    "float_of_rows": lambda shape, dtype: torch.randn(shape[-2:]).to(dtype),
    "causal": lambda shape, dtype: True,
}


@pytest.mark.parametrize("lengths", [(1, 33), (17, 17), (40, 70), (70, 40)], ids=str)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)], ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_grid(dtype, mask, heads, lengths, device):
    query, key, value = cases.tensors(2, *heads, *lengths, 24, 16, device=device, dtype=dtype)
    made = MASKS[mask]((2, heads[0], *lengths), dtype)
    options = {"is_causal": True} if made is True else {"attn_mask": made if made is None else made.to(device)}
    check(query, key, value, scale=0.3, enable_gqa=heads[0] != heads[1], **options)


SHAPES = [
    ((5, 8), (7, 8), (7, 6)),
    ((2, 5, 8), (2, 7, 8), (2, 7, 6)),
    ((2, 5, 8), (1, 7, 8), (1, 7, 6)),
    ((3, 2, 4, 5, 8), (3, 2, 4, 7, 8), (3, 2, 4, 7, 6)),
    ((3, 2, 4, 5, 8), (1, 2, 4, 7, 8), (3, 1, 4, 7, 6)),
    ((2, 4, 5, 8), (2, 1, 7, 8), (2, 1, 7, 8)),
    ((2, 1, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    ((2, 4, 5, 8), (2, 1, 7, 8), (2, 4, 7, 8)),
    ((2, 4, 5, 8), (4, 7, 8), (4, 7, 8)),
    ((2, 4, 5, 8), (7, 8), (7, 8)),
    ((0, 4, 5, 8), (0, 4, 7, 8), (0, 4, 7, 8)),
    ((2, 4, 0, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    ((2, 4, 5, 8), (2, 4, 0, 8), (2, 4, 0, 8)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_shapes(shapes, device):
    query, key, value = (torch.randn(shape, device=device) for shape in shapes)
    check(query, key, value)
    check(query, key, value, torch.rand(query.shape[-2], key.shape[-2], device=device) < 0.6)


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((4, 5, 8), (2, 7, 8), (2, 7, 6)),
        ((3, 2, 4, 5, 8), (3, 2, 2, 7, 8), (3, 2, 2, 7, 6)),
        ((2, 12, 5, 8), (2, 4, 7, 8), (2, 2, 7, 8)),
        ((2, 12, 5, 8), (2, 3, 7, 8), (2, 2, 7, 8)),
    ],
)
def test_grouped_heads(query, key, value, device):
    query, key, value = (torch.randn(shape, device=device) for shape in (query, key, value))
    check(query, key, value, enable_gqa=True)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5, 7), (3, 1, 1, 5, 7), (2, 4, 1, 7), (4, 5, 7), (1, 1)])
def test_masks_of_five_dimensions(shape, device):
    query, key = torch.randn(3, 2, 4, 5, 8, device=device), torch.randn(3, 2, 4, 7, 8, device=device)
    check(query, key, key, torch.randn(shape, device=device))


def test_float32_mask_beside_bfloat16(device):
    query, key, value = cases.tensors(2, 4, 4, 5, 7, 8, device=device, dtype=torch.bfloat16)
    check(query, key, value, torch.randn(5, 7, device=device))


def test_any_stride(device):
    query, key = torch.randn(2, 4, 8, 5, device=device).mT, torch.randn(2, 4, 8, 7, device=device).mT
    check(query, key, key, torch.randn(7, 5, device=device).mT)


def test_row_without_keys(device):
    query, key, value = cases.tensors(2, 4, 4, 5, 7, 8, device=device, dtype=torch.float32)
    mask = torch.ones(5, 7, dtype=torch.bool, device=device)
    mask[2] = False
    assert rf.scaled_dot_product_attention(query, key, value, mask)[:, :, 2].eq(0).all()
    check(query, key, value, mask)


def test_gradients(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 12, 8, device=device, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (query, key, value, torch.randn(9, 12, dtype=torch.float64, device=device))]
    results = [
        torch.autograd.grad(attention(*leaves, enable_gqa=True).square().sum(), leaves)
        for attention in (rf.scaled_dot_product_attention, F.scaled_dot_product_attention)
    ]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_as_pytorch_does(dtype, device):
    query, key, value = cases.tensors(2, 4, 4, 9, 12, 8, device=device, dtype=torch.float32)
    functions = rf.scaled_dot_product_attention, F.scaled_dot_product_attention
    with torch.autocast(device, dtype):
        ours, theirs = (attention(query, key, value) for attention in functions)
    assert ours.dtype == theirs.dtype == dtype
    assert (ours - theirs).norm() <= torch.finfo(dtype).eps * theirs.norm()


def test_compiles_whole_graph(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 12, 8, device=device, dtype=torch.float32)
    compiled = torch.compile(rf.scaled_dot_product_attention, fullgraph=True)
    for causal in (False, True):
        expected = rf.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True)
        assert compiled(query, key, value, is_causal=causal, enable_gqa=True).equal(expected)


def test_in_place_of_pytorchs(device):
    query, key = torch.randn(2, 4, 5, 8, device=device), torch.randn(2, 1, 7, 8, device=device)
    with rf.attention.replacing_sdpa():
        out = F.scaled_dot_product_attention(query, key, value=key)
        with pytest.raises(ValueError, match="dropout"):
            F.scaled_dot_product_attention(query, key, key, dropout_p=0.5)
    assert out.equal(rf.scaled_dot_product_attention(query, key, key))
    F.scaled_dot_product_attention(query, key, key, dropout_p=0.5)


Q = torch.zeros(2, 4, 5, 8)
K = torch.zeros(2, 2, 7, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Q, Q, Q, None, 0.1), ValueError, "dropout_p must be 0, got 0.1"),
        ((Q, Q, Q, torch.zeros(5, 5), 0.0, True), ValueError, "exclude each other"),
        ((Q, K, K), ValueError, "one number of heads, or enable_gqa=True, got .4, 2, 2."),
        ((K, Q, Q, None, 0.0, False, None, True), ValueError, "must divide those of query"),
        ((Q[0, 0, 0], Q, Q), ValueError, r"\[..., length, head_dim\], got \[8\]"),
        ((Q, Q.half(), Q), TypeError, "one dtype"),
        ((Q.int(), Q.int(), Q.int()), TypeError, "must be float16"),
        ((Q, Q, Q, torch.zeros(5, 5).half()), TypeError, "float32 or of query's dtype"),
        ((Q, Q, Q, torch.zeros(3, 1, 5, 5)), ValueError, "cannot be broadcast"),
        ((Q, Q[..., :4], Q), ValueError, "one head_dim"),
        ((Q, Q, Q[:, :, :3]), ValueError, "same heads and length"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        rf.scaled_dot_product_attention(*arguments)
