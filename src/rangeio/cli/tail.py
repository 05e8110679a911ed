"""`rangeio tail`: writes the last lines or bytes to standard output."""

import argparse

import rangeio
from rangeio.cli import range_syntax
from rangeio.cli.cat import check_terminal, to_stdout, write_bytes
from rangeio.cli.console import UsageError, need_stdout
from rangeio.cli.opening import add_options, options_of
from rangeio.ranges import Suffix
from rangeio.reader import Reader

NAME = "tail"
HELP = "write the last lines, or the last bytes, of objects"
DESCRIPTION = """\
Write the last lines of objects to standard output; only as much is read as they need, from the end. With -c, the last
bytes. A line ends with a line feed; the last one may have none.

  rangeio tail -n 20 https://example.org/server.log
  rangeio tail -c 8 s3://bucket/table.parquet"""

_FIRST = 64 << 10
_LARGEST = 8 << 20


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("uris", metavar="URI", nargs="+", help="path or URI")
    much = command.add_mutually_exclusive_group()
    much.add_argument("-n", "--lines", type=_count, default=10, metavar="N", help="so many lines; default 10")
    much.add_argument(
        "-c", "--bytes", type=range_syntax.size_type, metavar="SIZE", help="so many bytes: 100, 4KiB"
    )
    command.add_argument("--force", action="store_true", help="write binary bytes to a terminal too")
    add_options(command)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    need_stdout()
    if "-" in arguments.uris:
        raise UsageError("standard input cannot be read from its end: use tail(1)")
    options = options_of(arguments)
    for uri in arguments.uris:
        with rangeio.open(uri, **options) as reader:
            if arguments.bytes is not None:
                to_stdout(reader, [Suffix(arguments.bytes)], force=arguments.force)
                continue
            for block in last_lines(reader, arguments.lines):
                check_terminal(block, force=arguments.force)
                write_bytes(block)
    return 0


def last_lines(reader: Reader, count: int) -> list[memoryview]:
    """The last lines, in blocks. The first block costs one request where the service has suffixes."""
    if count == 0:
        return []
    blocks = [memoryview(reader.read_range(Suffix(_FIRST)))]
    start = (reader.size or 0) - len(blocks[0])
    missing = count + bytes(blocks[0][-1:]).endswith(b"\n")
    while True:
        at, missing = _back(bytes(blocks[0]), missing)
        if missing == 0 or start <= 0:
            blocks[0] = blocks[0][at:]
            return blocks
        size = min(start, _LARGEST, 2 * len(blocks[0]))
        start -= size
        blocks.insert(0, memoryview(reader.read_exact(start, size)))


def _back(data: bytes, missing: int) -> tuple[int, int]:
    """Where the last lines of `data` begin, and how many line feeds are to be found before it."""
    at = len(data)
    while missing:
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return 0, missing
        missing -= 1
    return at + 1, 0
