"""`rangeio serve`: the files below a folder over HTTP, for trying things."""

import argparse
import os

from rangeio.cli.file_server import RangeServer
from rangeio.errors import NotDirectoryError

NAME = "serve"
HELP = "serve a folder over HTTP, with ranges, for trying things"
DESCRIPTION = """\
Serve the files below DIR over HTTP: single byte ranges (206, 416), ETag, Last-Modified, If-Match and its kin, If-Range,
HEAD, listings of folders. For trying things: it has neither TLS nor passwords, and whoever reaches it can read all
files below DIR. Only this machine does, unless --bind says otherwise.

  rangeio serve data --port 8000
  rangeio cat http://127.0.0.1:8000/sample.bin --range 0-16"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument("folder", metavar="DIR", nargs="?", default=".", help="default: where you are")
    command.add_argument("--port", type=int, default=8000, help="default %(default)s; 0 for one that is free")
    command.add_argument("--bind", metavar="ADDRESS", default="127.0.0.1", help="default %(default)s")
    command.add_argument("--quiet", action="store_true", help="no line for each request")


def run(arguments: argparse.Namespace) -> int:
    """Do it until Ctrl-C; the exit code."""
    if not os.path.isdir(arguments.folder):
        raise NotDirectoryError(f"{arguments.folder!r} is no folder")
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
