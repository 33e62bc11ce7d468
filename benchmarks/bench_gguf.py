"""How long GGUF files take to open, beside the `gguf` package's reader.

usage: bench_gguf.py [FILE.gguf ...]

Without a file: 100,000 tensors, and a vocabulary of 1,000,000 tokens with scores and types, both made on the spot; the
package, which reads element by element in Python, is not timed on those.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import rocforge_ops as rf

STRING, ARRAY, F32, I32, TENSOR_F32 = 8, 9, 6, 5, 0


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def many_tensors(count: int) -> bytes:
    content = bytearray(b"GGUF" + struct.pack("<IQQ", 3, count, 0))
    for i in range(count):
        content += string(f"blk.{i // 10}.tensor_{i}.weight") + struct.pack("<IqiQ", 1, 8, TENSOR_F32, 32 * i)
    return bytes(content) + bytes(-len(content) % 32 + 32 * count)


def many_tokens(count: int) -> bytes:
    def array(key: str, type: int, values: bytes) -> bytes:
        return string(key) + struct.pack("<iiQ", ARRAY, type, count) + values

    tokens = b"".join(string(f"▁token{i}") for i in range(count))
    scores = struct.pack(f"<{count}f", *range(count))
    types = struct.pack(f"<{count}i", *[1] * count)
    return (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 3)
        + array("tokenizer.ggml.tokens", STRING, tokens)
        + array("tokenizer.ggml.scores", F32, scores)
        + array("tokenizer.ggml.token_type", I32, types)
    )


def milliseconds(action: Callable[[], object], repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def row(name: str, path: Path, package: bool) -> None:
    file = rf.GGUFFile(path)
    times = [
        milliseconds(lambda: rf.GGUFFile(path)),
        milliseconds(lambda: dict(rf.GGUFFile(path).metadata)),
        milliseconds(lambda: [tensor.packed() for tensor in file.values()]),
    ]
    if package:
        import gguf

        times.append(milliseconds(lambda: gguf.GGUFReader(path), repeats=1))
    print(f"{name:32s}" + "".join(f"{value:14.1f}" for value in times), flush=True)


def main() -> None:
    print(f"{'best of 5, ms':32s}{'open':>14s}{'+ metadata':>14s}{'all views':>14s}{'gguf package':>14s}")
    for path in map(Path, sys.argv[1:]):
        row(path.name, path, package=True)
    if len(sys.argv) > 1:
        return
    made = {"100,000 tensors": many_tensors(100_000), "1,000,000 tokens": many_tokens(1_000_000)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.gguf"
        for name, content in made.items():
            path.write_bytes(content)
            row(name, path, package=False)


if __name__ == "__main__":
    main()
