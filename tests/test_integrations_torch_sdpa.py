"""PyTorch's flash operators by our kernels: registered for the CPU here, where PyTorch itself has none of them."""

from __future__ import annotations

import inspect
import warnings

import attention_cases as cases
import pytest
import reference
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from rocforge_ops.integrations import torch_sdpa

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(11)


@pytest.fixture
def on_cpu(reference_device):
    handle = torch_sdpa.FlashAttention("CPU")
    yield
    handle.remove()


def heads_last_in_memory(*tensors):
    """[B, H, L, D] whose memory is [B, L, H, D], as models have them."""
    return tuple(t.transpose(1, 2).contiguous().transpose(1, 2) for t in tensors)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_sdpa_forward_and_backward(on_cpu, dtype, causal, heads):
    leaves = heads_last_in_memory(*cases.tensors(2, *heads, 17, 17, 24, dtype=dtype))
    grad = torch.randn(2, heads[0], 17, 24).to(dtype)
    options = {"is_causal": causal, "scale": 0.3}

    def gradients(attention, *tensors):
        tensors = [t.detach().requires_grad_() for t in tensors]
        out = attention(*tensors)
        return out.detach(), *torch.autograd.grad(out, tensors, grad.to(out.dtype))

    def plain(*t):
        return F.scaled_dot_product_attention(*t, **options, enable_gqa=True)

    with sdpa_kernel(SDPBackend.MATH):
        exact = gradients(plain, *(t.double() for t in leaves))
        theirs = gradients(plain, *leaves)
    ours = gradients(lambda *t: aten._scaled_dot_product_flash_attention(*t, 0.0, **options)[0], *leaves)
    for result, other, right in zip(ours, theirs, exact, strict=True):
        cases.hold(result, other, right)


@pytest.mark.parametrize("lengths", [(9, 9), (5, 12)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_results_are_what_pytorch_promises(on_cpu, packed, lengths):
    """Shapes, dtypes and strides of every result, as its own function for tensors without data gives them."""
    query, key, value = heads_last_in_memory(*cases.tensors(2, 4, 2, *lengths, 8, dtype=torch.float16))
    flash = [t.transpose(1, 2) for t in (query, key, value)]
    cuts = (None, None)
    if packed:
        flash = [t.flatten(0, 1) for t in flash]
        cuts = tuple(torch.tensor([0, n, 2 * n], dtype=torch.int32) for n in lengths)
    calls = [
        (aten._scaled_dot_product_flash_attention, (query, key, value, 0.0, True)),
        (aten._flash_attention_forward, (*flash, *cuts, *lengths, 0.0, True, False)),
    ]
    for operator, arguments in calls:
        ours = operator(*arguments)
        theirs = operator(*(t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments))
        for mine, promised in zip(ours, theirs, strict=True):
            if isinstance(promised, torch.Tensor):
                assert (mine.shape, mine.dtype, mine.stride()) == (promised.shape, promised.dtype, promised.stride())
            else:
                assert mine == promised


def test_lse_is_the_natural_logarithm_of_the_denominator(on_cpu):
    query, key, value = cases.tensors(2, 4, 2, 9, 9, 8, dtype=torch.float32)
    lse = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, scale=0.5)[1]
    scores = 0.5 * query.double() @ key.double().repeat_interleave(2, 1).mT
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-6, atol=1e-6)


VARLEN = {
    "all": ((-1, -1), {}),
    "causal": ((-1, 0), {"causal": "bottom_right"}),
    "window": ((3, 0), {"causal": "bottom_right", "window": 4}),
    "window_to_the_left": ((3, -1), {"window": 4}),
}


@pytest.mark.parametrize("name", VARLEN)
def test_varlen_attn(on_cpu, name):
    """PyTorch's public function for packed sequences, some longer in queries than in keys and the other way round."""
    from torch.nn.attention.varlen import varlen_attn

    window_size, options = VARLEN[name]
    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
    tensors = cases.tensors(1, 4, 2 if grouped else 4, 30, 33, 8, dtype=torch.float64)
    query, key, value = (t[0].transpose(0, 1) for t in tensors)
    cuts = [torch.tensor(ends, dtype=torch.int32) for ends in ([0, 7, 7, 19, 30], [0, 4, 10, 22, 33])]
    leaves = [t.detach().requires_grad_() for t in (query, key, value)]
    out = varlen_attn(*leaves, *cuts, 12, 12, window_size=window_size, **grouped)
    first = [t.transpose(0, 1)[None] for t in leaves]
    expected, _ = reference.mqa_attention(*first, **options, cu_seqlens_q=cuts[0], cu_seqlens_k=cuts[1])
    expected = expected[0].transpose(0, 1)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(result, leaves, grad) for result in (out, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("window", [(-1, -1), (2, 0)])
def test_dense_flash_attention(on_cpu, window):
    query, key, value = (t.transpose(1, 2) for t in cases.tensors(2, 4, 2, 6, 9, 8, dtype=torch.float64))
    leaves = [t.detach().requires_grad_() for t in (query, key, value)]
    options = {"window_size_left": window[0], "window_size_right": window[1], "scale": 0.2}
    out, lse, *_ = aten._flash_attention_forward(*leaves, None, None, 6, 9, 0.0, True, False, **options)
    first = [t.transpose(1, 2) for t in leaves]
    left = None if window[0] < 0 else window[0] + 1
    expected, expected_lse = reference.mqa_attention(*first, causal="bottom_right", window=left, scale=0.2)
    torch.testing.assert_close(out, expected.transpose(1, 2))
    torch.testing.assert_close(lse.double(), expected_lse.double(), rtol=1e-6, atol=1e-6)
    grad = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(result, leaves, grad) for result in (out, expected.transpose(1, 2)))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not hasattr(aten, "_flash_attention_forward_no_dropout_inplace"), reason="not in this PyTorch")
