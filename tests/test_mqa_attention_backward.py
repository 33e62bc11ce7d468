from __future__ import annotations

import itertools

import attention_cases as cases
import pytest
import reference
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import rocforge_ops as rf

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(7)


def split(options: cases.Options) -> tuple[dict[str, Tensor], cases.Options]:
    """Options that have a gradient, and the others."""
    differentiable = {
        name: option
        for name, option in options.items()
        if name in ("attn_mask", "sinks") and option.is_floating_point()
    }
    return differentiable, {name: option for name, option in options.items() if name not in differentiable}


def gradients(attention, inputs: dict[str, Tensor], options: cases.Options, grad_out: Tensor, grad_lse: Tensor) -> dict:
    """Of query, key, value and the options that have one; grad_lse counts where the row sees a key."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in inputs.items()}
    out, lse = attention(leaves["query"], leaves["key"], leaves["value"], **options, **split_options(leaves))
    loss = (out * grad_out.to(out)).sum() + torch.where(lse.isfinite(), lse * grad_lse.to(lse), 0).sum()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def split_options(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in leaves.items() if name not in ("query", "key", "value")}


def term_sizes(
    inputs: dict[str, Tensor], grad_out: Tensor, grad_lse: Tensor, options: cases.Options
) -> dict[str, float]:
    """How large the terms of each gradient are: the difference of dP and delta cancels, and so do sums over a mask."""
    query, key, value = (inputs[name].double() for name in ("query", "key", "value"))
    scale = abs(options.get("scale") or query.shape[-1] ** -0.5)
    groups = query.shape[1] // key.shape[1]
    products = grad_out.double().abs() @ value.repeat_interleave(groups, 1).nan_to_num().abs().mT
    difference = (products.amax() + grad_lse.abs().amax()).item()
    rows = query.shape[0] * query.shape[1] * query.shape[2]
    rows_a_key = max(1, groups * query.shape[2] / key.shape[2])  # when each key has its share of the weights
    sizes = {"query": scale * key.abs().amax(), "key": scale * query.abs().amax() * rows_a_key, "value": 0.0}
    sizes |= {name: max(1, rows / t.numel()) for name, t in split_options(inputs).items()}
    return {name: float(size * difference) for name, size in sizes.items()}


def check(query: Tensor, key: Tensor, value: Tensor, **options: object) -> None:
    """Compares every gradient with autograd's through the whole score matrix, in float64 on the same inputs."""
    differentiable, others = split(options)
    inputs = {"query": query, "key": key, "value": value, **differentiable}
    grad_out = torch.randn(*query.shape[:3], value.shape[-1], dtype=torch.float64, device=query.device).to(query)
    grad_lse = torch.randn(query.shape[:3], device=query.device)

    def run(attention, dtype):
        return gradients(attention, {n: t.to(dtype) for n, t in inputs.items()}, others, grad_out, grad_lse)

    def fused(*tensors, **options):
        return rf.mqa_attention(*tensors, return_lse=True, **options)

    def plain(*tensors, **options):
        return reference.mqa_attention(*tensors, **options, dtype=tensors[0].dtype)

    results = run(fused, query.dtype)
    exact, rounded = run(reference.mqa_attention, torch.float64), run(plain, query.dtype)
    terms = term_sizes(inputs, grad_out, grad_lse, options)
    for name, result in results.items():
        assert result.dtype == inputs[name].dtype and result.shape == inputs[name].shape, name
        cases.hold(result, rounded[name], exact[name], terms[name])


@pytest.mark.parametrize("feature", cases.FEATURES)
def test_gradcheck(feature, reference_device):
    """Against finite differences: 2 KV heads of 2, several sequences or batch rows, rows without keys."""
    batch = 1 if feature == "cu_seqlens" else 2
    query, key, value = cases.tensors(batch, 4, 2, 5, 6, 3, 2, dtype=torch.float64)
    differentiable, others = split(cases.options_of((feature,), query, key))
    leaves = [t.requires_grad_() for t in (query, key, value, *differentiable.values())]

    def attention(query, key, value, *rest):
        options = dict(zip(differentiable, rest, strict=True))
        return rf.mqa_attention(query, key, value, **others, **options)

    assert torch.autograd.gradcheck(attention, leaves)


LENGTHS = [(45, 83), (83, 45)]


