"""Coroutines that are shared by the sync and the async interface, and awaitables that are already done.

A shared coroutine awaits awaitables of the event loop, or, in a sync call, awaitables that are already done.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from _uring import ready, refused, yield_if_due
from _uring.event_loops import bind, current_key

_T = TypeVar("_T")
_P = ParamSpec("_P")


def at_once(call: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> Awaitable[_T]:
    """The result of a call that does not wait, as an awaitable. The await raises its exception.

    It counts towards the time for which a task may block the loop (`_uring.ready`), like every awaitable that may
    complete at once.
    """
    try:
        value = call(*args, **options)
    except Exception as error:
        return refused(error)
    return ready(value, _nbytes(value))


def _nbytes(value: object) -> int:
    """The bytes that a result is or, as a number, says."""
    if isinstance(value, list):
        return sum(map(_nbytes, value))
    nbytes: int = value if isinstance(value, int) else getattr(value, "nbytes", 0)
    return nbytes


def by_await(call: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
    """Decorator: the await, not the call, raises the exceptions of an async method."""

    @wraps(call)
    def called(*args: _P.args, **options: _P.kwargs) -> Awaitable[_T]:
        try:
            return call(*args, **options)
        except Exception as error:
            return refused(error)

    return called


class AtOnce(AsyncIterator[_T]):
    """A sync iterable as an async iterator that never waits."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[_T]) -> None:
        self._items: Iterator[_T] = iter(items)

    async def __anext__(self) -> _T:
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


def run_now(make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """The result of a coroutine whose awaitables are all done. TypeError if it has to wait.

    Creates and starts the coroutine here, so that no signal handler can raise in between and leave it unawaited.
    """
    coroutine = make()
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    coroutine.close()
    raise TypeError("this writer or consumer must be awaited: read with rangeio.open_async()")


async def settle(result: object) -> Any:
    """The result of a call that may be sync or async."""
    return await result if isinstance(result, Awaitable) else result


class InTurns(AtOnce[_T]):
    """Like `AtOnce`, but yields to other tasks of the loop now and then."""

    __slots__ = ()

    async def __anext__(self) -> _T:
        await yield_if_due()
        return await super().__anext__()


async def checkpoint() -> None:
    """Let every other ready task of the running event loop run once."""
    await bind(current_key()).checkpoint()


async def pause(seconds: float) -> None:
    """Sleep for `seconds` on the running event loop."""
    await bind(current_key()).sleep(seconds)
