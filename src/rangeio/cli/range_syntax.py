"""The syntax of ranges on the command line, for all commands."""

import argparse
import re

from rangeio.cli.sizes import parse_size
from rangeio.ranges import Suffix

RangeArgument = tuple[int, int | None] | Suffix

HELP = """\
ranges, in bytes; the first byte is 0:
  A-B     from A up to but not including B: 0-100 is 100 bytes   (half-open, like a Python slice;
          the same bytes as "bytes=0-99" in HTTP)
  A+N     N bytes from A: 4096+65536
  A-      from A to the end
  -N      the last N bytes
Sizes may have a unit, always binary: 4KiB, 1MiB-2MiB, 1g+64k. Bytes past the end are omitted."""

_SIZE = r"[0-9][0-9.]*\s*[a-zA-Z]*"
_RANGE = re.compile(rf"({_SIZE})?\s*([-+])\s*({_SIZE})?")


def parse_range_argument(text: str) -> RangeArgument:
    """Parse a range for `Reader.read_ranges`. ValueError with the reason if `text` is invalid."""
    match = _RANGE.fullmatch(text.strip())
    if not match or not (match[1] or match[3]):
        raise ValueError(f"{text!r} is not a range: write it as A-B, A+N, A- or -N")
    start, sign, second = match[1], match[2], match[3]
    if not start:
        if sign == "+":
            raise ValueError(f"{text!r} has no start: write it as A+N")
        return Suffix(parse_size(second))
    first = parse_size(start)
    if not second:
        if sign == "+":
            raise ValueError(f"{text!r} has no length: write it as A+N, or A- for all bytes from A")
        return first, None
    stop = first + parse_size(second) if sign == "+" else parse_size(second)
    if stop < first:
        raise ValueError(f"{text!r} stops before it starts")
    return first, stop


def range_type(text: str) -> RangeArgument:
    """`parse_range_argument` as an argparse type."""
    try:
        return parse_range_argument(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size_type(text: str) -> int:
    """`parse_size` as an argparse type."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
