"""What this process has sent over networks: how many requests, over how many connections."""

import threading
from itertools import count

from rangeio.locks import begin_lock


class Tally:
    """Counts events of all threads, without a lock on their way (``n += 1`` would lose some)."""

    __slots__ = ("__weakref__", "_count", "_lock", "_looks", "add")

    _lock: threading.RLock

    def __init__(self) -> None:
        self._count = count()
        self._looks = 0
        begin_lock(self)
        self.add = self._count.__next__
        """One more."""

    @property
    def value(self) -> int:
        """So many so far. Only counting on tells where a count is, so looks are taken off again."""
        with self._lock:
            self._looks += 1
            return next(self._count) - self._looks + 1


REQUESTS = Tally()
CONNECTIONS = Tally()


def stats() -> dict[str, int]:
    """requests: sent, retries and hedges among them; connections: opened."""
    return {"requests": REQUESTS.value, "connections": CONNECTIONS.value}
