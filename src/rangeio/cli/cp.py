"""`rangeio cp`: copies an object to a local file, which appears only when it is complete."""

import argparse
import os

import rangeio
from rangeio.cli import range_syntax
from rangeio.cli.cat import to_stdout
from rangeio.cli.console import Progress, UsageError
from rangeio.cli.opening import add_options, options_of, pieces
from rangeio.cli.sizes import size_text
from rangeio.cli.whole_file import whole_file
from rangeio.errors import NotFoundError
from rangeio.services.registry import located, service_class

NAME = "cp"
HELP = "copy an object, or a range of it, to a local file"
DESCRIPTION = f"""\
Copy an object, or one range of it, to a local file, with concurrent requests. The file appears under its name when it
is complete. Until then, and if the copy fails or is interrupted, an existing file stays unchanged, and no temporary
file is left. "-" is standard output.

{range_syntax.HELP}

  rangeio cp https://example.org/model.bin .
  rangeio cp https://example.org/model.bin head.bin --range 0-1MiB"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("uri", metavar="URI", help="path or URI of the object")
    command.add_argument("destination", metavar="DEST", help="a file, a folder (keeps the name), or -")
    command.add_argument("--range", type=range_syntax.range_type, metavar="A-B", help="copy only these bytes")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if "://" in arguments.destination:
        raise UsageError("DEST must be a path of this machine, not a URI")
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
    """The path of the file: DEST, or in a folder DEST the name of the object; links are resolved."""
    if os.path.isdir(destination):
        scheme, _, place = located(uri)
        name = service_class(scheme).file_name(place)
        if name in ("", ".", ".."):
            raise UsageError(
                f"{destination} is a folder and the URI contains no file name: specify the name in DEST"
            )
        destination = os.path.join(destination, name)
    elif destination.endswith(os.sep):
        raise UsageError(f"the folder {destination} does not exist")
    path = os.path.realpath(destination)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise NotFoundError(f"the folder {folder} does not exist", path=folder)
    return path
