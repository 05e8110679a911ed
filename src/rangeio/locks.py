"""Locks that a forked child finds free, whichever thread of its parent held them."""

import os
import threading
import weakref
from typing import Any

_OWNERS: "weakref.WeakSet[Any]" = weakref.WeakSet()


def begin_lock(owner: Any) -> None:
    """Make `owner._lock`, and another one in a forked child: the thread that would release it is the parent's.

    What it guards may be half done there. A handler of a signal may take it amid what it has interrupted.
    """
    owner._lock = threading.RLock()
    _OWNERS.add(owner)


def _begin_anew() -> None:
    for owner in list(_OWNERS):
        owner._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
