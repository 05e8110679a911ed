"""Plain reads that an event loop awaits: what the core does of them (`_uring.transfers`), and the loop's part.

The loop holds a LoopReads by its watch, and nothing else does: with the loop it ends. Without reads for a second it
ends as well.
"""

import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import _uring
from _uring.event_loops import bind, current_key
from _uring.records import Unfinished
from _uring.waiters import Waiter, tell
from rangeio.errors import Error
from rangeio.http.drivers import HeldByLoop, LoopDriver
from rangeio.http.engine import Engine
from rangeio.http.error_mapping import as_error, defect, guarded
from rangeio.http.range_read import RangeRead
from rangeio.http.steady import PlainTransfers

if TYPE_CHECKING:
    from _uring.records import LoopTransfers, SteadyReads

_KEPT_S = 1.0

MakeEngine = Callable[..., Engine]
"""An Engine of the same options: given driver, landed and wanted."""


class Awaited:
    """One read under way, and who waits for it. engine: that which goes on with the read, if one does."""

    __slots__ = ("began", "engine", "make_engine", "place", "read", "transfer", "waiter")

    def __init__(self, place: "LoopReads", read: RangeRead, waiter: Waiter, make_engine: MakeEngine) -> None:
        self.place, self.read, self.waiter, self.make_engine = place, read, waiter, make_engine
        self.began = time.monotonic()
        self.transfer: Any = None
        self.engine: Engine | None = None

    def landed(self, _: int, result: Any) -> None:
        """It is over, by the engine."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.cancel()
        self.tell(result)

    def tell(self, result: Any) -> None:
        """What has come of it."""
        if isinstance(result, Unfinished):
            self._adopt(result)
        elif not isinstance(result, BaseException):
            tell(self.waiter, result)
        elif isinstance(result, (Error, MemoryError)):
            tell(self.waiter, error=result)
        else:  # what nobody expects
            tell(self.waiter, error=as_error(self.read, defect(result), 1))

    def _adopt(self, begun: Unfinished) -> None:
        """Have the engine go on with it."""
        if self.waiter.done():
            begun.connection.close()
            return
        waiter = self.waiter
        driver = LoopDriver(self.place.key)
        engine = self.engine = self.make_engine(driver, self.landed, wanted=lambda: not waiter.done())
        engine.adopt(self.read, begun, self.began)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self.engine is not None:
            self.engine.cancel()
        elif self.transfer is not None:
            self.place.transfers.cancel(self.transfer)


class LoopReads:
    """Those of one loop, in the loop's own thread. Made by `_loop_reads`."""

    def __init__(self, key: Any, transfers: "LoopTransfers") -> None:
        self.key = key
        self.binding: Any = bind(key)
        self.transfers = transfers
        self.ended = self._watched = False
        self._used = 0.0
        self._due = float("inf")  # when the next look at the clock is

    def begin(
        self, steady: "SteadyReads | None", read: RangeRead, waiter: Waiter, make_engine: MakeEngine
    ) -> Awaited | None:
        """Send for a plain read, of which `waiter` hears; None if no connection is idle."""
        awaited = Awaited(self, read, waiter, make_engine)
        found = self.transfers.start(steady, read.start, read.stop - read.start, read.into, awaited)
        if found is None:
            return None
        self._used = awaited.began
        if isinstance(found, Unfinished):
            awaited.tell(found)
            return awaited
        awaited.transfer = found
        if not self._watched:
            self._watched = True
            self.binding.watch(self.transfers.fileno(), HeldByLoop(self))
        if awaited.began + read.tick_s < self._due:
            self._tick_in(read.tick_s)
        return awaited

    def ready(self) -> None:
        """Something has come."""
        if self.ended:
            return  # trio had scheduled this call before the watch ended
        for awaited, result in self.transfers.poll():
            awaited.transfer = None
            try:
                awaited.tell(result)
            except Exception as error:
                awaited.tell(error)

    def _tick_in(self, seconds: float) -> None:
        self._due = due = time.monotonic() + seconds
        LoopDriver(self.key).later(seconds, lambda: self._tick(due))

    def _tick(self, due: float) -> None:
        if due != self._due or self.ended:
            return  # another one takes its place
        self._due = float("inf")
        for transfer in self.transfers.late():
            awaited = transfer.token
            awaited.transfer = None
            awaited.tell(self.transfers.hand_over(transfer))
        under_way = self.transfers.under_way()
        if under_way:
            self._tick_in(min(transfer.token.read.tick_s for transfer in under_way))
        elif time.monotonic() - self._used < _KEPT_S:
            self._tick_in(_KEPT_S)
        elif self._watched:
            # For good: a loop that is amid calling its HeldByLoop back lets go of it only when another watch has begun.
            self.binding.unwatch(self.transfers.fileno())
            self.end()

    def end(self) -> None:
        """The loop watches no longer: it has gone, or there is nothing to watch. A second call does nothing."""
        if self.ended:
            return
        self.ended = True
        if not self.transfers.inherited:
            for transfer in self.transfers.under_way():
                self.transfers.cancel(transfer)


_BY_LOOP: "weakref.WeakValueDictionary[tuple[int, bool], LoopReads]" = weakref.WeakValueDictionary()


def _loop_reads(by_core: bool) -> LoopReads | None:
    """That of the loop that runs, made anew if the loop holds none; None if no descriptor is left for one."""
    key = current_key()
    found = _BY_LOOP.get((id(key), by_core))
    if found is None or found.ended or found.key is not key or found.transfers.inherited:
        try:
            made: Any = _uring.LoopTransfers() if by_core and _uring.LoopTransfers else PlainTransfers()
        except (OSError, Error):
            return None
        _BY_LOOP[id(key), by_core] = found = LoopReads(key, made)
    return found


def begin(steady: "SteadyReads | None", read: RangeRead, waiter: Waiter, make_engine: MakeEngine) -> bool:
    """Begin a plain read on the loop that runs; whether that could be done. steady: by the core, if it can."""
    place = _loop_reads(steady is not None)
    return place is not None and guarded(read, place.begin, steady, read, waiter, make_engine) is not None


async def result_of(steady: "SteadyReads | None", read: RangeRead, make_engine: MakeEngine) -> Any:
    """The result of a plain read; None if it could not be begun."""
    place = _loop_reads(steady is not None)
    if place is None:
        return None
    waiter = place.binding.waiter(None)
    awaited = guarded(read, place.begin, steady, read, waiter, make_engine)
    if awaited is None:
        return None
    try:
        return await place.binding.wait(waiter)
    except Error:
        raise
    except BaseException:  # cancelled
        awaited.cancel()
        raise
