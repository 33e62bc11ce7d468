from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor

import rocforge_ops as rf

HALF_ULP = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float64: 2**-53}
OP = torch.ops.rocforge.qkv_rope_cache.default


class Layer:
    """A projection of random numbers, its caches filled with 7, and what the operator must make of them."""

    def __init__(
        self,
        device: str,
        *,
        dtype: torch.dtype = torch.float32,
        batch: int = 2,
        length: int = 5,
        heads: tuple[int, int] = (4, 2),
        dim: int = 16,
        value_dim: int | None = None,
        rotated: int = 16,
        capacity: int = 9,
        norm: bool = False,
        bias: bool = False,
        interleaved: bool = False,
    ) -> None:
        value_dim = value_dim or dim
        self.widths = heads[0] * dim, heads[1] * dim, heads[1] * value_dim
        self.qkv = torch.randn(batch, length, sum(self.widths), device=device).to(dtype)
        self.key_cache = torch.full((batch, heads[1], capacity, dim), 7, dtype=dtype, device=device)
        self.value_cache = torch.full((batch, heads[1], capacity, value_dim), 7, dtype=dtype, device=device)
        self.angles = 100 * torch.randn(batch, length, rotated // 2, dtype=torch.float64, device=device)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.cos_sin = (self.angles.cos().to(wide), self.angles.sin().to(wide)) if rotated else ()
        self.options: dict = {"interleaved": interleaved}
        if norm:
            self.options |= {f"{x}_norm": 1 + torch.randn(dim, device=device).to(dtype) / 4 for x in "qk"}
        if bias:
            self.options["bias"] = torch.randn(sum(self.widths), device=device).to(dtype)

    def check(self, cache_positions: Tensor, positions: Tensor | None = None, qkv=None, **options) -> None:
        """Right within the rounding of the steps and of the store; what has no position keeps its 7."""
        options = self.options | options
        positions = cache_positions if positions is None else positions
        expected = reference.qkv_rope_cache(
            self.qkv,
            self.key_cache,
            self.value_cache,
            positions.expand(self.qkv.shape[:2]),
            self.angles if self.cos_sin else None,
            **options,
        )
        qkv = self.qkv if qkv is None else qkv
        query = rf.qkv_rope_cache(qkv, self.key_cache, self.value_cache, cache_positions, *self.cos_sin, **options)
        assert query.is_contiguous()
        compute = 2**-53 if self.qkv.dtype == torch.float64 else 2**-24
        for actual, exact in zip((query, self.key_cache, self.value_cache), expected, strict=True):
            assert actual.dtype == self.qkv.dtype and actual.shape == exact.shape
            steps = (16 + exact.shape[-1]) * compute * exact.abs().amax(-1, keepdim=True)
            bound = exact.abs() * HALF_ULP[self.qkv.dtype] + steps + 2**-25
            assert ((actual.double() - exact).abs() <= bound).all()


def starting_at(starts: list[int], length: int, device: str) -> Tensor:
    return torch.tensor(starts, device=device).unsqueeze(1) + torch.arange(length, device=device)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", HALF_ULP)
@pytest.mark.parametrize(("dim", "rotated"), [(64, 64), (128, 128), (80, 32), (96, 24), (17, 16), (256, 64), (16, 0)])
def test_splits_normalises_and_rotates(dim, rotated, dtype, interleaved, norm, device):
    layer = Layer(
        device, dtype=dtype, dim=dim, rotated=rotated, interleaved=interleaved, norm=norm, bias=norm, length=3
    )
    layer.check(starting_at([0, 4], 3, device))


@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (4, 1), (7, 1), (32, 1), (8, 4), (12, 12), (14, 2)])
def test_numbers_of_heads(heads, device):
    layer = Layer(device, heads=heads, batch=3, length=33, capacity=40, norm=True)
    layer.check(starting_at([0, 3, 7], 33, device))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("heads", [(7, 1), (15, 3), (32, 8)])
def test_groups_that_take_several_heads(heads, norm, device):
    """Enough rows that a group of lanes takes a few heads of each part, and not the same number."""
    layer = Layer(device, heads=heads, dim=128, rotated=128, batch=1, length=70, capacity=70, norm=norm, bias=norm)
    layer.check(torch.tensor([0], device=device), starting_at([0], 70, device))


@pytest.mark.parametrize("dim", [320, 576, 1040])
@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_of_more_items_than_lanes(dim, interleaved, device):
    layer = Layer(device, dim=dim, rotated=dim, norm=True, interleaved=interleaved, length=2)
    layer.check(starting_at([2, 0], 2, device))


