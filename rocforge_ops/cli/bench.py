"""`rocforge bench`: how fast the operators are on this machine."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure the operators on this machine",
        description="Measures an operator beside what there is without this package: one line a case, and with --plot "
        "a picture. The whole of GGUF's formats takes some minutes; --formats chooses.",
    )
    operators = parser.add_subparsers(title="operators", metavar="OPERATOR", required=True)
    _add_dequantize(operators)
    _add_linear(operators)
    _add_attention(operators)
    _add_model(operators)


def _add_dequantize(operators: Any) -> None:
    from rocforge_ops.bench import dequantize

    parser = operators.add_parser(
        "dequantize",
        help="dequantize and embedding",
        description=dequantize.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    dequantize.add_arguments(parser)
    parser.set_defaults(run=dequantize.run)


def _add_linear(operators: Any) -> None:
    from rocforge_ops.bench import linear

    parser = operators.add_parser(
        "linear",
        help="linear on packed weights",
        description=linear.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    linear.add_arguments(parser)
    parser.set_defaults(run=linear.run)


def _add_attention(operators: Any) -> None:
    from rocforge_ops.bench import attention

    parser = operators.add_parser(
        "attention",
        help="mqa_attention, prefill, decode and backward",
        description=attention.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    attention.add_arguments(parser)
    parser.set_defaults(run=attention.run)


def _add_model(operators: Any) -> None:
    from rocforge_ops.bench import model

    parser = operators.add_parser(
        "model",
        help="a decoding step: a layer's stages, the layer, a whole model",
        description=model.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model.add_arguments(parser)
    parser.set_defaults(run=model.run)
