"""One part of a read on its way: a connection, a request, its reply, and the next request where that was not enough.

A part waits for nothing: the driver calls back, and what a reply means is decided by its home (`Run`).
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rangeio.errors import Error
from rangeio.http.address import Address, Origin
from rangeio.http.exchange import Body, Cut, Exchange
from rangeio.http.failures import (
    as_error,
    breaking_failed,
    connecting_failed,
    credentials_failed,
    last_word,
)
from rangeio.http.heads import BadReply, Head
from rangeio.http.home import Home, Parked, Unsolicited
from rangeio.http.lanes import WOULD_BLOCK, Lane
from rangeio.http.pace import MEASURED
from rangeio.http.pool import SERIAL
from rangeio.http.reads import Read
from rangeio.http.wire import Wire
from rangeio.policy import RETRIES
from rangeio.traffic import REQUESTS

# Receives for one connection before others get their turn.
_RECEIVES_PER_TURN = 16


class Part:
    """Bytes `at` to `stop` of a read, asked for by one request after the other until they are there.

    live: it is under way; afterwards nothing more is done for it. since: when something last came, or was begun.
    attempts: requests that failed or succeeded. outcome: what the head decided, to be done when the reply is over.
    clamped: its end was moved to that of the object. refused: credentials were renewed for it once. whole: the reply
    is the whole object. resume: the connection before was closed while idle, so that a new one is wanted. rival: the
    same once more, by another connection, of which the first to be answered wins. hedged: there was one.
    is_second: it is the one that was begun later. moved: it followed a redirect itself. restarted: it began again at
    the address given, because a remembered redirect led to a refusal. lined: it waits in line for a connection.
    goes_on: its reply decides what is asked for after it. sent, answered: when its request was, and when the head came.
    placed: bytes that responses have put into the memory of the read, as counted by who received them. silent_at:
    where a new connection of it has had no answer for long. heir, resting: see `rest`.
    """

    __slots__ = (
        "answered",
        "at",
        "attempts",
        "clamped",
        "dialing",
        "exchange",
        "first",
        "goes_on",
        "hedged",
        "heir",
        "home",
        "hops",
        "is_second",
        "lined",
        "live",
        "method",
        "moved",
        "outcome",
        "placed",
        "read",
        "refused",
        "restarted",
        "resting",
        "resume",
        "rival",
        "sent",
        "silent_at",
        "since",
        "stop",
        "target",
        "whole",
        "wire",
    )  # fmt: skip

    def __init__(
        self, home: Home, read: Read, start: int, stop: int, method: str = "GET", *, goes_on: bool = False
    ) -> None:
        self.home = home
        self.read = read
        self.first = self.at = start
        self.stop = stop
        self.method = method
        self.goes_on = goes_on
        self.attempts = self.hops = self.placed = 0
        self.rival: Part | None = None
        self.hedged = self.is_second = self.live = self.clamped = self.refused = self.whole = False
        self.resume = self.lined = self.moved = self.restarted = False
        self.resting = False
        self.heir: Callable[[Wire | None], None] | None = None
        self.silent_at: Origin | None = None
        self.since = self.sent = self.answered = 0.0
        self.wire: Wire | None = None
        self.dialing: object = None  # stands for the connection being opened for it
        self.target: Address = read.remote.target
        self.exchange: Exchange | None = None
        self.outcome: Callable[[], None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.live and not self.read.done

    @property
    def limit(self) -> int:
        """Up to where it may take bytes that it did not ask for: other parts bring what follows, unless it goes on."""
        return self.read.stop if self.goes_on or self.whole else self.stop

    # --- connections -----------------------------------------------------------------------------------------

    def connect(self, *, waited: bool = False) -> None:
        """Have a connection, and send. waited: in line for it."""
        if not self.wanted:
            return
        self.since = time.monotonic()
        remote, pool = self.read.remote, self.home.pool
        if remote.access.credentials.stale:
            self.renew(None)
            return
        self.target = remote.target
        origin = self.target.origin
        wire = None if self.resume else pool.take(origin)
        if wire is not None:
            self._send(wire)
        elif pool.reserve(origin, waited=waited, first=self.home.holds_none()):
            self.dial(origin)
        else:
            try:
                self.home.driver.listen()
            except Error as error:  # no descriptor is left
                self.fail(error)
                return
            self.lined = True
            self.heir = partial(self._notified, origin)
            pool.when_free(origin, self.heir, waited=waited)

    def rest(self) -> None:
        """Leave the line for a connection until `connect`: nobody goes on with the read for now."""
        if self.lined and self.heir is not None and self.home.pool.leave(self.target.origin, self.heir):
            self.lined = False
            self.heir = None
            self.resting = True

    def go_on(self) -> None:
        """After `rest`."""
        if self.resting:
            self.resting = False
            self.connect()

    def dial(self, origin: Origin) -> None:
        """Open a connection, whose place is reserved."""
        self.dialing = dialing = object()
        timeout_s = self.read.timeout.connect_s
        pool = self.home.pool
        try:
            self.home.driver.offload(
                partial(pool.dial, origin, timeout_s),
                partial(self._opened, origin, dialing),
                partial(pool.unwanted, origin),
                alone=False,  # name lookup, and a proxy that drips, end when they like: not within connect_s
            )
        except Error as error:  # no descriptor is left
            self._opened(origin, dialing, error)

    def _notified(self, origin: Origin, wire: Wire | None) -> None:
        """A connection is there, or may be. From any thread."""
        try:
            self.home.driver.post(partial(self._inherit, origin, wire))
        except RuntimeError:
            self._pass_on(origin, wire)

    def _inherit(self, origin: Origin, wire: Wire | None) -> None:
        wanted, remote = self.wanted and self.lined, self.read.remote
        same = remote.target.origin == origin and not remote.access.credentials.stale
        if wanted and same and wire is not None:
            self.lined = False
            self.target = remote.target
            wire.block(None)
            if wire.is_quiet():
                self._send(wire)
            else:
                self.home.pool.drop(wire)
                self.connect(waited=True)
            return
        if not wanted or wire is not None:
            self._pass_on(origin, wire)
        if wanted:
            self.lined = False
            self.connect(waited=True)

    def _pass_on(self, origin: Origin, wire: Wire | None) -> None:
        """Who does not want it any more gives it to the next."""
        if wire is not None:
            self.home.pool.give_back(wire)
        else:
            self.home.pool.wake(origin)

    def _opened(self, origin: Origin, dialing: object, outcome: Any) -> None:
        pool = self.home.pool
        if not self.wanted or self.dialing is not dialing:
            pool.unwanted(origin, outcome)
            return
        self.dialing = None
        if isinstance(outcome, Wire):
            self._send(outcome)
        else:
            pool.free(origin)
            self.fail(connecting_failed(outcome, self.read.remote.timeout.connect_s))

    def renew(self, refused: int | None) -> None:
        """Have new credentials, and then connect. refused: the version of those that were not accepted."""
        credentials = self.read.remote.access.credentials

        def renewed(outcome: Any) -> None:
            if not self.live:
                return  # time was up meanwhile
            if isinstance(outcome, BaseException):
                self.home.gave_up(self, self.as_error(credentials_failed(outcome)))
                self.home.pump()
            else:
                self.connect()

        self.home.driver.offload(lambda: credentials.renew(refused), renewed, lambda _: None, alone=True)

    # --- a request and its reply -----------------------------------------------------------------------------

    def _send(self, wire: Wire) -> None:
        self.wire = wire
        bodiless = self.method == "HEAD"
        self.exchange = Exchange(wire.scratch, self._judge, bodiless=bodiless)
        self.outcome = None
        request = self.read.remote.request(
            self.method,
            self.at,
            None if bodiless else self.stop,
            self.read.version,
            self.target,
            wire.absolute,
        )
        self.since = self.sent = time.monotonic()
        REQUESTS.add()
        try:
            self.home.driver.watch(wire.fd, self._readable)
        except OSError as error:  # no descriptor is left
            self.abandon()
            self.fail(connecting_failed(error, None))
            return
        self._send_rest(wire, memoryview(request))

    def adopt(self, lane: Lane, error: BaseException | None) -> None:
        """Go on where a lane has not: with its connection, what has come over it, and why it broke if it did."""
        wire = self.wire = lane.wire
        exchange = self.exchange = Exchange(wire.scratch, self._judge)
        self.outcome, self.sent, self.since = None, lane.sent, lane.since
        self.target = lane.target
        self.home.driver.watch(wire.fd, self._readable)
        try:
            exchange.feed(lane.block)
            if lane.filled:
                exchange.received(lane.filled)
            if error is not None and not exchange.done:
                raise error
        except (OSError, Cut, BadReply, Parked, Unsolicited, Error, MemoryError) as reason:
            self._broken(reason)
            return
        if exchange.done:
            exchange.reusable = exchange.reusable and not wire.holds_some()
            self._replied(wire, exchange)
        elif wire.holds_some():
            self._readable()

    def _judge(self, head: Head) -> Body:
        self.answered = self.since
        self._end_silence(answered=True)
        return self.home.judge(self, head)

    def _send_rest(self, wire: Wire, rest: memoryview) -> None:
        """A request is small and its connection idle, so the kernel takes all of it; if not, try again soon."""
        if self.wire is not wire:
            return
        try:
            rest = rest[wire.sock.send(rest) :]
        except WOULD_BLOCK:
            pass
        except OSError as error:
            self._broken(last_word(wire.sock, error))
            return
        if rest:
            self.home.driver.later(0.002, partial(self._send_rest, wire, rest))

    def _readable(self) -> None:
        wire, exchange = self.wire, self.exchange
        if wire is None or exchange is None:
            return
        self.since = time.monotonic()
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
                elif turns > 0 or wire.holds_some():
                    continue
                if turns <= 0 and not exchange.done:
                    return
        except WOULD_BLOCK:
            return
        except (OSError, Cut, BadReply, Parked, Unsolicited, Error, MemoryError) as error:
            self._broken(error)
            return
        self._replied(wire, exchange)

    def _replied(self, wire: Wire, exchange: Exchange) -> None:
        """The reply is over."""
        self.home.driver.unwatch(wire.fd)
        self.wire = None
        wire.used = True
        if exchange.filled >= MEASURED:
            now = time.monotonic()
            wire.pace.took(self.answered - self.sent, now - self.answered, exchange.filled)
        if exchange.reusable:
            self.home.pool.give_back(wire)
        else:
            self.home.pool.drop(wire)
        self.resume = False
        self._decide(exchange)

    def _decide(self, exchange: Exchange) -> None:
        """Do what the head decided, now that the body is there."""
        self.placed += exchange.placed
        try:
            if self.outcome is None:
                self.home.body_over(self, exchange.filled)
            else:
                self.outcome()
        except Error as error:
            self.home.gave_up(self, self.as_error(error))
        except MemoryError as error:
            self.home.gave_up(self, error)
        self.home.pump()

    def take_all(self) -> None:
        """The reply is the whole object, from its first byte on, though it may have been asked for a later one, and so
        all of the read: nothing else of it is to be asked for.
        """
        self.whole = True
        self.first, self.stop = self.read.start, self.read.stop
        self.begin_again()
        self.home.left_alone(self)

    def redirected(self, location: str) -> None:
        """Ask there from now on. ConfigInvalidError if that is no place, UnsupportedError if it may not be gone to."""
        self.read.remote.redirect(self.target, location)
        self.moved = True

    def begin_anew(self) -> bool:
        """Whether it was refused at the target of a redirect of before, which may have been lent for a while only; then
        it goes to the address given. A redirect that it followed itself is fresh, and so is what it leads to.
        """
        remote = self.read.remote
        if self.moved or self.restarted or self.target == remote.address:
            return False
        remote.forget_redirect(self.target)
        self.restarted = True
        return True

    # --- failures --------------------------------------------------------------------------------------------

    def _broken(self, error: BaseException) -> None:
        """The connection cannot be used any more."""
        wire, exchange = self.wire, self.exchange
        assert wire is not None
        assert exchange is not None
        self.abandon()
        if isinstance(error, Parked):
            self.home.parked(self)
            self.home.pump()
        elif isinstance(error, Error):
            self.home.gave_up(self, self.as_error(error, exchange.head))
            self.home.pump()
        elif isinstance(error, MemoryError):
            self.home.gave_up(self, error)
            self.home.pump()
        elif wire.used and (not exchange.started or isinstance(error, Unsolicited)):
            self.resume = True  # the server had closed it while it was idle; that is nobody's failure
            self.connect()
        elif isinstance(error, BadReply):
            self.begin_again()  # whoever does not speak HTTP may not have sent what was counted
            self.fail(breaking_failed(error, exchange))
        else:
            self.save(exchange, breaking_failed(error, exchange))

    def save(self, exchange: Exchange, error: Error) -> None:
        """Go on from the byte reached, if the version can be told; else from the start. error: why it ended there."""
        version = self.read.version
        if exchange.is_full:
            self._decide(exchange)  # only the end of it was missing
            return
        if self.outcome is None and exchange.head is not None:
            pass  # of a body of unknown length nothing is kept
        elif version.strong or version.modified:
            self.at += exchange.placed
            self.placed += exchange.placed
        else:
            self.begin_again()
        self.fail(error)

    def begin_again(self) -> None:
        """Nothing of what it has is kept."""
        self.at, self.placed = self.first, 0

    def fall_silent(self) -> None:
        """The server may be one that serves one connection at a time."""
        if self.silent_at is None:
            self.silent_at = self.target.origin
            SERIAL.fell_silent(self.silent_at)
        else:
            SERIAL.close_idle(self.silent_at)

    def _end_silence(self, *, answered: bool = False) -> None:
        if self.silent_at is not None:
            SERIAL.ended_silence(self.silent_at, answered=answered)
            self.silent_at = None

    def abandon(self) -> None:
        """Close its connection, whatever is under way on it."""
        self._end_silence()
        if self.wire is not None:
            self.home.driver.unwatch(self.wire.fd)
            self.home.pool.drop(self.wire)
            self.wire = None

    def doubled(self) -> "Part":
        """Its rival."""
        rival = Part(self.home, self.read, self.at, self.stop, self.method, goes_on=self.goes_on)
        rival.first, rival.placed = self.first, self.placed
        rival.attempts, rival.hops = self.attempts, self.hops
        rival.clamped, rival.refused = self.clamped, self.refused
        rival.moved, rival.restarted = self.moved, self.restarted
        rival.rival, self.rival = self, rival
        rival.hedged = self.hedged = rival.is_second = True
        return rival

    def end(self) -> None:
        """Nothing more is done for it. A thread that still connects may hold it for a while, but no memory with it."""
        self.live = False
        self.exchange = self.outcome = None

    def fail(self, error: Error) -> None:
        """Try again if that may help, else give up."""
        if error.status == "temporary":
            self.retry(error, None)
        else:
            self.home.gave_up(self, self.as_error(error))
        self.home.pump()

    def retry(self, error: Error, after_s: float | None) -> None:
        """Try again later, if that is allowed; else it is an error for good. after_s: what the server asks for."""
        if self.rival is not None:
            self.home.left_to_rival(self)
            return
        retry = self.read.remote.retry
        self.attempts += 1
        pause_s = retry.pause_s(self.attempts, after_s)
        if self.attempts >= retry.attempts:
            advice = "more attempts can be had by retry="
        elif pause_s is None:
            advice = (
                f"Retry-After asks for {after_s:g} s, more than max_retry_after_s={retry.max_retry_after_s:g}"
            )
        elif not RETRIES.take(self.target.origin):
            advice = (
                "not retried: the retry budget of this server is exhausted after recent failures (see"
                " rangeio.stats())"
            )
        else:
            self.since = time.monotonic() + pause_s
            self.home.driver.later(pause_s, self.connect)
            return
        error.status, error.context["advice"] = "persistent", advice
        self.home.gave_up(self, self.as_error(error))

    def as_error(self, error: Error, head: Head | None = None) -> Error:
        """The error as the caller of the read sees it."""
        return as_error(self.read, error, self.attempts, head)
