"""One lock for each object that several threads must not use at once, whoever reads it."""

import weakref
from typing import Any

from rangeio.locks import begin_lock


class _Turn:
    """A lock that is free in a forked child."""

    _lock: Any

    def __init__(self) -> None:
        begin_lock(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_TURNS: "weakref.WeakKeyDictionary[Any, _Turn]" = weakref.WeakKeyDictionary()


def lock_of(obj: Any) -> _Turn:
    """The lock of an object; of one without weak references, a new one."""
    try:
        return _TURNS.setdefault(obj, _Turn())
    except TypeError:
        return _Turn()
