"""Lanes that an event loop watches also between reads, so that a read awaited costs no more than its request.

To watch a connection anew for each read would cost as much as the read. All lanes of a loop are watched by one epoll,
and the loop watches that: one callback serves what has come on all of them, and uvloop, asyncio and trio are alike.

The loop holds a Standing by its watch, and nothing else does: with the loop it ends, and its connections go back to the
pool. A lane that nothing was asked of for a second goes back before.
"""

import select
import threading
import time
from collections.abc import Callable
from typing import Any

from _uring.loops import bind, current_key
from _uring.waiters import Waiter
from rangeio.errors import Error
from rangeio.http.address import Origin
from rangeio.http.drivers import LoopDriver
from rangeio.http.failures import as_error, defect
from rangeio.http.lanes import Lane, plain_for
from rangeio.http.pool import Pool
from rangeio.http.reads import Read
from rangeio.http.run import Run
from rangeio.http.wire import Wire
from rangeio.policy import RETRIES

_IDLE_S = 1.0
POSSIBLE = hasattr(select, "epoll")

MakeRun = Callable[..., Run]
"""A Run of the same options: given driver, landed and wanted."""


class Errand:
    """One read on its way, and who waits for it. run: the engine's, once the read has strayed."""

    __slots__ = ("began", "make_run", "read", "run", "waiter")

    def __init__(self, read: Read, waiter: Waiter, make_run: MakeRun) -> None:
        self.read = read
        self.waiter = waiter
        self.make_run = make_run
        self.began = time.monotonic()
        self.run: Run | None = None

    def landed(self, _: int, result: Any) -> None:
        """It is over."""
        run, self.run = self.run, None
        if run is not None:
            run.cancel()
        if self.waiter.done():
            return
        if isinstance(result, BaseException):
            self.waiter.set_exception(result)
        else:
            self.waiter.set_result(result)


