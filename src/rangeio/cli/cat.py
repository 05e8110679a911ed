"""`rangeio cat`: writes bytes to standard output."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import rangeio
from rangeio.cli import range_syntax
from rangeio.cli.console import Progress, UsageError, need_stdout
from rangeio.cli.opening import add_options, options_of, pieces
from rangeio.cli.range_syntax import RangeArgument

NAME = "cat"
HELP = "write objects, or ranges of them, to standard output"
DESCRIPTION = f"""\
Write objects, or some ranges of each, to standard output, one after the other. "-" is standard input, as a whole.

{range_syntax.HELP}

  rangeio cat model.safetensors --range 0-8 --range 1MiB+64KiB > parts.bin
  rangeio cat https://example.org/data.parquet --range -8          # the footer's length and magic"""

_LONG = 64 << 20
"""Ranges of this size and more get a progress line."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("uris", metavar="URI", nargs="+", help="path or URI, or - for standard input")
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
    if "-" in arguments.uris and arguments.ranges:
        raise UsageError("standard input has no ranges: leave --range or - away")
    options = options_of(arguments)
    for uri in arguments.uris:
        if uri == "-":
            _pass_through()
            continue
        with rangeio.open(uri, **options) as reader:
            to_stdout(reader, arguments.ranges or [None], force=arguments.force)
    return 0


def _pass_through() -> None:
    need_stdout()
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    while piece := os.read(sys.stdin.fileno(), 1 << 20):
        write_bytes(piece)
    sys.stdout.buffer.flush()


def to_stdout(reader: Any, ranges: Sequence[RangeArgument | None], *, force: bool = False) -> None:
    """Write some ranges. force: write binary bytes even to a terminal."""
    need_stdout()
    with Progress() as progress:
        for wanted in ranges:
            done = 0
            for piece, total in pieces(reader, wanted):
                check_terminal(piece, force=force)
                write_bytes(piece)
                done += len(piece)
                if total > _LONG and not sys.stdout.isatty():
                    progress(done / total, reader.path)
        sys.stdout.buffer.flush()


def check_terminal(piece: Any, *, force: bool) -> None:
    """ValueError for binary bytes on a terminal. Like curl: bytes with a NUL are no text."""
    if not force and sys.stdout.isatty() and b"\0" in bytes(piece):
        raise ValueError("binary bytes would corrupt the terminal: redirect the output, or use --force")


def write_bytes(piece: Any) -> None:
    """Write all of it to standard output: with PYTHONUNBUFFERED, stdout writes only as much as the pipe accepts."""
    left = memoryview(piece)
    while left:
        left = left[sys.stdout.buffer.write(left) or 0 :]
