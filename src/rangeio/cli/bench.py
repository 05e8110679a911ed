"""`rangeio bench`: the door to the bench."""

import argparse

NAME = "bench"
HELP = "measure reads of a file or of an object on a server, beside what people use instead"
DESCRIPTION = HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Those of the bench."""
    from rangeio.bench import command as bench

    command.description = bench.DESCRIPTION
    bench.add_arguments(command)


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    from rangeio.bench import command as bench

    return bench.run(arguments)
