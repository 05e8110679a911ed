"""Waiters: what a task waits for, and how it is resolved. The interface of a loop; `event_loops` implements it."""

import sys
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, Protocol, TypeAlias

from _uring.errors import as_failure

Failed: TypeAlias = Callable[[BaseException], None]


class Waiter(Protocol):
    """One task that waits for one result. An asyncio.Future is a Waiter."""

    def done(self) -> bool: ...
    def set_result(self, value: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


Wait: TypeAlias = tuple[Waiter, str, int | None, int | None]
"""A waiter, and the path, offset and limit of its read."""


class Binding(Protocol):
    """One running loop. An exception of a callback goes to `failed` instead of the loop."""

    def waiter(self, cancelled: Callable[[], None] | None, failed: Failed | None = None) -> Waiter: ...
    def holding(self, cancelled: Callable[[], None], failed: Failed | None = None) -> Waiter: ...
    def call_soon(self, callback: Callable[[], None], failed: Failed | None = None) -> None: ...
    def call_soon_threadsafe(
        self, callback: Callable[..., None], *args: Any, failed: Failed | None = None
    ) -> None: ...
    def watch(
        self,
        fd: int,
        callback: Callable[[], None],
        lost: Callable[[], None] | None = None,
        failed: Failed | None = None,
        gone: Callable[[], object] | None = None,
    ) -> None:
        """Call `callback` whenever `fd` is readable, until the loop is closed or `unwatch`. Call `lost` if the loop can
        no longer watch it. After `unwatch` neither is called, even if the loop has already queued the call. gone:
        called when the loop drops all of these, as it does when it ends; also after `unwatch`. Nothing else holds them.
        """

    def unwatch(self, fd: int) -> None: ...
    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call back once."""

    def is_closed(self) -> bool: ...
    def checkpoint(self) -> Awaitable[None]:
        """Let every other ready task run once."""

    def sleep(self, seconds: float) -> Awaitable[None]: ...


class Guarded:
    """Wraps a callback for a loop: its exceptions go to `failed`, and `end` disables it."""

    __slots__ = ("__weakref__", "_callback", "_failed")

    def __init__(self, callback: Callable[..., object], failed: Failed | None) -> None:
        self._callback: Callable[..., object] | None = callback
        self._failed = failed

    def __call__(self, *args: Any) -> None:
        if self._callback is None:
            return
        try:
            self._callback(*args)
        except BaseException as error:
            if self._failed is None:
                raise
            self._failed(error)

    def end(self) -> None:
        """Disable the callback. A call that the loop has already queued then does nothing."""
        self._callback = None


class Watched(Guarded):
    """One that a loop has for as long as it watches."""

    __slots__ = ("_gone",)

    def __init__(
        self,
        callback: Callable[..., object],
        failed: Failed | None,
        gone: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(callback, failed)
        self._gone = gone

    def __del__(self) -> None:
        if self._gone is not None:
            self._gone()


def tell(waiter: Waiter, value: Any = None, error: BaseException | None = None) -> None:
    """Resolve a waiter with a value or an error, if it is still pending."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(value)
    else:
        waiter.set_exception(error)


def tell_failure(waits: Iterable[Wait], error: BaseException) -> None:
    """Fail all pending waiters with `error`, converted to the error tree.

    KeyboardInterrupt and the like are for the program, not for a read: the first pending waiter raises it. If none is
    pending, this function raises it. If a waiter itself raises, sys.excepthook reports it.
    """
    interruption = None if isinstance(error, Exception) else error
    for waiter, path, offset, limit in waits:
        if waiter.done():
            continue
        try:
            waiter.set_exception(interruption or as_failure(error, path, offset, limit))
            interruption = None
        except Exception as broken:
            sys.excepthook(type(broken), broken, broken.__traceback__)
    if interruption is not None:
        raise interruption


class Later:
    """An awaitable of a value or an error, after another awaitable has completed."""

    __slots__ = ("_before", "_error", "_value")

    def __init__(self, before: Awaitable[Any], value: Any = None, error: BaseException | None = None) -> None:
        self._before, self._value, self._error = before, value, error

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._before.__await__()
        if self._error is None:
            return self._value
        error, self._error = self._error, None
        try:
            raise error
        finally:  # its traceback references this frame: break the cycle
            del error
