"""One read in the thread that wants it: one call, nearly always. What else comes of it is the business of a lane."""

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from rangeio.http.address import Address
from rangeio.http.failures import as_error, defect, is_of_signal_handler
from rangeio.http.lanes import WOULD_BLOCK, Brought, Lane, plain_for, request_for
from rangeio.http.pace import MEASURED
from rangeio.http.plain import Plain
from rangeio.http.pool import Pool
from rangeio.http.reads import Read
from rangeio.http.repeats import brought_by
from rangeio.http.wire import Wire
from rangeio.policy import RETRIES
from rangeio.traffic import REQUESTS

if TYPE_CHECKING:
    from _uring.surface import Strayed


class Stray(NamedTuple):
    """A read that is not plain, or whose connection broke; see `Run.take_over`. began: when it did."""

    lane: Lane
    error: BaseException | None
    began: float


def at_once(read: Read, pool: Pool, most: int) -> "Stray | bool":
    """Have a whole read in the thread that wants it, over a connection that blocks. No selector, no timer, nothing to
    undo. False if no connection is idle, or the read is not plain, or larger than `most`.
    """
    target = read.remote.target
    plain = plain_for(read, most)
    wire = pool.take(target.origin, read.tick_s) if plain is not None else None
    if plain is None or wire is None:
        return False
    try:
        stray = _converse(read, plain, target, wire)
    except BaseException as error:
        pool.drop(wire)
        _tell_defect(read, error)
        raise
    return _given_back(stray, pool, wire)


def go_on(read: Read, pool: Pool, strayed: "Strayed") -> "Stray | bool":
    """The rest of a read that a repeat has begun; as `at_once`."""
    wire, began = strayed[0], strayed[2]
    plain = read.remote.plain
    assert plain is not None
    try:
        brought, error = brought_by(read, strayed)
        stray = _Alone(wire, began).go_on(read, plain, read.remote.target, brought, error)
    except BaseException as error:
        pool.drop(wire)
        _tell_defect(read, error)
        raise
    return _given_back(stray, pool, wire)


def finished(read: Read) -> Any:
    """The result of a read all of which has come."""
    try:
        return read.result()
    except Exception as error:
        _tell_defect(read, error)
        raise


def _tell_defect(read: Read, error: BaseException) -> None:
    """Raise what nobody expects as an error of the tree; see `Run._guarded`. Ctrl-C and the like are the caller's."""
    if (
        isinstance(error, Exception)
        and not isinstance(error, MemoryError)
        and not is_of_signal_handler(error)
    ):
        raise as_error(read, defect(error), 1) from error


def _given_back(stray: Stray | None, pool: Pool, wire: Wire) -> "Stray | bool":
    if stray is not None:
        wire.block(None)
        return stray
    pool.give_back(wire)
    RETRIES.succeeded(wire.origin)
    return True


def _converse(read: Read, plain: Plain, target: Address, wire: Wire) -> Stray | None:
    start, stop, began = read.start, read.stop, time.monotonic()
    expected = plain.expect(start, stop) if stop - start < MEASURED else None
    if expected is None:
        return _Alone(wire, began).read(read)
    head, length, announced = expected
    body = read.piece(start, stop)
    REQUESTS.add()
    request = request_for(read.remote, plain, target, wire, start, stop)
    try:
        count = wire.exchange(request, length, announced, body)
    except OSError as error:
        return _Alone(wire, began).go_on(read, plain, target, None, error)
    if count == length + stop - start and length == len(head) and wire.space.startswith(head):
        wire.used = True
        read.filled = stop - start
        return None
    return _Alone(wire, began).go_on(read, plain, target, (count, expected, body))


class _Alone:
    """A lane in the thread that wants its piece, which is all of the read. A `Way`."""

    __slots__ = ("_began", "_error", "_over", "_stray", "_wire")

    def __init__(self, wire: Wire, began: float) -> None:
        self._wire, self._began = wire, began
        self._over = self._stray = False
        self._error: BaseException | None = None

    def read(self, read: Read) -> Stray | None:
        """Ask, and have it; None once all of it is in place."""
        lane = Lane(self, self._wire)
        lane.begin(read, read.start, read.stop)
        return self._until_over(lane)

    def go_on(
        self,
        read: Read,
        plain: Plain,
        target: Address,
        brought: Brought | None,
        error: OSError | None = None,
    ) -> Stray | None:
        """The same, of what was asked for."""
        lane = Lane(self, self._wire)
        lane.begun(read, plain, target, read.start, read.stop)
        lane.since = lane.sent = self._began
        if brought is not None:
            lane.readable(brought)
        elif not isinstance(error, WOULD_BLOCK):
            self.strayed(lane, error)
        return self._until_over(lane)

    def _until_over(self, lane: Lane) -> Stray | None:
        while not self._over:
            if lane.is_late(time.monotonic(), self._began):
                self.strayed(lane, None)
            else:
                lane.readable()
        return Stray(lane, self._error, self._began) if self._stray else None

    def arrived(self, lane: Lane) -> None:
        """See `Way`."""
        self._over = True

    def strayed(self, lane: Lane, error: BaseException | None) -> None:
        """See `Way`."""
        self._over = self._stray = True
        self._error = error
