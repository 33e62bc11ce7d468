"""`rocforge bench`: how fast the operators are on this machine."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

OPERATORS = {  # modules of rocforge_ops.bench, whose docstrings say what is measured
    "dequantize": "dequantize and embedding",
    "linear": "linear on packed weights",
    "attention": "mqa_attention, prefill, decode and backward",
    "model": "a decoding step: a layer's stages, the layer, a whole model",
}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure the operators on this machine",
        description="Measures an operator beside what there is without this package: one line a case, and with --plot "
        "a picture. The whole of GGUF's formats takes some minutes; --formats chooses.",
    )
    operators = parser.add_subparsers(title="operators", metavar="OPERATOR", required=True)
    for name, help in OPERATORS.items():
        module = importlib.import_module(f"rocforge_ops.bench.{name}")
        operator = operators.add_parser(
            name, help=help, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(operator)
        operator.set_defaults(run=module.run)
