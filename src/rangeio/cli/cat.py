"""`rangeio cat`: bytes to stdout."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import rangeio
from rangeio.cli import spans
from rangeio.cli.console import Progress
from rangeio.ranges import bounds

NAME = "cat"
HELP = "write an object, or ranges of it, to standard output"
DESCRIPTION = f"""\
Write an object, or some ranges of it, to standard output, one after the other.

{spans.HELP}

  rangeio cat model.safetensors --range 0-8 --range 1MiB+64KiB > parts.bin
  rangeio cat data.parquet --range -8          # the footer's length and magic"""

_STEP = 8 << 20
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


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    with rangeio.open(arguments.uri) as reader, Progress() as progress:
        to_terminal = sys.stdout.isatty()
        for wanted in arguments.ranges or [None]:
            for piece, done in _pieces(reader, *bounds(wanted, reader.size)):
                # As curl does: text is welcome on a terminal, what has a NUL in it is not text.
                if to_terminal and not arguments.force and b"\0" in bytes(piece):
                    raise ValueError("binary bytes would garble the terminal: redirect them, or use --force")
                _write(piece)
                if done is not None and not to_terminal:
                    progress(done, arguments.uri)
        sys.stdout.buffer.flush()
    return 0


def _pieces(reader: Any, start: int, stop: int) -> Iterator[tuple[Any, float | None]]:
    """The range in steps, each with the part done by then; None for what is over before anybody looks."""
    offset = start
    while offset < stop:
        piece = reader.read_at(offset, min(_STEP, stop - offset))
        if not len(piece):
            return  # the end, of an object that did not know its size
        offset += len(piece)
        yield piece, (offset - start) / (stop - start) if stop - start > _LONG else None


def _write(piece: Any) -> None:
    """All of it: under PYTHONUNBUFFERED stdout writes what the pipe takes, and no more."""
    left = memoryview(piece)
    while left:
        left = left[sys.stdout.buffer.write(left) or 0 :]