@pytest.mark.parametrize(
    "feature, dtype, lengths", cases.sampled(list(itertools.product(cases.FEATURES, DTYPES, LENGTHS)), 5), ids=str
)
def test_feature(feature, dtype, lengths, device):
    batch = 1 if feature == "cu_seqlens" else 3
    query, key, value = cases.tensors(batch, 4, 2, *lengths, 24, 40, device=device, dtype=dtype)
    check(query, key, value, **cases.options_of((feature,), query, key))


@pytest.mark.parametrize("pair", cases.sampled(cases.pairs(), 15), ids="-".join)
def test_pair_of_features(pair, device):
    batch = 1 if "cu_seqlens" in pair else 2
    query, key, value = cases.tensors(batch, 6, 2, 45, 83, 24, device=device, dtype=torch.float32)
    check(query, key, value, **cases.options_of(pair, query, key))


ODD_LENGTHS = [(1, 1), (1, 151), (3, 7), (17, 127), (129, 64), (151, 3)]


@pytest.mark.parametrize(
    "head_dim, lengths", cases.sampled(list(itertools.product([1, 7, 17, 72, 129], ODD_LENGTHS)), 7), ids=str
)
def test_odd_sizes(head_dim, lengths, device):
    query, key, value = cases.tensors(2, 3, 1, *lengths, head_dim, 20, device=device, dtype=torch.float32)
    check(query, key, value, causal="bottom_right")
    check(key.expand(2, 3, -1, -1), query[:, :1], torch.randn_like(query[:, :1]), causal="top_left")


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 4, 1, 1), (1, 1, 45, 1), (1, 1, 1, 83), (45, 83), (83,), (), (1,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_of_a_mask_is_summed_where_it_is_broadcast(shape, dtype, device):
    query, key, value = cases.tensors(2, 4, 2, 45, 83, 16, device=device, dtype=dtype)
    check(query, key, value, attn_mask=torch.randn(shape, device=device).to(dtype), causal="bottom_right")


@pytest.mark.parametrize("shape", [(4, 45, 83), (4, 1, 83), (45, 1), (1, 83)])
def test_gradient_of_a_mask_of_packed_sequences(shape, device):
    query, key, value = cases.tensors(1, 4, 2, 45, 83, 16, device=device, dtype=torch.float32)
    options = cases.options_of(("cu_seqlens", "bottom_right"), query, key)
    check(query, key, value, attn_mask=torch.randn(shape, device=device), **options)


def test_gradient_of_a_mask_of_batch_rows_of_different_lengths(device):
    query, key, value = cases.tensors(3, 4, 2, 45, 83, 16, device=device, dtype=torch.float32)
    options = cases.options_of(("kv_lengths",), query, key)
    check(query, key, value, attn_mask=torch.randn(4, 45, 83, device=device), **options)


HEAD_DIMS = [32, 64, 72, 80, 96, 112, 128, 192, 256]
HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    "head_dim, dtype, value_dim", cases.sampled(list(itertools.product(HEAD_DIMS, HALF, [None, 40])), 3), ids=str
)
def test_head_sizes_of_tiles(head_dim, dtype, value_dim, kernel_device):
    """Rows and keys of more than a tile; the only head of keys has its work shared out."""
    query, key, value = cases.tensors(1, 3, 1, 70, 131, head_dim, value_dim, device=kernel_device, dtype=dtype)
    if value_dim is None:
        check(query, key, value, causal="bottom_right")
    else:
        check(query, key, value, causal="bottom_right", softcap=2.0, **cases.options_of(("mask",), query, key))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_unaligned_views(dtype, kernel_device):
    def view(heads: int, length: int, width: int, skip: int) -> Tensor:
        whole = torch.randn(2, length + 1, heads, width + 5, device=kernel_device).to(dtype)
        return whole.transpose(1, 2)[:, :, 1:, skip : skip + width]

    query, key, value = view(4, 70, 64, 1), view(2, 90, 64, 3), view(2, 90, 40, 0)
    leaves = [t.requires_grad_() for t in (query, key, value)]
    weights = torch.randn(2, 70, 4, 40, device=kernel_device).to(dtype).transpose(1, 2)
    grads = torch.autograd.grad((rf.mqa_attention(*leaves, causal="bottom_right") * weights).sum(), leaves)
    copies = [t.detach().contiguous().requires_grad_() for t in leaves]
    weights = weights.contiguous()
    same = torch.autograd.grad((rf.mqa_attention(*copies, causal="bottom_right") * weights).sum(), copies)
    assert all(a.equal(b) for a, b in zip(grads, same, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_sequences(dtype, kernel_device):
    """Sequences shorter than a tile, longer than several, and empty ones."""
    lengths = torch.tensor([0, 1, 130, 0, 7, 64, 0, 40])
    cuts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(kernel_device, torch.int32)
    total = int(lengths.sum())
    query, key, value = cases.tensors(1, 4, 2, total, total, 64, device=kernel_device, dtype=dtype)
    check(query, key, value, cu_seqlens_q=cuts, cu_seqlens_k=cuts, causal="bottom_right", window=50)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 32, 1, 1024, 1024, 128), (4, 8, 8, 500, 700, 64)], ids=str)
