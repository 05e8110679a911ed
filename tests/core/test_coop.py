"""Awaited calls that may be over at once: in a task that makes no others, cancellations arrive, and other tasks go on.

`every_call` is all of them. Each is made again and again by a task that would not stop by itself for a long time.
"""

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop, at_once
from faults.data import pattern, write_pattern
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, honest, reply, scripted

import _uring
import rangeio
from rangeio import Operator
from rangeio.awaitables import checkpoint, pause

NBYTES = 200_000
# A task that is heard stops within milliseconds; one that is not, after this.
DEAF_S = 5.0

Call = Callable[[], Awaitable[Any]]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    for number in range(3):
        (folder / f"{number}").write_bytes(b"x")
    return write_pattern(folder / "data", NBYTES)


def answer(asked: Asked) -> Answer:
    """Of a server that has no ranges of one object."""
    data = pattern(0, 5000)
    return reply(200, data, ETag='"v1"') if asked.target == "/whole" else honest(data, asked)


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with scripted(answer) as running:
        yield running


@dataclass
class Held:
    """What the calls are made on. `into` is a buffer for all of them, `iteration` one that has ended."""

    file: rangeio.AsyncReader
    memory: rangeio.AsyncReader
    kept: rangeio.AsyncReader
    http: rangeio.AsyncReader
    closed: rangeio.AsyncReader
    made_up: rangeio.AsyncReader
    missing: rangeio.AsyncReader
    files: Operator
    objects: Operator
    text: Any
    ended: Any
    iteration: Any
    into: bytearray

    def readers(self) -> dict[str, rangeio.AsyncReader]:
        """By what is special about each."""
        return {
            "file": self.file,
            "slice of a file": self.file.slice(5),
            "memory": self.memory,
            "slice of memory": self.memory.slice(5),
            "kept": self.kept,
            "closed": self.closed,
            "closed slice": self.closed.slice(0),
            "made up": self.made_up,
            "missing": self.missing,
        }


@asynccontextmanager
async def held(reactor: _uring.Reactor, path: Path, server: Scripted) -> AsyncIterator[Held]:
    files = Operator("fs", root=path.parent, reactor=reactor)
    objects = Operator("memory", objects={"a": pattern(0, NBYTES), "b": b""}, reactor=reactor)
    closed = rangeio.open_async(path, reactor=reactor)
    await closed.read_at(0, 1)
    closed.close()
    async with (
        files.open_async("data") as file,
        objects.open_async("a") as memory,
        rangeio.open_async(f"{server.url}/whole", on_no_range="download") as kept,
        rangeio.open_async(server.url) as http,
        rangeio.open_async("/proc/version", reactor=reactor) as made_up,
    ):
        await kept.read_at(0, 10)
        await http.read_at(0, 10)
        missing = rangeio.open_async(path.parent / "nothing", reactor=reactor)
        text = file.as_async_file()
        await text.close()
        ended, iteration = memory.stream((0, 0)), file.iter_ranges([(0, 5)] * 9, gap=None)
        async for _ in ended:
            pass
        yield Held(
            file,
            memory,
            kept,
            http,
            closed,
            made_up,
            missing,
            files,
            objects,
            text,
            ended,
            iteration,
            bytearray(100),
        )
        await iteration.aclose()


async def drained(items: Any) -> None:
    async for _ in items:
        pass


def calls_of(reader: rangeio.AsyncReader, into: bytearray) -> dict[str, Call]:
    """What every reader has."""
    file = reader.as_async_file()

    async def rewound() -> None:
        await file.seek(0)
        await file.read(10)

    return {
        "read_at": lambda: reader.read_at(0, 5),
        "of nothing": lambda: reader.read_at(3, 0),
        "past the end": lambda: reader.read_at(1 << 40, 100),
        "read_exact past the end": lambda: reader.read_exact(1 << 40, 100),
        "read_into": lambda: reader.read_into(into, 3),
        "read_into nothing": lambda: reader.read_into(bytearray()),
        "read_range": lambda: reader.read_range(rangeio.Suffix(10)),
        "read_to_end": lambda: reader.read_to_end(4000),
        "read_ranges": lambda: reader.read_ranges([(0, 5), (100, 200)]),
        "read_ranges, none": lambda: reader.read_ranges([]),
        "read_ranges, returned": lambda: reader.read_ranges([(0, 5), (9, 12)], on_error="return"),
        "iter_ranges": lambda: drained(reader.iter_ranges([(0, 5), (100, 200)])),
        "read_batch": lambda: reader.read_batch([0, 7], 20),
        "read_batch past the end": lambda: reader.read_batch([0, 1 << 40], 20),
        "plan": lambda: reader.plan([(0, 5)]),
        "stat": lambda: reader.stat(),
        "stream": lambda: drained(reader.stream((0, 5000))),
        "copy nothing": lambda: reader.copy(Nowhere(), (7, 7)),
        "sink": lambda: reader.sink(lambda buffer: None, (0, 100)),
        "file.read": rewound,
        "file.tell": lambda: file.tell(),
        "file.seek": lambda: file.seek(3),
        "file.seek, end": lambda: file.seek(0, os.SEEK_END),
        "file.readline": lambda: file.readline(3),
        "file.peek": lambda: file.peek(3),
    }


