"""Code that is written once, as a coroutine, and serves the sync and the async face alike.

What it awaits is either an awaitable of the event loop, or, where it serves a sync call, one that is done already.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from _uring.loops import bind, current_key

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Ready(Generic[_T_co]):
    """An awaitable whose result is there; awaiting it takes no turn of a loop, and needs none."""

    __slots__ = ("_value",)

    def __init__(self, value: _T_co) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, _T_co]:
        return self._value
        yield  # makes this a generator


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


async def checkpoint() -> None:
    """Let every other ready task of the loop that runs have a turn."""
    await bind(current_key()).checkpoint()


async def pause(seconds: float) -> None:
    """Let `seconds` pass, on the loop that runs."""
    if "trio" in sys.modules:
        import trio

        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            await trio.sleep(seconds)
            return
    import asyncio

    await asyncio.sleep(seconds)