def test_result_written_into_a_given_tensor(on_cpu):
    query, key, value = (t[0].transpose(0, 1) for t in cases.tensors(1, 4, 4, 9, 9, 8, dtype=torch.float32))
    cuts = torch.tensor([0, 4, 9], dtype=torch.int32)
    call = (query, key, value, cuts, cuts, 5, 5, 0.0, True, False)
    out, lse, *_ = aten._flash_attention_forward(*call)
    room = torch.full((9, 4, 16), 3.0)
    assert aten._flash_attention_forward_no_dropout_inplace(room[..., :8], *call).equal(lse)
    assert room[..., :8].equal(out) and room[..., 8:].eq(3).all()


def test_causal_lower_right_of_pytorch(on_cpu):
    """Unequal lengths with a causal rule reach the operator from torch.nn.attention.bias alone, aligned below."""
    query, key, value = cases.tensors(1, 2, 2, 4, 7, 8, dtype=torch.float64)
    out = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True)[0]
    lower_right = torch.ones(4, 7, dtype=torch.bool).tril(3)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(query, key, value, lower_right))


def test_function_that_models_call(on_cpu):
    """F.scaled_dot_product_attention forward and backward, with the CPU's flash operator sent the GPU's way."""
    cpu = torch.library.Library("aten", "IMPL", "CPU")

    def forward(*call, attn_mask=None, **options):
        return torch_sdpa._sdpa_forward(*call[:3], is_causal=call[4:5] == (True,), **options)[:2]

    def backward(*call, attn_mask=None, **options):
        grad, query, key, value, out, lse, _, causal = call
        return torch_sdpa._sdpa_backward(grad, query, key, value, out=out, logsumexp=lse, is_causal=causal, **options)

    leaves = [t.requires_grad_() for t in cases.tensors(2, 4, 4, 9, 9, 8, dtype=torch.float32)]
    expected = F.scaled_dot_product_attention(*leaves, is_causal=True)
    by_pytorch = torch.autograd.grad(expected.square().sum(), leaves)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is overridden, which PyTorch says once
        cpu.impl("_scaled_dot_product_flash_attention_for_cpu", forward)
        cpu.impl("_scaled_dot_product_flash_attention_for_cpu_backward", backward)
    try:
        out = F.scaled_dot_product_attention(*leaves, is_causal=True)
        by_ours = torch.autograd.grad(out.square().sum(), leaves)
    finally:
        cpu._destroy()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(by_ours, by_pytorch)
    assert F.scaled_dot_product_attention(*leaves, is_causal=True).equal(expected)


def test_under_torch_compile(on_cpu):
    leaves = [t.requires_grad_() for t in heads_last_in_memory(*cases.tensors(2, 4, 4, 9, 9, 8, dtype=torch.float32))]

    def attention(*tensors):
        return aten._scaled_dot_product_flash_attention(*tensors, 0.0, True)[0] * 2

    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    results = [torch.autograd.grad(f(*leaves).square().sum(), leaves) for f in (attention, compiled)]
    for eager, graph in zip(*results, strict=True):
        assert graph.equal(eager)


def test_autocast_leaves_the_tensors_as_they_are(on_cpu):
    query = torch.randn(2, 5, 4, 8).half()
    with torch.autocast("cpu", torch.bfloat16):
        out = aten._flash_attention_forward(query, query, query, None, None, 5, 5, 0.0, False, False)[0]
    assert out.dtype == torch.float16


BEYOND = {
    "dropout": {"dropout_p": 0.1},
    "debug mask": {"return_debug_mask": True},
    "alibi_slopes": {"alibi_slopes": torch.ones(2)},
    "seqused_k": {"seqused_k": torch.ones(1, dtype=torch.int32)},
    "window that ends after the query": {"window_size_left": 1, "window_size_right": 1},
    "packed queries beside keys": {"cum_seq_q": torch.tensor([0, 5], dtype=torch.int32)},
}


