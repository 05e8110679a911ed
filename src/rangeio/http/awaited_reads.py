"""Plain reads that an event loop awaits, over TLS and where there is no core; `_uring.transfers` does all others.

What comes otherwise than it should goes to the engine, for both (`otherwise`).
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
"""An Engine of the same options: given driver, landed and wanted."""


class Adopted:
    """A read that is the engine's, and who waits for it."""

    __slots__ = ("engine", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.engine: Engine | None = None

    def landed(self, _: int, result: Any) -> None:
        """It is over."""
        self.cancel()
        if isinstance(result, BaseException):
            tell(self.waiter, error=result)
        else:
            tell(self.waiter, result)

    def cancel(self) -> None:
        """Nobody waits for it any more. A second call does nothing."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.cancel()


def otherwise(
    found: Unfinished | Exception, read: RangeRead, make_engine: MakeEngine, waiter: Waiter, key: Any
) -> Adopted | None:
    """What came is no plain response: have the engine go on with the read, or tell the exception. key: of the loop."""
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
    """One range under way, and who waits for it. adopted: what goes on with it, if it was no plain response."""

    __slots__ = ("adopted", "make_engine", "waiter")

    def __init__(self, read: RangeRead, connection: Connection) -> None:
        super().__init__(read, connection)
        connection.stop_waiting()
        self.adopted: Adopted | None = None
        self.make_engine: Any = None
        self.waiter: Any = None


class LoopReads:
    """Those under way on one loop, in its own thread: they hold it, and nothing else does. Made by `_loop_reads`."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.binding: Any = bind(key)
        self._driver = LoopDriver(key)
        self._under_way: dict[Awaited, None] = {}
        self._due = float("inf")  # when the next look at the clock is

    def begin(self, read: RangeRead, waiter: Waiter, make_engine: MakeEngine) -> Awaited | None:
        """Send for a plain read, of which `waiter` hears; None if no connection is idle."""
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
        except (OSError, Error):  # no more can be watched
            awaited.over = True

    def _otherwise(self, awaited: Awaited, found: Unfinished | Exception) -> None:
        awaited.adopted = otherwise(found, awaited.read, awaited.make_engine, awaited.waiter, self.key)

    def _guarded(self, work: Callable[[Awaited], None], awaited: Awaited) -> None:
        """What nobody expects is that read's error, and no other's."""
        try:
            work(awaited)
        except BaseException as error:
            self.cancel(awaited)
            if isinstance(error, Exception):
                self._otherwise(awaited, error)
            elif awaited.waiter.done():
                raise
            else:  # an interruption is for the program: the task raises it
                awaited.waiter.set_exception(error)

    def _receive(self, awaited: Awaited) -> None:
        awaited.receive(awaited.connection.receive, RECEIVES_PER_TURN)
        while not awaited.over and awaited.connection.holds_some():  # of which no event tells
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
            awaited.connection.close()  # not when the error is dropped, whose traceback holds it
            raise

    def _forget(self, awaited: Awaited) -> None:
        self._under_way.pop(awaited, None)
        self._driver.unwatch(awaited.connection.fd)

    def _look_in(self, seconds: float) -> None:
        self._due = due = time.monotonic() + seconds
        self._driver.later(seconds, lambda: self._look(due))

    def _look(self, due: float) -> None:
        """Hand over what was silent for long, or takes too long in all."""
        if due != self._due:
            return  # another look takes its place
        self._due = float("inf")
        now = time.monotonic()
        for awaited in [awaited for awaited in self._under_way if awaited.is_late(now)]:
            self._guarded(self._take, awaited)
        if self._under_way:
            self._look_in(min(awaited.read.tick_s for awaited in self._under_way))

    def cancel(self, awaited: Awaited) -> None:
        """Nobody waits for it any more, or it has failed."""
        if awaited in self._under_way:
            self._forget(awaited)
            awaited.connection.close()
        if awaited.adopted is not None:
            awaited.adopted.cancel()


_BY_LOOP: "weakref.WeakValueDictionary[int, LoopReads]" = weakref.WeakValueDictionary()


def _loop_reads() -> LoopReads:
    """Those of the loop that runs."""
    key = current_key()
    found = _BY_LOOP.get(id(key))
    if found is None or found.key is not key:
        found = _BY_LOOP[id(key)] = LoopReads(key)
    return found


def begin(
    steady: SteadyReads | None, read: RangeRead, waiter: Waiter, reader: Reader, make_engine: MakeEngine
) -> bool:
    """Begin a plain read on the loop that runs; whether that could be done. steady: by the core, if it can."""
    if steady is not None:
        return _uring.begin_awaited(steady, read.start, read.stop - read.start, waiter, reader)
    return guarded(read, _loop_reads().begin, read, waiter, make_engine) is not None


async def result_of(
    steady: SteadyReads | None, read: RangeRead, reader: Reader, make_engine: MakeEngine
) -> Any:
    """The result of a plain read; None if it could not be begun."""
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
        place.cancel(awaited)  # if it was the task that was cancelled
        raise
    finally:
        del awaited  # the traceback of an error holds this frame: let it not hold the memory
