"""The latency and speed of a server, measured from its responses, and the gap that follows from them.

Merging two ranges saves the wait for the first byte of one request, but costs the time to receive the bytes between
them. The two are equal at (seconds to the first byte) times (bytes per second of one connection).
"""

from collections import deque
from statistics import median

# Of this many responses: the median rate, because some stall, and the minimum wait, because requests also wait in our
# own queue.
_LATEST = 32
_ENOUGH = 4
# A request has about 1 KiB of header fields in both directions and costs as much as receiving tens of KiB from a near
# server.
_LEAST_GAP = 8 << 10
# A larger gap was not faster for the bench's 500 ranges of a Parquet-like file at 50 MB/s and 20 ms, and fetched more:
# 1.08 times the requested bytes with 256 KiB, 1.5 times with 1 MiB.
_MOST_GAP = 256 << 10


class Latency:
    """The latest responses of one origin. Thread-safe without a lock: deque.append and deque.copy are atomic."""

    __slots__ = ("_latest", "record")

    def __init__(self) -> None:
        self._latest: deque[tuple[float, float, int]] = deque(maxlen=_LATEST)
        self.record = self._latest.append
        """Record a response of at least MEASURED bytes: seconds until its first byte, seconds from there to its end,
        and its bytes.
        """

    def gap(self) -> int | None:
        """The gap in bytes; None until enough responses were recorded."""
        latest = self._latest.copy()
        if len(latest) < _ENOUGH:
            return None
        speed = median(nbytes / max(receive_s, 1e-6) for _, receive_s, nbytes in latest)
        return max(_LEAST_GAP, min(_MOST_GAP, int(min(wait_s for wait_s, _, _ in latest) * speed)))
