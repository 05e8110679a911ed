"""Large reads into one buffer, and ranges of a table."""

from typing import Any

ACTIONS = ("whole", "blocks", "ranges")


def test_large(benchmark: Any, turn: Any) -> None:
    turn.measure(benchmark)
