"""`rangeio ls`: which objects there are."""

import argparse
import json
import os
from datetime import datetime, timezone

from rangeio.bench.units import size_text
from rangeio.cli.opening import add_option, options_of
from rangeio.operator import Operator, split_uri
from rangeio.service import Stat

NAME = "ls"
HELP = "list the objects whose name begins with something"
DESCRIPTION = """\
List the objects whose name begins with PREFIX, at any depth, each as size, time of change and name. A folder lists what
is in it.

  rangeio ls data
  rangeio ls data/part-00 --json"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="path or URI; default: here")
    command.add_argument("--json", action="store_true", help="one JSON object on each line")
    add_option(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    scheme, prefix = split_uri(arguments.prefix)
    if scheme == "fs" and os.path.isdir(prefix):
        prefix = os.path.join(prefix, "")
    for stat in Operator(scheme, **options_of(arguments)).list(prefix):
        print(json.dumps(_fields(stat)) if arguments.json else _line(stat))
    return 0


def _fields(stat: Stat) -> dict[str, object]:
    return {"path": stat.path, "size": stat.size, "mtime_ns": stat.mtime_ns, "etag": stat.etag}


def _line(stat: Stat) -> str:
    changed = ""
    if stat.mtime_ns is not None:
        changed = f"{datetime.fromtimestamp(stat.mtime_ns / 1e9, timezone.utc):%Y-%m-%d %H:%M:%S}"
    size = "?" if stat.size is None else size_text(stat.size)
    return f"{size:>12}  {changed:<19}  {stat.path}"
