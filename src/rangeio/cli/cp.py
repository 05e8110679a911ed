"""`rangeio cp`: an object into a local file, which is there when it is complete and not before."""

import argparse
import os
from urllib.parse import unquote, urlsplit

import rangeio
from rangeio.cli import spans
from rangeio.cli.cat import to_stdout
from rangeio.cli.console import Progress, UsageError
from rangeio.cli.opening import add_options, options_of, pieces
from rangeio.cli.sizes import size_text
from rangeio.cli.whole_file import whole_file
from rangeio.errors import NotFoundError
from rangeio.operator import split_uri

NAME = "cp"
HELP = "copy an object, or a range of it, into a local file"
DESCRIPTION = f"""\
Copy an object, or one range of it, into a file of this machine: large ones by many requests at a time. The file appears
under its name when it is complete; until then, and if the copy fails or is ended, what was there before stays as it is,
and nothing is left beside it. "-" is standard output.

{spans.HELP}

  rangeio cp https://example.org/model.bin .
  rangeio cp https://example.org/model.bin head.bin --range 0-1MiB"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("uri", metavar="URI", help="path or URI of what is copied")
    command.add_argument(
        "destination", metavar="DEST", help="a file, a folder for a file of the same name, or -"
    )
    command.add_argument("--range", type=spans.span, metavar="A-B", help="only these bytes")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    if "://" in arguments.destination:
        raise UsageError("DEST is a path of this machine, and not a URI")
    if arguments.destination in ("-", "/dev/stdout"):
        with rangeio.open(arguments.uri, **options_of(arguments)) as reader:
            to_stdout(reader, [arguments.range])
        return 0
    path = _path_for(arguments.uri, arguments.destination)
    with (
        rangeio.open(arguments.uri, **options_of(arguments)) as reader,
        Progress() as progress,
        whole_file(path) as file,
    ):
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
    path = os.path.realpath(destination)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise NotFoundError(f"there is no folder {folder}", path=folder)
    return path
