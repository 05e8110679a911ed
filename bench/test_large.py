"""Large reads into one buffer, ranges of a table, and tensors."""

from typing import Any

ACTIONS = ("whole", "blocks", "ranges", "fill")


def test_large(benchmark: Any, turn: Any) -> None:
    turn.measure(benchmark)
