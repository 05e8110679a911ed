"""`rangeio ls`: lists objects."""

import argparse
import json
import os
from datetime import datetime, timezone

from rangeio.cli.console import shown
from rangeio.cli.opening import add_options, options_of
from rangeio.cli.sizes import size_text
from rangeio.errors import NotFoundError
from rangeio.operator import Operator
from rangeio.service import Stat
from rangeio.services.registry import located, service_class

NAME = "ls"
HELP = "list a folder, or the objects whose name begins with a prefix"
DESCRIPTION = """\
List the content of a folder, or the objects whose name begins with PREFIX: size, time of modification (UTC) and name.
Folders end in "/". The names can be passed to the other commands. A terminal shows control characters (\\n, \\x1b) and
similar characters escaped. Use --json for names with line breaks. Fails if nothing matches PREFIX.

  rangeio ls data
  rangeio ls s3://bucket/part-00 --recursive
  rangeio ls s3://bucket/ --json"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument(
        "prefix", metavar="PREFIX", nargs="?", default="", help="path or URI; default: the current folder"
    )
    command.add_argument(
        "-R", "--recursive", action="store_true", help="list objects at any depth, without folders"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    scheme, own, prefix = located(arguments.prefix)
    kind = service_class(scheme)
    if scheme == "fs" and os.path.isdir(prefix):
        prefix = os.path.join(prefix, "")
    operator = Operator(scheme, **own, **options_of(arguments))
    empty = True
    for stat in operator.list(prefix, None if arguments.recursive else "/"):
        empty = False
        path = operator.uri(stat.path)
        fields = {"path": path, "size": stat.size, "mtime_ns": stat.mtime_ns, "etag": stat.etag}
        print(json.dumps(fields | {"is_prefix": stat.is_prefix}) if arguments.json else _line(stat, path))
    if empty and not kind.is_place(prefix):
        path = operator.uri(prefix)
        raise NotFoundError(f"no name begins with {path!r}", path=path)
    return 0


def _line(stat: Stat, path: str) -> str:
    changed = ""
    if stat.mtime_ns is not None:
        changed = f"{datetime.fromtimestamp(stat.mtime_ns / 1e9, timezone.utc):%Y-%m-%d %H:%M:%S}"
    size = "" if stat.size is None else size_text(stat.size)
    return f"{size:>12}  {changed:<19}  {shown(path)}"
