"""`python -m rangeio_bench.jobs tables FOLDER`: measure whole jobs of a user."""

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rangeio.cli.machine import machine
from rangeio_bench.jobs import report
from rangeio_bench.jobs.runner import Result, measured
from rangeio_bench.jobs.suites import SUITES, jobs_of
from rangeio_bench.markdown import update


def main() -> int:
    """Run the command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rangeio_bench.jobs", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("folder", type=Path, help="where the data are kept; they are generated once")
    parser.add_argument(
        "--cases", default="", metavar="A,B", help="only jobs with one of these in their names"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is measured; default 5")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument(
        "--earlier",
        type=Path,
        help="report the jobs that are not measured now as this file of --json has them",
    )
    parser.add_argument("--markdown", type=Path, help="also write the limits to their section of this page")
    parser.add_argument("--list", action="store_true", help="print the names of the jobs")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.cases.split(",") if name]
    jobs = [job for job in jobs_of(arguments.suite) if not wanted or any(name in job.id for name in wanted)]
    if arguments.list:
        print("\n".join(job.id for job in jobs))
        return 0
    found = {}
    for result in measured(jobs, arguments.folder, arguments.rounds):
        print(report.text(result), end="\n\n", flush=True)
        found[result.job.id] = result
    if arguments.earlier:
        found = _with_earlier(arguments.suite, json.loads(arguments.earlier.read_text()), found)
    if arguments.json:
        results = [report.data(result) for result in found.values()]
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.markdown:
        update(
            arguments.markdown,
            arguments.suite,
            report.markdown(arguments.suite, found.values(), _said(arguments)),
        )
    return 0


def _with_earlier(suite: str, earlier: list[dict[str, Any]], found: dict[str, Result]) -> dict[str, Result]:
    """All results, in the order of the suite."""
    before = {one["id"]: one for one in earlier}
    return {
        job.id: found.get(job.id) or report.restored(job, before[job.id])
        for job in jobs_of(suite)
        if job.id in found or job.id in before
    }


def _said(arguments: argparse.Namespace) -> str:
    here = machine()
    return (
        f"Measured on {datetime.now(timezone.utc):%Y-%m-%d} by `python -m rangeio_bench.jobs {arguments.suite}`, "
        f"{arguments.rounds} rounds: {here.processor}, {here.cpus} CPUs, {here.kernel}. Ratios are to the best "
        "other way of the same rounds; **bold: the limit was missed**."
    )


if __name__ == "__main__":
    raise SystemExit(main())
