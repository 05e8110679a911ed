"""What the commands that read objects have in common: opening them, and their bytes one piece after the other."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rangeio.cli.console import UsageError
from rangeio.cli.spans import Span
from rangeio.errors import RangeNotSupportedError

OPTION_HELP = (
    "an option of opening, such as retry=3, timeout=20, ca_file=my.pem, bearer_token=@token.txt (from a file); may be"
    " given more than once"
)
_PIECE = 8 << 20
# Bytes under way or waiting to be written: with pieces of 8 MiB, 16 requests at a time.
_AHEAD = 15 * _PIECE


def add_option(command: argparse.ArgumentParser) -> None:
    """Declare --option."""
    command.add_argument(
        "-o", "--option", dest="options", action="append", default=[], metavar="NAME=VALUE", help=OPTION_HELP
    )


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What --option gave, as `rangeio.open` takes it."""
    found = {}
    for text in arguments.options:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError("an option is written NAME=VALUE")
        found[name] = Path(value[1:]).read_text().strip() if value.startswith("@") else _value(value)
    return found


def _value(text: str) -> Any:
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def pieces(reader: Any, span: Span | None) -> Iterator[tuple[Any, int]]:
    """The bytes of a range, or of everything, in order, each with how many there will be in all (0: not known).

    Where a server sends whole objects only, and all is wanted, that is what it is asked for; it is then held in memory.
    """
    total = _total(reader, span)
    begun = False
    try:
        for piece in reader.stream(span, chunk=_PIECE, prefetch=_AHEAD):
            begun = True
            yield piece, total
    except RangeNotSupportedError:
        if begun or span is not None:
            raise
        whole = reader.read_ranges([None], chunk=max(total, _PIECE))[0]  # by one request
        yield whole, len(whole)


def _total(reader: Any, span: Span | None) -> int:
    from rangeio.ranges import OPEN, bounds

    start, stop = bounds(span, reader.size)
    return 0 if stop == OPEN else stop - start
