"""`rangeio serve`: serves the files below a folder over HTTP, for experiments."""

import argparse
import os

from rangeio.cli.file_server import RangeServer
from rangeio.errors import NotDirectoryError

NAME = "serve"
HELP = "serve a folder over HTTP, with ranges, for experiments"
DESCRIPTION = """\
Serve the files below DIR over HTTP: single byte ranges (206, 416), ETag, Last-Modified, If-Match and the other
conditions, If-Range, HEAD, folder listings. For experiments only: it has neither TLS nor authentication, and every
client can read all files below DIR. It listens on this machine only, unless --bind is set.

  rangeio serve data --port 8000
  rangeio cat http://127.0.0.1:8000/sample.bin --range 0-16"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument("folder", metavar="DIR", nargs="?", default=".", help="default: the current folder")
    command.add_argument("--port", type=int, default=8000, help="default %(default)s; 0 for any free port")
    command.add_argument("--bind", metavar="ADDRESS", default="127.0.0.1", help="default %(default)s")
    command.add_argument("--quiet", action="store_true", help="do not log requests")


def run(arguments: argparse.Namespace) -> int:
    """Run the server until Ctrl-C. Returns the exit code."""
    if not os.path.isdir(arguments.folder):
        raise NotDirectoryError(f"{arguments.folder!r} is not a folder")
    try:
        server = RangeServer(arguments.folder, arguments.bind, arguments.port, quiet=arguments.quiet)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {arguments.bind} port {arguments.port}: {reason}") from error
    with server:
        print(f"Serving {server.folder} at {server.url} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0
