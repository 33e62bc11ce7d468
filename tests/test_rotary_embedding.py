from __future__ import annotations

import pytest
import reference
import torch

import rocforge_ops as rf

HALF_ULP = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float64: 2**-53}


def angles(*shape: int, device: str = "cpu") -> torch.Tensor:
    return 100 * torch.randn(*shape, dtype=torch.float64, device=device)


def check(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, angle: torch.Tensor, interleaved: bool) -> None:
    """The result is the float64 rotation within the rounding of cos and sin, three operations and the store."""
    out = torch.ops.rocforge.rotary_embedding(x, cos, sin, interleaved)
    exact = reference.rotary_embedding(x, angle, interleaved)
    compute = 2**-53 if x.dtype == torch.float64 else 2**-24
    length = x.double().abs().amax(-1, keepdim=True) * 2**0.5
    bound = exact.abs() * HALF_ULP[x.dtype] + 4 * compute * length + 2**-25
    assert out.dtype == x.dtype and out.is_contiguous()
    assert ((out.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", HALF_ULP)
@pytest.mark.parametrize(("head_dim", "rotated"), [(64, 64), (80, 32), (17, 16), (96, 24), (7, 2)])
def test_rotates_pairs(dtype, interleaved, head_dim, rotated, device):
    x = torch.randn(2, 3, 7, head_dim, device=device).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    angle = angles(7, rotated // 2, device=device)
    check(x, angle.cos().to(wide), angle.sin().to(wide), angle, interleaved)


@pytest.mark.parametrize("heads", [1, 6, 13])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_many_heads(heads, interleaved, per_head, device):
    """Enough rows that a group of lanes takes several heads, in both orders of memory; angles for all heads or each."""
    angle = angles(2, heads if per_head else 1, 70, 64, device=device)
    x = torch.randn(2, heads, 70, 128, device=device)
    for layout in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
        check(layout, angle.cos().float(), angle.sin().float(), angle, interleaved)


@pytest.mark.parametrize("q_heads", [1, 4, 8])
def test_query_and_key_heads_of_different_number(q_heads, device):
    """One table of cosines and sines, indexed by position_ids [B, L], for both; gradients rotate back."""
    table, position_ids = angles(50, 4, device=device), torch.tensor([[0, 7, 49], [3, 2, 2]], device=device)
    cos, sin = table.cos()[position_ids], table.sin()[position_ids]
    for heads in (q_heads, 2):
        x = torch.randn(2, heads, 3, 12, dtype=torch.float64, device=device, requires_grad=True)
        out = rf.rotary_embedding(x, cos, sin)
        torch.testing.assert_close(out, reference.rotary_embedding(x, table[position_ids].unsqueeze(1), False))
        weight = torch.randn_like(out)
        (grad,) = torch.autograd.grad(out, x, weight)
        back = reference.rotary_embedding(weight, -table[position_ids].unsqueeze(1), False)
        torch.testing.assert_close(grad, back)


@pytest.mark.parametrize("shape", [(7, 8), (2, 7, 8), (1, 7, 8), (2, 1, 7, 8), (2, 3, 7, 8), (1, 8), (1, 1, 1, 8)])
@pytest.mark.parametrize("interleaved", [False, True])
def test_shapes_of_the_angles(shape, interleaved, device):
    x, angle = torch.randn(2, 3, 7, 20, device=device), angles(*shape, device=device)
    aligned = angle.unsqueeze(1) if angle.dim() == 3 else angle
    check(x, angle.cos().float(), angle.sin().float(), aligned, interleaved)


@pytest.mark.parametrize("interleaved", [False, True])
def test_one_entry_per_element_as_transformers_makes_them(interleaved, device):
    x, angle = torch.randn(2, 3, 7, 16, device=device), angles(2, 7, 8, device=device)
    doubled = angle.repeat_interleave(2, -1) if interleaved else torch.cat([angle, angle], -1)
    check(x, doubled.cos().float(), doubled.sin().float(), angle.unsqueeze(1), interleaved)


def test_matches_transformers(device):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = torch.randn(2, 8, 5, 32, device=device), torch.randn(2, 2, 5, 32, device=device)
    angle = torch.cat([angles(2, 5, 16, device=device)] * 2, -1)
    cos, sin = angle.cos().float(), angle.sin().float()
    for x, expected in zip((q, k), llama.apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        torch.testing.assert_close(rf.rotary_embedding(x, cos, sin), expected, rtol=1e-6, atol=1e-6)


def test_positions_are_chosen_by_indexing(device):
    x, table = torch.randn(2, 1, 3, 8, device=device), angles(20, 4, device=device)
    position_ids = torch.tensor([[0, 5, 19], [7, 7, 1]], device=device)
    angle = table[position_ids]
    check(x, angle.cos().float(), angle.sin().float(), angle.unsqueeze(1), False)


def test_strided(device):
    x = torch.randn(2, 7, 3, 40, device=device).transpose(1, 2)[..., 3:19]
    angle = angles(9, 16, device=device)[2:, ::2]
    check(x, angle.cos().float(), angle.sin().float(), angle, True)
    check(
        x.transpose(-1, -2)[:, :, :7, :7], angle.cos().float()[:, :3], angle.sin().float()[:, :3], angle[:, :3], False
    )


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4)])
def test_empty(shape, device):
    angle = torch.zeros(shape[2], 2, device=device)
    assert rf.rotary_embedding(torch.empty(shape, device=device), angle, angle).shape == shape


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [4, 3, 8])
def test_gradient(interleaved, width, device):
    x = torch.randn(2, 2, 3, 8, dtype=torch.float64, device=device, requires_grad=True)
    angle = angles(3, width, device=device)
    if width == 8:
        angle = angle[:, :4].repeat_interleave(2, -1) if interleaved else torch.cat([angle[:, :4]] * 2, -1)
    assert torch.autograd.gradcheck(lambda x: rf.rotary_embedding(x, angle.cos(), angle.sin(), interleaved), x)
    assert torch.autograd.gradgradcheck(lambda x: rf.rotary_embedding(x, angle.cos(), angle.sin(), interleaved), x)


