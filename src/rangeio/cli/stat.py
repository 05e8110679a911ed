"""`rangeio stat`: what is known of an object without reading it."""

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
HELP = "show size, version and how an object would be read"
DESCRIPTION = """\
Show what is known of an object without reading it: its size, when it was changed, the pin that tells this version
from another, and how rangeio would read it here. On a terminal, escapes stand in place of control characters."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("uri", metavar="URI", nargs="+", help="path or URI")
    command.add_argument("--json", action="store_true", help="one JSON object on each line")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
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
        "size": "not known before reading" if size is None else f"{size:,} bytes ({size_text(size)})",
        "modified": mtime
        and datetime.fromtimestamp(mtime / 1e9, timezone.utc).isoformat(timespec="microseconds"),
        "etag": stat["etag"],
        "version": stat["version"],
        "pin": f"{stat['pin']} ({capability['pinned_by']})"
        if stat["pin"]
        else "nothing tells versions apart",
        "read by": capability["backend"],
        "O_DIRECT": direct,
    }
    return "\n".join(f"{name:<10}{shown(str(value))}" for name, value in lines.items() if value)