def test_20_runs_give_the_same_bits(shape, kernel_device):
    if kernel_device != "cuda":
        pytest.skip("a GPU's order of work")
    leaves = [t.requires_grad_() for t in cases.tensors(*shape, device="cuda", dtype=torch.bfloat16)]
    grad = torch.randn_like(leaves[0])
    first = torch.autograd.grad(rf.mqa_attention(*leaves, causal="bottom_right"), leaves, grad)
    for _ in range(20):
        again = torch.autograd.grad(rf.mqa_attention(*leaves, causal="bottom_right"), leaves, grad)
        assert all(a.equal(b) for a, b in zip(first, again, strict=True))


def test_strided_views(device):
    def view(heads: int, length: int, width: int) -> Tensor:
        return torch.randn(3, length, heads + 2, width + 5, device=device).transpose(1, 2)[1:, 1:-1, :, 2 : width + 2]

    query, key, value = view(6, 33, 24), view(2, 70, 24), view(2, 70, 40)
    leaves = [t.requires_grad_() for t in (query, key, value)]
    grads = torch.autograd.grad(rf.mqa_attention(*leaves).sum(), leaves)  # an expanded grad_out
    out = rf.mqa_attention(*leaves)
    same = torch.autograd.grad(out, leaves, torch.ones_like(out).mT.contiguous().mT)
    assert all(a.equal(b) for a, b in zip(grads, same, strict=True))


@pytest.mark.parametrize("level", [30.0, 1e3, 1e8])
def test_large_logits_keep_the_sum(level, device):
    """128 equal keys: each has weight 1 / 128, which an lse rounded to float32 no longer says beside a logit of 1e8."""
    query = torch.full((1, 1, 2, 1), level, device=device)
    key, value = torch.ones(1, 1, 128, 1, device=device), torch.randn(1, 1, 128, 8, device=device, requires_grad=True)
    rf.mqa_attention(query, key, value, scale=1.0).sum().backward()
    torch.testing.assert_close(value.grad, torch.full_like(value, 2 / 128), rtol=2e-6, atol=0)


def test_large_values_do_not_overflow(device):
    """dS reaches |V| sqrt(D), beyond float16, where the gradients are not: plain PyTorch's are NaN."""
    query, key, value = cases.tensors(1, 2, 1, 40, 70, 64, device=device, dtype=torch.float16)
    leaves = [t.requires_grad_() for t in (query / 256, key / 256, 65504 * value.sign())]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    grads = torch.autograd.grad(rf.mqa_attention(*leaves, scale=1e-3).sum(), leaves)
    for grad, exact in zip(grads, torch.autograd.grad(rf.mqa_attention(*wide, scale=1e-3).sum(), wide), strict=True):
        assert (grad.double() - exact).norm() <= 2**-8 * exact.norm()


def test_only_lse_or_only_some_inputs(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, device=device, dtype=torch.float64)
    query.requires_grad_()
    _, lse = rf.mqa_attention(query, key, value, return_lse=True)
    lse.sum().backward()
    weights = torch.softmax(query.detach() @ key.repeat_interleave(2, 1).mT / 4, -1)
    torch.testing.assert_close(query.grad, weights @ key.repeat_interleave(2, 1) / 4, rtol=1e-6, atol=1e-9)
    assert key.grad is None and value.grad is None


