"""One attempt at some bytes: a connection, a request, its response, and further requests if that was not enough.

It never waits: the driver calls back, and the engine decides what a response means.
"""

import os
import time
from collections.abc import Callable
from copy import copy
from errno import EAGAIN
from functools import partial

from _uring import Expected
from _uring.records import MEASURED, Unfinished
from rangeio.counters import REQUESTS
from rangeio.errors import Error
from rangeio.events import LISTENERS
from rangeio.http.connecting import Connecting
from rangeio.http.connection import RECEIVES_PER_TURN, WOULD_BLOCK, Connection
from rangeio.http.connection_pool import SERIAL
from rangeio.http.engine_protocol import EngineProtocol, Parked, Unsolicited
from rangeio.http.error_mapping import (
    as_error,
    breaking_failed,
    connecting_failed,
    last_word,
)
from rangeio.http.heads import BadResponse, Head
from rangeio.http.observed import told_hedge, told_request, told_response, told_retry
from rangeio.http.range_read import Probe, RangeRead, SuffixRead
from rangeio.http.response_parser import Body, ConnectionEnded, Plain, ResponseParser
from rangeio.http.urls import Origin
from rangeio.logs import log
from rangeio.policy import RETRIES


class Attempt(Connecting):
    """Fetches bytes `at` to `stop` of a read with one request after another.

    attempts: requests made so far. outcome: the action that the head decided, done when the response is complete.
    clamped: its stop was moved to the end of the object. refused: credentials were renewed for it once. whole: the
    response is the whole object. rival: the hedge, or the attempt that it hedges; the first response wins. hedged: it
    had a rival. is_second: it is the hedge. moved: it followed a redirect itself. restarted: it started again at the
    original address, because a remembered redirect led to a refusal. goes_on: its response decides what is requested
    next. sent, answered: the times of its request and of the response head. placed: bytes that responses have stored in
    the memory of the read, as counted by the receiver. silent_at: the origin where a new connection of it has been
    silent for long. asked_with: the version of the credentials in its request. overtaken: its request was made in the
    steady state, for an address or with credentials that are no longer those of the object. The other
    attributes are in `Connecting`.
    """

    __slots__ = (
        "answered",
        "asked_with",
        "at",
        "attempts",
        "clamped",
        "first",
        "goes_on",
        "hedged",
        "hops",
        "is_second",
        "method",
        "moved",
        "outcome",
        "overtaken",
        "placed",
        "refused",
        "response",
        "restarted",
        "rival",
        "sent",
        "silent_at",
        "stop",
        "whole",
    )  # fmt: skip

    def __init__(
        self,
        engine: EngineProtocol,
        read: RangeRead,
        start: int,
        stop: int,
        method: str = "GET",
        *,
        goes_on: bool = False,
    ) -> None:
        super().__init__(engine, read)
        self.first = self.at = start
        self.stop = stop
        self.method = method
        self.goes_on = goes_on
        self.attempts = self.hops = self.placed = 0
        self.rival: Attempt | None = None
        self.hedged = self.is_second = self.clamped = self.refused = self.whole = False
        self.moved = self.restarted = self.overtaken = False
        self.asked_with = 0
        self.silent_at: Origin | None = None
        self.sent = self.answered = 0.0
        self.response: ResponseParser | None = None
        self.outcome: Callable[[], None] | None = None

    @property
    def limit(self) -> int:
        """The end of the bytes it may accept beyond its request: other attempts fetch the rest, unless it goes on."""
        return self.read.stop if self.goes_on or self.whole else self.stop

    # --- a request and its response -----------------------------------------------------------------------------

    def _send(self, connection: Connection) -> None:
        connection.stop_waiting()
        self.connection = connection
        try:
            self.engine.driver.watch(connection.fd, self._readable)
        except OSError as error:  # no descriptor is left
            self.abandon()
            self.fail(connecting_failed(error, None))
            return
        self._ask(connection)

    def _ask(self, connection: Connection) -> None:
        """Send the request for the current range over a connection that the driver watches."""
        expected = self._expected()
        self.response, self.outcome = self._response(connection, expected), None
        self.since = self.sent = time.monotonic()
        self.asked_with, self.overtaken = self.read.remote.access.credentials.version, False
        REQUESTS.add()
        if LISTENERS:
            told_request(self.read, self.at, self.stop, self.attempts + 1)
        self._send_rest(connection, memoryview(self._request(connection, expected)))

    def _expected(self) -> Expected | None:
        """The expected plain response; None if the response decides more than its bytes, or nothing is known yet."""
        read, remote = self.read, self.read.remote
        if self.method != "GET" or self.goes_on or self.whole or read.version is not remote.version:
            return None
        return remote.expected

    def _response(self, connection: Connection, expected: Expected | None) -> ResponseParser:
        plain = None if expected is None else Plain(expected, self.at, self.stop, self._plain_body)
        return ResponseParser(connection.scratch, self._judge, bodiless=self.method == "HEAD", plain=plain)

    def _request(self, connection: Connection, expected: Expected | None) -> bytes:
        remote, at, stop = self.read.remote, self.at, self.stop
        if expected is not None:
            return remote.range_request_text(self.target, connection.absolute, at, stop)
        if isinstance(self.read, SuffixRead) and not self.read.settled:
            count = min(self.read.count, stop)
            return remote.suffix_request(count, self.read.version, self.target, connection.absolute)
        whole = self.method == "HEAD" or (remote.by_status and isinstance(self.read, Probe))
        upto = None if whole else stop
        return remote.request(self.method, at, upto, self.read.version, self.target, connection.absolute)

    def _plain_body(self) -> memoryview:
        """The memory for the body of a plain response."""
        self.answered = self.since
        if LISTENERS:
            told_response(self.read, 206, self.since - self.sent)
        self._end_silence(answered=True)
        if self.rival is not None:
            self.engine.won(self)
        self.outcome = partial(self.engine.arrived, self)
        return self.read.piece(self.at, self.stop)

    def adopt(self, begun: Unfinished) -> None:
        """Continue a read that began in the steady state, with all bytes received so far."""
        connection = self.connection = begun.connection
        connection.stop_waiting()
        response = self.response = self._response(connection, self._expected())
        self.outcome, self.sent, self.since = None, begun.sent, begun.since
        self.asked_with = self.read.remote.access.credentials.version
        self.overtaken = self.read.remote.asks_otherwise(begun.asked, connection.absolute)
        self.engine.driver.watch(connection.fd, self._readable)
        try:
            response.feed(begun.head)
            if begun.placed and not response.done:
                response.received(begun.placed)
            if not response.done:
                _raise_what_broke(begun)
        except (OSError, ConnectionEnded, BadResponse, Parked, Unsolicited, Error, MemoryError) as reason:
            self._broken(reason)
            return
        if response.done:
            response.reusable = response.reusable and not connection.holds_some()
            self._completed(connection, response)
        elif connection.holds_some():
            self._readable()

    def _judge(self, head: Head) -> Body:
        if self.overtaken:
            self.overtaken = False
            raise Unsolicited  # what it means depends on the address: ask again at the present one
        self.answered, self.aside = self.since, None
        if LISTENERS:
            told_response(self.read, head.status, self.since - self.sent)
        self._end_silence(answered=True)
        return self.engine.judge(self, head)

    def _send_rest(self, connection: Connection, rest: memoryview) -> None:
        """Send the rest of a request. It is small and the connection idle, so the kernel normally accepts all of it."""
        if self.connection is not connection:
            return
        try:
            rest = rest[connection.send(rest) :]
        except WOULD_BLOCK:
            pass
        except OSError as error:
            self._broken(last_word(connection.sock, error))
            return
        if rest:
            self.engine.driver.later(0.002, partial(self._send_rest, connection, rest))

    def _readable(self) -> None:
        connection, response = self.connection, self.response
        if connection is None or response is None:
            return
        self.since = time.monotonic()
        receive = connection.receive
        turns = RECEIVES_PER_TURN
        try:
            while not response.done:
                space = response.space()
                count = receive(space)
                response.received(count)
                turns -= 1
                if not connection.tls:
                    if count < len(space) and not response.done:
                        return
                elif turns > 0 or connection.holds_some():
                    continue
                if turns <= 0 and not response.done:
                    return
        except WOULD_BLOCK:
            return
        except (OSError, ConnectionEnded, BadResponse, Parked, Unsolicited, Error, MemoryError) as error:
            self._broken(error)
            return
        self._completed(connection, response)

    def _completed(self, connection: Connection, response: ResponseParser) -> None:
        """Handle a complete response."""
        connection.used = True
        self.resume = False
        if response.filled >= MEASURED:
            now = time.monotonic()
            connection.latency.record((self.answered - self.sent, now - self.answered, response.filled))
        if response.is_plain and response.reusable and connection.is_quiet():
            piece = self.engine.next_piece(self)
            if piece is not None:
                read, placed = self.read, self.placed + response.placed
                self._begin_piece(connection, *piece)
                self.engine.piece_arrived(read, placed)
                return
        self.engine.driver.unwatch(connection.fd)
        self.connection = None
        if response.reusable and not connection.holds_some():
            self.engine.pool.give_back(connection)
        else:
            self.engine.pool.drop(connection)
        self._decide(response)

    def _begin_piece(self, connection: Connection, read: RangeRead, start: int, stop: int) -> None:
        """Request another piece of the same object over the same connection, which is already watched."""
        self.read, self.first, self.at, self.stop = read, start, start, stop
        self.attempts = self.hops = self.placed = 0
        self.hedged = self.clamped = self.refused = self.moved = self.restarted = False
        self.rival = None
        self.target, self.aside = read.remote.target, None
        self._ask(connection)

    def _decide(self, response: ResponseParser) -> None:
        """Do what the head decided, now that the body is complete."""
        self.placed += response.placed
        try:
            if self.outcome is None:
                self.engine.body_over(self, response.filled)
            else:
                self.outcome()
        except Error as error:
            self.engine.gave_up(self, self.as_error(error))
        except MemoryError as error:
            self.engine.gave_up(self, error)
        self.engine.pump()

    def place(self, at: int) -> None:
        """Set its range, now that the end of the object is known: from `at` to that end."""
        self.first = self.at = at
        self.stop = self.read.stop

    def take_all(self) -> None:
        """Handle a response with the whole object, which starts at its first byte even if a later one was requested. It
        serves the whole read, so no other request for it is needed.
        """
        self.whole = True
        self.first, self.stop = self.read.start, self.read.stop
        self.discard()
        self.engine.left_alone(self)

    def redirected(self, head: Head) -> None:
        """Follow a redirect. ConfigInvalidError for an invalid URL, UnsupportedError if it is not allowed."""
        remote = self.read.remote
        target = remote.redirect(self.target, head)
        log("rangeio.http", "debug", "%s: redirected to %s", remote.shown, target.shown)
        self.aside = None if remote.redirects_object else target
        self.moved = True

    def restart_at_original(self) -> bool:
        """Whether it was refused at the target of a remembered redirect, which may have expired; then it goes back to
        the original address. A redirect that it followed itself is fresh, and so is its target.
        """
        remote = self.read.remote
        if self.moved or self.restarted or self.target == remote.address:
            return False
        remote.forget_redirect(self.target)
        self.restarted = True
        return True

    # --- failures --------------------------------------------------------------------------------------------

    def _broken(self, error: BaseException) -> None:
        """Handle a failure of the connection."""
        connection, response = self.connection, self.response
        assert connection is not None
        assert response is not None
        self.abandon()
        if isinstance(error, Parked):
            self.engine.parked(self)
            self.engine.pump()
        elif isinstance(error, Error):
            self.engine.gave_up(self, self.as_error(error, response.head))
            self.engine.pump()
        elif isinstance(error, MemoryError):
            self.engine.gave_up(self, error)
            self.engine.pump()
        elif connection.used and (not response.started or isinstance(error, Unsolicited)):
            self.resume = True  # the server closed it while it was idle; this is not a failed attempt
            self.connect()
        elif isinstance(error, BadResponse):
            self.discard()  # if the response is not valid HTTP, the bytes counted so far may be wrong
            self.fail(breaking_failed(error, response))
        else:
            self.save(response, breaking_failed(error, response))

    def save(self, response: ResponseParser, error: Error) -> None:
        """Continue from the byte reached if the version is pinned, otherwise from the start. error: why it ended."""
        version = self.read.version
        if response.is_full:
            self._decide(response)  # only the end of the body is missing
            return
        if self.outcome is None and response.head is not None:
            pass  # nothing is kept of a body of unknown length
        elif version.strong or version.modified or version.revision:
            self.at += response.placed
            self.placed += response.placed
            if self.at >= self.stop:  # a whole object in place of a range contained more than requested
                self.stop = min(self.read.stop, self.at + max(1, self.stop - self.first))
        else:
            self.discard()
        self.fail(error)

    def discard(self) -> None:
        """Discard all bytes received so far."""
        self.at, self.placed = self.first, 0

    def fall_silent(self) -> None:
        """Report a silent new connection: the server may serve one connection at a time."""
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
        """Close its connection, with any request in flight."""
        self._end_silence()
        if self.connection is not None:
            self.engine.driver.unwatch(self.connection.fd)
            self.engine.pool.drop(self.connection)
            self.connection = None

    def make_rival(self) -> "Attempt":
        """A second attempt at the same bytes, for a hedge."""
        told_hedge(self.read, time.monotonic() - self.sent)
        rival = Attempt(self.engine, self.read, self.at, self.stop, self.method, goes_on=self.goes_on)
        rival.first, rival.placed = self.first, self.placed
        rival.attempts, rival.hops = self.attempts, self.hops
        rival.clamped, rival.refused = self.clamped, self.refused
        rival.moved, rival.restarted = self.moved, self.restarted
        rival.rival, self.rival = self, rival
        rival.hedged = self.hedged = rival.is_second = True
        return rival

    def end(self) -> None:
        """End it. A thread that still connects may reference it for a while, but it holds no memory then."""
        self.live = False
        self.response = self.outcome = None

    def fail(self, error: Error) -> None:
        """Retry if that may help, otherwise give up."""
        if error.status != "temporary":
            self.engine.gave_up(self, self.as_error(error))
        elif self.rival is None and self.goes_elsewhere():
            self.connect()
        else:
            self.retry(error, None)
        self.engine.pump()

    def goes_elsewhere(self) -> bool:
        """Leave a server that does not respond, or is not the right one. Returns whether to ask another one at once:
        not if each of them was asked.
        """
        remote = self.read.remote
        if not remote.alternatives:
            return False
        remote.leave(self.target)
        self.aside = None
        self.hops += 1
        return self.hops <= remote.alternatives

    def retry(self, error: Error, after_s: float | None) -> None:
        """Retry later if that is allowed, otherwise give up. after_s: the server's Retry-After."""
        if self.rival is not None:
            self.engine.left_to_rival(self)
            return
        retry = self.read.remote.retry
        self.attempts += 1
        self.hops = 0  # the next request may be redirected again
        self.aside = None
        pause_s = retry.pause_s(self.attempts, after_s)
        if self.attempts >= retry.attempts:
            advice = "set retry= to allow more attempts"
        elif pause_s is None:
            advice = f"Retry-After is {after_s:g} s, more than max_retry_after_s={retry.max_retry_after_s:g}"
        elif not RETRIES.take(self.target.origin):
            advice = (
                "not retried: the retry budget of this server is exhausted after recent failures (see"
                " rangeio.stats())"
            )
        else:
            self.since = time.monotonic() + pause_s
            self.read.retries += 1
            told_retry(self.read, error, pause_s, self.attempts + 1)
            self.engine.driver.later(pause_s, self.connect)
            return
        error.status, error.context["advice"] = "persistent", advice
        self.engine.gave_up(self, self.as_error(error))

    def as_error(self, error: Error, head: Head | None = None) -> Error:
        """The error as the caller of the read sees it."""
        return as_error(self.read, error, self.attempts, head)


def _raise_what_broke(begun: Unfinished) -> None:
    """Raise the failure of a connection in the steady state, if it has failed."""
    if begun.error is not None:
        raise copy(begun.error)  # of its own traceback `begun` would be a part
    if begun.errno == 0:
        raise ConnectionEnded
    if begun.errno != EAGAIN:
        raise OSError(begun.errno, os.strerror(begun.errno))
