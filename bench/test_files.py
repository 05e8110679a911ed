"""Many small files, whole."""

from typing import Any

ACTIONS = ("files",)


def test_files(benchmark: Any, turn: Any) -> None:
    turn.measure(benchmark)
