"""Runs the `rangeio` command line in a separate process."""

import sys


def rangeio_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rangeio", *map(str, arguments)]
