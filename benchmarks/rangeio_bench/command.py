"""`rangeio bench`: measure this machine, and compare rangeio with other libraries.

The command line imports this module for its arguments; `run` imports the heavy modules.
"""

import argparse
import re
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangeio.cli import range_syntax
from rangeio.cli.console import Progress, UsageError

if TYPE_CHECKING:
    from rangeio_bench.session import Session

DESCRIPTION = """\
Measure reads of FILE, hot, cold and with O_DIRECT, by rangeio and by all other libraries that are installed:
os.pread, os.preadv, a thread pool, mmap, np.memmap, obstore, opendal, pyarrow, tensorstore, pyuring, caio, fio.

FILE is created with random bytes if it does not exist (1 GiB, or --size); an existing file is used. Small files are
kept in FILE.files. Only these files and the report are written; existing files are not overwritten.

A URL (http:// or https://) in place of FILE measures reads of that object, compared with http.client, urllib3, aiohttp,
obstore, opendal and pyarrow. It is downloaded once to check results, unless --copy names a file with the same bytes. A
server of the bench, as slow as a distant one, serves the copy for the paced cases.

  rangeio bench sample.bin                    # about four minutes on 1 GiB
  rangeio bench sample.bin --quick            # well below one minute, rough figures
  rangeio bench sample.bin --cases direct     # only cases with "direct" in their names; --list shows the names
  rangeio bench http://127.0.0.1:8080/bucket/sample.bin --copy sample.bin"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    command.add_argument(
        "file", metavar="FILE|URL", nargs="?", help="the sample; a file is created if it does not exist"
    )
    command.add_argument(
        "--size", type=range_syntax.size_type, help="size of FILE; default 1GiB, or that of the existing file"
    )
    command.add_argument("--quick", action="store_true", help="fewer and smaller runs: figures are rough")
    command.add_argument(
        "--cases", metavar="A,B", default="", help="only cases with one of these in their names"
    )
    command.add_argument(
        "--rounds", type=int, metavar="N", help="measure every contender N times, however long it takes"
    )
    command.add_argument("--copy", metavar="FILE", help="for a URL: a file with the same bytes")
    command.add_argument("--tls", metavar="URL", default="", help="for a URL: the same object over https")
    command.add_argument("--ca-file", metavar="PEM", default="", help="for a URL: certificates to trust")
    command.add_argument("--report", metavar="HTML", default="rangeio-bench.html", help="default %(default)s")
    command.add_argument("--json", metavar="JSON", default="rangeio-bench.json", help="default %(default)s")
    command.add_argument(
        "--markdown", metavar="FILE", help="also write the targets to their section of this page"
    )
    command.add_argument("--no-report", action="store_true", help="write neither report nor JSON")
    command.add_argument("--list", action="store_true", help="print the names of the cases")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    if not sys.platform.startswith("linux"):
        raise OSError("the bench needs Linux: it controls the page cache and reads /proc")
    from rangeio_bench import (
        markdown,
        page,
        report,
    )  # these import numpy and more, which other commands do not need
    from rangeio_bench.cases import CASES
    from rangeio_bench.http.cases import HTTP_CASES

    if arguments.list:
        print("\n".join(case.id for case in (*CASES, *HTTP_CASES)), "memory", sep="\n")
        return 0
    if not arguments.file:
        raise UsageError("FILE is required; it is created if it does not exist: rangeio bench sample.bin")
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
    if arguments.markdown:
        section = markdown.of_report(bench.report)
        markdown.update(Path(arguments.markdown), markdown.name_of(bench.report), section)
    if not arguments.no_report:
        report.write_json(bench.report, Path(arguments.json))
        Path(arguments.report).write_text(page.render(bench.report))
        print(f"The report: {arguments.report} to look at, {arguments.json} with every sample.")
    return 0


def _as_shown(argument: str) -> str:
    """An argument for the report: a URL without login and query."""
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
