"""The command line of `rangeio`, in a process of its own."""

import sys


def rangeio_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rangeio", *map(str, arguments)]
