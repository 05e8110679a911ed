"""Locks that are free in a forked child, even if a thread of the parent held them."""

import os
import threading
import weakref
from typing import Any

_OWNERS: "weakref.WeakSet[Any]" = weakref.WeakSet()


def begin_lock(owner: Any) -> None:
    """Create `owner._lock`, and a new one in a forked child, where the thread that would release it does not exist.

    In the child, the guarded state may be incomplete. Reentrant, because a signal handler may interrupt the holder and
    take the lock again.
    """
    owner._lock = threading.RLock()
    _OWNERS.add(owner)


def _begin_anew() -> None:
    for owner in list(_OWNERS):
        owner._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
