"""`rangeio cp`: an object into a local file, which is there when it is complete and not before."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import rangeio
from rangeio.bench.units import size_text
from rangeio.cli import spans
from rangeio.cli.console import Progress, UsageError
from rangeio.cli.opening import add_options, options_of, pieces
from rangeio.operator import split_uri

NAME = "cp"
HELP = "copy an object, or a range of it, into a local file"
DESCRIPTION = f"""\
Copy an object, or one range of it, into a file of this machine: large ones by many requests at a time. The file appears
under its name when it is complete; until then, and if the copy fails, what was there before stays as it is.

{spans.HELP}

  rangeio cp https://example.org/model.bin .
  rangeio cp https://example.org/model.bin head.bin --range 0-1MiB"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("uri", metavar="URI", help="path or URI of what is copied")
    command.add_argument(
        "destination", metavar="DEST", help="a file, or a folder for a file of the same name"
    )
    command.add_argument("--range", type=spans.span, metavar="A-B", help="only these bytes")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    if "://" in arguments.destination:
        raise UsageError(f"{arguments.destination}: DEST is a path of this machine")
    with rangeio.open(arguments.uri, **options_of(arguments)) as reader:
        path = _path_for(arguments.uri, arguments.destination)
        with Progress() as progress, _whole(path) as file:
            done = 0
            for piece, total in pieces(reader, arguments.range):
                file.write(piece)
                done += len(piece)
                if total:
                    progress(done / total, f"{size_text(done)} of {size_text(total)}")
    return 0


def _path_for(uri: str, destination: str) -> str:
    """DEST, or the name of the object in it; a link means what it points to."""
    if os.path.isdir(destination):
        scheme, place = split_uri(uri)
        name = os.path.basename(unquote(urlsplit(place).path) if scheme in ("http", "https") else place)
        if name in ("", ".", ".."):
            raise UsageError(
                f"{destination} is a folder, and the URI names no file: say how it is to be called"
            )
        destination = os.path.join(destination, name)
    elif destination.endswith(os.sep):
        raise UsageError(f"there is no folder {destination}")
    return os.path.realpath(destination)


@contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A file to write, which takes its name at the end, and is gone if there is an error instead."""
    if os.path.lexists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:  # a device or a pipe is written to, and stays what it is
            yield file
        return
    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, _mode_of(path))
            os.fsync(descriptor)  # or a crash soon after could leave the name without the bytes
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode_of(path: str) -> int:
    """Of what is there already, else what a new file gets."""
    try:
        return os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)  # there is no other way to ask
        os.umask(mask)
        return 0o666 & ~mask
