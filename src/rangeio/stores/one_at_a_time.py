"""One lock for each object that several threads must not use at once, whoever reads it."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from rangeio.locks import begin_lock

_T = TypeVar("_T")


class Turn:
    """A lock that is free in a forked child. A signal handler may take it again in the thread that holds it."""

    _lock: Any

    def __init__(self) -> None:
        self._latest: object = None
        begin_lock(self)

    def take(self, call: Callable[[], _T]) -> _T:
        """The result of `call`, made again if a signal handler has taken a turn in the middle of it."""
        with self._lock:
            while True:
                mine = self._latest = object()
                result = call()
                if self._latest is mine:
                    return result


_TURNS: "weakref.WeakKeyDictionary[Any, Turn]" = weakref.WeakKeyDictionary()


def turn_of(obj: Any) -> Turn:
    """The lock of an object; of one without weak references, a new one."""
    try:
        return _TURNS.setdefault(obj, Turn())
    except TypeError:
        return Turn()
