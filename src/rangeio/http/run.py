"""The engine: parts of reads over connections, with retries and time limits, until every read has landed.

It does no waiting of its own. A driver calls back when a socket is readable, when a time has come, when a connection is
open. One Run belongs to one call of a Reader; all of it happens in the driver's thread.

The first reply fixes the version: until it is there, one request of an object is under way and no more. Everything
after it is asked for under that version and compared with it. It is the same as long as nobody knows whether the server
does ranges: one request too many of a large object may be all of it.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rangeio.errors import Error, RangeNotSupportedError
from rangeio.http import answers
from rangeio.http.drivers import Driver, GuardedDriver
from rangeio.http.exchange import Body
from rangeio.http.failures import as_error, defect, is_of_signal_handler
from rangeio.http.heads import Head
from rangeio.http.home import Parked
from rangeio.http.lanes import WOULD_BLOCK, Lane
from rangeio.http.lateness import look
from rangeio.http.parts import Part
from rangeio.http.pool import Pool
from rangeio.http.reads import Probe, Read
from rangeio.http.remote import Remote
from rangeio.http.repeats import brought_by
from rangeio.http.rules import Take, Version
from rangeio.http.wire import Wire
from rangeio.policy import RETRIES
from rangeio.ranges import split

if TYPE_CHECKING:
    from _uring.surface import Strayed


class Run:
    """Reads under way. `add` them, let the driver work, and `landed(index, result)` is called for each.

    A result is what `Read.result` gives, or an Error. chunk: most bytes of a request. concurrent: most under way.
    """

    def __init__(
        self,
        driver: Driver,
        pool: Pool,
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
        self._queue: deque[tuple[Read, int, int, Part | None]] = deque()
        self._active: dict[Part, None] = {}  # in the order they were begun
        self._lanes: dict[Lane, None] = {}
        self._leads: dict[Remote, list[Read]] = {}
        self._downloads: dict[Remote, list[Read]] = {}
        self._parked: set[Remote] = set()
        self._versions: dict[Remote, Version] = {}
        self._wholes: dict[Remote, Any] = {}
        self._reads: dict[Read, None] = {}
        self._ticking = False
        self._began = time.monotonic() if began is None else began
        self._over = False
        self._failure: Exception | None = None

    # --- from reads to parts ---------------------------------------------------------------------------------

    def add(self, read: Read) -> None:
        """Begin it, or queue it."""
        self._reads[read] = None
        if self._failure is not None:
            self._land(read, self._failed(read, self._failure))
        else:
            self._guarded(self._begin_read, read)

    def _begin_read(self, read: Read) -> None:
        if read.start >= read.stop:
            read.end_at(read.start)
            self._finish(read)
            return
        self._admit(read)
        self.pump()

    def take_over(self, read: Read, lane: Lane, error: BaseException | None, began: float) -> None:
        """Go on with a read that strayed from a lane of its own. began: when the call of the Reader did."""
        self._began = began
        self._reads[read] = None
        self._guarded(self._adopt, read, lane, error)

    def _adopt(self, read: Read, lane: Lane, error: BaseException | None) -> None:
        read.left = 1
        self._begin(Part(self, read, lane.at, lane.stop)).adopt(lane, error)
        self.pump()

    def join_all(self, strayed: "list[tuple[Read, Strayed]]") -> None:
        """Go on with reads that a repeat has begun. It empties the list."""
        try:
            while strayed:
                read, piece = strayed.pop()
                self._reads[read] = None
                self._guarded(self._join, read, piece)
        finally:
            for _, (wire, *_) in strayed:  # Ctrl-C
                self.pool.drop(wire)

    def _join(self, read: Read, strayed: "Strayed") -> None:
        wire, _, since, start, stop, *_ = strayed
        plain = read.remote.plain
        assert plain is not None
        read.left = 1
        brought, error = brought_by(read, strayed)
        lane = self._lane(wire)
        lane.begun(read, plain, read.remote.target, start, stop)
        lane.since = lane.sent = since
        if brought is not None:
            lane.readable(brought)
        elif not isinstance(error, WOULD_BLOCK):
            self.strayed(lane, error)
        self.pump()

    def _admit(self, read: Read) -> None:
        remote = read.remote
        read.version = self._versions.setdefault(remote, read.version)
        whole = self._wholes.get(remote, remote.kept)
        if isinstance(read, Probe):  # it asks what there is now, whatever is in memory
            self._enqueue(read, 0, 1, Part(self, read, 0, 1, "HEAD"))
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
            self._enqueue(read, read.start, stop, Part(self, read, read.start, stop, goes_on=True))

    def _expand(self, read: Read, start: int | None = None) -> None:
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
            self._enqueue(read, first, stop, Part(self, read, first, stop, goes_on=True))
        else:
            try:
                read.room(read.stop)  # before as many pieces are made of it as a server cares to say
            except MemoryError as error:
                self._land(read, error)
                return
            for at, stop in split(first, read.stop, self._chunk):
                self._enqueue(read, at, stop)

    def _enqueue(self, read: Read, at: int, stop: int, part: Part | None = None) -> None:
        """part: where the reply decides about more than this piece."""
        read.left += 1
        self._queue.append((read, at, stop, part))

    def pump(self) -> None:
        """Begin what waits, as far as it may be under way."""
        queue = self._queue
        while queue and len(self._active) + len(self._lanes) < self._concurrent and not self._over:
            read, at, stop, part = queue.popleft()
            if read.done:
                continue
            lane = self._free_lane(read) if part is None else None
            if lane is not None:
                lane.begin(read, at, stop)
            else:
                self._begin(part or Part(self, read, at, stop)).connect()
        if (self._active or self._lanes) and not self._ticking:
            self._ticking = True
            self.driver.later(self._tick_s(), self._tick)

    def _begin(self, part: Part) -> Part:
        self._active[part] = None
        part.live = True
        return part

    # --- plain pieces ----------------------------------------------------------------------------------------

    def _free_lane(self, read: Read) -> Lane | None:
        """A lane for a piece of a read, if a plain reply is to be expected and a connection is idle."""
        remote = read.remote
        if remote.plain is None or read.version is not remote.version or remote.access.credentials.stale:
            return None
        wire = self.pool.take(remote.target.origin)
        return None if wire is None else self._lane(wire)

    def _lane(self, wire: Wire) -> Lane:
        lane = Lane(self, wire)
        wire.block(None)
        self._lanes[lane] = None
        self.driver.watch(wire.fd, lane.readable)
        return lane

    def arrived(self, lane: Lane) -> None:
        """See `lanes.Way`. The next piece of the same object goes the same way."""
        read, queue = lane.read, self._queue
        assert read is not None
        RETRIES.succeeded(lane.wire.origin)
        lane.read = None
        while queue and queue[0][0].done:
            queue.popleft()
        if queue and queue[0][3] is None and queue[0][0].remote is read.remote and lane.serves(read.remote):
            following, at, stop, _ = queue.popleft()
            lane.begin(following, at, stop)
        else:
            self._release(lane)
            self.pool.give_back(lane.wire)
            if queue:
                self.pump()
        read.left -= 1
        if not read.left:
            self._finish(read)

    def strayed(self, lane: Lane, error: BaseException | None) -> None:
        """See `lanes.Way`."""
        read = lane.read
        assert read is not None
        self._release(lane)
        self._begin(Part(self, read, lane.at, lane.stop)).adopt(lane, error)
        self.pump()

    def _release(self, lane: Lane) -> None:
        """Its connection is somebody else's now."""
        self._lanes.pop(lane, None)
        self.driver.unwatch(lane.wire.fd)

    def _close_lane(self, lane: Lane) -> None:
        self._release(lane)
        self.pool.drop(lane.wire)
        lane.let_go()

    # --- what parts ask and tell -----------------------------------------------------------------------------

    def judge(self, part: Part, head: Head) -> Body:
        """See `answers.judge`. The first of two rivals to bring bytes, or their end, has won."""
        if part.rival is not None and head.status in (200, 206, 416):
            self._win(part, part.rival)
        return answers.judge(part, head, self._complete, self._download)

    def hedge(self, part: Part) -> None:
        """See `parts.Home`. It is one more than `concurrent`, so that it does not wait for what it is to overtake."""
        if RETRIES.take(part.target.origin, hedge=True):
            part.read.left += 1
            self._begin(part.doubled()).connect()

    def _win(self, part: Part, loser: Part) -> None:
        part.rival = loser.rival = None
        if part.is_second:
            RETRIES.hedge_won()
        loser.abandon()
        self._drop(loser)

    def holds_none(self) -> bool:
        """See `parts.Home`."""
        held = (part for part in self._active if part.wire is not None or part.dialing is not None)
        return not self._lanes and next(held, None) is None

    def held(self) -> int:
        """How many connections it has, or opens."""
        return len(self._active) + len(self._lanes)

    def rest(self) -> None:
        """Nobody drives it until `touch`: wait for no connection that others could have."""
        for part in self._active:
            part.rest()

    def left_to_rival(self, part: Part) -> None:
        """See `parts.Home`."""
        rival, part.rival = part.rival, None
        if rival is not None:
            rival.rival = None
        self._drop(part)

    def body_over(self, part: Part, filled: int) -> None:
        """See `answers.body_over`."""
        answers.body_over(part, filled, self._complete)

    def _drop(self, part: Part) -> None:
        self._active.pop(part, None)
        part.end()
        part.read.left -= 1

    def _complete(self, part: Part) -> None:
        """All bytes of a part are there, or there are no more."""
        self._drop(part)
        read = part.read
        if read.done:
            return
        if isinstance(read, Probe):
            self._land(read, read.result())
            return
        read.filled += part.placed
        lead = self._leads.pop(read.remote, None)
        if part.goes_on and part.at < read.stop:
            if part.at < part.stop or not read.version.known:
                read.end_at(part.at)  # it ended before
            else:
                self._expand(read, part.at)
        if not read.left and not read.done:
            if read.index < 0:
                self._downloaded(read)
            else:
                self._finish(read)
        for waiting in lead or ():
            self._admit(waiting)

    def _finish(self, read: Read) -> None:
        """All of it has come."""
        try:
            result = read.result()
        except (Error, MemoryError) as error:
            result = self._failed(read, error)
        self._land(read, result)

    def _land(self, read: Read, result: Any) -> None:
        if read.done:
            return
        read.done = True
        if read.left:  # it was cut out of the whole object meanwhile
            self._end_parts(read)
        read.let_go()
        self._reads.pop(read, None)
        self._landed(read.index, result)

    def _end_parts(self, read: Read, but: Part | None = None) -> None:
        """Close what is under way for a read."""
        for other in [other for other in self._active if other.read is read and other is not but]:
            other.abandon()
            self._drop(other)
        for lane in [lane for lane in self._lanes if lane.read is read]:
            self._close_lane(lane)
            read.left -= 1

    def gave_up(self, part: Part, error: Exception) -> None:
        """A part has failed for good, and its read with it; other reads go on."""
        self._drop(part)
        read = part.read
        self._end_parts(read)
        led = self._leads.pop(read.remote, ())
        victims = self._downloads.pop(read.remote, []) if read.index < 0 else [read]
        read.done = read.index < 0 or read.done
        self._reads.pop(read, None)
        for victim in victims:
            self._land(victim, self._failed(victim, error, part.attempts))
        for waiting in led:
            self._admit(waiting)

    def left_alone(self, part: Part) -> None:
        """See `parts.Home`. What others have brought of the read is brought once more."""
        read = part.read
        self._end_parts(read, part)
        self._queue = deque(piece for piece in self._queue if piece[0] is not read)
        part.rival = None
        read.left, read.filled = 1, 0

    # --- whole objects ---------------------------------------------------------------------------------------

    def _download(self, part: Part, found: Take) -> None:
        """The whole object is on its way: keep it, and cut all reads out of it. Others that get it as well wait."""
        read, remote = part.read, part.read.remote
        if remote in self._downloads:
            raise Parked
        self.left_alone(part)
        read.left = 0  # it is cut out of the whole, or begins anew
        whole = Read(read._reactor, remote, -1, 0, found.total or remote.cap)
        whole.version = read.version
        whole.left = 1
        self._downloads[remote] = [read]
        self._reads[whole] = None
        part.read, part.first, part.at, part.stop = whole, 0, 0, whole.stop

    def parked(self, part: Part) -> None:
        """See `parts.Home`."""
        self.left_alone(part)
        self._drop(part)
        whole = part.read
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

    def _downloaded(self, whole: Read) -> None:
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

    def _failed(self, read: Read, error: Exception, attempts: int = 1) -> Exception:
        """How `read` is told of it: other exceptions than Error are as they are."""
        return as_error(read, error, attempts) if isinstance(error, Error) else error

    # --- ends ------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Nobody waits any more: close what is under way, begin nothing."""
        self._over = True
        self.driver = self._driver  # the guarded one holds this, in a circle
        for part in list(self._active):
            part.abandon()
            part.end()
        for lane in list(self._lanes):
            self._close_lane(lane)
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
        for part in list(self._active):
            part.since = max(part.since, now)
            part.go_on()
        for lane in self._lanes:
            lane.since = max(lane.since, now)

    def _tick_s(self) -> float:
        reads = {part.read for part in self._active}
        reads |= {lane.read for lane in self._lanes if lane.read}
        return min(read.tick_s for read in reads)

    def _tick(self) -> None:
        self._ticking = False
        if self._over or not (self._active or self._lanes):
            return
        if self._wanted is not None and not self._wanted():
            self.cancel()
            return
        now = time.monotonic()
        for lane in list(self._lanes):
            if lane in self._lanes and lane.is_late(now, self._began):
                self.strayed(lane, None)
        for part in list(self._active):
            if part.live:
                look(part, now, self._began)
        self.pump()
