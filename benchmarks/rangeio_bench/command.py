"""`rangeio bench`: measure this machine, with everything that people use instead beside it.

The command line imports this module for its arguments alone: whatever is heavy is imported by `run`.
"""

import argparse
import re
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangeio.cli import spans
from rangeio.cli.console import Progress, UsageError

if TYPE_CHECKING:
    from rangeio_bench.session import Session

DESCRIPTION = """\
Measure how fast FILE is read, hot, cold and past the page cache, by rangeio and by everything else that is installed:
os.pread, os.preadv, a thread pool, mmap, np.memmap, obstore, opendal, pyarrow, tensorstore, pyuring, caio, fio.

FILE is made with random bytes if it is not there (1 GiB, or --size), and is used as it is if it is. Small files are
kept in FILE.files. Nothing else is written but the report, and nothing that was there is overwritten.

A URL (http:// or https://) in place of FILE measures reads of that object, beside http.client, urllib3, aiohttp,
obstore, opendal and pyarrow. It is downloaded once to compare with, unless --copy names a file with the same bytes. A
server of the bench's own, paced as a far one, serves the copy for the cases that want one.

  rangeio bench sample.bin                    # about four minutes on 1 GiB
  rangeio bench sample.bin --quick            # well below one, for a first look
  rangeio bench sample.bin --cases direct     # only what has "direct" in its name; --list shows the names
  rangeio bench http://127.0.0.1:8080/bucket/sample.bin --copy sample.bin"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare them."""
    command.add_argument(
        "file", metavar="FILE|URL", nargs="?", help="the sample; made if it is a file that is not there"
    )
    command.add_argument("--size", type=spans.size, help="of FILE; default 1GiB, or what is there")
    command.add_argument("--quick", action="store_true", help="fewer and smaller runs: figures are rough")
    command.add_argument(
        "--cases", metavar="A,B", default="", help="only cases with one of these in their names"
    )
    command.add_argument(
        "--rounds", type=int, metavar="N", help="measure everybody N times, however long it takes"
    )
    command.add_argument("--copy", metavar="FILE", help="of a URL: a file with the same bytes")
    command.add_argument("--tls", metavar="URL", default="", help="of a URL: the same object by https")
    command.add_argument("--ca-file", metavar="PEM", default="", help="of a URL: certificates to trust")
    command.add_argument("--report", metavar="HTML", default="rangeio-bench.html", help="default %(default)s")
    command.add_argument("--json", metavar="JSON", default="rangeio-bench.json", help="default %(default)s")
    command.add_argument("--no-report", action="store_true", help="write neither of the two")
    command.add_argument("--list", action="store_true", help="print the names of the cases")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    if not sys.platform.startswith("linux"):
        raise OSError("the bench needs Linux: it controls the page cache, and looks into /proc")
    from rangeio_bench import page, report  # numpy and more, which the other commands do without
    from rangeio_bench.cases import CASES
    from rangeio_bench.http.cases import HTTP_CASES

    if arguments.list:
        print("\n".join(case.id for case in (*CASES, *HTTP_CASES)), "memory", sep="\n")
        return 0
    if not arguments.file:
        raise UsageError("which FILE? It is made if it is not there: rangeio bench sample.bin")
    if arguments.rounds is not None and arguments.rounds < 1:
        raise UsageError(f"--rounds {arguments.rounds}: at least one")
    with Progress() as progress:
        bench = _session(arguments, progress)
        try:
            for text in bench.run():
                progress.clear()
                print(text, end="\n\n", flush=True)
        finally:
            bench.close()
    if not arguments.no_report:
        report.write_json(bench.report, Path(arguments.json))
        Path(arguments.report).write_text(page.render(bench.report))
        print(f"The report: {arguments.report} to look at, {arguments.json} with every sample.")
    return 0


def _as_shown(argument: str) -> str:
    """An argument as it may stand in a report: of a URL, without login and query."""
    return re.sub("(https?://)([^/?#]*@)?([^?#]*)([?].*)?", r"\1\3", argument, flags=re.DOTALL)


def _session(arguments: argparse.Namespace, progress: Progress) -> "Session":
    from rangeio_bench import session
    from rangeio_bench.http.remote import Where

    options: dict[str, Any] = {
        "quick": arguments.quick,
        "rounds": arguments.rounds,
        "wanted": [name for name in arguments.cases.split(",") if name],
        "started": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(["rangeio", *map(_as_shown, sys.argv[1:])]),
        "progress": progress,
    }
    if not arguments.file.startswith(("http://", "https://")):
        return session.Session(Path(arguments.file), size=arguments.size, **options)
    where = Where(arguments.file, arguments.tls, arguments.ca_file)
    return session.HttpSession(where, Path(arguments.copy) if arguments.copy else None, **options)
