"""Patterns that fill allocated and freed memory, to make bytes visible that were never written."""

import os

ALLOCATED = 0xCD
"""Fills memory before a read, if poisoning is on. The same value as in CPython's debug allocator."""
FREED = 0xDD
"""Fills memory when it is freed."""


def poisons(default: bool) -> bool:
    """Whether memory is poisoned: RANGEIO_POISON=1 or 0, else `default`."""
    return os.environ.get("RANGEIO_POISON", "1" if default else "0") not in ("", "0")