def other_calls(held: Held) -> dict[str, Call]:
    """Those of one kind of reader, of Operators, and of what is over."""
    text = held.text

    async def opened() -> None:
        async with rangeio.open_async(held.file.path):
            pass

    async def opened_file() -> None:
        async with held.file.as_async_file():
            pass

    return {
        "async with": opened,
        "async with a file": opened_file,
        "aclose": held.closed.aclose,
        "of nothing from a server": lambda: held.http.read_at(3, 0),
        "past the end from a server": lambda: held.http.read_at(1 << 40, 5),
        "many past the end from a server": lambda: held.http.read_ranges([(1 << 40, None)]),
        "merged ranges": lambda: drained(held.file.iter_ranges([(0, 50)] * 500)),
        "an iteration": lambda: anext(held.iteration),
        "an iteration's end": held.iteration.aclose,
        "a stream that has ended": lambda: anext(held.ended),
        "a closed file": lambda: text.read(3),
        "a closed file's line": lambda: text.readline(),
        "a closed file's end": text.close,
        "readable": text.readable,
        "list of files": lambda: drained(held.files.list_async()),
        "list of memory": lambda: drained(held.objects.list_async()),
        "list of nothing": lambda: drained(held.objects.list_async("nothing")),
        "no jobs": lambda: held.objects.read_ranges_async([]),
        "jobs of memory": lambda: held.objects.read_ranges_async([("a", (0, 5)), ("b", None)]),
        "jobs of files": lambda: held.files.read_ranges_async([("0", (0, 5)), ("data", (5, 9))]),
        "many of one file": lambda: held.files.read_ranges_async([("data", (0, 5)), ("data", (5, 9))]),
    }


class Nowhere:
    def write(self, data: memoryview) -> int:
        return len(data)


def every_call(held: Held, backend: str) -> dict[str, Call]:
    """Those that no file has to do with once, with one backend."""
    found = {
        f"{name}: {call}": made
        for name, reader in held.readers().items()
        for call, made in calls_of(reader, held.into).items()
        if backend == "python" or name not in ("memory", "slice of memory", "kept")
    }
    return {**found, **other_calls(held)}


async def again_and_again(call: Call) -> None:
    """Until it is cancelled, or has not been for so long that it never will."""
    end = time.monotonic() + DEAF_S
    while time.monotonic() < end:
        try:
            await call()
        except (rangeio.Error, ValueError, StopAsyncIteration):
            pass


async def is_cancelled(call: Call) -> bool:
    """By task.cancel(), from a task that has to get its turn for that; by the loop's own timeouts."""
    task = asyncio.ensure_future(again_and_again(call))
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    try:
        await asyncio.wait_for(again_and_again(call), 0.001)
    except asyncio.TimeoutError:
        return task.cancelled()
    return False


async def is_cancelled_by_trio(call: Call) -> bool:
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(again_and_again, call)
        await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    with trio.move_on_after(0.001) as scope:
        await again_and_again(call)
    return bool(nursery.cancel_scope.cancelled_caught and scope.cancelled_caught)


async def is_cancelled_by_anyio(call: Call) -> bool:
    """Whose callback looks at the task in each turn of the loop, and has to find it waiting."""
    import anyio

    with anyio.move_on_after(0.001) as scope:
        await again_and_again(call)
    return scope.cancelled_caught


def test_every_call_hears(reactor: _uring.Reactor, path: Path, server: Scripted, loop: Loop) -> None:
    need_module("anyio")
    checks = [is_cancelled_by_trio if loop.name == "trio" else is_cancelled, is_cancelled_by_anyio]
    deaf: list[str] = []

    async def main() -> None:
        async with held(reactor, path, server) as all_of_it:
            for name, call in every_call(all_of_it, str(reactor.backend)).items():
                for check in checks:
                    if not await check(call):
                        deaf.append(f"{name}: {check.__name__}")
                if len(deaf) > 3:
                    return

    loop.run(main)
    assert not deaf


def test_a_page_of_a_listing_is_handed_out_in_turns(loop: Loop) -> None:
    """A page of a bucket's listing is entries that are there already; it may have thousands."""
    entries = "".join(f"<Contents><Key>k{n:05}</Key><Size>1</Size></Contents>" for n in range(2000))
    page = f"<ListBucketResult>{entries}</ListBucketResult>".encode()
    found: list[str] = []
    turns_at: set[int] = set()

    async def listed() -> None:
        operator = Operator("s3", bucket="bucket", endpoint_url=server.url, anonymous=True)
        found.extend([stat.path async for stat in watched(operator.list_async())])

    async def watched(listing: AsyncIterator[rangeio.Stat]) -> AsyncIterator[rangeio.Stat]:
        nonlocal at
        async for stat in listing:
            at += 1
            yield stat

    async def others() -> None:
        while not found:
            turns_at.add(at)
            await checkpoint()

    at = 0
    with scripted(lambda asked: reply(200, page)) as server:
        loop.run(lambda: at_once(loop.name, [listed, others]))
    assert len(found) == 2000
    assert len(turns_at) >= 10  # one for 64 entries; trio lets tasks run in any order


