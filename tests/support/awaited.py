"""An AsyncReader as a Reader: each call is made and awaited on an event loop, so the sync contract holds for it too.

Arguments must be refused by the call, not when it is awaited; that is checked here, for every call of every test.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import pytest

import rangeio
from rangeio.awaitables import pause

LOOPS = ("asyncio", "uvloop", "trio")
_open_loops: "weakref.WeakValueDictionary[int, Loop]" = weakref.WeakValueDictionary()


class Loop:
    """Runs async functions, one after the other. asyncio and uvloop use one loop for all; trio, one for each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop: Any = None
        if name == "asyncio":
            self._loop = asyncio.new_event_loop()
        elif name == "uvloop":
            import uvloop

            self._loop = uvloop.new_event_loop()

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        """`await main()`."""
        if self._loop is None:
            import trio

            return trio.run(main)
        return self._loop.run_until_complete(main())

    def tasks(self) -> "set[asyncio.Task[Any]]":
        """The tasks that would continue in the next run; trio itself waits for the tasks of a run."""
        return set() if self._loop is None else asyncio.all_tasks(self._loop)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """The same object: pickled and unpickled in one process."""
        _open_loops[id(self)] = self
        return _loop_of, (id(self),)


def run_on(name: str, main: Callable[[], Awaitable[Any]]) -> Any:
    """`await main()` on a new loop."""
    loop = Loop(name)
    try:
        return loop.run(main)
    finally:
        loop.close()


async def cancel_when(name: str, met: Callable[[], bool], read: Awaitable[Any]) -> None:
    """Start awaiting it, cancel it once `met()`, and check that it ends cancelled."""
    if name == "trio":
        import trio

        async with trio.open_nursery() as nursery:

            async def body() -> None:
                await read
                raise AssertionError("it was not cancelled")

            nursery.start_soon(body)
            while not met():
                await pause(0.001)
            nursery.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(read)
    while not met():
        await pause(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _loop_of(key: int) -> Loop:
    return _open_loops[key]


class Awaited:
    """The interface of a Reader, implemented with an AsyncReader."""

    def __init__(self, reader: rangeio.AsyncReader, loop: Loop) -> None:
        self.reader, self.loop = reader, loop

    def _run(self, name: str, *args: Any, **options: Any) -> Any:
        async def main() -> Any:
            awaitable = getattr(self.reader, name)(*args, **options)
            try:
                return await awaitable
            except rangeio.Error:
                raise
            except (TypeError, ValueError, OverflowError) as error:
                raise RuntimeError("an argument was refused by the await, not by the call") from error

        return self.loop.run(main)

    def __getattr__(self, name: str) -> Any:
        if name in ("size", "path", "closed", "close", "capability", "stats", "prefetch"):
            return getattr(self.reader, name)
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **options: self._run(name, *args, **options)

    def iter_ranges(self, ranges: Any, **options: Any) -> Iterator[Any]:
        iteration = self.reader.iter_ranges(ranges, **options)
        if self.reader.closed:
            self.loop.run(iteration.__anext__)
        if self.loop.name == "trio":  # all of it must happen in one run

            async def collect() -> list[Any]:
                return [pair async for pair in iteration]

            return (pair for pair in self.loop.run(collect))
        return self._step(iteration)

    def _step(self, iteration: Any) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(iteration, None)

        try:
            while (pair := self.loop.run(step)) is not None:
                yield pair
        finally:
            self.loop.run(iteration.aclose)

    def slice(self, *args: Any) -> "Awaited":
        return Awaited(self.reader.slice(*args), self.loop)

    def within(self, timeout: Any) -> "Awaited":
        return Awaited(self.reader.within(timeout), self.loop)

    def __enter__(self) -> "Awaited":
        async def enter() -> Any:
            return await self.reader.__aenter__()

        self.loop.run(enter)
        return self

    def __exit__(self, *exception: Any) -> None:
        async def leave() -> None:
            await self.reader.__aexit__(*exception)

        self.loop.run(leave)

    def __repr__(self) -> str:
        return repr(self.reader)

    def __reduce__(self) -> tuple[Any, ...]:
        return Awaited, (self.reader, self.loop)


async def beside(name: str, other: Any, read: Any) -> Any:
    """The result of a read while another task runs."""
    if name == "trio":
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            return await read
    task = asyncio.ensure_future(other())
    result = await read
    await task
    return result


async def at_once(name: str, jobs: "Sequence[Callable[[], Coroutine[Any, Any, None]]]") -> None:
    """Await all of them, in tasks of the loop's library."""
    if name == "trio":
        import trio

        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(job)
    else:
        await asyncio.gather(*(job() for job in jobs))


class _Closes(Protocol):
    def close(self) -> None: ...


_Desk = TypeVar("_Desk", bound=_Closes)


def by_each(name: str, make: Callable[[Any], _Desk]) -> Iterator[_Desk]:
    """`make(rangeio.open)` for "sync", else `make` of `open_async` driven by that loop; closed at the end."""
    if name == "sync":
        made = make(rangeio.open)
        yield made
        made.close()
        return
    loop = Loop(name)
    made = make(lambda uri, **options: Awaited(rangeio.open_async(uri, **options), loop))
    yield made
    made.close()
    loop.close()
