"""The `rocforge` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rocforge_ops.cli import bench, generate, info, verify

COMMANDS = (info, generate, verify, bench)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rocforge",
        description="Looks into GGUF model files, runs them with PyTorch and checks the machine they run on.",
        epilog="`rocforge COMMAND --help` explains a command. Example: rocforge generate model.gguf --prompt 'Once'",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 when it failed (one line on stderr says why), 2 on bad usage."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"rocforge: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
