"""Async plain reads over TLS and without the core; `_uring.transfers` makes all others.

Reads that are not plain go to the engine, for both (`otherwise`).
"""

import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import _uring
from _uring.event_loops import bind, current_key
from _uring.records import Reader, SteadyReads, Unfinished
from _uring.waiters import Waiter, tell
from rangeio.errors import Error
from rangeio.http.connection import RECEIVES_PER_TURN, Connection
from rangeio.http.drivers import LoopDriver
from rangeio.http.engine import Engine
from rangeio.http.error_mapping import as_error, defect, guarded, is_of_signal_handler
from rangeio.http.range_read import RangeRead
from rangeio.http.steady import PlainTransfer

MakeEngine = Callable[..., Engine]
"""Make an Engine with the same options, for a driver, `landed` and `wanted`."""


class Adopted:
    """A read of the engine, and its waiter."""

    __slots__ = ("engine", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.engine: Engine | None = None

    def landed(self, _: int, result: Any) -> None:
        """The read has ended."""
        self.cancel()
        if isinstance(result, BaseException):
            tell(self.waiter, error=result)
        else:
            tell(self.waiter, result)

    def cancel(self) -> None:
        """Cancel it. A second call does nothing."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.cancel()


def otherwise(
    found: Unfinished | Exception, read: RangeRead, make_engine: MakeEngine, waiter: Waiter, key: Any
) -> Adopted | None:
    """Let the engine continue a read that is not plain, or resolve the waiter with the exception."""
    if not isinstance(found, Unfinished):
        expected = isinstance(found, (Error, MemoryError)) or is_of_signal_handler(found)
        tell(waiter, error=found if expected else as_error(read, defect(found), 1))
        return None
    if waiter.done():
        found.connection.close()
        return None
    adopted = Adopted(waiter)
    engine = make_engine(LoopDriver(key), adopted.landed, wanted=lambda: not waiter.done())
    adopted.engine = engine
    engine.adopt(read, found, found.sent)
    return adopted


class Awaited(PlainTransfer):
    """One range in flight, and its waiter. adopted: what continues it, if the response was not plain."""

    __slots__ = ("adopted", "make_engine", "waiter")

    def __init__(self, read: RangeRead, connection: Connection) -> None:
        super().__init__(read, connection)
        connection.stop_waiting()
        self.adopted: Adopted | None = None
        self.make_engine: Any = None
        self.waiter: Any = None


class LoopReads:
    """The reads in flight on one loop, for its own thread. Only the reads hold it. Made by `_loop_reads`."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.binding: Any = bind(key)
        self._driver = LoopDriver(key)
        self._under_way: dict[Awaited, None] = {}
        self._due = float("inf")  # time of the next check for late reads

    def begin(self, read: RangeRead, waiter: Waiter, make_engine: MakeEngine) -> Awaited | None:
        """Send the request of a plain read; `waiter` gets the result. None if no connection is idle."""
        awaited = Awaited.begun(read)
        if awaited is None:
            return None
        awaited.waiter, awaited.make_engine = waiter, make_engine
        self._under_way[awaited] = None
        try:
            if not awaited.over:
                self._watch(awaited)
            if awaited.over:
                self._take(awaited)
            elif awaited.sent + read.tick_s < self._due:
                self._look_in(read.tick_s)
        except BaseException:
            self.cancel(awaited)
            raise
        return awaited

    def _watch(self, awaited: Awaited) -> None:
        work = partial(self._guarded, self._receive, awaited)
        try:
            self._driver.watch(awaited.connection.fd, work)
        except (OSError, Error):  # no more connections can be watched
            awaited.over = True

    def _otherwise(self, awaited: Awaited, found: Unfinished | Exception) -> None:
        awaited.adopted = otherwise(found, awaited.read, awaited.make_engine, awaited.waiter, self.key)

    def _guarded(self, work: Callable[[Awaited], None], awaited: Awaited) -> None:
        """An unexpected exception is the error of that read only."""
        try:
            work(awaited)
        except BaseException as error:
            self.cancel(awaited)
            if isinstance(error, Exception):
                self._otherwise(awaited, error)
            elif awaited.waiter.done():
                raise
            else:  # an interruption belongs to the program: the task raises it
                awaited.waiter.set_exception(error)

    def _receive(self, awaited: Awaited) -> None:
        awaited.receive(awaited.connection.receive, RECEIVES_PER_TURN)
        while not awaited.over and awaited.connection.holds_some():  # decrypted bytes cause no event
            awaited.receive(awaited.connection.receive, 1)
        if awaited.over:
            self._take(awaited)

    def _take(self, awaited: Awaited) -> None:
        self._forget(awaited)
        if awaited.complete:
            awaited.give_back()
            tell(awaited.waiter, awaited.read.result())
            return
        try:
            self._otherwise(awaited, awaited.unfinished())
        except BaseException:
            awaited.connection.close()  # now, because the traceback of the error would keep it open
            raise

    def _forget(self, awaited: Awaited) -> None:
        self._under_way.pop(awaited, None)
        self._driver.unwatch(awaited.connection.fd)

    def _look_in(self, seconds: float) -> None:
        self._due = due = time.monotonic() + seconds
        self._driver.later(seconds, lambda: self._look(due))

    def _look(self, due: float) -> None:
        """Hand over the reads that exceed the time of silence or the total timeout."""
        if due != self._due:
            return  # another check is due
        self._due = float("inf")
        now = time.monotonic()
        for awaited in [awaited for awaited in self._under_way if awaited.is_late(now)]:
            self._guarded(self._take, awaited)
        if self._under_way:
            self._look_in(min(awaited.read.tick_s for awaited in self._under_way))

    def cancel(self, awaited: Awaited) -> None:
        """Cancel a read, or drop one that has failed."""
        if awaited in self._under_way:
            self._forget(awaited)
            awaited.connection.close()
        if awaited.adopted is not None:
            awaited.adopted.cancel()


_BY_LOOP: "weakref.WeakValueDictionary[int, LoopReads]" = weakref.WeakValueDictionary()


def _loop_reads() -> LoopReads:
    """The reads of the running loop."""
    key = current_key()
    found = _BY_LOOP.get(id(key))
    if found is None or found.key is not key:
        found = _BY_LOOP[id(key)] = LoopReads(key)
    return found


def begin(
    steady: SteadyReads | None, read: RangeRead, waiter: Waiter, reader: Reader, make_engine: MakeEngine
) -> bool:
    """Start a plain read on the running loop; whether that was possible. steady: start it in the core."""
    if steady is not None:
        return _uring.begin_awaited(steady, read.start, read.stop - read.start, waiter, reader)
    return guarded(read, _loop_reads().begin, read, waiter, make_engine) is not None


async def result_of(
    steady: SteadyReads | None, read: RangeRead, reader: Reader, make_engine: MakeEngine
) -> Any:
    """The result of a plain read; None if it could not be started."""
    if steady is not None:
        return await _uring.awaited(steady, read.start, read.stop - read.start, read.into, reader, False)
    place = _loop_reads()
    waiter = place.binding.waiter(None)
    awaited = guarded(read, place.begin, read, waiter, make_engine)
    if awaited is None:
        return None
    try:
        return await place.binding.wait(waiter)
    except BaseException:
        place.cancel(awaited)  # if the task was cancelled
        raise
    finally:
        del awaited  # the traceback of an error holds this frame, which must not hold the memory
