"""The engine: parts of reads over connections, with retries and time limits, until every read has landed.

It does no waiting of its own. A driver calls back when a socket is readable, when a time has come, when a connection is
open. One Run belongs to one call of a Reader; all of it happens in the driver's thread.

The first reply fixes the version: until it is there, one request of an object is under way and no more. Everything
after it is asked for under that version and compared with it.
"""

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from rangeio.errors import (
    ConfigInvalidError,
    ContentEncodedError,
    Error,
    ObjectChangedError,
    RangeNotSatisfiedError,
    RangeNotSupportedError,
    TimedOutError,
    UnexpectedError,
)
from rangeio.http import rules
from rangeio.http.drivers import Driver
from rangeio.http.exchange import Body, Cut, Exchange
from rangeio.http.failures import as_error, breaking_failed, connecting_failed
from rangeio.http.heads import BadReply, Head
from rangeio.http.pool import Pool, Wire
from rangeio.http.reads import Part, Probe, Read
from rangeio.http.remote import Remote
from rangeio.policy import RETRIES
from rangeio.ranges import OPEN, split

_MOST_HOPS = 10
# Receives for one connection before others get their turn.
_RECEIVES_PER_TURN = 16
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
# Servers that do not do HEAD, or whose signature is for GET, say one of these.
_NO_HEAD = frozenset([400, 401, 403, 405, 501])
_MOST_OF_A_REFUSAL = 16_384
_NO_BODY = Body(memoryview(bytearray()))
# Two first replies at once, in two threads: only one of them fixes the version.
_LEARNING = threading.Lock()


