"""What users type goes on working: tools/check_contract.py, and that it can fail."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import rocforge_ops as rf

TOOL = Path(__file__).parent.parent / "tools" / "check_contract.py"


@pytest.fixture
def contract():
    spec = importlib.util.spec_from_file_location("check_contract", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_was_promised_is_there(contract, capsys):
    assert contract.main(["--complete"]) == 0, capsys.readouterr().out


def test_what_is_missing_counts_when_all_must_be_there(contract, monkeypatch, capsys):
    monkeypatch.setattr(contract, "CHECKS", (contract.formats,))
    assert contract.main(["--complete"]) == 0
    monkeypatch.setattr(contract, "FORMATS", "Q4_K Q4_L")
    assert contract.main([]) == 0
    assert contract.main(["--complete"]) == 1
    assert "missing: format Q4_L" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda x: ..., r"has parameters \(x\), promised are \(x, n_rep\)"),
        (lambda n_rep, x: ..., r"has parameters \(n_rep, x\)"),
        (lambda x, n_rep=1: ..., r"has n_rep=1 \(.*\), promised is n_rep \("),
        (lambda x, *, n_rep: ..., r"has n_rep \(keyword-only\), promised is n_rep \(positional or keyword\)"),
        (lambda x, n_rep, more: ..., "needs more too"),
    ],
)
def test_a_signature_that_breaks_calls_is_found(contract, monkeypatch, capsys, changed, message):
    monkeypatch.setattr(contract, "CHECKS", (contract.python_names,))
    monkeypatch.setattr(rf, "repeat_kv", changed)
    assert contract.main([]) == 1
    assert re.search("differs: rocforge_ops.repeat_kv: " + message, capsys.readouterr().out)
    monkeypatch.setattr(rf, "repeat_kv", lambda x, n_rep, more=1, **rest: ...)
    assert contract.main([]) == 0


def test_a_changed_schema_is_found(contract, monkeypatch, capsys):
    monkeypatch.setattr(contract, "CHECKS", (contract.operators,))
    monkeypatch.setitem(contract.SCHEMAS, "repeat_kv", "(Tensor x, int n_rep, int axis) -> Tensor")
    assert contract.main([]) == 1
    assert "differs: torch.ops.rocforge.repeat_kv(Tensor x, int n_rep) -> Tensor" in capsys.readouterr().out
