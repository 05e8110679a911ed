"""The engine: parts of reads over connections, with retries and time limits, until every read has landed.

It does no waiting of its own. A driver calls back when a socket is readable, when a time has come, when a connection is
open. One Engine belongs to one call of a Reader; all of it happens in the driver's thread.

The first response fixes the version: until it is there, one request of an object is under way and no more. Everything
after it is asked for under that version and compared with it. It is the same as long as nobody knows whether the server
does ranges: one request too many of a large object may be all of it.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from _uring.records import Unfinished
from rangeio.errors import Error, RangeNotSupportedError
from rangeio.http import responses
from rangeio.http.attempt import Attempt
from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.deadlines import look
from rangeio.http.drivers import Driver, GuardedDriver
from rangeio.http.engine_protocol import Parked
from rangeio.http.error_mapping import as_error, defect, is_of_signal_handler
from rangeio.http.heads import Head
from rangeio.http.range_read import Probe, RangeRead
from rangeio.http.remote_object import RemoteObject
from rangeio.http.response_parser import Body
from rangeio.http.validation import Take, Version
from rangeio.policy import RETRIES
from rangeio.ranges import split


class Engine:
    """Reads under way. `add` them, let the driver work, and `landed(index, result)` is called for each.

    A result is what `Read.result` gives, or an Error. chunk: most bytes of a request. concurrent: most under way.
    """

    def __init__(
        self,
        driver: Driver,
        pool: ConnectionPool,
        landed: Callable[[int, Any], None],
        *,
        chunk: int,
        concurrent: int,
        wanted: Callable[[], bool] | None = None,
        began: float | None = None,
    ) -> None:
        """wanted: whether anybody still waits; asked now and then. began: when the call did; now if None."""
        self._driver = driver
        self.driver: Driver = GuardedDriver(driver, self._guarded)
        self.pool = pool
        self._landed = landed
        self._chunk, self._concurrent = chunk, concurrent
        self._wanted = wanted
        self._queue: deque[tuple[RangeRead, int, int, Attempt | None]] = deque()
        self._active: dict[Attempt, None] = {}  # in the order they were begun
        self._leads: dict[RemoteObject, list[RangeRead]] = {}
        self._downloads: dict[RemoteObject, list[RangeRead]] = {}
        self._parked: set[RemoteObject] = set()
        self._versions: dict[RemoteObject, Version] = {}
        self._wholes: dict[RemoteObject, Any] = {}
        self._reads: dict[RangeRead, None] = {}
        self._ticking = False
        self._began = time.monotonic() if began is None else began
        self._over = False
        self._failure: Exception | None = None

    # --- from reads to parts ---------------------------------------------------------------------------------

    def add(self, read: RangeRead) -> None:
        """Begin it, or queue it."""
        self._reads[read] = None
        if self._failure is not None:
            self._land(read, self._failed(read, self._failure))
        else:
            self._guarded(self._begin_read, read)

    def _begin_read(self, read: RangeRead) -> None:
        if read.start >= read.stop:
            read.end_at(read.start)
            self._finish(read)
            return
        self._admit(read)
        self.pump()

    def adopt(self, read: RangeRead, begun: Unfinished, began: float) -> None:
        """Go on with a read that was begun in the steady state. began: when the call of the Reader did."""
        self._began = began
        self._reads[read] = None
        self._guarded(self._adopt, read, begun)

    def adopt_all(self, begun: list[tuple[RangeRead, Unfinished]]) -> None:
        """The same of several. It empties the list."""
        try:
            while begun:
                read, piece = begun.pop()
                self._reads[read] = None
                self._guarded(self._adopt, read, piece)
        finally:
            for _, piece in begun:  # Ctrl-C
                self.pool.drop(piece.connection)

    def _adopt(self, read: RangeRead, begun: Unfinished) -> None:
        memory = begun.destination.pop()
        if read.into is None and read.buffer is not memory:
            read.lands_in(memory)
        read.left = 1
        self._begin(Attempt(self, read, begun.start, begun.stop)).adopt(begun)
        self.pump()

    def _admit(self, read: RangeRead) -> None:
        remote = read.remote
        read.version = self._versions.setdefault(remote, read.version)
        whole = self._wholes.get(remote, remote.kept)
        if isinstance(read, Probe):  # it asks what there is now, whatever is in memory
            self._enqueue(read, 0, 1, Attempt(self, read, 0, 1, "HEAD"))
        elif whole is not None:
            self._land(read, read.cut_from(whole))
        elif remote in self._downloads:
            self._downloads[remote].append(read)
        elif read.version.known and read.version.ranged:
            self._expand(read)
        elif remote in self._leads:
            self._leads[remote].append(read)
        else:
            self._leads[remote] = []
            stop = min(read.stop, read.start + self._chunk)
            self._enqueue(read, read.start, stop, Attempt(self, read, read.start, stop, goes_on=True))

    def _expand(self, read: RangeRead, start: int | None = None) -> None:
        """Queue the parts of a read, from `start` on, now that the version is known."""
        first = read.start if start is None else start
        size = read.version.size
        if size is not None:
            read.end_at(size)
        if first >= read.stop:
            if not read.left:
                self._finish(read)
        elif size is None:  # one after the other, until there is no more
            stop = min(read.stop, first + self._chunk)
            self._enqueue(read, first, stop, Attempt(self, read, first, stop, goes_on=True))
        else:
            try:
                read.room(read.stop)  # before as many pieces are made of it as a server cares to say
            except MemoryError as error:
                self._land(read, error)
                return
            for at, stop in split(first, read.stop, self._chunk):
                self._enqueue(read, at, stop)

    def _enqueue(self, read: RangeRead, at: int, stop: int, attempt: Attempt | None = None) -> None:
        """attempt: where the response decides about more than this piece."""
        read.left += 1
        self._queue.append((read, at, stop, attempt))

    def pump(self) -> None:
        """Begin what waits, as far as it may be under way."""
        queue = self._queue
        while queue and len(self._active) < self._concurrent and not self._over:
            read, at, stop, attempt = queue.popleft()
            if not read.done:
                self._begin(attempt or Attempt(self, read, at, stop)).connect()
        if self._active and not self._ticking:
            self._ticking = True
            self.driver.later(self._tick_s(), self._tick)

    def _begin(self, attempt: Attempt) -> Attempt:
        self._active[attempt] = None
        attempt.live = True
        return attempt

    # --- what parts ask and tell -----------------------------------------------------------------------------

    def judge(self, attempt: Attempt, head: Head) -> Body:
        """See `responses.judge`. The first of two rivals to bring bytes, or their end, has won."""
        if attempt.rival is not None and head.status in (200, 206, 416):
            self.won(attempt)
        body = responses.judge(attempt, head, self._complete, self._download)
        if head.status == 206 and attempt.goes_on and not attempt.whole and attempt.outcome is not None:
            self._fan_out(attempt)
        return body

    def _fan_out(self, attempt: Attempt) -> None:
        """The first response tells all that is to be known: ask for the rest of its read, and for others, at once."""
        read = attempt.read
        version = read.version
        if not (version.known and version.ranged and version.size is not None) or isinstance(read, Probe):
            return
        attempt.goes_on = False
        attempt.stop = min(attempt.stop, read.stop)
        if attempt.stop < read.stop:
            self._expand(read, attempt.stop)
        for waiting in self._leads.pop(read.remote, ()):
            self._admit(waiting)
        if self._queue:
            self.driver.later(0.0, self.pump)  # not now, amid receiving

    def next_piece(self, attempt: Attempt) -> tuple[RangeRead, int, int] | None:
        """See `EngineProtocol`."""
        queue, remote = self._queue, attempt.read.remote
        while queue and queue[0][0].done:
            queue.popleft()
        if not queue or queue[0][3] is not None or queue[0][0].remote is not remote or self._over:
            return None
        connection = attempt.connection
        assert connection is not None
        if remote.access.credentials.stale or remote.target.origin != connection.origin:
            return None
        read, at, stop, _ = queue.popleft()
        return read, at, stop

    def piece_arrived(self, read: RangeRead, nbytes: int) -> None:
        """See `EngineProtocol`."""
        RETRIES.succeeded(read.remote.target.origin)
        read.filled += nbytes
        read.left -= 1
        if not read.left and not read.done:
            self._finish(read)

    def arrived(self, attempt: Attempt) -> None:
        """See `EngineProtocol`."""
        responses.taken(attempt, attempt.stop, self._complete)

    def hedge(self, attempt: Attempt) -> None:
        """See `EngineProtocol`. One more than `concurrent`, so that it does not wait for what it is to overtake."""
        if RETRIES.take(attempt.target.origin, hedge=True):
            attempt.read.left += 1
            self._begin(attempt.doubled()).connect()

    def won(self, attempt: Attempt) -> None:
        """See `EngineProtocol`."""
        loser = attempt.rival
        assert loser is not None
        attempt.rival = loser.rival = None
        if attempt.is_second:
            RETRIES.hedge_won()
        loser.abandon()
        self._drop(loser)

    def holds_none(self) -> bool:
        """See `EngineProtocol`."""
        return not any(
            attempt.connection is not None or attempt.dialing is not None for attempt in self._active
        )

    def held(self) -> int:
        """How many connections it has, or opens."""
        return len(self._active)

    def rest(self) -> None:
        """Nobody drives it until `touch`: wait for no connection that others could have."""
        for attempt in self._active:
            attempt.rest()

    def left_to_rival(self, attempt: Attempt) -> None:
        """See `EngineProtocol`."""
        rival, attempt.rival = attempt.rival, None
        if rival is not None:
            rival.rival = None
        self._drop(attempt)

    def body_over(self, attempt: Attempt, filled: int) -> None:
        """See `responses.body_over`."""
        responses.body_over(attempt, filled, self._complete)

    def _drop(self, attempt: Attempt) -> None:
        self._active.pop(attempt, None)
        attempt.end()
        attempt.read.left -= 1

    def _complete(self, attempt: Attempt) -> None:
        """All bytes of an attempt are there, or there are no more."""
        self._drop(attempt)
        read = attempt.read
        if read.done:
            return
        if isinstance(read, Probe):
            self._land(read, read.result())
            return
        read.filled += attempt.placed
        lead = self._leads.pop(read.remote, None)
        if attempt.goes_on and attempt.at < read.stop:
            if attempt.at < attempt.stop or not read.version.known:
                read.end_at(attempt.at)  # it ended before
            else:
                self._expand(read, attempt.at)
        if not read.left and not read.done:
            if read.index < 0:
                self._downloaded(read)
            else:
                self._finish(read)
        for waiting in lead or ():
            self._admit(waiting)

    def _finish(self, read: RangeRead) -> None:
        """All of it has come."""
        try:
            result = read.result()
        except (Error, MemoryError) as error:
            result = self._failed(read, error)
        self._land(read, result)

    def _land(self, read: RangeRead, result: Any) -> None:
        if read.done:
            return
        read.done = True
        if read.left:  # it was cut out of the whole object meanwhile
            self._end_parts(read)
        read.let_go()
        self._reads.pop(read, None)
        self._landed(read.index, result)

    def _end_parts(self, read: RangeRead, but: Attempt | None = None) -> None:
        """Close what is under way for a read."""
        for other in [other for other in self._active if other.read is read and other is not but]:
            other.abandon()
            self._drop(other)

    def gave_up(self, attempt: Attempt, error: Exception) -> None:
        """An attempt has failed for good, and its read with it; other reads go on."""
        self._drop(attempt)
        read = attempt.read
        self._end_parts(read)
        led = self._leads.pop(read.remote, ())
        victims = self._downloads.pop(read.remote, []) if read.index < 0 else [read]
        read.done = read.index < 0 or read.done
        self._reads.pop(read, None)
        for victim in victims:
            self._land(victim, self._failed(victim, error, attempt.attempts))
        for waiting in led:
            self._admit(waiting)

    def left_alone(self, attempt: Attempt) -> None:
        """See `EngineProtocol`. What others have brought of the read is brought once more."""
        read = attempt.read
        self._end_parts(read, attempt)
        self._queue = deque(piece for piece in self._queue if piece[0] is not read)
        attempt.rival = None
        read.left, read.filled = 1, 0

    # --- whole objects ---------------------------------------------------------------------------------------

    def _download(self, attempt: Attempt, found: Take) -> None:
        """The whole object is on its way: keep it, and cut all reads out of it. Others that get it as well wait."""
        read, remote = attempt.read, attempt.read.remote
        if remote in self._downloads:
            raise Parked
        self.left_alone(attempt)
        read.left = 0  # it is cut out of the whole, or begins anew
        whole = read.of_whole(found.total or remote.cap)
        whole.version = read.version
        whole.left = 1
        self._downloads[remote] = [read]
        self._reads[whole] = None
        attempt.read, attempt.first, attempt.at, attempt.stop = whole, 0, 0, whole.stop

    def parked(self, attempt: Attempt) -> None:
        """See `EngineProtocol`."""
        self.left_alone(attempt)
        self._drop(attempt)
        whole = attempt.read
        if whole.index >= 0:
            self._admit(whole)
            return
        whole.done = True
        self._reads.pop(whole, None)
        waiting = [*self._downloads.pop(whole.remote, ()), *self._leads.pop(whole.remote, ())]
        for read in waiting:
            if whole.remote in self._parked:
                error = RangeNotSupportedError("the server sends now ranges, now the whole object")
                self._land(read, self._failed(read, error))
            else:
                self._admit(read)
        self._parked.add(whole.remote)

    def _downloaded(self, whole: RangeRead) -> None:
        self._reads.pop(whole, None)
        whole.done = True
        remote = whole.remote
        self._wholes[remote] = whole.result()
        if remote.pinned:
            remote.kept = self._wholes[remote]
        for read in self._downloads.pop(remote, ()):
            self._admit(read)

    # --- defects ---------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[..., object], *arguments: Any) -> None:
        """Call `work`. An exception that nobody expects ends all reads, each with an Error that names it: were it to
        pass, a loop would tell of it and go on, and the reads would never end.
        """
        try:
            work(*arguments)
        except Exception as error:
            if is_of_signal_handler(error):
                raise
            self._failure = error if isinstance(error, MemoryError) else defect(error)
            for read in [read for read in self._reads if read.index >= 0]:
                self._land(read, self._failed(read, self._failure))
            self.cancel()

    def _failed(self, read: RangeRead, error: Exception, attempts: int = 1) -> Exception:
        """How `read` is told of it: other exceptions than Error are as they are."""
        return as_error(read, error, attempts) if isinstance(error, Error) else error

    # --- ends ------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Nobody waits any more: close what is under way, begin nothing."""
        self._over = True
        self.driver = self._driver  # the guarded one holds this, in a circle
        for attempt in list(self._active):
            attempt.abandon()
            attempt.end()
        self._active.clear()
        self._queue.clear()
        for held in (self._leads, self._downloads, self._wholes):
            held.clear()
        for read in self._reads:
            read.done = True
            read.let_go()
        self._reads.clear()

    def touch(self) -> None:
        """Time in which the driver did not run does not count as waiting for a server."""
        now = time.monotonic()
        for attempt in list(self._active):
            attempt.since = max(attempt.since, now)
            attempt.go_on()

    def _tick_s(self) -> float:
        return min(attempt.read.tick_s for attempt in self._active)

    def _tick(self) -> None:
        self._ticking = False
        if self._over or not self._active:
            return
        if self._wanted is not None and not self._wanted():
            self.cancel()
            return
        now = time.monotonic()
        for attempt in list(self._active):
            if attempt.live:
                look(attempt, now, self._began)
        self.pump()