@pytest.mark.parametrize("value_dim", [8, 24, 13, 512])
def test_values_of_another_head_size(value_dim, device):
    layer = Layer(device, value_dim=value_dim, bias=True)
    layer.check(starting_at([1, 2], 5, device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_tensors(dtype, device):
    layer = Layer(device, dtype=dtype, bias=True)
    layer.check(starting_at([1, 2], 5, device), qkv=layer.qkv.split(layer.widths, -1))
    layer = Layer(device, dtype=dtype, bias=True)
    layer.check(starting_at([1, 2], 5, device), qkv=[t.contiguous() for t in layer.qkv.split(layer.widths, -1)])


@pytest.mark.parametrize("positions_dtype", [torch.int32, torch.int64])
def test_positions_are_given_or_follow_a_start(positions_dtype, device):
    positions = starting_at([4, 0], 5, device)
    Layer(device).check(positions.to(positions_dtype))
    Layer(device).check(positions[:, 0].to(positions_dtype), positions)
    Layer(device).check(positions[:1].to(positions_dtype), positions[:1])
    scattered = torch.tensor([[8, 0, 3, 1, 7], [5, 4, 3, 2, 1]], device=device)
    Layer(device).check(scattered.to(positions_dtype))
    Layer(device).check(scattered.mT.contiguous().mT)


def test_positions_outside_of_the_cache_write_nothing(device):
    far = 2**40
    Layer(device).check(torch.tensor([[-1, 9, 8, -far, far], [7, 8, 9, 10, 11]], device=device))
    Layer(device).check(torch.tensor([7, -2], device=device), starting_at([7, -2], 5, device))
    untouched = Layer(device, capacity=0)
    untouched.check(torch.tensor([0, 1], device=device), starting_at([0, 1], 5, device))


@pytest.mark.parametrize("capacity", [3, 4, 5, 9])
@pytest.mark.parametrize("starts", [[0, 3], [7, 2**33], [-2, 1]])
def test_ring(capacity, starts, device):
    positions = starting_at(starts, 8, device)
    Layer(device, length=8, capacity=capacity).check(positions, ring=True)
    Layer(device, length=8, capacity=capacity).check(positions[:, 0], positions, ring=True)


def test_ring_with_padding(device):
    """Tokens without a position take no slot: rows of different length in one call."""
    positions = torch.tensor([[0, 1, 2, 3, 4, -1], [-1, -1, 5, 6, 7, 8]], device=device)
    Layer(device, length=6, capacity=3).check(positions, ring=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("interleaved", [False, True])
def test_tables_of_angles(dtype, interleaved, device):
    layer = Layer(device, dtype=dtype, interleaved=interleaved)
    table = torch.randn(50, 8, dtype=torch.float64, device=device)
    layer.cos_sin = table.cos().float(), table.sin().float()
    ids = torch.tensor([[49, 0, 7, 7, 3], [1, 2, 3, 4, 5]], device=device)
    for position_ids, rows in ((ids, ids), (ids[:1].int(), ids[:1]), (ids[:, 2], starting_at([7, 3], 5, device))):
        layer.angles = table[rows].expand(2, -1, -1)
        layer.options.pop("position_ids", None)
        expected = reference.qkv_rope_cache(
            layer.qkv, layer.key_cache, layer.value_cache, starting_at([2, 4], 5, device), layer.angles, **layer.options
        )
        query = rf.qkv_rope_cache(
            layer.qkv,
            layer.key_cache,
            layer.value_cache,
            torch.tensor([2, 4], device=device),
            *layer.cos_sin,
            position_ids=position_ids,
            **layer.options,
        )
        for actual, exact in zip((query, layer.key_cache, layer.value_cache), expected, strict=True):
            torch.testing.assert_close(actual.double(), exact, rtol=HALF_ULP[dtype], atol=1e-5)


def test_a_position_outside_of_the_tables(device):
    layer = Layer(device)
    arguments = layer.qkv, layer.key_cache, layer.value_cache, torch.tensor([0, 0], device=device)
    angles = {"cos": layer.cos_sin[0][0], "sin": layer.cos_sin[1][0]}
    ids = torch.tensor([[0, 1, 2, 3, 4], [0, 5, 1, -1, 2]], device=device)
    if is_reference(device):
        with pytest.raises(IndexError, match=r"position_ids holds (5|-1), cos and sin have 5 rows"):
            rf.qkv_rope_cache(*arguments, **angles, position_ids=ids)
        return
    query = rf.qkv_rope_cache(*arguments, **angles, position_ids=ids)
    outside = torch.tensor([[False] * 5, [False, True, False, True, False]], device=device)
    assert query.isnan().all(-1).all(1).equal(outside) and query.isnan().any(-1).any(1).equal(outside)


def is_reference(device: str) -> bool:
    from conftest import KERNELS

    return device == "cpu" and not KERNELS


@pytest.mark.parametrize("width", ["one entry per element", "shared by the batch", "of one token"])
@pytest.mark.parametrize("interleaved", [False, True])
def test_forms_of_the_angles(width, interleaved, device):
    layer = Layer(device, interleaved=interleaved)
    if width == "one entry per element":
        layer.cos_sin = tuple(
            t.repeat_interleave(2, -1) if interleaved else torch.cat([t, t], -1) for t in layer.cos_sin
        )
    elif width == "shared by the batch":
        layer.cos_sin = tuple(t[0] for t in layer.cos_sin)
        layer.angles = layer.angles[:1].expand(2, -1, -1)
    else:
        layer.cos_sin = tuple(t[:1, :1] for t in layer.cos_sin)
        layer.angles = layer.angles[:1, :1].expand(2, 5, -1)
    layer.check(starting_at([1, 2], 5, device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_numbers_beside_half_ones(dtype, device):
    layer = Layer(device, dtype=dtype, norm=True, bias=True)
    layer.options |= {
        name: layer.options[name].float() * 1.001 for name in ("bias", "q_norm", "k_norm") if name in layer.options
    }
    layer.check(starting_at([1, 2], 5, device))
    layer.cos_sin = tuple(t.to(dtype) for t in layer.cos_sin)
    exact = rf.qkv_rope_cache(
        layer.qkv,
        layer.key_cache,
        layer.value_cache,
        torch.tensor([1, 2], device=device),
        *(t.float() for t in layer.cos_sin),
    )
    query = rf.qkv_rope_cache(
        layer.qkv, layer.key_cache, layer.value_cache, torch.tensor([1, 2], device=device), *layer.cos_sin
    )
    assert query.equal(exact)


@pytest.mark.parametrize("offset", [1, 3, 8])
def test_strided(offset, device):
    """Parts of larger tensors: not aligned, with gaps, caches laid out token by token."""
    layer = Layer(device, dtype=torch.bfloat16)
    batch, length, width = layer.qkv.shape
    store = torch.empty(batch, length + 1, width + 11, dtype=layer.qkv.dtype, device=device)
    qkv = store[:, 1:, offset : offset + width]
    qkv.copy_(layer.qkv)
    around = torch.full((2, 12, 3, 24), 7.0, dtype=torch.bfloat16, device=device)
    layer.key_cache = around.transpose(1, 2)[:, :2, 1:10, offset - 1 : offset + 15]
    layer.check(starting_at([1, 2], 5, device), qkv=qkv)
    outside = around.clone()
    outside.transpose(1, 2)[:, :2, 1:10, offset - 1 : offset + 15] = 7
    assert (outside == 7).all()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_empty(shape, device):
    layer = Layer(device, batch=shape[0], length=shape[1])
    query = rf.qkv_rope_cache(
        layer.qkv,
        layer.key_cache,
        layer.value_cache,
        torch.zeros(shape, dtype=torch.int32, device=device),
        *layer.cos_sin,
    )
    assert query.shape == (shape[0], 4, shape[1], 16) and (layer.key_cache == 7).all()


def test_gradients_are_refused():
    layer = Layer("cpu")
    arguments = layer.key_cache, layer.value_cache, torch.tensor([0, 0]), *layer.cos_sin
    qkv = layer.qkv.requires_grad_()
    with pytest.raises(NotImplementedError, match="has no gradients: use the separate operators"):
        rf.qkv_rope_cache(qkv, *arguments)
    weight = torch.ones(16, requires_grad=True)
    with pytest.raises(NotImplementedError, match="has no gradients"):
        rf.qkv_rope_cache(qkv.detach(), *arguments, q_norm=weight)
    with torch.no_grad():
        assert not rf.qkv_rope_cache(qkv, *arguments, q_norm=weight).requires_grad
    with torch.inference_mode():
        rf.qkv_rope_cache(qkv, *arguments)


def test_the_caches_count_their_versions(device):
    layer = Layer(device)
    before = layer.key_cache._version, layer.value_cache._version
    rf.qkv_rope_cache(layer.qkv, layer.key_cache, layer.value_cache, torch.tensor([0, 0], device=device))
    assert layer.key_cache._version > before[0] and layer.value_cache._version > before[1]


@pytest.mark.parametrize("norm", [False, True])
def test_opcheck(norm, device):
    layer = Layer(device, norm=norm, bias=norm)
    caches = layer.key_cache, layer.value_cache, torch.tensor([0, 2], device=device)
    torch.library.opcheck(OP, ([layer.qkv], *caches, *layer.cos_sin), layer.options)
    torch.library.opcheck(OP, (list(layer.qkv.split(layer.widths, -1)), *caches), layer.options | {"ring": True})


def test_compiles_whole_graph(device):
    def step(qkv, key_cache, value_cache, positions, cos, sin):
        query = rf.qkv_rope_cache(qkv * 2, key_cache, value_cache, positions, cos, sin)
        return query + 1, key_cache.sum()

    eager, compiled = Layer(device), Layer(device)
    compiled.qkv = eager.qkv
    positions = torch.tensor([0, 3], device=device)
    results = [
        run(eager.qkv, layer.key_cache, layer.value_cache, positions, *eager.cos_sin)
        for run, layer in ((step, eager), (torch.compile(step, fullgraph=True), compiled))
    ]
    assert results[0][0].equal(results[1][0])
    torch.testing.assert_close(*(result[1] for result in results))
    assert eager.key_cache.equal(compiled.key_cache) and eager.value_cache.equal(compiled.value_cache)
