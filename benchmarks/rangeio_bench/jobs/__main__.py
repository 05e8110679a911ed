"""`python -m rangeio_bench.jobs tables FOLDER`: measure whole jobs of a user."""

import argparse
import json
from pathlib import Path

from rangeio_bench.jobs import report
from rangeio_bench.jobs.runner import measured
from rangeio_bench.jobs.suites import SUITES, jobs_of


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
    parser.add_argument("--list", action="store_true", help="print the names of the jobs")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.cases.split(",") if name]
    jobs = [job for job in jobs_of(arguments.suite) if not wanted or any(name in job.id for name in wanted)]
    if arguments.list:
        print("\n".join(job.id for job in jobs))
        return 0
    results = []
    for result in measured(jobs, arguments.folder, arguments.rounds):
        print(report.text(result), end="\n\n", flush=True)
        results.append(report.data(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
