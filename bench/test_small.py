"""Small reads: one by one, in batches, and many in flight past the page cache."""

from typing import Any

ACTIONS = ("each", "batch", "deep")


def test_small(benchmark: Any, turn: Any) -> None:
    turn.measure(benchmark)
