"""What a read needs of the event loop it runs under: three verbs, for asyncio (uvloop included) and for trio.

A waiter is made by `waiter()` and awaited by `wait(waiter)`; one of its `set_result` and `set_exception` is
called, from the loop's own thread, unless it is `done()`: cancelled, that is. The `cancelled` callback, if there is
one, hears of that.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Waiter(Protocol):
    """One task that waits for one result. An asyncio.Future is one."""

    def done(self) -> bool: ...
    def set_result(self, value: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class Binding(Protocol):
    """One running loop. Equal bindings are the same loop."""

    def waiter(self, cancelled: Callable[[], None] | None) -> Waiter: ...
    def call_soon(self, callback: Callable[[], None]) -> None: ...
    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> None: ...
    def watch(self, fd: int, callback: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        """Call back whenever `fd` is readable, until the loop is closed or `unwatch`; `lost`, where the loop finds that
        it cannot.
        """

    def unwatch(self, fd: int) -> None: ...
    def is_closed(self) -> bool: ...
    def checkpoint(self) -> Awaitable[None]:
        """Let every other ready task run once."""


class _Turn:
    """An awaitable that gives the asyncio loop one turn: a bare yield, as asyncio.sleep(0) makes."""

    def __await__(self) -> Any:
        yield


class AsyncioBinding:
    """asyncio and what behaves like it."""

    __slots__ = ("loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def waiter(self, cancelled: Callable[[], None] | None) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self.loop.create_future()
        if cancelled is not None:
            future.add_done_callback(lambda done: cancelled() if done.cancelled() else None)
        return future

    def wait(self, waiter: "asyncio.Future[Any]") -> Awaitable[Any]:
        return waiter

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        self.loop.call_soon_threadsafe(callback, *args)

    def watch(self, fd: int, callback: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        self.loop.add_reader(fd, callback)

    def unwatch(self, fd: int) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(fd)

    def is_closed(self) -> bool:
        return self.loop.is_closed()

    def checkpoint(self) -> Awaitable[None]:
        return _Turn()


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
            return self.outcome.unwrap()

        def abort(_: Any) -> Any:
            self.task = None
            self.gone = True
            if self.cancelled is not None:
                self.cancelled()
            return trio.lowlevel.Abort.SUCCEEDED

        self.task = trio.lowlevel.current_task()
        return await trio.lowlevel.wait_task_rescheduled(abort)

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

        self.outcome = result
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, result)
            self.task = None


class TrioBinding:
    """One `trio.run`."""

    __slots__ = ("closed", "scopes", "token")

    def __init__(self, token: Any) -> None:
        self.token = token
        self.closed = False
        self.scopes: dict[int, Any] = {}

    def waiter(self, cancelled: Callable[[], None] | None) -> _TrioWaiter:
        return _TrioWaiter(cancelled)

    def wait(self, waiter: _TrioWaiter) -> Awaitable[Any]:
        return waiter.wait()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.token.run_sync_soon(callback)

    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        self.token.run_sync_soon(callback, *args)

    def watch(self, fd: int, callback: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        import trio

        scope = self.scopes[fd] = trio.CancelScope()

        async def watcher() -> None:
            watched = True
            try:
                with scope:
                    while watched := await self._readable(fd):
                        callback()
            finally:
                # System tasks are cancelled when the main task has ended: the loop is going away.
                self.closed = self.closed or (watched and not scope.cancelled_caught)
            if not watched and lost is not None:
                lost()

        trio.lowlevel.spawn_system_task(watcher, name="rangeio completions")

    async def _readable(self, fd: int) -> bool:
        """Wait for it; False where it cannot be waited for: somebody closed the descriptor."""
        import trio

        try:
            await trio.lowlevel.wait_readable(fd)
        except OSError:
            return False
        return True

    def unwatch(self, fd: int) -> None:
        scope = self.scopes.pop(fd, None)
        if scope is not None and not self.closed:
            scope.cancel()

    def is_closed(self) -> bool:
        return self.closed

    async def checkpoint(self) -> None:
        import trio

        await trio.lowlevel.checkpoint()


def current_key() -> Any:
    """The running loop, as something to look its binding up by. RuntimeError outside of one."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        return loop
    if "trio" in sys.modules:
        import trio

        try:
            return trio.lowlevel.current_trio_token()
        except RuntimeError:
            pass
    raise RuntimeError(
        "no event loop is running: await this under asyncio.run() or trio.run(), or use the sync Reader"
    )


def bind(key: Any) -> Binding:
    """The binding of what `current_key` gave."""
    return AsyncioBinding(key) if hasattr(key, "call_soon") else TrioBinding(key)


async def after_checkpoint(value: Any) -> Any:
    """`value`, after a turn of the loop that runs now, if one does."""
    try:
        binding = bind(current_key())
    except RuntimeError:
        return value
    await binding.checkpoint()
    return value
