"""The operations that reads need from an event loop, for asyncio (including uvloop) and for trio.

Only `current_key` decides which loop is running. `waiter()` makes a waiter, and `wait(waiter)` awaits it. The loop's
own thread calls its `set_result` or `set_exception` once, unless the waiter is `done()`, that is, cancelled. On
cancellation the `cancelled` callback, if any, is called.

A waiter made by `holding()` delays a cancellation until it is resolved; then the task is cancelled. This is for reads
into the caller's memory, which the kernel or a worker may still write to.

No callback may raise into a loop: asyncio and uvloop would log the exception and continue, trio would end the whole
run, and the task that waits for the read would wait for ever. So each callback has a `failed` function, which gets the
exception.
"""

import errno
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any

from _uring.waiters import Binding, Failed, Guarded, Later, Watched

if TYPE_CHECKING:
    import asyncio


class _Turn:
    """An awaitable that yields to the asyncio loop once: a bare yield, as in asyncio.sleep(0)."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


class AsyncioBinding:
    """asyncio and compatible loops."""

    __slots__ = ("_watched", "loop")

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        self.loop = loop
        self._watched: dict[int, weakref.ref[Guarded]] = {}  # only the loop references them: freed with it

    def waiter(
        self, cancelled: Callable[[], None] | None, failed: Failed | None = None
    ) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self.loop.create_future()
        if cancelled is not None:
            guarded = Guarded(cancelled, failed)
            future.add_done_callback(lambda done: guarded() if done.cancelled() else None)
        return future

    def holding(self, cancelled: Callable[[], None], failed: Failed | None = None) -> "asyncio.Future[Any]":
        from _uring.holding import Holding

        return Holding(self.loop, Guarded(cancelled, failed))

    def wait(self, waiter: "asyncio.Future[Any]") -> Awaitable[Any]:
        return waiter

    def call_soon(self, callback: Callable[[], None], failed: Failed | None = None) -> None:
        self.loop.call_soon(Guarded(callback, failed))

    def call_soon_threadsafe(
        self, callback: Callable[..., None], *args: Any, failed: Failed | None = None
    ) -> None:
        self.loop.call_soon_threadsafe(Guarded(callback, failed), *args)

    def watch(
        self,
        fd: int,
        callback: Callable[[], None],
        lost: Callable[[], None] | None = None,
        failed: Failed | None = None,
        gone: Callable[[], object] | None = None,
    ) -> None:
        guarded = Watched(callback, failed, gone)
        self.loop.add_reader(fd, guarded)
        self._watched[fd] = weakref.ref(guarded)

    def unwatch(self, fd: int) -> None:
        watched = self._watched.pop(fd, None)
        if watched is None:
            return
        guarded = watched()
        if guarded is not None:
            guarded.end()
        if not self.loop.is_closed():
            self.loop.remove_reader(fd)

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.loop.call_later(seconds, callback)

    def is_closed(self) -> bool:
        return self.loop.is_closed()

    def checkpoint(self) -> Awaitable[None]:
        return _Turn()

    def sleep(self, seconds: float) -> Awaitable[None]:
        from asyncio import sleep

        return sleep(seconds)


class _TrioWaiter:
    """A suspended trio task. The result may arrive before the task suspends, and after it was cancelled."""

    __slots__ = ("cancelled", "gone", "outcome", "task")

    def __init__(self, cancelled: Callable[[], None] | None) -> None:
        self.cancelled = cancelled
        self.outcome: Any = None
        self.task: Any = None
        self.gone = False

    async def wait(self) -> Any:
        import trio

        if self.outcome is not None:
            await trio.lowlevel.checkpoint()
            return self.given()

        def abort(_: Any) -> Any:
            self.task = None
            self.gone = True
            if self.cancelled is not None:
                self.cancelled()
            return trio.lowlevel.Abort.SUCCEEDED

        self.task = trio.lowlevel.current_task()
        try:
            return await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self.forget()

    def given(self) -> Any:
        """Return the result or raise the error."""
        try:
            return self.outcome.unwrap()
        finally:
            self.forget()

    def forget(self) -> None:
        """Mark the wait as ended, and drop the outcome: the traceback of its error references the frame that waited."""
        self.gone = True
        self.outcome = None

    def done(self) -> bool:
        return self.gone or self.outcome is not None

    def set_result(self, value: Any) -> None:
        import outcome

        self._settle(outcome.Value(value))

    def set_exception(self, error: BaseException) -> None:
        import outcome

        self._settle(outcome.Error(error))

    def _settle(self, result: Any) -> None:
        import trio

        if self.task is not None:
            trio.lowlevel.reschedule(self.task, result)
            self.task = None
        self.outcome = result  # last: if rescheduling raises, the waiter is still pending


class _TrioHolding(_TrioWaiter):
    """See `holding`. If cancelled, it is done once it gets a result."""

    __slots__ = ("aborting", "raise_cancel")

    def __init__(self, cancelled: Callable[[], None]) -> None:
        super().__init__(cancelled)
        self.raise_cancel: Callable[[], Any] | None = None
        self.aborting = False

    async def wait(self) -> Any:
        import trio

        if self.outcome is not None:
            await trio.lowlevel.checkpoint()
            return self.given()

        def abort(raise_cancel: Any) -> Any:
            self.raise_cancel = raise_cancel
            self.aborting = True
            assert self.cancelled is not None
            self.cancelled()
            self.aborting = False
            return trio.lowlevel.Abort.FAILED if self.outcome is None else trio.lowlevel.Abort.SUCCEEDED

        self.task = trio.lowlevel.current_task()
        try:
            return await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self.forget()

    def _settle(self, result: Any) -> None:
        import outcome

        self.cancelled = None  # it references the read
        if self.aborting:
            # Nothing was in flight: trio raises the cancellation. Raised here, it would create a cycle with these
            # frames.
            self.outcome, self.task = outcome.Value(None), None
            return
        told = getattr(result, "error", None)
        # An interruption is always raised: it is for the program, not for this task.
        if self.raise_cancel is not None and (told is None or isinstance(told, Exception)):
            result = outcome.capture(self.raise_cancel)
        super()._settle(result)


class TrioBinding:
    """One `trio.run`, or one guest run of trio in another loop."""

    __slots__ = ("_scopes", "closed", "token")

    def __init__(self, token: Any) -> None:
        self.token = token
        self.closed = False
        self._scopes: dict[int, Any] = {}

    def waiter(self, cancelled: Callable[[], None] | None, failed: Failed | None = None) -> _TrioWaiter:
        return _TrioWaiter(None if cancelled is None else Guarded(cancelled, failed))

    def holding(self, cancelled: Callable[[], None], failed: Failed | None = None) -> _TrioHolding:
        return _TrioHolding(Guarded(cancelled, failed))

    def wait(self, waiter: _TrioWaiter) -> Awaitable[Any]:
        return waiter.wait()

    def call_soon(self, callback: Callable[[], None], failed: Failed | None = None) -> None:
        self.token.run_sync_soon(Guarded(callback, failed))

    def call_soon_threadsafe(
        self, callback: Callable[..., None], *args: Any, failed: Failed | None = None
    ) -> None:
        self.token.run_sync_soon(Guarded(callback, failed), *args)

    def watch(
        self,
        fd: int,
        callback: Callable[[], None],
        lost: Callable[[], None] | None = None,
        failed: Failed | None = None,
        gone: Callable[[], object] | None = None,
    ) -> None:
        import trio

        scope = self._scopes[fd] = trio.CancelScope()
        guarded = Watched(callback, failed, gone)
        at_loss = Guarded(_raise_lost if lost is None else lost, failed)

        async def watcher() -> None:
            try:
                with scope:
                    # A task that is already scheduled is not cancelled before its next wait. So check each time: `fd`
                    # may be closed or reused by now.
                    while not scope.cancel_called:
                        readable = await _readable(fd)
                        if not scope.cancel_called:
                            guarded() if readable else at_loss()
                        if not readable:
                            return
            except trio.Cancelled:  # the main task has ended: the loop is closing
                self.closed = True
                raise

        trio.lowlevel.spawn_system_task(watcher, name="rangeio completions")

    def unwatch(self, fd: int) -> None:
        scope = self._scopes.pop(fd, None)
        if scope is not None and not self.closed:
            scope.cancel()

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        import trio

        async def timer() -> None:
            await trio.sleep(seconds)
            callback()

        trio.lowlevel.spawn_system_task(timer, name="rangeio timer")

    def is_closed(self) -> bool:
        if not self.closed:
            try:
                self.token.run_sync_soon(_nothing, idempotent=True)
            except RuntimeError:  # trio.RunFinishedError; no watcher task was left to notice
                self.closed = True
        return self.closed

    async def checkpoint(self) -> None:
        import trio

        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)


async def _readable(fd: int) -> bool:
    """Wait under trio until `fd` is readable. False if trio cannot wait for it: the descriptor was closed, and its
    number may be reused.
    """
    import trio

    try:
        await trio.lowlevel.wait_readable(fd)
    except (OSError, trio.BusyResourceError, trio.ClosedResourceError):
        return False
    return True


def _nothing() -> None:
    pass


def _raise_lost() -> None:
    raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: other code closed a descriptor of rangeio")


def _loop_of_asyncio() -> Any:
    """Its running loop, or None. None runs before asyncio is imported, which takes as long as half of rangeio: so it
    is not imported to ask. Once it is there, its own function takes the place of this one.
    """
    global _running_loop
    found = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if found is None:
        return None
    _running_loop = found
    return found()


_running_loop: Callable[[], Any] = _loop_of_asyncio


def current_key() -> Any:
    """The running loop, as a key for its binding. RuntimeError if no loop is running.

    A thread may run several: trio as a guest of asyncio, trio-asyncio, a `trio.run` within an asyncio task, an
    `asyncio.run` within a trio task. The innermost is the right one. (sniffio agrees, except in the last case.)
    """
    loop = _running_loop()
    trio = getattr(sys.modules["trio"], "lowlevel", None) if "trio" in sys.modules else None
    if trio is not None and (
        loop is None or (_in_trio_task(trio) and not _asyncio_is_inside(loop, sys._getframe()))
    ):
        try:
            return trio.current_trio_token()
        except RuntimeError:
            pass
    if loop is not None:
        return loop
    raise RuntimeError(
        "no event loop is running in this thread: await this under asyncio.run() or trio.run(), or use the sync Reader"
    )


# Modules of the core with coroutines. They have no frames that can be seen here, and do not run loops.
_WITHOUT_FRAMES = ("_uring.file", "_uring.transfers")


def _in_trio_task(trio: Any) -> bool:
    """Whether a trio task is running now. A guest run of trio also exists while its host loop runs other tasks."""
    if hasattr(trio, "in_trio_task"):  # newer versions; costs half as much as an exception
        return bool(trio.in_trio_task())
    try:
        trio.current_task()
    except RuntimeError:
        return False
    return True


def _asyncio_is_inside(loop: "asyncio.AbstractEventLoop", frame: FrameType | None) -> bool:
    """If a trio task and an asyncio loop run in this thread: whether the loop runs in the task, not the task in the
    loop. The nearest frame of either decides. uvloop has no Python frames of its own, but its tasks have.
    """
    from asyncio import current_task

    task = current_task(loop)
    coroutine: Any = None if task is None else task.get_coro()
    if getattr(coroutine, "__module__", None) in _WITHOUT_FRAMES:
        return True
    outermost = getattr(coroutine, "cr_frame", None)
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "asyncio" or frame is outermost:
            return True
        if package == "trio":
            return False
        frame = frame.f_back
    return False


def bind(key: Any) -> Binding:
    """The binding for the result of `current_key`."""
    return AsyncioBinding(key) if hasattr(key, "call_soon") else TrioBinding(key)


def after_checkpoint(value: Any) -> Awaitable[Any]:
    """An awaitable of `value`, after one iteration of the running loop, if there is one."""
    return Later(_Checkpoint(), value)


class _Checkpoint:
    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            binding = bind(current_key())
        except RuntimeError:
            return
        yield from binding.checkpoint().__await__()