@pytest.mark.parametrize("reason", BEYOND)
def test_what_we_do_not_have_without_a_kernel_of_pytorchs(on_cpu, reason):
    options = dict(BEYOND[reason])
    query = torch.randn(1, 5, 2, 8)
    cuts = options.pop("cum_seq_q", None)
    dropout, mask = options.pop("dropout_p", 0.0), options.pop("return_debug_mask", False)
    with pytest.raises(NotImplementedError, match=f"no {reason}.* in flash attention, and PyTorch no kernel on CPU"):
        aten._flash_attention_forward(query, query, query, cuts, None, 5, 5, dropout, False, mask, **options)


@pytest.mark.gpu
class TestOnGPU:
    @pytest.fixture(autouse=True)
    def counted(self, monkeypatch):
        if not torch.cuda.is_available():
            pytest.skip("no GPU here")
        self.calls = []
        for name, ours in torch_sdpa._KERNELS.items():

            def counting(*arguments, name=name, ours=ours, **options):
                self.calls.append(name)
                return ours(*arguments, **options)

            monkeypatch.setitem(torch_sdpa._KERNELS, name, counting)

    @staticmethod
    def run(leaves, grad, **options):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = F.scaled_dot_product_attention(*leaves, **options)
        return out.detach(), *torch.autograd.grad(out, leaves, grad)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("head_dim", [64, 72, 128])
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("heads", [(8, 8), (8, 2)], ids=str)
    def test_models_own_calls(self, dtype, head_dim, causal, heads):
        """As exact as PyTorch's kernel, and called as often as it would have been."""
        leaves = heads_last_in_memory(*cases.tensors(2, *heads, 333, 333, head_dim, device="cuda", dtype=dtype))
        leaves = [t.requires_grad_() for t in leaves]
        grad = torch.randn(2, heads[0], 333, head_dim, device="cuda", dtype=dtype)
        options = {"is_causal": causal, "enable_gqa": heads[0] != heads[1]}
        theirs = self.run(leaves, grad, **options)
        assert not self.calls
        with torch_sdpa.enabled():
            ours = self.run(leaves, grad, **options)
        assert self.calls == list(torch_sdpa._KERNELS)[:2]
        wide = [t.detach().double().requires_grad_() for t in leaves]
        with sdpa_kernel(SDPBackend.MATH):
            out = F.scaled_dot_product_attention(*wide, **options)
            exact = out.detach(), *torch.autograd.grad(out, wide, grad.double())
        for mine, other, right in zip(ours, theirs, exact, strict=True):
            assert mine.stride() == other.stride()
            cases.hold(mine, other, right)
        # PyTorch's kernel is back; its gradients, unlike ours, vary from run to run.
        assert self.run(leaves, grad, **options)[0].equal(theirs[0]) and len(self.calls) == 2

    @pytest.mark.parametrize("ours_first", [True, False])
    def test_backward_on_the_other_side_of_the_switch(self, ours_first):
        leaves = cases.tensors(1, 4, 4, 150, 150, 64, device="cuda", dtype=torch.float16)
        leaves = [t.requires_grad_() for t in leaves]
        grad = torch.randn(1, 4, 150, 64, device="cuda", dtype=torch.float16)
        expected = self.run(leaves, grad, is_causal=True)[1:]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            if ours_first:
                with torch_sdpa.enabled():
                    out = F.scaled_dot_product_attention(*leaves, is_causal=True)
                grads = torch.autograd.grad(out, leaves, grad)
            else:
                out = F.scaled_dot_product_attention(*leaves, is_causal=True)
                with torch_sdpa.enabled():
                    grads = torch.autograd.grad(out, leaves, grad)
        for mine, other in zip(grads, expected, strict=True):
            assert (mine - other).norm() <= 4 * torch.finfo(torch.float16).eps * other.norm()

    def test_dropout_is_pytorchs(self, monkeypatch):
        monkeypatch.setattr(torch_sdpa, "_said", set())
        query = torch.randn(1, 4, 64, 64, device="cuda", dtype=torch.float16, requires_grad=True)
        grad = torch.randn_like(query)

        def result():
            torch.manual_seed(3)
            return self.dropped(query, grad)

        expected = result()
        with torch_sdpa.enabled(), pytest.warns(UserWarning, match="no dropout"):
            ours = result()
        assert not self.calls and ours[0].equal(expected[0])
        assert (ours[1] - expected[1]).norm() <= 4 * torch.finfo(torch.float16).eps * expected[1].norm()

    @staticmethod
    def dropped(query, grad):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = F.scaled_dot_product_attention(query, query, query, dropout_p=0.5)
        return out.detach(), torch.autograd.grad(out, query, grad)[0]