class _Parked(Exception):
    """The whole object is being downloaded by another part; wait for it."""


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
    ) -> None:
        """wanted: whether anybody still waits; asked now and then."""
        self._driver = driver
        self._pool = pool
        self._landed = landed
        self._chunk, self._concurrent = chunk, concurrent
        self._wanted = wanted
        self._queue: deque[Part] = deque()
        self._active: set[Part] = set()
        self._leads: dict[Remote, list[Read]] = {}
        self._downloads: dict[Remote, list[Read]] = {}
        self._versions: dict[Remote, rules.Version] = {}
        self._wholes: dict[Remote, Any] = {}
        self._reads: set[Read] = set()
        self._ticking = False
        self._began = time.monotonic()
        self.over = False

    # --- from reads to parts ---------------------------------------------------------------------------------

    def add(self, read: Read) -> None:
        """Begin it, or queue it."""
        if read.start >= read.stop:
            read.end_at(read.start)
            self._land(read, read.result())
            return
        self._reads.add(read)
        self._admit(read)
        self._pump()

    def _admit(self, read: Read) -> None:
        remote = read.remote
        read.version = self._versions.setdefault(remote, read.version)
        whole = self._wholes.get(remote, remote.kept)
        if whole is not None:
            self._land(read, read.cut_from(whole))
        elif remote in self._downloads:
            self._downloads[remote].append(read)
        elif isinstance(read, Probe):
            self._enqueue(Part(read, 0, 1, "HEAD"))
        elif read.version.known:
            self._expand(read)
        elif remote in self._leads:
            self._leads[remote].append(read)
        else:
            self._leads[remote] = []
            self._enqueue(Part(read, read.start, min(read.stop, read.start + self._chunk)))

    def _expand(self, read: Read, start: int | None = None) -> None:
        """Queue the parts of a read, from `start` on, now that the version is known."""
        first = read.start if start is None else start
        size = read.version.size
        if size is not None:
            read.end_at(size)
            read.room(read.stop)
        if first >= read.stop:
            if not read.left:
                self._land(read, read.result())
        elif size is None:  # one after the other, until there is no more
            self._enqueue(Part(read, first, min(read.stop, first + self._chunk)))
        else:
            for at, stop in split(first, read.stop, self._chunk):
                self._enqueue(Part(read, at, stop))

    def _enqueue(self, part: Part) -> None:
        part.read.left += 1
        self._queue.append(part)

    def _pump(self) -> None:
        while self._queue and len(self._active) < self._concurrent and not self.over:
            part = self._queue.popleft()
            if part.read.done:
                continue
            self._active.add(part)
            self._connect(part)
        if self._active and not self._ticking:
            self._ticking = True
            self._driver.later(self._tick_s(), self._tick)

    # --- connections -----------------------------------------------------------------------------------------

    def _connect(self, part: Part) -> None:
        """Have a connection for a part, and send."""
        if part not in self._active or part.read.done:
            return
        part.since = time.monotonic()
        credentials = part.read.remote.access.credentials
        if credentials.stale:
            self._renew(part, None)
            return
        part.target = part.read.remote.target
        origin = part.target.origin
        wire = None if part.resume else self._pool.take(origin)
        if wire is not None:
            self._send(part, wire)
        elif self._pool.reserve(origin, force=not any(other.wire or other.dialing for other in self._active)):
            part.dialing = dialing = object()
            timeout_s = part.read.remote.timeout.connect_s
            alone = len(self._active) == 1 and not self._queue
            self._driver.offload(
                partial(self._pool.dial, origin, timeout_s),
                partial(self._opened, part, origin, dialing),
                partial(self._unwanted, origin),
                alone=alone,
            )
        else:
            getattr(self._driver, "listen", lambda: None)()
            self._pool.when_free(origin, partial(self._notify, part))

    def _notify(self, part: Part) -> None:
        """A connection may be had. From any thread. Who does not want it any more tells the next."""
        try:
            self._driver.post(partial(self._connect_or_pass, part))
        except RuntimeError:
            self._pool.wake(part.target.origin)

    def _connect_or_pass(self, part: Part) -> None:
        if part in self._active and not part.read.done:
            self._connect(part)
        else:
            self._pool.wake(part.target.origin)

    def _opened(self, part: Part, origin: Any, dialing: object, outcome: Any) -> None:
        if part not in self._active or part.read.done or part.dialing is not dialing:
            self._unwanted(origin, outcome)
            return
        part.dialing = None
        if isinstance(outcome, Wire):
            self._send(part, outcome)
        else:
            self._pool.free(origin)
            self._fail(part, connecting_failed(outcome))

    def _unwanted(self, origin: Any, outcome: Any) -> None:
        """A connection was opened, or not, when nobody waited for it any more. From any thread."""
        if isinstance(outcome, Wire):
            self._pool.give_back(outcome)
        else:
            self._pool.free(origin)

    def _renew(self, part: Part, refused: int | None) -> None:
        credentials = part.read.remote.access.credentials

        def renewed(outcome: Any) -> None:
            if isinstance(outcome, BaseException):
                self._give_up(part, as_error(part, outcome))
            else:
                self._connect(part)

        self._driver.offload(lambda: credentials.renew(refused), renewed, lambda _: None, alone=True)

    def _send(self, part: Part, wire: Wire) -> None:
        part.wire = wire
        bodiless = part.method == "HEAD"
        part.exchange = Exchange(wire.scratch, partial(self._judge, part), bodiless=bodiless)
        part.outcome = None
        request = part.read.remote.request(
            part.method,
            part.at,
            None if bodiless else part.stop,
            part.read.version,
            part.target,
            wire.absolute,
        )
        part.since = time.monotonic()
        self._driver.watch(wire.fd, partial(self._readable, part))
        self._send_rest(part, wire, memoryview(request))

    def _send_rest(self, part: Part, wire: Wire, rest: memoryview) -> None:
        """A request is small and its connection idle, so the kernel takes all of it; if not, try again soon."""
        if part.wire is not wire:
            return
        try:
            rest = rest[wire.sock.send(rest) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._broken(part, error)
            return
        if rest:
            self._driver.later(0.002, partial(self._send_rest, part, wire, rest))

    def _readable(self, part: Part) -> None:
        wire, exchange = part.wire, part.exchange
        if wire is None or exchange is None:
            return
        part.since = time.monotonic()
        receive = wire.sock.recv_into
        turns = _RECEIVES_PER_TURN
        try:
            while not exchange.done:
                space = exchange.space()
                count = receive(space)
                exchange.received(count)
                turns -= 1
                if not wire.tls:
                    if count < len(space) and not exchange.done:
                        return
                elif turns > 0 or wire.sock.pending():  # type: ignore[attr-defined]
                    continue
                if turns <= 0 and not exchange.done:
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except (OSError, Cut, BadReply, _Parked) as error:
            self._broken(part, error)
            return
        self._replied(part)

    # --- replies ---------------------------------------------------------------------------------------------

    def _judge(self, part: Part, head: Head) -> Body:
        """What to take of a reply; called with its head. Raises the Error if there is nothing to be had."""
        status = head.status
        part.outcome = None
        if status in _REDIRECTS and "location" in head.fields:
            part.outcome = partial(self._move, part, head.fields["location"])
            return _NO_BODY
        if isinstance(part.read, Probe):
            return self._probed(part, part.read, head)
        if status not in (200, 206, 416):
            return self._hear(part, head)
        remote = part.read.remote
        found = rules.judge(head, part.at, part.stop, part.read.stop, remote.on_no_range, remote.cap)
        if isinstance(found, rules.End):
            part.outcome = partial(self._ended, part, found.total)
            return _NO_BODY
        self._check_version(part, head, found.total)
        if found.all and remote.on_no_range == "download" and (found.total or OPEN) > part.read.stop:
            return self._download(part, found)
        return self._take(part, found)

    def _check_version(self, part: Part, head: Head, total: int | None) -> None:
        version = part.read.version
        with _LEARNING:
            if not version.known:
                version.learn(head, total)
                return
        if version.known:
            difference = version.difference(head, total)
            if difference:
                raise ObjectChangedError(f"it changed after it was opened: {difference}; open it again")
            if rules.encoding_of(head) != version.encoding:
                raise ContentEncodedError("the content coding is not the same as in the reply before")
            if version.size is None:
                version.size = total

    def _take(self, part: Part, found: rules.Take) -> Body:
        read = part.read
        if found.total is not None:
            read.end_at(found.total)
            read.room(read.stop)
        if found.all:
            part.whole = True
            part.stop = read.stop
        upto = min(found.stop, read.stop)
        if found.open:
            return Body(memoryview(bytearray()), found.skip, partial(self._grow, part))
        part.outcome = partial(self._taken, part, upto)
        return Body(read.room(upto)[part.at - read.start : upto - read.start], found.skip)

    def _grow(self, part: Part, needed: int) -> memoryview:
        """Room for `needed` bytes of a body of unknown length that began at `part.at`, as far as the read goes."""
        read = part.read
        if part.at + needed > read.stop and part.whole and read.remote.on_no_range == "error":
            raise RangeNotSupportedError("the server ignores Range and sends more than what was asked for")
        return read.grown(min(part.at + needed, read.stop))[part.at - read.start :]

    def _download(self, part: Part, found: rules.Take) -> Body:
        """The whole object is on its way: keep it, and cut all reads out of it. Others that get it as well wait."""
        read, remote = part.read, part.read.remote
        if remote in self._downloads:
            raise _Parked
        whole = Read(read._reactor, remote, -1, 0, found.total or remote.cap)
        whole.version = read.version
        whole.left = 1
        self._downloads[remote] = [read]
        self._reads.add(whole)
        part.read, part.first, part.at, part.stop = whole, 0, 0, whole.stop
        return self._take(part, rules.Take(0, whole.stop, found.total, open=found.open, all=True))

    def _replied(self, part: Part) -> None:
        """The reply is over."""
        wire, exchange = part.wire, part.exchange
        assert wire is not None
        assert exchange is not None
        self._driver.unwatch(wire.fd)
        part.wire = None
        wire.used = True
        if exchange.reusable:
            self._pool.give_back(wire)
        else:
            self._pool.drop(wire)
        part.resume = False
        try:
            if part.outcome is None:
                self._open_body_over(part, exchange.filled)
            else:
                part.outcome()
        except Error as error:
            self._give_up(part, as_error(part, error))
        self._pump()

    def _taken(self, part: Part, upto: int) -> None:
        """All that a reply said it has is there."""
        RETRIES.succeeded()
        part.at = upto
        read = part.read
        if upto < part.stop and upto < read.stop:
            part.attempts = 0  # a server may send less than it was asked for, as often as it likes
            self._connect(part)
        else:
            self._complete(part)

    def _open_body_over(self, part: Part, filled: int) -> None:
        """A body of unknown length is over."""
        RETRIES.succeeded()
        part.at += filled
        part.read.end_at(part.at)
        if part.whole:
            part.read.version.size = part.at
        self._complete(part)

    def _ended(self, part: Part, total: int | None) -> None:
        """416: no byte at `part.at`, or (some servers) none at the end of the range."""
        version, read = part.read.version, part.read
        if version.known and version.size is not None and total not in (None, version.size):
            raise ObjectChangedError(
                f"it changed after it was opened: it has {total} bytes now; open it again"
            )
        size = version.size if total is None else total
        if size is None and part.at == 0 and part.stop > 1 and not part.clamped:
            size, part.clamped = None, True
            part.stop = 1  # an empty object has not even this byte
            self._connect(part)
        elif size is None or part.at >= size:
            read.end_at(part.at if size is None else size)
            self._complete(part)
        elif part.clamped or part.stop <= size:
            raise RangeNotSatisfiedError(f"the server has {size} bytes and refuses to send these of them")
        else:
            part.clamped = True
            part.stop = min(part.stop, size)
            read.end_at(size)
            self._connect(part)

    def _hear(self, part: Part, head: Head) -> Body:
        """Keep what a refusal says, as far as anybody reads."""
        memory = bytearray(
            _MOST_OF_A_REFUSAL if head.length is None else min(head.length, _MOST_OF_A_REFUSAL)
        )
        part.outcome = partial(self._refused, part, head, memory)
        return Body(memoryview(memory))

    def _refused(self, part: Part, head: Head, memory: bytearray) -> None:
        """A status that brings no bytes."""
        status, remote = head.status, part.read.remote
        credentials = remote.access.credentials
        assert part.exchange is not None
        pinned = part.read.version.known and part.read.version.etag is not None
        refusal = remote.refused(head, bytes(memory[: part.exchange.filled]), pinned=pinned)
        if refusal.again and part.hops < _MOST_HOPS:
            part.hops += 1
            self._connect(part)
            return
        if refusal.renew and credentials.renewable and not part.refused:
            part.refused = True
            self._renew(part, credentials.version)
            return
        if status in (401, 403, 404, 410) and part.hops < _MOST_HOPS and remote.forget_redirect():
            part.hops += 1  # the place it was moved to may have been lent for a while only
            self._connect(part)
            return
        if refusal.error.status == "temporary":
            self._retry(part, refusal.error, rules.retry_after_s(head, time.time()))
        else:
            raise refusal.error

    def _move(self, part: Part, location: str) -> None:
        part.hops += 1
        if part.hops > _MOST_HOPS:
            raise UnexpectedError(f"more than {_MOST_HOPS} redirects")
        try:
            part.read.remote.redirect(location)
        except ConfigInvalidError:
            raise UnexpectedError("the server redirects to what is no http or https URL") from None
        self._connect(part)

    def _probed(self, part: Part, read: Probe, head: Head) -> Body:
        """A reply to HEAD, or to the one-byte GET that stands in for it."""
        status, version = head.status, read.version
        first, _, total = rules.content_range(head)
        if part.method == "HEAD":
            if status in _NO_HEAD or (status == 200 and (head.length is None or rules.encoding_of(head))):
                part.method = "GET"
                part.outcome = partial(self._connect, part)
                return _NO_BODY
            total = head.length
        elif status == 416 and total is None:
            total = 0
        elif status == 200 and first is None:
            total = None if rules.encoding_of(head) else head.length
        if status not in (200, 206, 416) or (status == 416 and part.method == "HEAD"):
            return self._hear(part, head)
        if status == 416:
            version.size = total if version.size is None else version.size
        else:
            self._check_version(part, head, total)
        read.size = total
        part.outcome = partial(self._complete, part)
        return _NO_BODY

    # --- ends ------------------------------------------------------------------------------------------------

    def _complete(self, part: Part) -> None:
        """All bytes of a part are there, or there are no more."""
        self._active.discard(part)
        read = part.read
        read.left -= 1
        if read.done:
            return
        if isinstance(read, Probe):
            self._land(read, read.result())
            return
        lead = self._leads.pop(read.remote, None)
        known = read.version.known
        if part.at < read.stop and (lead is not None or read.version.size is None) and not read.left:
            if part.at < part.stop:
                read.end_at(part.at)  # it ended before
            elif lead is not None and not known:
                read.end_at(part.at)
            else:
                self._expand(read, part.at)
        if not read.left and not read.done:
            if read.index < 0:
                self._downloaded(read)
            else:
                self._land(read, read.result())
        for waiting in lead or ():
            self._admit(waiting)

    def _downloaded(self, whole: Read) -> None:
        self._reads.discard(whole)
        whole.done = True
        remote = whole.remote
        self._wholes[remote] = whole.result()
        if remote.pinned:
            remote.kept = self._wholes[remote]
        for read in self._downloads.pop(remote, ()):
            self._admit(read)

    def _land(self, read: Read, result: Any) -> None:
        if read.done:
            return
        read.done = True
        read.memory = read.buffer = None  # a thread that still connects may hold the read for a while
        self._reads.discard(read)
        self._landed(read.index, result)

    def _broken(self, part: Part, error: BaseException) -> None:
        """The connection cannot be used any more."""
        wire, exchange = part.wire, part.exchange
        assert wire is not None
        assert exchange is not None
        self._abandon(part)
        if isinstance(error, _Parked):
            self._active.discard(part)
            part.read.left -= 1
            self._admit(part.read)
            self._pump()
        elif isinstance(error, Error):
            self._give_up(part, as_error(part, error, exchange.head))
            self._pump()
        elif wire.used and not exchange.started:
            part.resume = True  # the server had closed it while it was idle; that is nobody's failure
            self._connect(part)
        else:
            self._save(part, exchange)
            self._fail(part, breaking_failed(error, exchange))

    def _save(self, part: Part, exchange: Exchange) -> None:
        """Go on from the byte reached, if the version can be told; else from the start."""
        version = part.read.version
        if part.outcome is None and exchange.head is not None:
            return  # of a body of unknown length nothing is kept
        if version.etag or version.modified:
            part.at += exchange.filled
        else:
            part.at = part.first

    def _abandon(self, part: Part) -> None:
        if part.wire is not None:
            self._driver.unwatch(part.wire.fd)
            self._pool.drop(part.wire)
            part.wire = None

    def _fail(self, part: Part, error: Error) -> None:
        if error.status == "temporary":
            self._retry(part, error, None)
        else:
            self._give_up(part, as_error(part, error))
        self._pump()

    def _retry(self, part: Part, error: Error, after_s: float | None) -> None:
        """Try again later, if that is allowed; else it is an error for good."""
        retry = part.read.remote.retry
        part.attempts += 1
        pause_s = retry.pause_s(part.attempts, after_s)
        if part.attempts >= retry.attempts or pause_s is None or not RETRIES.take():
            error.status = "persistent"
            self._give_up(part, as_error(part, error))
            return
        part.since = time.monotonic() + pause_s
        self._driver.later(pause_s, partial(self._connect, part))

    def _give_up(self, part: Part, error: Error) -> None:
        """A part has failed for good, and its read with it; other reads go on."""
        self._active.discard(part)
        read = part.read
        read.left -= 1
        for other in [other for other in self._active if other.read is read]:
            self._abandon(other)
            self._active.discard(other)
        led = self._leads.pop(read.remote, ())
        victims = self._downloads.pop(read.remote, []) if read.index < 0 else [read]
        read.done = read.index < 0 or read.done
        self._reads.discard(read)
        for victim in victims:
            self._land(victim, as_error(part, error, read=victim))
        for waiting in led:
            self._admit(waiting)

    def cancel(self) -> None:
        """Nobody waits any more: close what is under way, begin nothing."""
        self.over = True
        for part in list(self._active):
            self._abandon(part)
        self._active.clear()
        self._queue.clear()
        for held in (self._leads, self._downloads, self._wholes):
            held.clear()
        for read in self._reads:
            read.done, read.memory, read.buffer = True, None, None
        self._reads.clear()

    # --- time ------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Time in which the driver did not run does not count as waiting for a server."""
        now = time.monotonic()
        for part in self._active:
            part.since = max(part.since, now)

    def _tick_s(self) -> float:
        return min(part.read.remote.timeout.tick_s for part in self._active)

    def _tick(self) -> None:
        self._ticking = False
        if self.over or not self._active:
            return
        if self._wanted is not None and not self._wanted():
            self.cancel()
            return
        now = time.monotonic()
        for part in list(self._active):
            if part in self._active:
                self._look_at(part, now)
        self._pump()

    def _look_at(self, part: Part, now: float) -> None:
        timeout = part.read.remote.timeout
        if timeout.total_s is not None and now - self._began > timeout.total_s:
            self._abandon(part)
            late = TimedOutError(f"it took longer than total_s={timeout.total_s:g}", status="persistent")
            self._give_up(part, as_error(part, late))
            return
        if part.dialing and timeout.connect_s is not None and now - part.since > timeout.connect_s:
            part.dialing = None  # what comes of it is not wanted any more
            self._fail(part, TimedOutError("no connection within connect_s"))
            return
        exchange = part.exchange
        if part.wire is None or exchange is None:
            return  # connecting, or pausing before a retry
        name = "idle_s" if exchange.started else "first_byte_s"
        bound = getattr(timeout, name)
        if bound is not None and now - part.since > bound:
            self._abandon(part)
            self._save(part, exchange)
            self._fail(part, TimedOutError(f"nothing came for {name}={bound:g}"))
