"""`rangeio stat`: metadata of an object, without reading it."""

import argparse
import json
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import rangeio
from rangeio.cli.console import shown
from rangeio.cli.opening import add_options, options_of
from rangeio.cli.sizes import size_text

NAME = "stat"
HELP = "show the size and version of an object, and how it would be read"
DESCRIPTION = """\
Show metadata of an object without reading it: its size, time of modification, the pin that identifies this version,
and how rangeio would read it here. A terminal shows control characters escaped."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("uri", metavar="URI", nargs="+", help="path or URI")
    command.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    for number, uri in enumerate(arguments.uri):
        with rangeio.open(uri, **options_of(arguments)) as reader:
            stat, capability = asdict(reader.stat()), asdict(reader.capability)
        capability["pinned_by"] = capability.pop("pin")
        if arguments.json:
            print(json.dumps(stat | capability))
        else:
            print("\n" * bool(number) + _text(stat, capability))
    return 0


def _text(stat: dict[str, Any], capability: dict[str, Any]) -> str:
    size, mtime = stat["size"], stat["mtime_ns"]
    direct = capability["direct_reason"]
    if capability["alignment"]:
        direct = f"{direct}, aligned to {capability['alignment']:,} bytes".lstrip(", ")
    lines = {
        "path": stat["path"],
        "size": "unknown before reading" if size is None else f"{size:,} bytes ({size_text(size)})",
        "modified": mtime
        and datetime.fromtimestamp(mtime / 1e9, timezone.utc).isoformat(timespec="microseconds"),
        "etag": stat["etag"],
        "version": stat["version"],
        "pin": f"{stat['pin']} ({capability['pinned_by']})"
        if stat["pin"]
        else "none: versions cannot be distinguished",
        "read by": capability["backend"],
        "O_DIRECT": direct,
    }
    return "\n".join(f"{name:<10}{shown(str(value))}" for name, value in lines.items() if value)
