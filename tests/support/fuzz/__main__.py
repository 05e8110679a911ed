"""`python -m fuzz FOLDER --seconds 60`, from `tests`: inputs that reach more code are kept in FOLDER. Needs atheris."""

import argparse
import sys

import atheris

with atheris.instrument_imports(include=["rangeio.http"]):
    from fuzz.response import CORPUS, check


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder")
    arguments.add_argument("--seconds", type=int, default=60)
    given = arguments.parse_args()
    options = [f"-max_total_time={given.seconds}", "-max_len=3000", "-timeout=20", "-print_final_stats=1"]
    # The peak of memory that a process is told of is also that of its parent before exec(2): it says nothing here.
    options += ["-rss_limit_mb=0", "-malloc_limit_mb=2048"]
    options.append(f"-artifact_prefix={given.folder}/")
    atheris.Setup([sys.argv[0], *options, given.folder, str(CORPUS)], check)
    atheris.Fuzz()


main()
