"""Threads that run more than one event loop: what is awaited is driven by the one that runs the code that awaits it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from awaited import Loop
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import need_module
from servers.scripted import Scripted, honest, scripted

import _uring
import rangeio
from _uring.event_loops import current_key
from rangeio.awaitables import pause

NBYTES = 2 << 20

Main = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("nested") / "data", NBYTES)


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with scripted(partial(honest, pattern(0, 100_000))) as running:
        yield running


async def read_everything(reactor: _uring.Reactor, path: Path, server: Scripted) -> None:
    """Cached until others have to have a turn, and what must wait: for a device, a server, the clock."""
    for where, direct in ((path, False), (path, True), (server.url, False)):
        async with rangeio.open_async(where, reactor=reactor, direct=direct) as reader:
            for place in range(200 if where is path and not direct else 2):
                assert await reader.read_at(place, 5000) == pattern(place, place + 5000)
            ranges = [(0, 5), (90_000, 90_005)]
            expected = [pattern(start, stop) for start, stop in ranges]
            assert await reader.read_ranges(ranges, gap=None) == expected
            assert dict([pair async for pair in reader.iter_ranges(ranges)]) == dict(enumerate(expected))
            assert b"".join([piece async for piece in reader.stream((7, 90_000))]) == pattern(7, 90_000)
            await reader.stat()
            await pause(0.001)


def in_a_thread(body: Callable[[], None]) -> None:
    """There loops have no signals to quarrel about."""
    failures: list[BaseException] = []

    def caught() -> None:
        try:
            body()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


# --- arrangements: each runs `inner` under the library named first -------------------------------------------


def trio_as_guest(name: str, inner: Main, host: Main | None = None) -> None:
    """Of an asyncio or uvloop loop, whose own task runs `host` meanwhile."""
    import trio

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            inner,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        if host is not None:
            await host()
        (await asyncio.wait_for(done, 30)).unwrap()

    run_on(name, main)


def trio_in_a_task(name: str, inner: Main) -> None:
    """As a library does that is sync outside and trio inside."""
    import trio

    async def main() -> None:
        trio.run(inner)

    run_on(name, main)


def trio_in_a_callback(name: str, inner: Main) -> None:
    import trio

    async def main() -> None:
        outcome = asyncio.get_running_loop().create_future()

        def callback() -> None:
            try:
                outcome.set_result(trio.run(inner))
            except BaseException as error:
                outcome.set_exception(error)

        asyncio.get_running_loop().call_soon(callback)
        await outcome

    run_on(name, main)


def in_a_trio_task(name: str, inner: Main) -> None:
    import trio

    async def main() -> None:
        run_on(name, inner)

    trio.run(main)


def from_a_callback_in_a_trio_task(name: str, inner: Main) -> None:
    """Not of a task of the loop. (Of uvloop's callbacks nothing can be seen from Python.)"""

    async def begun() -> None:
        began = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: began.set_result(current_key()))
        assert await began is asyncio.get_running_loop()
        await inner()

    in_a_trio_task(name, begun)


def in_a_thread_of_trio(name: str, inner: Main) -> None:
    import trio

    async def main() -> None:
        await trio.to_thread.run_sync(run_on, name, inner)

    trio.run(main)


def run_on(name: str, main: Main) -> None:
    loop = Loop(name)
    try:
        loop.run(main)
    finally:
        loop.close()


ARRANGEMENTS = (
    trio_as_guest,
    trio_in_a_task,
    trio_in_a_callback,
    in_a_trio_task,
    in_a_thread_of_trio,
)
PAIRS = [(name, arrangement) for name in ("asyncio", "uvloop") for arrangement in ARRANGEMENTS]


@pytest.mark.parametrize(("name", "arrangement"), [*PAIRS, ("asyncio", from_a_callback_in_a_trio_task)])
def test_the_innermost_is_awaited(
    reactor: _uring.Reactor, path: Path, server: Scripted, name: str, arrangement: Callable[[str, Main], None]
) -> None:
    need_module("trio")
    need_module(name)
    in_a_thread(lambda: arrangement(name, lambda: read_everything(reactor, path, server)))


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_read_that_is_a_task_of_its_own(server: Scripted, name: str) -> None:
    """Of a loop in a task of trio's. The core's coroutines have no frames that tell which of the two is inside."""
    need_module("trio")
    need_module(name)

    async def inner() -> None:
        async with rangeio.open_async(server.url) as reader, rangeio.open_async("/proc/self/maps") as growing:
            for place in range(6):
                read: Any = reader.read_at(place, 5000)
                assert await asyncio.ensure_future(read) == pattern(place, place + 5000)
            reads: Any = growing.read_ranges([(0, 5), (2, 4)])
            assert [len(piece) for piece in await asyncio.ensure_future(reads)] == [5, 2]

    in_a_thread(lambda: in_a_trio_task(name, inner))


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_guest_and_its_host_read(reactor: _uring.Reactor, path: Path, server: Scripted, name: str) -> None:
    """At once, in one thread, of one reactor."""
    need_module("trio")
    need_module(name)
    read = partial(read_everything, reactor, path, server)
    in_a_thread(lambda: trio_as_guest(name, read, read))


def test_a_thread_without_a_loop(reactor: _uring.Reactor, path: Path) -> None:
    """Whatever runs in other threads, and though one ran in this thread before."""
    need_module("trio")

    def alone() -> None:
        reader = rangeio.open_async(path, reactor=reactor, direct=True)
        read = reader.read_at(0, 4096)
        with pytest.raises(RuntimeError, match="no event loop is running in this thread"):
            read.__await__().send(None)  # type: ignore[attr-defined]
        reader.close()

    async def in_threads() -> None:
        import trio

        await trio.to_thread.run_sync(alone)

    async def in_threads_of_asyncio() -> None:
        await asyncio.get_running_loop().run_in_executor(None, alone)

    run_on("trio", in_threads)
    run_on("asyncio", in_threads_of_asyncio)
    alone()


TRIO_ASYNCIO = code("""
    import sys, asyncio, trio, trio_asyncio, rangeio

    async def read():
        for direct in (False, True):
            async with rangeio.open_async(sys.argv[1], direct=direct) as reader:
                for place in range(200):
                    assert await reader.read_at(place, 5000) == pattern(place, place + 5000)
                assert await reader.read_ranges([(0, 5), (9, 12)]) == [pattern(0, 5), pattern(9, 12)]
                assert len([piece async for piece in reader.stream()]) == 2

    async def flavours():
        say(inside=True)
        await trio_asyncio.trio_as_aio(read)()
        await read()

    async def main():
        async with trio_asyncio.open_loop():
            await read()
            await trio_asyncio.aio_as_trio(read)()
            await trio_asyncio.aio_as_trio(flavours)()

    trio.run(main)
    say(read=True)
""")


def test_trio_asyncio(lab: Lab, path: Path) -> None:
    """A loop of asyncio's that trio drives; each task says which of the two it is written for.

    In a process of its own: it changes asyncio for all that runs in one.
    """
    if find_spec("trio_asyncio") is None:
        need_module("trio_asyncio")
    found = lab.run(TRIO_ASYNCIO, path, PYTHONWARNINGS="ignore")
    assert found.facts() == {"inside": True, "read": True}
