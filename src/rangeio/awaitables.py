"""Code that is written once, as a coroutine, and serves the sync and the async face alike.

What it awaits is either an awaitable of the event loop, or, where it serves a sync call, one that is done already.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from _uring import ready, refused, yield_if_due
from _uring.event_loops import bind, current_key

_T = TypeVar("_T")
_P = ParamSpec("_P")


def at_once(call: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> Awaitable[_T]:
    """What a call that does not wait comes to, as something to be awaited; an Error, too, comes by the await.

    It takes part in what a loop may be held for (`_uring.ready`), as everything awaited must that may be there at once.
    """
    try:
        value = call(*args, **options)
    except Exception as error:
        return refused(error)
    nbytes = sum(map(len, value)) if isinstance(value, list) else getattr(value, "nbytes", 0)
    return ready(value, nbytes)


def by_await(call: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
    """Have an Error that the call of an async method raises come by the await. Those of arguments are no Errors."""

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
    """The result of a coroutine all of whose awaitables are done. TypeError if it has to wait for one after all.

    It is made here and begun at once: no signal handler runs in between, to raise and leave it unawaited.
    """
    coroutine = make()
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    coroutine.close()
    raise TypeError("this writer or consumer has to be awaited: read with rangeio.open_async()")


async def settle(result: object) -> Any:
    """What a call that may be sync or async came to."""
    return await result if isinstance(result, Awaitable) else result


class InTurns(AtOnce[_T]):
    """The same for a loop that others use, too."""

    __slots__ = ()

    async def __anext__(self) -> _T:
        await yield_if_due()
        return await super().__anext__()


async def checkpoint() -> None:
    """Let every other ready task of the loop that runs have a turn."""
    await bind(current_key()).checkpoint()


async def pause(seconds: float) -> None:
    """Let `seconds` pass, on the loop that runs."""
    await bind(current_key()).sleep(seconds)
