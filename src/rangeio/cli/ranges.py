"""`rangeio ranges`: the requests that reading some ranges would send, without reading them."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import rangeio
from rangeio.cli import range_syntax
from rangeio.cli.console import UsageError
from rangeio.cli.opening import add_options, options_of
from rangeio.cli.sizes import short, size_text
from rangeio.ranges import Plan, bounds

NAME = "ranges"
HELP = "show the requests that reading some ranges would send"
DESCRIPTION = f"""\
Show the plan for reading some ranges of an object: which requests would be sent after merging nearby ranges, how many
bytes are requested and how many would be fetched. Reads no data.

{range_syntax.HELP}

  rangeio ranges data.parquet --range 0-4KiB --range 6KiB+4KiB --gap 4KiB
  rangeio ranges data.parquet --file ranges.txt --json      # one range on each line, # starts a comment"""

_MOST_LISTED = 20


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("uri", metavar="URI", help="path or URI")
    command.add_argument(
        "--range",
        dest="ranges",
        type=range_syntax.range_type,
        action="append",
        default=[],
        metavar="A-B",
        help="bytes A up to but not including B; may be given more than once",
    )
    command.add_argument("--file", metavar="FILE", help="more ranges, one per line; - for standard input")
    command.add_argument(
        "--gap",
        type=range_syntax.size_type,
        metavar="SIZE",
        help="merge ranges with at most this between them",
    )
    command.add_argument(
        "--max-merged", type=range_syntax.size_type, metavar="SIZE", help="largest request made by merging"
    )
    command.add_argument(
        "--chunk", type=range_syntax.size_type, metavar="SIZE", help="largest request; larger ones are split"
    )
    command.add_argument(
        "--all", action="store_true", help=f"list all requests, not only the first {_MOST_LISTED}"
    )
    command.add_argument("--json", action="store_true", help="the whole plan as JSON")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    wanted = [*arguments.ranges, *(_read_ranges(arguments.file) if arguments.file else [])]
    if not wanted:
        raise UsageError("no ranges: use --range A-B, or --file with one range per line")
    names = ("gap", "max_merged", "chunk")
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    with rangeio.open(arguments.uri, **options_of(arguments), **options) as reader:
        size = reader.size  # so that the plan ends at the end of the object
        plan = reader.plan(wanted)
    if arguments.json:
        print(json.dumps(asdict(plan) | {"read_amplification": plan.read_amplification, "size": size}))
        return 0
    print(_summary(plan, len(wanted)))
    if plan.requests:
        asked = [bounds(item, size) for item in wanted]
        print(_picture(asked, plan, shutil.get_terminal_size().columns))
        print(_listing(plan, len(plan.requests) if arguments.all else _MOST_LISTED))
    return 0


def _read_ranges(name: str) -> list[range_syntax.RangeArgument]:
    text = sys.stdin.read() if name == "-" else Path(name).read_text()
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if content:
            try:
                found.append(range_syntax.parse_range_argument(content))
            except ValueError as error:
                raise ValueError(f"{name}, line {number}: {error}") from None
    return found


def _summary(plan: Plan, count: int) -> str:
    requests = len(plan.requests)
    return "\n".join(
        [
            f"{count:,} {_plural('range', count)} -> {requests:,} {_plural('request', requests)}, "
            f"{plan.parallel:,} at a time{'' if plan.gap is None else f', merged up to {plan.gap:,} bytes apart'}",
            f"requested    {plan.bytes_requested:,} bytes ({size_text(plan.bytes_requested)})",
            f"fetched      {plan.bytes_fetched:,} bytes ({size_text(plan.bytes_fetched)}), "
            f"read amplification {short(plan.read_amplification)}",
            f"largest      {plan.largest_request:,} bytes ({size_text(plan.largest_request)})",
        ]
    )


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


def _picture(asked: Sequence[tuple[int, int]], plan: Plan, columns: int) -> str:
    """One line from the first request to the last: bytes that are requested, fetched only for merging, not read."""
    fetched = [(start, start + (length or 0)) for _, start, length in plan.requests]
    first, last = min(start for start, _ in fetched), max(stop for _, stop in fetched)
    width = max(10, min(columns, 110) - 2)
    cells = ["·"] * width
    for mark, extents in (("░", fetched), ("█", asked)):
        for start, stop in extents:
            if start < stop:
                left, right = (_column(at, first, last, width) for at in (start, stop - 1))
                cells[left : right + 1] = mark * (right + 1 - left)
    return f"\n {''.join(cells)}\n {f'{first:,}':<{width // 2}}{f'{last:,}':>{width - width // 2}}\n" + (
        " █ requested   ░ fetched for merging   · not read\n"
    )


def _column(at: int, first: int, last: int, width: int) -> int:
    return max(0, min(width - 1, (at - first) * width // max(1, last - first)))


def _listing(plan: Plan, most: int) -> str:
    used = [0] * len(plan.requests)
    for index in plan.assigned:
        if index is not None:
            used[index] += 1
    lines = [f"{'request':>9}  {'offset':>16}  {'length':>14}  ranges"]
    for number, (request, ranges) in enumerate(zip(plan.requests[:most], used, strict=False)):
        _, offset, length = request
        lines.append(
            f"{number:>9,}  {offset:>16,}  {'to the end' if length is None else f'{length:,}':>14}  {ranges:>6,}"
        )
    if len(plan.requests) > most:
        lines.append(f"... and {len(plan.requests) - most:,} more (--all lists them)")
    return "\n".join(lines)
