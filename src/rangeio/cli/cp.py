"""`rangeio cp`: copies objects to local files, which appear only when they are complete."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

import rangeio
from rangeio.cli import range_syntax
from rangeio.cli.cat import to_stdout
from rangeio.cli.console import UsageError, complain, error_text, need_stdout
from rangeio.cli.copies import Copies, Copy, How, all_below, one_of_each
from rangeio.cli.opening import add_options, options_of
from rangeio.cli.sizes import size_text

NAME = "cp"
HELP = "copy objects, or a range of one, to local files"
DESCRIPTION = f"""\
Copy objects, or one range of each, to local files, with concurrent requests. A file appears under its name when it is
complete. Until then, and if the copy fails or is interrupted, an existing file stays unchanged, and no temporary file
is left. "-" is standard output.

With --continue, what has arrived stays in DEST.part, but for up to 8 MiB that were on their way, and the same command
goes on there if the object is still the same version; with -r, files of equal size and time are not copied again.

{range_syntax.HELP}

  rangeio cp https://example.org/model.bin .
  rangeio cp https://example.org/model.bin head.bin --range 0-1MiB
  rangeio cp --continue https://example.org/large.bin .        # again, if it was interrupted
  rangeio cp -r s3://bucket/tables/ tables"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument(
        "uris", metavar="URI", nargs="+", help="path or URI of an object; with -r, of a folder"
    )
    command.add_argument("destination", metavar="DEST", help="a file, a folder (keeps the name), or -")
    command.add_argument("--range", type=range_syntax.range_type, metavar="A-B", help="copy only these bytes")
    command.add_argument(
        "-r", "--recursive", action="store_true", help="copy all objects below URI to the folder DEST"
    )
    command.add_argument(
        "-c", "--continue", dest="resume", action="store_true", help="keep what has arrived, and go on there"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object per file")
    command.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    add_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    uris, destination = arguments.uris, arguments.destination
    if "://" in destination:
        raise UsageError("DEST must be a path of this machine, not a URI")
    how = How(options_of(arguments), arguments.range, arguments.resume, arguments.quiet)
    if destination in ("-", "/dev/stdout"):
        if arguments.recursive or arguments.resume or arguments.json:
            raise UsageError("standard output takes neither -r nor --continue nor --json")
        for uri in uris:
            with rangeio.open(uri, **how.options) as reader:
                to_stdout(reader, [arguments.range])
        return 0
    if arguments.json:
        need_stdout()
    if arguments.recursive:
        copies = _with_folders([*all_below(uris, destination, how)])
    else:
        copies = one_of_each(uris, destination, how)
    return _copied(copies, how, many=arguments.recursive or len(uris) > 1, as_json=arguments.json)


def _with_folders(copies: list[Copy]) -> list[Copy]:
    for folder in sorted({os.path.dirname(copy.path) for copy in copies}):
        os.makedirs(folder or ".", exist_ok=True)
    return copies


def _copied(copies: Sequence[Copy], how: How, *, many: bool, as_json: bool) -> int:
    def ended(copy: Copy) -> None:
        if as_json:
            print(json.dumps(_record(copy)), flush=True)
        if copy.error and many:
            complain(f"rangeio: {error_text(copy.error)}")

    start, work = time.monotonic(), Copies(how)
    work.run(copies, ended)
    failed = [copy for copy in copies if copy.error]
    if failed and not many:
        assert failed[0].error is not None
        raise failed[0].error
    to_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not how.quiet and (many or to_terminal):
        complain(_summary(copies, time.monotonic() - start))
    return 1 if failed else 0


def _record(copy: Copy) -> dict[str, object]:
    known: dict[str, object] = {"source": copy.source, "path": copy.path}
    if copy.error:
        return known | {"error": error_text(copy.error)}
    return known | {
        "size": copy.done,
        "seconds": round(copy.seconds, 3),
        "continued_at": copy.kept,
        "skipped": copy.skipped,
    }


def _summary(copies: Sequence[Copy], seconds: float) -> str:
    whole = [copy for copy in copies if not copy.error and not copy.skipped]
    nbytes = sum(copy.done - copy.kept for copy in whole)
    rate = f", {size_text(nbytes / seconds)}/s" if seconds > 0 else ""
    files = f"{len(whole)} file{'s' * (len(whole) != 1)}"
    words = [f"{files}, {size_text(nbytes)} in {seconds:.1f} s{rate}"]
    words += [f"{count} already complete"] if (count := sum(copy.skipped for copy in copies)) else []
    words += [f"{count} failed"] if (count := sum(copy.error is not None for copy in copies)) else []
    return "; ".join(words)
