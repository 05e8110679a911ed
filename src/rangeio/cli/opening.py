"""What the commands that read objects have in common: opening them, and their bytes one piece after the other."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rangeio.cli.console import UsageError
from rangeio.cli.sizes import parse_size
from rangeio.cli.spans import Span
from rangeio.errors import RangeNotSupportedError
from rangeio.ranges import OPEN, bounds

OPTION_HELP = (
    "an option of opening, such as retry=3, timeout=20, chunk=1MiB, ca_file=my.pem, anonymous=true, auth=user:password,"
    " bearer_token=@token.txt (from a file); may be given more than once"
)
_SIZES = ("gap", "max_merged", "chunk", "prefetch", "size", "no_range_cap")
_NUMBERS = ("concurrent", "retry", "timeout")
_WORDS = {"true": True, "false": False, "none": None}
_PIECE = 8 << 20
# Bytes under way or waiting to be written: with pieces of 8 MiB, 16 requests at a time.
_AHEAD = 15 * _PIECE


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
        help="to send with each request over HTTP",
    )


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given, as `rangeio.open` takes it. What is wrong is named, but not shown: it may be a secret."""
    found: dict[str, Any] = {}
    for text in arguments.options:
        name, value = _split(text, "=", "an option is written NAME=VALUE")
        try:
            found[name] = _value(name, Path(value[1:]).read_text().strip() if value[:1] == "@" else value)
        except ValueError:
            raise UsageError(f"the value of the option {name} is none that it can have") from None
    if arguments.headers:
        found["headers"] = dict(
            _split(text, ":", "a header is written NAME:VALUE") for text in arguments.headers
        )
    return found


def _split(text: str, mark: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name.strip():
        raise UsageError(form)
    return name.strip(), value.strip()


def _value(name: str, text: str) -> Any:
    """Text is what most options are; a password of digits stays one."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if name in _SIZES and text[:1].isdigit():
        return parse_size(text)
    if name in _NUMBERS:
        return int(text) if text.isdigit() else float(text)
    return tuple(text.split(":", 1)) if name == "auth" else text


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
    start, stop = bounds(span, reader.size)
    return 0 if stop == OPEN else stop - start
