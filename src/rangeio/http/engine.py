"""The engine: sends the pieces of reads over connections, with retries and time limits, until every read is complete.

It does not wait itself. A driver calls back when a socket is readable, a timer expires or a connection is open. One
Engine belongs to one call of a Reader and runs in the driver's thread.

The first response fixes the version of an object: until it arrives, only one request for the object is in flight. All
later requests are sent for that version, and their responses compared with it. The same holds until the server is known
to support ranges: otherwise each further request for a large object may return all of it.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from _uring.records import Unfinished
from rangeio.errors import Error, RangeNotSupportedError
from rangeio.http import responses
from rangeio.http.attempt import Attempt
from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.deadlines import Check, look
from rangeio.http.drivers import Driver, GuardedDriver
from rangeio.http.engine_protocol import Parked
from rangeio.http.error_mapping import as_error, defect, is_of_signal_handler
from rangeio.http.heads import Head
from rangeio.http.range_read import Probe, RangeRead, SuffixRead
from rangeio.http.remote_object import RemoteObject
from rangeio.http.response_parser import Body
from rangeio.http.status_checks import StatusChecks
from rangeio.http.validation import Take, Version
from rangeio.policy import RETRIES
from rangeio.ranges import split


class Engine:
    """Runs reads. `add` them and let the driver run; the engine calls `landed(index, result)` for each.

    A result is the return value of `RangeRead.result`, or an Error. chunk: maximum bytes of a request. concurrent:
    maximum number of requests in flight.
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
        """wanted: whether the caller still waits; called now and then. began: the start of the call; None: now."""
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
        self._statuses = StatusChecks(self._ask_status, chunk)
        self._reads: dict[RangeRead, None] = {}
        self._check = Check(self._guarded, self._tick)
        self._began = time.monotonic() if began is None else began
        self._over = False
        self._failure: Exception | None = None

    # --- from reads to pieces --------------------------------------------------------------------------------

    def add(self, read: RangeRead) -> None:
        """Begin a read, or queue it."""
        self._reads[read] = None
        if self._failure is not None:
            self._land(read, self._failed(read, self._failure))
        else:
            self._guarded(self._begin_read, read)

    def add_all(self, reads: Sequence[RangeRead]) -> None:
        """Begin all reads of a call, or queue them."""
        self._statuses.expect(reads)
        for read in reads:
            self.add(read)

    def expect(self, count: int) -> None:
        """Tell how many reads the call makes."""
        self._statuses.many = count > 1

    def _begin_read(self, read: RangeRead) -> None:
        if read.start >= read.stop:
            read.end_at(read.start)
            self._finish(read)
            return
        self._admit(read)
        self.pump()

    def adopt(self, read: RangeRead, begun: Unfinished, began: float) -> None:
        """Continue a read that began in the steady state. began: the start of the call of the Reader."""
        self._began = began
        self._reads[read] = None
        self._guarded(self._adopt, read, begun)

    def adopt_all(self, begun: list[tuple[RangeRead, Unfinished]]) -> None:
        """Continue several reads. Empties the list."""
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
        if isinstance(read, SuffixRead) and read.version.known and read.version.size is not None:
            read.settle(read.version.size)
        whole = self._wholes.get(remote, remote.kept)
        if isinstance(read, Probe):  # it asks the server, even if the object is in memory
            self._enqueue(read, 0, 1, Attempt(self, read, 0, 1, remote.probe_method))
        elif remote.by_status and self._statuses.holds(read):
            pass
        elif whole is not None:
            self._land(read, read.cut_from(whole))
        elif remote in self._downloads:
            self._downloads[remote].append(read)
        elif read.version.known and read.version.ranged and not _is_unsettled(read):
            self._expand(read)
        elif remote in self._leads:
            self._leads[remote].append(read)
        else:
            self._leads[remote] = []
            stop = min(read.stop, read.start + self._chunk)
            self._enqueue(read, read.start, stop, Attempt(self, read, read.start, stop, goes_on=True))

    def _ask_status(self, probe: Probe) -> None:
        self._reads[probe] = None
        self._enqueue(probe, 0, 1, Attempt(self, probe, 0, 1))

    def _expand(self, read: RangeRead, start: int | None = None) -> None:
        """Queue the pieces of a read from `start` on, now that the version is known."""
        first = read.start if start is None else start
        size = read.version.size
        if size is not None:
            read.end_at(size)
        if first >= read.stop:
            if not read.left:
                self._finish(read)
        elif size is None:  # one piece after the other, until the end is found
            stop = min(read.stop, first + self._chunk)
            self._enqueue(read, first, stop, Attempt(self, read, first, stop, goes_on=True))
        else:
            try:
                read.room(
                    read.stop
                )  # first, because the size that the server reports determines the number of pieces
            except MemoryError as error:
                self._land(read, error)
                return
            for at, stop in split(first, read.stop, self._chunk):
                self._enqueue(read, at, stop)

    def _enqueue(self, read: RangeRead, at: int, stop: int, attempt: Attempt | None = None) -> None:
        """attempt: set if the response decides more than this piece."""
        read.left += 1
        self._queue.append((read, at, stop, attempt))

    def pump(self) -> None:
        """Begin queued pieces, up to `concurrent`."""
        queue = self._queue
        while queue and len(self._active) < self._concurrent and not self._over:
            read, at, stop, attempt = queue.popleft()
            if not read.done:
                self._begin(attempt or Attempt(self, read, at, stop)).connect()
        if self._active and not self._check.due:
            self._check.due = True
            self._driver.later(self._tick_s(), self._check)

    def _begin(self, attempt: Attempt) -> Attempt:
        self._active[attempt] = None
        attempt.live = True
        return attempt

    # --- the interface of attempts ---------------------------------------------------------------------------

    def judge(self, attempt: Attempt, head: Head) -> Body:
        """See `responses.judge`. The first of two rivals with bytes, or with their end, wins."""
        if attempt.rival is not None and head.status in (200, 206, 416):
            self.won(attempt)
        body = responses.judge(attempt, head, self._complete, self._download)
        if head.status == 206 and attempt.goes_on and not attempt.whole and attempt.outcome is not None:
            self._fan_out(attempt)
        return body

    def _fan_out(self, attempt: Attempt) -> None:
        """After the first response, if it reports all that is needed: request the rest of its read, and other reads."""
        read = attempt.read
        version = read.version
        if not (version.known and version.ranged and version.size is not None) or isinstance(read, Probe):
            return
        attempt.goes_on = False
        attempt.stop = min(attempt.stop, read.stop)
        if isinstance(read, SuffixRead):  # its last bytes came first; others have all bytes before
            for at, stop in split(read.start, attempt.first, self._chunk):
                self._enqueue(read, at, stop)
        if attempt.stop < read.stop:
            self._expand(read, attempt.stop)
        for waiting in self._leads.pop(read.remote, ()):
            self._admit(waiting)
        if self._queue:
            self.driver.later(0.0, self.pump)  # not now, while the response is being received

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
        """See `EngineProtocol`. May exceed `concurrent`, so that it does not wait for the request that it hedges."""
        if RETRIES.take(attempt.target.origin, hedge=True):
            attempt.read.left += 1
            self._begin(attempt.make_rival()).connect()

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
        """The number of connections it has or opens."""
        return len(self._active)

    def rest(self) -> None:
        """Nothing drives the engine until `touch`: leave the queues for connections that others could use."""
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
        """All bytes of an attempt have arrived, or the object ends before."""
        self._drop(attempt)
        read = attempt.read
        if read.done:
            return
        if isinstance(read, Probe):
            self._told(read)
            return
        read.filled += attempt.placed
        lead = self._leads.pop(read.remote, None)
        if attempt.goes_on and attempt.at < read.stop:
            if attempt.at < attempt.stop or not read.version.known:
                read.end_at(attempt.at)  # the object ends here
            else:
                self._expand(read, attempt.at)
        if not read.left and not read.done:
            if read.index < 0:
                self._downloaded(read)
            else:
                self._finish(read)
        for waiting in lead or ():
            self._admit(waiting)

    def _told(self, probe: Probe) -> None:
        if probe.index >= 0:
            self._land(probe, probe.result())
            return
        probe.done = True
        self._reads.pop(probe, None)
        waited, complete = self._statuses.end(probe)
        for read in waited:
            self._admit(read)
        for read in complete:
            self._finish(read)

    def _finish(self, read: RangeRead) -> None:
        """All bytes of a read have arrived."""
        if self._statuses.confirms(read):
            self.pump()
            return
        try:
            result = read.result()
        except (Error, MemoryError) as error:
            result = self._failed(read, error)
        self._land(read, result)

    def _land(self, read: RangeRead, result: Any) -> None:
        if read.done:
            return
        read.done = True
        if read.left:  # its result came from the whole object meanwhile
            self._end_attempts(read)
        read.let_go()
        self._reads.pop(read, None)
        self._statuses.landed(read)
        self._landed(read.index, result)

    def _end_attempts(self, read: RangeRead, but: Attempt | None = None) -> None:
        """End all attempts of a read except `but`."""
        for other in [other for other in self._active if other.read is read and other is not but]:
            other.abandon()
            self._drop(other)

    def gave_up(self, attempt: Attempt, error: Exception) -> None:
        """An attempt has failed permanently, and so has its read; other reads continue."""
        self._drop(attempt)
        read = attempt.read
        self._end_attempts(read)
        led = self._leads.pop(read.remote, ())
        remote = read.remote
        victims = [read]
        if read.index < 0:
            waited, complete = self._statuses.end(read)
            victims = [*self._downloads.pop(remote, ()), *waited, *complete]
        read.done = read.index < 0 or read.done
        self._reads.pop(read, None)
        for victim in victims:
            self._land(victim, self._failed(victim, error, attempt.attempts))
        for waiting in led:
            self._admit(waiting)

    def left_alone(self, attempt: Attempt) -> None:
        """See `EngineProtocol`. Bytes that other attempts fetched are fetched again."""
        read = attempt.read
        self._end_attempts(read, attempt)
        self._queue = deque(piece for piece in self._queue if piece[0] is not read)
        attempt.rival = None
        read.left, read.filled = 1, 0

    # --- whole objects ---------------------------------------------------------------------------------------

    def _download(self, attempt: Attempt, found: Take) -> None:
        """The response is the whole object: keep it and cut all reads out of it. Other attempts at it wait."""
        read, remote = attempt.read, attempt.read.remote
        if remote in self._downloads:
            raise Parked
        self.left_alone(attempt)
        read.left = 0  # its result is cut out of the whole object, or it starts again
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
                error = RangeNotSupportedError(
                    "the server sends sometimes ranges and sometimes the whole object"
                )
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
        """Call `work`. An unexpected exception ends all reads, each with an Error that names it. If it propagated, the
        event loop would only log it, and the reads would never end.
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
        """The exception for the caller of `read`; exceptions other than Error are unchanged."""
        return as_error(read, error, attempts) if isinstance(error, Error) else error

    # --- ends ------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """The caller no longer waits: end all attempts, begin nothing."""
        self._over = True
        self.driver = self._driver  # the guarded driver references this engine: breaks the cycle
        for attempt in list(self._active):
            attempt.abandon()
            attempt.end()
        self._active.clear()
        self._queue.clear()
        for held in (self._leads, self._downloads, self._wholes, self._statuses, self._check):
            held.clear()
        for read in self._reads:
            read.done = True
            read.let_go()
        self._reads.clear()

    def touch(self) -> None:
        """Restart the time limits, because time in which the driver did not run is not the server's."""
        now = time.monotonic()
        for attempt in list(self._active):
            attempt.since = max(attempt.since, now)
            attempt.go_on()

    def _tick_s(self) -> float:
        return min(attempt.read.tick_s for attempt in self._active)

    def _tick(self) -> None:
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


def _is_unsettled(read: RangeRead) -> bool:
    return isinstance(read, SuffixRead) and not read.settled
