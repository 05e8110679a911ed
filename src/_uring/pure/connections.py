"""The twin of `_uring.connections` in pure Python: connections and stacks of idle ones."""

import threading
import time
from typing import Any

HEAD_ROOM = 8192


class Connection:
    """See `Connection` in records.py. Subclasses implement receiving."""

    __slots__ = ("absolute", "fd", "idle_at", "space", "used")

    def __init__(self) -> None:
        self.fd = -1
        self.space = bytearray(HEAD_ROOM + 1)
        self.idle_at = 0.0
        self.used = self.absolute = False

    def attach(self, fd: int) -> None:
        self.fd = fd

    @property
    def idle_s(self) -> float:
        return time.monotonic() - self.idle_at


class IdleConnections:
    """See `IdleConnections` in records.py. A lock makes each call atomic. A forked child makes new ones."""

    __slots__ = ("_connections", "_lock", "wanted")

    def __init__(self) -> None:
        self._connections: list[Any] = []
        self._lock = threading.RLock()
        self.wanted = False  # used by the core only: here all connections return to the pool

    def __len__(self) -> int:
        return len(self._connections)

    def keep(self, connection: Any) -> None:
        with self._lock:
            connection.idle_at = time.monotonic()
            self._connections.append(connection)

    def take(self) -> Any:
        with self._lock:
            return self._connections.pop() if self._connections else None

    def take_oldest(self) -> Any:
        with self._lock:
            return self._connections.pop(0) if self._connections else None

    def peek(self) -> Any:
        with self._lock:
            return self._connections[-1] if self._connections else None

    def longest_s(self) -> float:
        with self._lock:
            return float(self._connections[0].idle_s) if self._connections else 0.0

    def clear(self) -> list[Any]:
        with self._lock:
            taken, self._connections = self._connections, []
            return taken
