"""Self-test of dequantize: every format to every dtype, blocks at multiples of 16 bytes and at any byte."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch

from rocforge_ops.bench import dequantize as bench
from rocforge_ops.bench.timing import Action
from rocforge_ops.formats import Format, formats
from rocforge_ops.selftest.case import Call, Case, bit_difference

OPERATOR = "dequantize"
TITLE = "dequantize, bytes read and written"
ONE_ROW = 12_500  # weights at least: more than one workgroup decodes
TIMED_ROWS = 4096  # of bench.ROW weights


def cases() -> Iterator[Case]:
    for format in formats:
        for name, dtype in bench.DTYPES.items():
            yield Case(
                format.name,
                name,
                functools.partial(_inputs, format, dtype),
                bit_difference,
                functools.partial(_load, format, dtype),
            )


def random_bytes(*shape: int, device: str) -> torch.Tensor:
    """The same on every device; any bytes are legal blocks."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)


def _inputs(format: Format, dtype: torch.dtype, device: str) -> Iterator[Call]:
    nbytes = (ONE_ROW // format.block_size + 3) * format.block_bytes
    row = random_bytes(nbytes + 1, device=device)
    yield Call((row[:-1], format.name, dtype))
    yield Call((row[1:], format.name, dtype))
    rows = random_bytes(4, 6, 24 * format.block_bytes + 16, device=device)
    for start in (0, 1):
        yield Call((rows[::3, 1:5, start : start + 24 * format.block_bytes].transpose(0, 1), format.name, dtype))


def _load(format: Format, dtype: torch.dtype, device: str) -> tuple[Sequence[Action], float]:
    packed, nbytes = bench.dequantize_calls(format, dtype, TIMED_ROWS, device)
    return [functools.partial(torch.ops.rocforge.dequantize, p, format.name, dtype) for p in packed], nbytes
