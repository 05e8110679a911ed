"""Counters of network requests and connections of this process."""

import threading
from itertools import count

from rangeio.locks import begin_lock


class Tally:
    """Counts events of all threads without a lock (``n += 1`` would lose some)."""

    __slots__ = ("__weakref__", "_count", "_lock", "_reads", "add")

    _lock: threading.RLock

    def __init__(self) -> None:
        self._count = count()
        self._reads = 0
        begin_lock(self)
        self.add = self._count.__next__
        """Count one event."""

    @property
    def value(self) -> int:
        """The count so far. Reading an `itertools.count` advances it, so reads are subtracted."""
        with self._lock:
            self._reads += 1
            return next(self._count) - self._reads + 1


REQUESTS = Tally()
CONNECTIONS = Tally()


def stats() -> dict[str, int]:
    """requests: sent, including retries and hedges; connections: opened."""
    return {"requests": REQUESTS.value, "connections": CONNECTIONS.value}