def twins() -> list[Any]:
    """Who hands out what is there: the extension and pure Python."""
    from _uring.pure import coop as yields

    try:
        from _uring import coop as turns  # type: ignore[attr-defined]
    except ImportError:
        return [pytest.param(yields, id="python")]
    return [pytest.param(turns, id="extension"), pytest.param(yields, id="python")]


@pytest.mark.parametrize("twin", twins())
def test_what_is_handed_out(twin: Any, loop: Loop) -> None:
    """A value, an error and nothing: after 64 of them, or 4 MiB, others have their turn."""
    need_module("anyio")
    kept = rangeio.NotFoundError("no such thing")

    async def raised() -> None:
        with pytest.raises(rangeio.NotFoundError) as caught:
            await twin.refused(kept)
        assert caught.value is kept

    async def turns_given(call: Call, times: int) -> int:
        """How often another task runs meanwhile."""
        given, over = 0, False

        async def read() -> None:
            nonlocal over
            for _ in range(times):
                await call()
            over = True

        async def count() -> None:
            nonlocal given
            while not over:
                given += 1
                await checkpoint()

        await at_once(loop.name, [read, count])
        return given

    async def main() -> None:
        assert await twin.ready("value", 5) == "value"
        check = is_cancelled_by_trio if loop.name == "trio" else is_cancelled
        for call in (lambda: twin.ready(1), twin.yield_if_due, raised):
            assert await check(call)
            assert await is_cancelled_by_anyio(call)
        assert await turns_given(lambda: twin.ready(1), 640) >= 10
        assert await turns_given(lambda: twin.ready(1, 1 << 20), 40) >= 10

    loop.run(main)
    with pytest.raises(RuntimeError, match="mistake"):
        twin.refused(RuntimeError("a mistake"))


@pytest.mark.parametrize("tasks", [1, 64])
def test_a_group_is_left_when_one_fails(reactor: _uring.Reactor, path: Path, loop: Loop, tasks: int) -> None:
    """Hot readers beside a task that raises: all of them are cancelled, and the others had their turns until then."""
    anyio = need_module("anyio")
    reads: dict[str, int] = {}
    ended: list[str] = []

    async def read(name: str, call: Call) -> None:
        reads[name] = 0
        end = time.monotonic() + DEAF_S
        while time.monotonic() < end:
            await call()
            reads[name] += 1
        ended.append(name)

    async def in_a_group(calls: list[Call]) -> None:
        async with anyio.create_task_group() as group:
            for number in range(tasks):
                group.start_soon(read, f"task {number}", calls[number % len(calls)])
            while len(reads) < tasks or min(reads.values()) == 0:
                await pause(0.001)
            raise ZeroDivisionError

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            calls: list[Call] = [
                lambda: reader.read_at(7, 4096),
                lambda: reader.read_ranges([(0, 5), (100, 200)]),
                lambda: drained(reader.stream(chunk=65_536)),
                lambda: drained(reader.iter_ranges([(0, 5), (100, 200)])),
            ]
            with pytest.raises(BaseException) as caught:  # a group of exceptions, which Python 3.10 has not
                await in_a_group(calls)
            assert "ZeroDivisionError" in repr(caught.value)

    loop.run(main)
    assert not ended


class Ending(asyncio.SelectorEventLoop):
    """Calls back when it is collected."""

    last: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.last is not None:
            self.last()
        super().__del__()


def test_the_last_loop_is_collected_when_another_takes_its_turns() -> None:
    """What its end has Python do, another thread's turns too, is no matter to the loop that runs."""
    another, tasks = asyncio.new_event_loop(), []

    async def large(count: int) -> int:
        until = time.monotonic() + 0.002
        while time.monotonic() < until:  # as a task does that computes: the time of the turn is over
            pass
        for _ in range(count):
            await _uring.ready(None, 4 << 20)
        return count

    def begin_another() -> None:
        """And leave it while a task stands in its queue."""
        tasks.extend(another.create_task(large(1)) for _ in range(2))
        another.call_soon(another.stop)
        another.run_forever()

    def end() -> None:
        thread = threading.Thread(target=begin_another)
        thread.start()
        thread.join()

    first = Ending()
    first.run_until_complete(large(1))
    first.close()
    first.last = end
    del first
    gc.collect()
    running = asyncio.new_event_loop()
    assert running.run_until_complete(large(3)) == 3
    assert len(tasks) == 2
    running.run_until_complete(large(1))
    running.close()
    assert another.run_until_complete(asyncio.gather(*tasks)) == [1, 1]
    another.close()
