"""`rangeio cat`: writes bytes to standard output."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import rangeio
from rangeio.cli import range_syntax
from rangeio.cli.console import Progress, need_stdout
from rangeio.cli.opening import add_options, options_of, pieces
from rangeio.cli.range_syntax import RangeArgument

NAME = "cat"
HELP = "write an object, or ranges of it, to standard output"
DESCRIPTION = f"""\
Write an object, or some ranges of it, to standard output, one after the other.

{range_syntax.HELP}

  rangeio cat model.safetensors --range 0-8 --range 1MiB+64KiB > parts.bin
  rangeio cat https://example.org/data.parquet --range -8          # the footer's length and magic"""

_LONG = 64 << 20
"""Ranges of this size and more get a progress line."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("uri", metavar="URI", help="path or URI")
    command.add_argument(
        "--range",
        dest="ranges",
        type=range_syntax.range_type,
        action="append",
        metavar="A-B",
        help="bytes A up to but not including B; may be given more than once",
    )
    command.add_argument("--force", action="store_true", help="write binary bytes to a terminal too")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    with rangeio.open(arguments.uri, **options_of(arguments)) as reader:
        to_stdout(reader, arguments.ranges or [None], force=arguments.force)
    return 0


def to_stdout(reader: Any, ranges: Sequence[RangeArgument | None], *, force: bool = False) -> None:
    """Write some ranges. force: write binary bytes even to a terminal."""
    need_stdout()
    to_terminal = sys.stdout.isatty()
    with Progress() as progress:
        for wanted in ranges:
            done = 0
            for piece, total in pieces(reader, wanted):
                # Like curl: text may be written to a terminal; bytes with a NUL are not text.
                if to_terminal and not force and b"\0" in bytes(piece):
                    raise ValueError(
                        "binary bytes would corrupt the terminal: redirect the output, or use rangeio cat --force"
                    )
                _write(piece)
                done += len(piece)
                if total > _LONG and not to_terminal:
                    progress(done / total, reader.path)
        sys.stdout.buffer.flush()


def _write(piece: Any) -> None:
    """Write all of it: with PYTHONUNBUFFERED, stdout writes only as much as the pipe accepts."""
    left = memoryview(piece)
    while left:
        left = left[sys.stdout.buffer.write(left) or 0 :]
