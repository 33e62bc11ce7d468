from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import rocforge_ops as rf

pytest.importorskip("transformers", reason="loading models needs the hf extra")
pytest.importorskip("gguf", reason="loading models needs the hf extra")
DEMO = Path(rf.__file__).parent / "data" / "demo.gguf"


def test_one_case_in_a_process_of_its_own():
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    case = ("--case", "rocforge_ops, packed, float32", "--tokens", "4", "--threads", "1")
    command = [sys.executable, "-m", "rocforge_ops.bench.load", str(DEMO), *case]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert set(result) == {"seconds", "memory", "first", "tokens/s", "memory in use"}
    assert all(value > 0 for value in result.values())
    assert result["memory in use"] >= result["memory"]
