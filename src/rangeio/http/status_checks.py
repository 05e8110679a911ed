"""Reads of objects whose server reports size and version apart from the bytes: they wait for this status.

The status of an object is requested before its first read, then if the last one is older than a second. A call that
reads much, a range of more than one request or several ranges together, ends with a status: otherwise its result could
consist of two versions. Ranges that are iterated begin with one.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rangeio.http.range_read import Probe, RangeRead
from rangeio.http.remote_object import RemoteObject

# As for local files, whose pin is checked as often.
_FRESH_S = 1.0


class StatusChecks:
    """Those of one Engine, which is one call of a Reader. begin: sends the request for a status."""

    def __init__(self, begin: Callable[[Probe], None], chunk: int) -> None:
        self._begin, self._chunk = begin, chunk
        self._waiting: dict[RemoteObject, list[RangeRead]] = {}
        self._checked: set[RemoteObject] = set()
        self._passed: set[RangeRead] = set()
        self._together: set[RemoteObject] = set()  # several ranges of them are read
        self._left = 0  # reads of this call that are not complete, if they were given together
        self._complete: dict[RangeRead, None] = {}  # wait for a status that is not requested yet
        self._confirming: dict[RangeRead, list[RangeRead]] = {}
        self.many = False  # whether the call is for more than one range

    def expect(self, reads: Sequence[RangeRead]) -> None:
        """These are all reads of the call."""
        counts = Counter(read.remote for read in reads if read.remote.by_status)
        self._together = {remote for remote, count in counts.items() if count > 1}
        self.many, self._left = len(reads) > 1, len(reads) if counts else 0

    # --- before a read ---------------------------------------------------------------------------------------

    def holds(self, read: RangeRead) -> bool:
        """Whether the read must wait for the status of its object; requests it if necessary."""
        remote = read.remote
        if read in self._passed:
            self._passed.discard(read)  # however old its status is: a slow server would be asked for ever
            return False
        if remote in self._waiting:
            self._waiting[remote].append(read)
            return True
        if not self._is_due(read):
            return False
        self._waiting[remote] = [read]
        self._checked.add(remote)
        self._begin(read.of_status())
        return True

    def _is_due(self, read: RangeRead) -> bool:
        remote = read.remote
        if not read.version.known:
            return True
        if self._is_much(read):
            return False  # there will be one at its end
        if time.monotonic() - remote.checked_at > _FRESH_S:
            return True
        return self.many and remote not in self._checked

    def _is_much(self, read: RangeRead) -> bool:
        return read.remote in self._together or read.stop - read.start > self._chunk

    # --- after it --------------------------------------------------------------------------------------------

    def confirms(self, read: RangeRead) -> bool:
        """Whether a read that is complete must wait for another status."""
        if not read.remote.by_status or not read.filled or not self._is_much(read) or read in self._passed:
            self._passed.discard(read)
            return False
        self._complete[read] = None
        self.landed(read)
        return True

    def landed(self, read: RangeRead) -> None:
        """One read less is in progress. Requests the status that complete reads wait for, if none is."""
        if self._left and read.index >= 0:
            self._left -= 1
        if self._complete and not self._left:
            complete, self._complete = list(self._complete), {}
            for remote in {read.remote: None for read in complete}:
                of_remote = [read for read in complete if read.remote is remote]
                probe = of_remote[0].of_status()
                self._confirming[probe] = of_remote
                self._begin(probe)

    def end(self, probe: RangeRead) -> tuple[list[RangeRead], list[RangeRead]]:
        """The reads that waited for a status, which has been received, or which failed: to begin, and complete ones."""
        complete = self._confirming.pop(probe, None)
        waited = self._waiting.pop(probe.remote, []) if complete is None else []
        self._passed.update(waited if complete is None else complete)
        return waited, complete or []

    def clear(self) -> None:
        """Forget all reads, and the engine, which refers to this: nothing is requested any more."""
        for held in (self._waiting, self._passed, self._complete, self._confirming):
            held.clear()
        self._begin = _not_any_more


def _not_any_more(_: Probe) -> None:
    """In place of `begin`, after the end of the engine."""
