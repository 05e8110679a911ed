"""Reads of objects whose server reports size and version apart from the bytes: they wait for this status.

The status of an object is requested before its first read, then if the last one is older than a second, and once for
each call that reads much: a range of more than one request, or more than one range.
"""

import time
from collections.abc import Callable

from rangeio.http.range_read import Probe, RangeRead
from rangeio.http.remote_object import RemoteObject

# As for local files, whose pin is checked as often.
_FRESH_S = 1.0


class StatusChecks:
    """Those of one Engine, which is one call of a Reader. begin: sends the request for a status."""

    def __init__(self, begin: Callable[[Probe], None]) -> None:
        self._begin = begin
        self._waiting: dict[RemoteObject, list[RangeRead]] = {}
        self._checked: set[RemoteObject] = set()
        self._passed: set[RangeRead] = set()
        self.many = False  # whether the call is for more than one range

    def holds(self, read: RangeRead, chunk: int) -> bool:
        """Whether the read must wait for the status of its object; requests it if necessary."""
        remote = read.remote
        if read in self._passed:
            self._passed.discard(read)  # however old its status is: a slow server would be asked for ever
            return False
        if remote in self._waiting:
            self._waiting[remote].append(read)
            return True
        if not self._is_due(read, chunk):
            return False
        self._waiting[remote] = [read]
        self._checked.add(remote)
        self._begin(read.of_status())
        return True

    def _is_due(self, read: RangeRead, chunk: int) -> bool:
        remote = read.remote
        much = self.many or read.stop - read.start > chunk
        if not read.version.known or time.monotonic() - remote.checked_at > _FRESH_S:
            return True
        return much and remote not in self._checked

    def end(self, remote: RemoteObject) -> list[RangeRead]:
        """The reads that waited for the status of an object, which has been received, or which failed."""
        waited = self._waiting.pop(remote, [])
        self._passed.update(waited)
        return waited

    def clear(self) -> None:
        """Forget all reads."""
        self._waiting.clear()
        self._passed.clear()
