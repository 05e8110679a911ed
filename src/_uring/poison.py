"""Memory filled with a pattern before and after it is used, so that a byte that nobody wrote shows."""

import os

HANDED_OUT = 0xCD
"""What memory is filled with before a read, where it is poisoned: as CPython's debug allocator has it."""
GIVEN_BACK = 0xDD
"""What it is filled with when it is given back."""


def poisons(default: bool) -> bool:
    """Whether memory is to be poisoned, so that a byte nobody wrote is seen: RANGEIO_POISON=1 or 0, else `default`."""
    return os.environ.get("RANGEIO_POISON", "1" if default else "0") not in ("", "0")