def test_keys_past_their_length_have_no_gradient(device):
    query, key, value = cases.tensors(2, 4, 2, 9, 150, 16, device=device, dtype=torch.float32)
    key[0, :, 70:], value[0, :, 70:], key[1], value[1] = torch.nan, torch.nan, torch.nan, torch.nan
    leaves = [t.requires_grad_() for t in (query, key, value)]
    lengths = torch.tensor([70, 0], dtype=torch.int32, device=device)
    grad_query, *grads = torch.autograd.grad(rf.mqa_attention(*leaves, kv_lengths=lengths).sum(), leaves)
    assert grad_query.isfinite().all() and grad_query[1].eq(0).all()
    for grad in grads:
        assert grad.isfinite().all() and grad[0, :, 70:].eq(0).all() and grad[1].eq(0).all()


@pytest.mark.parametrize("shape", [(0, 4, 2, 5, 7), (2, 0, 2, 5, 7), (2, 4, 2, 0, 7), (2, 4, 2, 5, 0)], ids=str)
def test_empty(shape, device):
    leaves = [t.requires_grad_() for t in cases.tensors(*shape, 8, 6, device=device, dtype=torch.float32)]
    for grad, leaf in zip(torch.autograd.grad(rf.mqa_attention(*leaves).sum(), leaves), leaves, strict=True):
        assert grad.shape == leaf.shape and grad.eq(0).all()


def test_same_bits_from_run_to_run(device):
    query, key, value = cases.tensors(2, 8, 1, 190, 333, 40, device=device, dtype=torch.bfloat16)
    names = ("bottom_right", "mask_of_heads", "sinks", "kv_lengths")
    differentiable, others = split(cases.options_of(names, query, key))
    leaves = [t.requires_grad_() for t in (query, key, value, *differentiable.values())]

    def run() -> tuple[Tensor, ...]:
        options = dict(zip(differentiable, leaves[3:], strict=True))
        out = rf.mqa_attention(*leaves[:3], **others, **options)
        return torch.autograd.grad(out.float().square().sum(), leaves)

    threads, first = torch.get_num_threads(), run()
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        again = run()
        torch.set_num_threads(threads)
        assert all(a.equal(b) for a, b in zip(first, again, strict=True))


def step(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, sinks: Tensor) -> Tensor:
    return rf.mqa_attention(query, key, value, attn_mask=mask, sinks=sinks, causal="bottom_right", softcap=4.0)


def step_inputs(device: str) -> list[Tensor]:
    query, key, value = cases.tensors(2, 4, 2, 9, 21, 16, device=device, dtype=torch.float32)
    differentiable, _ = split(cases.options_of(("mask_of_heads", "sinks"), query, key))
    return [t.requires_grad_() for t in (query, key, value, *differentiable.values())]


def test_opcheck(device):
    query, key, value, mask, sinks = (t.detach() for t in step_inputs(device))
    out, lse = rf.mqa_attention(query, key, value, attn_mask=mask, sinks=sinks, return_lse=True)
    op = torch.ops.rocforge.mqa_attention_backward.default
    for options in (
        (mask, "bottom_right", 0.3, 4, 2.0, sinks, None, None, None, None, True),
        (None, "none", None, None, 0.0, None, None, None, None, None, False),
    ):
        torch.library.opcheck(op, (torch.randn_like(out), torch.randn_like(lse), query, key, value, out, lse, *options))


def test_compiled_training_step(device):
    leaves = step_inputs(device)
    expected = torch.autograd.grad(step(*leaves).square().sum(), leaves)
    result = torch.autograd.grad(torch.compile(step, fullgraph=True)(*leaves).square().sum(), leaves)
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant, device):
    leaves = step_inputs(device)
    expected = torch.autograd.grad(step(*leaves).square().sum(), leaves)
    checkpoint(step, *leaves, use_reentrant=reentrant).square().sum().backward()
    assert all(leaf.grad.equal(grad) for leaf, grad in zip(leaves, expected, strict=True))


def test_autocast(device):
    leaves = step_inputs(device)
    with torch.autocast(device, torch.bfloat16):
        out = step(*leaves)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().square().sum(), leaves)
    exact = torch.autograd.grad(step(*leaves).square().sum(), leaves)
    for grad, leaf, wide in zip(grads, leaves, exact, strict=True):
        assert grad.dtype == leaf.dtype
        assert (grad - wide).norm() <= 0.02 * wide.norm()
