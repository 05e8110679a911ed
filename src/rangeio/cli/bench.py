"""`rangeio bench`: runs the bench, a separate package that may not be installed."""

import argparse

from rangeio.cli.console import UsageError

NAME = "bench"
HELP = "measure reads of a file or an object on a server, compared with other libraries"
DESCRIPTION = HELP
NOT_HERE = (
    "the bench is not installed: run `pip install ./benchmarks` in the sources of rangeio (checkout or sdist)"
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of the bench."""
    try:
        from rangeio_bench import command as bench
    except ModuleNotFoundError as error:
        if error.name != "rangeio_bench":
            raise
        raise UsageError(NOT_HERE) from None
    command.description = bench.DESCRIPTION
    bench.add_arguments(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    from rangeio_bench import command as bench

    return bench.run(arguments)
