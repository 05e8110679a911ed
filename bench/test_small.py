"""Small reads: one by one, in batches, and many in flight with O_DIRECT."""

from typing import Any

ACTIONS = ("each", "batch", "deep")


def test_small(benchmark: Any, turn: Any) -> None:
    turn.measure(benchmark)