class Standing:
    """The lanes of one loop, in the loop's own thread. Made by `standing`."""

    def __init__(self, pool: Pool, key: Any) -> None:
        self._pool = pool
        self.key = key
        self.binding: Any = bind(key)
        self._lanes: dict[int, Lane] = {}
        self._errands: dict[Lane, Errand] = {}
        self._idle: dict[Origin, list[Lane]] = {}
        self._epoll = select.epoll()
        self._lock = threading.RLock()
        self.ended = self._watched = False
        self._due = float("inf")  # when the next look at the clock is

    # --- reads -----------------------------------------------------------------------------------------------

    def begin(self, read: Read, waiter: Waiter, make_run: MakeRun) -> Errand | None:
        """Send for a read that has a `plain_for`, of which `waiter` hears; None if no connection is idle."""
        lane = self._lane(read.remote.target.origin)
        if lane is None:
            return None
        errand = self._errands[lane] = Errand(read, waiter, make_run)
        try:
            lane.begin(read, read.start, read.stop)
        except Exception as error:
            self._failed(lane, errand, error)
        if errand.began + read.tick_s < self._due:
            self._tick_in(read.tick_s)
        return errand

    def leave(self, errand: Errand) -> None:
        """Nobody waits for it any more."""
        lane = next((lane for lane, other in self._errands.items() if other is errand), None)
        if lane is not None:
            self._drop(lane)
        elif errand.run is not None:
            errand.run.cancel()

    def _lane(self, origin: Origin) -> Lane | None:
        idle = self._idle.get(origin)
        while idle:
            lane = idle.pop()
            if lane.wire.is_quiet():
                return lane
            self._drop(lane)
        wire = self._pool.take(origin)
        if wire is None:
            return None
        if not self._watched:
            self._watched = True
            self.binding.watch(self._epoll.fileno(), _Watch(self))
        lane = self._lanes[wire.fd] = Lane(self, wire)
        self._epoll.register(wire.fd, select.EPOLLIN)
        return lane

    def ready(self) -> None:
        """Something has come on some lanes."""
        if self.ended:
            return  # trio had scheduled this call before the watch ended
        for fd, _ in self._epoll.poll(0):
            lane = self._lanes.get(fd)
            if lane is None:
                continue
            errand = self._errands.get(lane)
            if errand is not None:
                try:
                    lane.readable()
                except Exception as error:
                    self._failed(lane, errand, error)
            else:  # the server ends it, or sends what nobody asked for
                try:
                    self._idle[lane.wire.origin].remove(lane)
                except ValueError:  # another thread has just taken it
                    continue
                self._drop(lane)

    def _failed(self, lane: Lane, errand: Errand, error: Exception) -> None:
        """An exception that nobody expects ends its read, and no other; see `Run._guarded`."""
        if self._lanes.get(lane.wire.fd) is lane:
            self._drop(lane)
        made = error if isinstance(error, MemoryError) else as_error(errand.read, defect(error), 1)
        errand.read.let_go()
        errand.landed(0, made)

    def arrived(self, lane: Lane) -> None:
        """See `lanes.Way`."""
        errand = self._errands.pop(lane)
        lane.read = None
        RETRIES.succeeded(lane.wire.origin)
        if self._pool.is_short(lane.wire.origin):
            self._pool.give_back(self._release(lane))
        else:
            self._idle.setdefault(lane.wire.origin, []).append(lane)
        try:
            result = errand.read.result()
        except Exception as error:  # of the read, not of the connection
            result = error if isinstance(error, MemoryError) else as_error(errand.read, defect(error), 1)
        errand.landed(0, result)

    def strayed(self, lane: Lane, error: BaseException | None) -> None:
        """See `lanes.Way`."""
        errand = self._errands[lane]
        self._release(lane)
        if errand.waiter.done():
            self._pool.drop(lane.wire)
            return
        driver = LoopDriver(self.key)
        run = errand.run = errand.make_run(driver, errand.landed, wanted=lambda: not errand.waiter.done())
        run.take_over(errand.read, lane, error, errand.began)

    def _release(self, lane: Lane) -> Wire:
        """Its connection is somebody else's now."""
        self._errands.pop(lane, None)
        # Another thread takes idle connections back while the loop's own thread may end: an epoll is not to be closed
        # amid epoll_ctl(2). A collection of the loop may close a socket first, and then its number is somebody else's.
        with self._lock:
            if (
                self._lanes.pop(lane.wire.fd, None) is not None
                and not self._epoll.closed
                and lane.wire.is_open
            ):
                self._epoll.unregister(lane.wire.fd)
        return lane.wire

    def _drop(self, lane: Lane) -> None:
        self._pool.drop(self._release(lane))
        lane.let_go()

    # --- time ------------------------------------------------------------------------------------------------

    def _tick_in(self, seconds: float) -> None:
        self._due = due = time.monotonic() + seconds
        LoopDriver(self.key).later(seconds, lambda: self._tick(due))

    def _tick(self, due: float) -> None:
        if due != self._due:
            return  # another one takes its place
        self._due, now = float("inf"), time.monotonic()
        for lane, errand in list(self._errands.items()):
            if errand.waiter.done():
                self._drop(lane)
            elif lane.is_late(now, errand.began):
                try:
                    self.strayed(lane, None)
                except Exception as error:
                    self._failed(lane, errand, error)
        self._give_back(now - _IDLE_S)
        if self._lanes:
            ticks = [errand.read.tick_s for errand in self._errands.values()]
            self._tick_in(min(ticks, default=_IDLE_S))
        else:
            self._unwatch()

    def _unwatch(self) -> None:
        """For good: a loop that is amid calling its _Watch back lets go of it only when another watch has begun."""
        if self._watched and not self.ended:
            self.binding.unwatch(self._epoll.fileno())
            self.end()

    # --- ends ------------------------------------------------------------------------------------------------

    def give_back_idle(self) -> None:
        """Nobody reads any more, or another thread needs a connection. From any thread."""
        self._give_back()
        if not self._lanes and self._is_here():
            self._unwatch()

    def _give_back(self, since: float = float("inf")) -> None:
        """Those that have been idle since then, or for longer."""
        for idle in list(self._idle.values()):
            for lane in [lane for lane in idle if lane.since <= since]:
                try:
                    idle.remove(lane)
                except ValueError:  # another thread, or a read, was faster
                    continue
                self._pool.give_back(self._release(lane))

    def forget(self) -> None:
        """In a forked child: the connections, and what is watched, are the parent's."""
        self._lanes, self._errands, self._idle = {}, {}, {}
        self._lock = threading.RLock()

    def _is_here(self) -> bool:
        try:
            return current_key() is self.key
        except RuntimeError:
            return False

    def end(self) -> None:
        """The loop watches no longer: it has gone, or there is nothing to watch. A second call does nothing."""
        if self.ended:
            return
        self.ended = True
        for lane in list(self._errands):
            self._drop(lane)
        self._give_back()
        with self._lock:
            self._epoll.close()


class _Watch:
    """What a loop calls back, and lets go of when it ends: nothing else holds it."""

    __slots__ = ("_standing",)

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def __call__(self) -> None:
        self._standing.ready()

    def __del__(self) -> None:
        self._standing.end()


def _standing(pool: Pool, key: Any) -> Standing | None:
    """That of a running loop, made anew if the loop holds none; None if no descriptor is left for one."""
    found = pool.standings.get(id(key))
    if not isinstance(found, Standing) or found.ended or found.key is not key:
        try:
            pool.standings[id(key)] = found = Standing(pool, key)
        except OSError:
            return None
    return found


def begin(read: Read, pool: Pool, most: int, waiter: Waiter, make_run: MakeRun) -> bool:
    """Begin a read of at most so many bytes on the loop that runs; whether that could be done."""
    if not POSSIBLE or plain_for(read, most) is None:
        return False
    place = _standing(pool, current_key())
    return place is not None and place.begin(read, waiter, make_run) is not None


async def awaited(read: Read, pool: Pool, most: int, make_run: MakeRun) -> Any:
    """The result of a read of at most so many bytes; None if another way has to be gone."""
    if not POSSIBLE or plain_for(read, most) is None:
        return None
    place = _standing(pool, current_key())
    if place is None:
        return None
    waiter = place.binding.waiter(None)
    errand = place.begin(read, waiter, make_run)
    if errand is None:
        return None
    try:
        return await place.binding.wait(waiter)
    except Error:
        raise
    except BaseException:  # cancelled
        place.leave(errand)
        raise