def test_gradient_in_the_angles_is_refused():
    x, cos = torch.randn(1, 1, 2, 4, requires_grad=True), torch.randn(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiable in x only"):
        rf.rotary_embedding(x, cos, cos.detach()).sum().backward()


X = torch.zeros(2, 3, 7, 16)


@pytest.mark.parametrize(
    ("x", "cos", "sin", "error", "message"),
    [
        (X[0], torch.zeros(7, 8), torch.zeros(7, 8), ValueError, r"must be \[batch, heads, length, head_dim\]"),
        (X.long(), torch.zeros(7, 8), torch.zeros(7, 8), TypeError, "x must be float64"),
        (X, torch.zeros(7, 8).half(), torch.zeros(7, 8).half(), TypeError, "float32 or of x's dtype"),
        (X, torch.zeros(7, 8), torch.zeros(7, 8).double(), TypeError, "float32 or of x's dtype"),
        (X, torch.zeros(7, 8), torch.zeros(7, 7), ValueError, "one shape"),
        (X, torch.zeros(6, 8), torch.zeros(6, 8), ValueError, "cannot be broadcast over x"),
        (X, torch.zeros(3, 7, 8), torch.zeros(3, 7, 8), ValueError, "cannot be broadcast over x"),
        (X, torch.zeros(8), torch.zeros(8), ValueError, r"must be \[length, width\]"),
        (X, torch.zeros(7, 9), torch.zeros(7, 9), ValueError, "one angle per pair .at most 8 of them. or.*got 9"),
        (X[..., :15], torch.zeros(7, 15), torch.zeros(7, 15), ValueError, "one angle per pair"),
    ],
)
def test_wrong_arguments(x, cos, sin, error, message):
    with pytest.raises(error, match=message):
        rf.rotary_embedding(x, cos, sin)


def test_opcheck(device):
    x = torch.randn(2, 2, 3, 8, device=device, requires_grad=True)
    angle = torch.randn(3, 4, device=device)
    torch.library.opcheck(torch.ops.rocforge.rotary_embedding.default, (x, angle.cos(), angle.sin(), True))
    torch.library.opcheck(
        torch.ops.rocforge.rotary_embedding.default, (x.detach().transpose(1, 2), angle.cos()[:2], angle.sin()[:2])
    )


def test_compiles_whole_graph(device):
    x, angle = torch.randn(2, 2, 3, 8, device=device), torch.randn(3, 4, device=device)
    compiled = torch.compile(rf.rotary_embedding, fullgraph=True)
    assert compiled(x, angle.cos(), angle.sin()).equal(rf.rotary_embedding(x, angle.cos(), angle.sin()))
