"""How far away a server is, and how fast, as its responses show; and how near two ranges must be to be one request.

One request less saves the wait for its first byte; what lies between two ranges costs the time it takes to receive. So
the two are equal at (first byte, in seconds) times (bytes per second of one connection).
"""

from collections import deque
from statistics import median

# Of so many responses the median rate, as some stall; and the least wait, as others wait in a queue of our making.
_LATEST = 32
_ENOUGH = 4
# A request has some 1 KiB of fields, there and back, and costs what it costs to receive tens of KiB from near by.
_LEAST_GAP = 8 << 10
# More was no faster for the bench's 500 ranges as of a Parquet file at 50 MB/s and 20 ms, and fetched more: 1.08 times
# the bytes wanted with 256 KiB, 1.5 times with 1 MiB.
_MOST_GAP = 256 << 10


class Latency:
    """The latest responses of one origin. Any thread, without a lock: a deque is appended to, and copied, at once."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: deque[tuple[float, float]] = deque(maxlen=_LATEST)

    def record(self, wait_s: float, receive_s: float, nbytes: int) -> None:
        """A response of at least MEASURED bytes. wait_s: until its first byte; receive_s: from there to its last."""
        self._latest.append((wait_s, nbytes / max(receive_s, 1e-6)))

    def gap(self) -> int | None:
        """Bytes; None until there were enough responses."""
        latest = self._latest.copy()
        if len(latest) < _ENOUGH:
            return None
        waits, speeds = zip(*latest, strict=True)
        return max(_LEAST_GAP, min(_MOST_GAP, int(min(waits) * median(speeds))))
