"""Shared by the commands that read objects: options for opening them, and their bytes piece by piece."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rangeio.cli.console import UsageError
from rangeio.cli.range_syntax import RangeArgument
from rangeio.cli.sizes import parse_size
from rangeio.errors import RangeNotSupportedError
from rangeio.ranges import OPEN, bounds

OPTION_HELP = (
    "an option of rangeio.open: retry=3, timeout=20, chunk=1MiB, ca_file=my.pem, anonymous=true, auth=user:password,"
    " bearer_token=@token.txt (from a file); may be given more than once"
)
_SIZES = ("gap", "max_merged", "chunk", "prefetch", "size", "no_range_cap")
_NUMBERS = ("concurrent", "retry", "timeout")
_WORDS = {"true": True, "false": False, "none": None}
PIECE = 8 << 20
# Bytes in flight or waiting to be written: with pieces of 8 MiB, 16 requests at a time.
_AHEAD = 15 * PIECE
_SMALLEST = 1 << 20


def add_options(command: argparse.ArgumentParser) -> None:
    """Declare --option and --header."""
    command.add_argument(
        "-o", "--option", dest="options", action="append", default=[], metavar="NAME=VALUE", help=OPTION_HELP
    )
    command.add_argument(
        "-H",
        "--header",
        dest="headers",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="a header field to send with each HTTP request",
    )


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given options for `rangeio.open`. Errors name an option but do not show its value, which may be secret."""
    found: dict[str, Any] = {}
    for text in arguments.options:
        name, value = _split(text, "=", "write an option as NAME=VALUE")
        try:
            found[name] = _value(name, Path(value[1:]).read_text().strip() if value[:1] == "@" else value)
        except ValueError:
            raise UsageError(f"the option {name} has an invalid value") from None
    if arguments.headers:
        found["headers"] = dict(
            _split(text, ":", "write a header field as NAME:VALUE") for text in arguments.headers
        )
    return found


def _split(text: str, mark: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name.strip():
        raise UsageError(form)
    return name.strip(), value.strip()


def _value(name: str, text: str) -> Any:
    """The value of an option. Most are strings, so that a password of digits stays a string."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if name in _SIZES and text[:1].isdigit():
        return parse_size(text)
    if name in _NUMBERS:
        return int(text) if text.isdigit() else float(text)
    return tuple(text.split(":", 1)) if name == "auth" else text


def pieces(
    reader: Any, range: RangeArgument | None, ahead: int = _AHEAD, largest: int = PIECE
) -> Iterator[tuple[Any, int]]:
    """The pieces of a range, or of the whole object, in order, each with the total number of bytes (0: unknown).

    ahead: bytes in flight or not yet taken. Objects that are smaller are read in as many, smaller pieces. largest: most
    bytes of a piece.

    If the server sends whole objects only and the whole object is requested, it is downloaded into memory.
    """
    total = _total(reader, range)
    piece = min(largest, max(_SMALLEST, -(-total // 16) if total else PIECE))
    begun = False
    try:
        for part in reader.stream(range, chunk=piece, prefetch=ahead):
            begun = True
            yield part, total
    except RangeNotSupportedError:
        if begun or range is not None:
            raise
        whole = reader.read_ranges([None], chunk=max(total, PIECE))[0]  # with one request
        yield whole, len(whole)


def _total(reader: Any, range: RangeArgument | None) -> int:
    start, stop = bounds(range, reader.size)
    return 0 if stop == OPEN else stop - start
