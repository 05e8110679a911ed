"""What a read needs of the event loop it runs under, for asyncio (uvloop included) and for trio.

`current_key` alone decides which loop that is. A waiter is made by `waiter()` and awaited by `wait(waiter)`; one of its
`set_result` and `set_exception` is called, from the loop's own thread, unless it is `done()`: cancelled, that is. The
`cancelled` callback, if there is one, hears of that.

A waiter made by `holding()` keeps its task when that is cancelled, until it is told a result: then the cancellation is
what the task sees. So it is with memory of the caller's that somebody still writes to.

No callback may raise into a loop: asyncio and uvloop would log it and go on, trio would end the whole run, and the task
that waits for the read would wait for ever. Whoever hands a callback over gives a `failed` with it, which is told.
"""

import asyncio
import errno
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Generator
from types import FrameType
from typing import Any

from _uring.waiters import Binding, Failed, Guarded, Later


class _Turn:
    """An awaitable that gives the asyncio loop one turn: a bare yield, as asyncio.sleep(0) makes."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


class _Holding(asyncio.Future[Any]):
    """A future that is cancelled when it is told a result, if that was asked for before. Until then it says yes to
    whoever cancels, as a task does that ends later.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cancelled: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self._heard: Callable[[], None] | None = cancelled
        self._message: tuple[Any, ...] | None = None

    def cancel(self, *message: Any, **named: Any) -> bool:
        """msg: see asyncio.Future; the first one is kept."""
        if self.done():
            return False
        if self._message is None:
            self._message = message or tuple(named.values())
            heard, self._heard = self._heard, None
            assert heard is not None
            heard()
        return True

    def set_result(self, value: Any, /) -> None:
        self._heard = None  # and with it what the read has held
        if self._message is None:
            super().set_result(value)
        else:
            super().cancel(*self._message)

    def set_exception(self, error: Any, /) -> None:
        """An interruption is told in any case: it is for the program, not for this task."""
        self._heard = None
        if self._message is None or not isinstance(error, Exception):
            super().set_exception(error)
        else:
            super().cancel(*self._message)


class AsyncioBinding:
    """asyncio and what behaves like it."""

    __slots__ = ("_watched", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watched: dict[int, weakref.ref[Guarded]] = {}  # held by the loop alone, and let go with it

    def waiter(
        self, cancelled: Callable[[], None] | None, failed: Failed | None = None
    ) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self.loop.create_future()
        if cancelled is not None:
            guarded = Guarded(cancelled, failed)
            future.add_done_callback(lambda done: guarded() if done.cancelled() else None)
        return future

    def holding(self, cancelled: Callable[[], None], failed: Failed | None = None) -> "asyncio.Future[Any]":
        return _Holding(self.loop, Guarded(cancelled, failed))

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
    ) -> None:
        guarded = Guarded(callback, failed)
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

    def is_closed(self) -> bool:
        return self.loop.is_closed()

    def checkpoint(self) -> Awaitable[None]:
        return _Turn()

    def sleep(self, seconds: float) -> Awaitable[None]:
        return asyncio.sleep(seconds)


class _TrioWaiter:
    """A parked trio task. The result may come before the task parks, and after it was cancelled."""

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
        """The result, or its error raised."""
        try:
            return self.outcome.unwrap()
        finally:
            self.forget()

    def forget(self) -> None:
        """Nobody waits any more. The traceback of an error holds the frame that waited: let this not hold the error."""
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
        self.outcome = result  # last: who could not be woken is not done, and is told what came in between


class _TrioHolding(_TrioWaiter):
    """See `holding`. Cancelled, it is done when it is told a result."""

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

        self.cancelled = None  # and with it what the read has held
        if self.aborting:
            # Nothing was under way: the cancellation goes its usual way. Raised here, it held these frames in a circle.
            self.outcome, self.task = outcome.Value(None), None
            return
        told = getattr(result, "error", None)
        # An interruption is told in any case: it is for the program, not for this task.
        if self.raise_cancel is not None and (told is None or isinstance(told, Exception)):
            result = outcome.capture(self.raise_cancel)
        super()._settle(result)


class TrioBinding:
    """One `trio.run`, or one run of trio as the guest of another loop."""

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
    ) -> None:
        import trio

        scope = self._scopes[fd] = trio.CancelScope()
        guarded = Guarded(callback, failed)
        at_loss = Guarded(_raise_lost if lost is None else lost, failed)

        async def watcher() -> None:
            try:
                with scope:
                    # A task that is woken already is not cancelled before its next wait. So look each time: `fd` may be
                    # closed by now, or be another's.
                    while not scope.cancel_called:
                        readable = await _readable(fd)
                        if not scope.cancel_called:
                            guarded() if readable else at_loss()
                        if not readable:
                            return
            except trio.Cancelled:  # as system tasks are when the main task has ended: the loop is going away
                self.closed = True
                raise

        trio.lowlevel.spawn_system_task(watcher, name="rangeio completions")

    def unwatch(self, fd: int) -> None:
        scope = self._scopes.pop(fd, None)
        if scope is not None and not self.closed:
            scope.cancel()

    def is_closed(self) -> bool:
        if not self.closed:
            try:
                self.token.run_sync_soon(_nothing, idempotent=True)
            except RuntimeError:  # trio.RunFinishedError; no watch was left to tell
                self.closed = True
        return self.closed

    async def checkpoint(self) -> None:
        import trio

        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)


async def _readable(fd: int) -> bool:
    """Wait for it under trio; False where it cannot be waited for: somebody closed the descriptor, and another may have
    its number.
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
    raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: somebody closed a descriptor of rangeio's")


def current_key() -> Any:
    """The loop that runs this code, as something to look its binding up by. RuntimeError outside of one.

    A thread may run several: trio as the guest of asyncio, trio-asyncio, a `trio.run` within an asyncio task, an
    `asyncio.run` within a trio task. The innermost has to be awaited. (sniffio tells the same, but for the last.)
    """
    loop = asyncio._get_running_loop()
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


def _in_trio_task(trio: Any) -> bool:
    """Not whether trio runs at all: of a guest that is true while its host runs other tasks, too."""
    if hasattr(trio, "in_trio_task"):  # newer versions; asking costs half as much as an exception
        return bool(trio.in_trio_task())
    try:
        trio.current_task()
    except RuntimeError:
        return False
    return True


def _asyncio_is_inside(loop: asyncio.AbstractEventLoop, frame: FrameType | None) -> bool:
    """Where a trio task and an asyncio loop run in this thread: whether the loop runs in the task, not the task in the
    loop. Whose frame is the nearest tells; uvloop has none of its own, but its tasks have.
    """
    task = asyncio.current_task(loop)
    outermost = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "asyncio" or frame is outermost:
            return True
        if package == "trio":
            return False
        frame = frame.f_back
    return False


def bind(key: Any) -> Binding:
    """The binding of what `current_key` gave."""
    return AsyncioBinding(key) if hasattr(key, "call_soon") else TrioBinding(key)


def after_checkpoint(value: Any) -> Awaitable[Any]:
    """`value`, after a turn of the loop that runs now, if one does."""
    return Later(_Checkpoint(), value)


class _Checkpoint:
    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            binding = bind(current_key())
        except RuntimeError:
            return
        yield from binding.checkpoint().__await__()
