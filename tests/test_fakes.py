"""Wrong arguments are the same errors without data (meta tensors, torch.compile) as with it."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

import rocforge_ops as rf

OPS = torch.ops.rocforge
ROW = rf.formats["Q4_0"].row_bytes(64)


def packed(*rows):
    return torch.zeros(*rows, ROW, dtype=torch.uint8)


def int32(*shape):
    return torch.zeros(shape, dtype=torch.int32)


WRONG = {
    "dequantize, format": (OPS.dequantize, packed(7), "Q4"),
    "dequantize, bytes": (OPS.dequantize, packed(7), "Q6_K"),
    "dequantize, dtype": (OPS.dequantize, packed(7), "Q4_0", torch.float64),
    "dequantize, packed": (OPS.dequantize, packed(7).int(), "Q4_0"),
    "dequantize, strides": (OPS.dequantize, packed(4).t().expand(3, ROW, 4), "F32"),
    "embedding, table": (OPS.embedding, packed(3, 7), "Q4_0", int32(2)),
    "embedding, indices": (OPS.embedding, packed(7), "Q4_0", torch.zeros(2)),
    "linear, in": (OPS.linear, torch.zeros(5, 65), packed(7), "Q4_0"),
    "linear, dtype": (OPS.linear, int32(5, 64), packed(7), "Q4_0"),
    "linear, packed": (OPS.linear, torch.zeros(5, 64), packed(3, 7), "Q4_0"),
    "linear, bias": (OPS.linear, torch.zeros(5, 64), packed(7), "Q4_0", torch.zeros(8)),
    "linear, bias dtype": (OPS.linear, torch.zeros(5, 64), packed(7), "Q4_0", torch.zeros(7).half()),
    "grouped_linear, rows": (OPS.grouped_linear, torch.zeros(5, 2, 64), packed(3, 7), "Q4_0", int32(4)),
    "grouped_linear, offsets": (OPS.grouped_linear, torch.zeros(5, 64), packed(3, 7), "Q4_0", int32(3)),
    "grouped_linear, int64": (OPS.grouped_linear, torch.zeros(5, 64), packed(3, 7), "Q4_0", int32(4).long()),
}
EACH = pytest.mark.parametrize("name", WRONG)


@pytest.fixture(autouse=True)
def quiet():
    """PyTorch logs each TypeError of a fake beside raising it."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def error_of(name, replace=lambda t: t):
    op, *arguments = WRONG[name]
    arguments = [replace(a) if isinstance(a, torch.Tensor) else a for a in arguments]
    with pytest.raises((ValueError, TypeError)) as caught:
        op(*arguments)
    return caught.type, str(caught.value).splitlines()[0]


@EACH
def test_meta_tensors(name, reference_device):
    assert error_of(name, lambda t: t.to("meta")) == error_of(name)


@EACH
def test_fake_tensors(name, reference_device):
    expected, mode = error_of(name), FakeTensorMode()
    with mode:
        assert error_of(name, mode.from_tensor) == expected


@EACH
def test_sizes_that_are_symbols(name, reference_device):
    mode = FakeTensorMode(shape_env=ShapeEnv())

    def symbolic(t):
        dynamic = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * t.dim())
        return mode.from_tensor(t, symbolic_context=dynamic)

    error, message = error_of(name)
    with mode:
        symbolic_error, symbolic_message = error_of(name, symbolic)
    assert symbolic_error is error
    assert before_sizes(symbolic_message) == before_sizes(message)


def before_sizes(message):
    return re.split(r"[\d\[]|, got", message)[0]


def test_compiled(reference_device):
    compiled = torch.compile(lambda x, w: OPS.linear(x, w, "Q4_0"), fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (5, 9):
        assert compiled(torch.zeros(rows, 64), packed(7)).shape == (rows, 7)
    with pytest.raises(RuntimeError, match=r"input must be \[..., in\]"):
        compiled(torch.zeros(5, 65), packed(7))


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_number_of_rows_that_only_the_run_knows(reference_device):
    def positive_rows(x, w):
        return OPS.linear(x[x[:, 0].nonzero()[:, 0]], w, "Q4_0")

    compiled = torch.compile(positive_rows, fullgraph=True, backend="aot_eager")
    x = torch.eye(64)[:5]
    assert compiled(x, packed(7)).shape == (1, 7)


def test_devices_must_agree():
    with pytest.raises(ValueError, match="input is on cpu and packed on meta"):
        OPS.linear(torch.zeros(5, 64), packed(7).to("meta"), "Q4_0")
