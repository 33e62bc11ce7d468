"""`rocforge verify`: its two forms, on whatever kernels this run has, and that they find what is wrong."""

from __future__ import annotations

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from blocks import DTYPES, FORMATS, same
from conftest import KERNELS
from test_cli import rocforge
from torch.utils._pytree import tree_leaves

import rocforge_ops as rf
from rocforge_ops import selftest
from rocforge_ops.cli import verify
from rocforge_ops.selftest import mqa_attention
from rocforge_ops.selftest.case import bit_difference, on_cpu


@pytest.fixture(scope="module")
def reference():
    """The CPU's own kernels; where emulated ones have taken their place, in a process that does not load those."""
    if not KERNELS:
        yield on_cpu
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda *arguments, **options: pool.submit(on_cpu, *arguments, **options).result()


def wrong_for(format: str, dtype: torch.dtype):
    """A reference that sees the last bit of one value of one format and dtype otherwise."""

    def reference(operator, *arguments, **options):
        result = on_cpu(operator, *arguments, **options)
        if format in arguments and dtype in arguments:
            bits = {4: torch.int32, 2: torch.int16}[result.element_size()]
            result.view(bits).flatten()[7] ^= 1
        return result

    return reference


def test_every_gpu_operator_has_its_lines():
    sources = (Path(__file__).parent.parent / "csrc/hip").glob("*.cpp")
    on_gpus = {name for path in sources for name in re.findall(r'm\.impl\("(\w+)"', path.read_text())}
    assert on_gpus and on_gpus == {module.OPERATOR for module in selftest.OPERATORS}


@pytest.mark.parametrize("module", selftest.OPERATORS, ids=lambda module: module.OPERATOR)
def test_every_format_and_dtype_has_its_line(module):
    cases = [(case.row, case.column) for case in module.cases()]
    assert len(cases) == len(set(cases))
    if module.OPERATOR in ("dequantize", "embedding"):
        assert set(cases) == {(f, str(d).removeprefix("torch.")) for f in FORMATS for d in DTYPES}


def test_inputs_are_the_same_every_time():
    for module in selftest.OPERATORS:
        case = next(iter(module.cases()))
        for first, again in zip(case.inputs("cpu"), case.inputs("cpu"), strict=True):
            pairs = zip(tree_leaves(first.arguments), tree_leaves(again.arguments), strict=True)
            assert all(a.equal(b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("module", selftest.OPERATORS, ids=lambda module: module.OPERATOR)
def test_every_kernel_is_right(module, kernel_device, reference):
    cases = list(module.cases())
    if KERNELS:  # slow, and the kernels have tests of their own: some of the lines, with every dtype, of small heads
        cases = [case for case in cases if not re.match("D (80|128|256) ", case.row)][::13]
    for case in cases:
        result = case.run(module.OPERATOR, kernel_device, reference, timed=False)
        assert not result.wrong, result


@pytest.mark.parametrize("dtype", mqa_attention.DTYPES)
def test_one_key_more_is_a_wrong_attention(dtype, reference_device):
    """The bound on the error is small enough to see it."""
    case = next(case for case in mqa_attention.cases() if case.row == "D 64 prefill window" and case.column == dtype)

    def one_more(operator, *arguments, **options):
        return on_cpu(operator, *arguments, **{**options, "window": options["window"] + 1})

    assert not case.run("mqa_attention", reference_device, on_cpu, timed=False).wrong
    assert "the error is" in case.run("mqa_attention", reference_device, one_more, timed=False).wrong


def test_a_wrong_kernel_is_named(reference_device, monkeypatch, capsys):
    monkeypatch.setattr(selftest, "OPERATORS", selftest.OPERATORS[:1])
    assert verify.verify_kernels(reference_device, wrong_for("Q4_K", torch.bfloat16), timed=False) == 1
    out = capsys.readouterr().out
    assert re.search(r"^Q4_K +right +right +WRONG$", out, re.M)
    assert re.search(r"^  bfloat16: 1 of \d+ values differ, the first at 7: \S+ instead of \S+$", out, re.M)
    assert "110 of 111 are right" in out


def test_a_kernel_that_fails_is_one_wrong_line(reference_device, monkeypatch, capsys):
    def broken(operator, *arguments, **options):
        if "TQ1_0" in arguments:
            raise RuntimeError("decode_rows: out of luck\nand a long tail")
        return on_cpu(operator, *arguments, **options)

    monkeypatch.setattr(selftest, "OPERATORS", selftest.OPERATORS[:1])
    assert verify.verify_kernels(reference_device, broken, timed=False) == 1
    out = capsys.readouterr().out
    assert "  float32: decode_rows: out of luck\n" in out and "long tail" not in out
    assert "108 of 111 are right" in out


def test_what_differs():
    a = torch.tensor([0.0, 1.0, torch.nan])
    assert bit_difference(a, a.clone()) == ""
    signed = a * torch.tensor([-1, 1, 1])
    assert bit_difference(signed, a) == "1 of 3 values differ, the first at 0: -0.0 instead of 0.0"
    assert "float16 [3] instead of torch.float32 [3]" in bit_difference(a.half(), a)
    assert "[3] instead of torch.float32 [1, 3]" in bit_difference(a, a[None])
    assert same(a, a.clone())


def test_a_file(shared_models, device, reference, capsys):
    with rf.GGUFFile(shared_models / "stories260K-Q5_1.gguf") as file:
        status = verify.verify_file(file, device, reference)
        formats = {tensor.format for tensor in file.values()}
    out = capsys.readouterr().out
    assert status == 0, out
    assert out.count("the same bits") == len(formats)
    assert all(re.search(rf"^{format} +\d+ +[\d,]+  the same bits$", out, re.M) for format in formats)


def test_a_file_whose_tensors_differ(shared_models, reference_device, capsys):
    with rf.GGUFFile(shared_models / "stories260K-Q5_1.gguf") as file:
        count = sum(tensor.format == "Q5_1" for tensor in file.values())
        status = verify.verify_file(file, reference_device, wrong_for("Q5_1", torch.float16))
    out = capsys.readouterr().out
    assert status == 1
    assert re.search(rf"^Q5_1 .* {count} differ$", out, re.M)
    assert "token_embd.weight float16: 1 of" in out and "the same bits" in out


@pytest.mark.parametrize("arguments", [[], ["{model}"]])
def test_on_a_machine_without_a_gpu(arguments, shared_models):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    model = shared_models / "stories260K-Q5_1.gguf"
    run = rocforge("verify", *(a.format(model=model) for a in arguments))
    assert run.returncode == 1 and not run.stdout
    assert run.stderr.startswith("rocforge: no GPU: PyTorch ") and run.stderr.count("\n") == 1


def test_the_cpu_is_not_compared_with_itself():
    run = rocforge("verify", "--device", "cpu")
    assert run.returncode == 1 and "nothing to compare" in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.gpu
def test_the_command_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    run = rocforge("verify")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "wave size" in run.stdout and "copy: " in run.stdout
    seconds = int(re.search(r"are right, (\d+) s", run.stdout)[1])
    assert seconds < 120
