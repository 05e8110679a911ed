"""`rangeio cat`: bytes to stdout."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import rangeio
from rangeio.cli import spans
from rangeio.cli.console import Progress, need_stdout
from rangeio.cli.opening import add_options, options_of, pieces
from rangeio.cli.spans import Span

NAME = "cat"
HELP = "write an object, or ranges of it, to standard output"
DESCRIPTION = f"""\
Write an object, or some ranges of it, to standard output, one after the other.

{spans.HELP}

  rangeio cat model.safetensors --range 0-8 --range 1MiB+64KiB > parts.bin
  rangeio cat https://example.org/data.parquet --range -8          # the footer's length and magic"""

_LONG = 64 << 20
"""What takes long enough for a progress bar."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("uri", metavar="URI", help="path or URI")
    command.add_argument(
        "--range",
        dest="ranges",
        type=spans.span,
        action="append",
        metavar="A-B",
        help="bytes A up to but not including B; may be given more than once",
    )
    command.add_argument("--force", action="store_true", help="write binary bytes to a terminal too")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    with rangeio.open(arguments.uri, **options_of(arguments)) as reader:
        to_stdout(reader, arguments.ranges or [None], force=arguments.force)
    return 0


def to_stdout(reader: Any, ranges: Sequence[Span | None], *, force: bool = False) -> None:
    """Write some ranges. force: binary bytes to a terminal, too."""
    need_stdout()
    to_terminal = sys.stdout.isatty()
    with Progress() as progress:
        for wanted in ranges:
            done = 0
            for piece, total in pieces(reader, wanted):
                # As curl does: text is welcome on a terminal, what has a NUL in it is not text.
                if to_terminal and not force and b"\0" in bytes(piece):
                    raise ValueError(
                        "binary bytes would garble the terminal: redirect them, or use rangeio cat --force"
                    )
                _write(piece)
                done += len(piece)
                if total > _LONG and not to_terminal:
                    progress(done / total, reader.path)
        sys.stdout.buffer.flush()


def _write(piece: Any) -> None:
    """All of it: under PYTHONUNBUFFERED stdout writes what the pipe takes, and no more."""
    left = memoryview(piece)
    while left:
        left = left[sys.stdout.buffer.write(left) or 0 :]
