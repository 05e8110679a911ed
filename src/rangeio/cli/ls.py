"""`rangeio ls`: which objects there are."""

import argparse
import json
import os
from datetime import datetime, timezone

from rangeio.cli.console import shown
from rangeio.cli.opening import add_options, options_of
from rangeio.cli.sizes import size_text
from rangeio.errors import NotFoundError
from rangeio.operator import Operator, split_uri
from rangeio.service import Stat

NAME = "ls"
HELP = "list a folder, or the objects whose name begins with something"
DESCRIPTION = """\
List what is in a folder, or what of it has a name that begins with PREFIX: size, time of change (UTC) and name of each.
Folders end in "/". The names are as the other commands take them; on a terminal, escapes stand in place of control
characters (\\n, \\x1b) and of others that would steer it. Names with line breaks are for --json.
Where there is nothing of that name it fails.

  rangeio ls data
  rangeio ls s3://bucket/part-00 --recursive
  rangeio ls s3://bucket/ --json"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="path or URI; default: here")
    command.add_argument(
        "-R", "--recursive", action="store_true", help="objects at any depth, and no folders"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on each line")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    scheme, prefix = split_uri(arguments.prefix)
    before = "" if scheme == "fs" else f"{scheme}://"
    if scheme == "fs" and os.path.isdir(prefix):
        prefix = os.path.join(prefix, "")
    listing = Operator(scheme, **options_of(arguments)).list(prefix, None if arguments.recursive else "/")
    empty = True
    for stat in listing:
        empty = False
        fields = {"path": before + stat.path, "size": stat.size, "mtime_ns": stat.mtime_ns, "etag": stat.etag}
        print(json.dumps(fields | {"is_prefix": stat.is_prefix}) if arguments.json else _line(stat, before))
    if empty and not _is_place(scheme, prefix):
        raise NotFoundError(f"nothing has a name that begins with {before + prefix!r}", path=before + prefix)
    return 0


def _is_place(scheme: str, prefix: str) -> bool:
    """Whether it is there though nothing is in it: a folder, a bucket, or all there is."""
    if scheme == "s3":
        return prefix.rstrip("/").count("/") == 0
    return not prefix or (scheme == "fs" and prefix.endswith((os.sep, "/")))


def _line(stat: Stat, before: str) -> str:
    changed = ""
    if stat.mtime_ns is not None:
        changed = f"{datetime.fromtimestamp(stat.mtime_ns / 1e9, timezone.utc):%Y-%m-%d %H:%M:%S}"
    size = "" if stat.size is None else size_text(stat.size)
    return f"{size:>12}  {changed:<19}  {shown(before + stat.path)}"
