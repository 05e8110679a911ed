"""copy() into writers and sink() into consumers of every kind."""

import asyncio
import io
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop, run_on
from faults.data import pattern, write_pattern
from faults.machine import need_module

import _uring
import rangeio
from rangeio.awaitables import checkpoint

NBYTES = 1_000_003
CHUNK = 65_536


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("copy") / "data", NBYTES)


@pytest.fixture
def reader(reactor: _uring.Reactor, path: Path) -> Iterator[rangeio.Reader]:
    with rangeio.open(path, reactor=reactor, chunk=CHUNK) as reader:
        yield reader


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


class Greedy:
    """Takes a few bytes at a time, and says so."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.taken = most, bytearray()

    def write(self, data: Any) -> int:
        part = bytes(data[: self.most])
        self.taken += part
        return len(part)


class Silent(Greedy):
    """Takes all and says nothing."""

    def write(self, data: Any) -> None:  # type: ignore[override]
        self.taken += data


class Lying:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def write(self, data: Any) -> Any:
        return self.answer


class Drained(Silent):
    """As an asyncio.StreamWriter."""

    drains = 0

    async def drain(self) -> None:
        assert len(self.taken) <= (self.drains + 1) * CHUNK
        self.drains += 1


class Awaitable(Greedy):
    async def write(self, data: Any) -> int:  # type: ignore[override]
        await checkpoint()
        return super().write(data)


class Deprecated(Awaitable):
    """As aiohttp's StreamResponse, whose `write` waits, and whose `drain` warns."""

    async def drain(self) -> None:
        raise AssertionError


def test_writers(reader: rangeio.Reader, tmp_path: Path) -> None:
    for wanted, expected in (
        (None, pattern(0, NBYTES)),
        ((5, 100_005), pattern(5, 100_005)),
        ((NBYTES, None), b""),
    ):
        for writer in (Greedy(), Silent()):
            assert reader.copy(writer, wanted) == len(expected)
            assert writer.taken == expected
        target = io.BytesIO()
        assert reader.copy(target, wanted) == len(expected)
        assert target.getvalue() == expected
        for buffering in (0, -1):
            with open(tmp_path / "target", "wb", buffering=buffering) as file:
                assert reader.copy(file, wanted) == len(expected)
            assert (tmp_path / "target").read_bytes() == expected


@pytest.mark.parametrize("how", ["sync", *LOOPS])
def test_a_slow_writer_holds_the_reads(reactor: _uring.Reactor, path: Path, how: str) -> None:
    """At every write no more than `prefetch` and two chunks are in memory, however long it takes."""
    seen: list[int] = []
    prefetch, before = 3 * CHUNK, reactor.stats()["bytes_live"]

    class Slow(Silent):
        def write(self, data: Any) -> None:
            for _ in range(20):  # time for workers to run ahead, if they would
                threading.Event().wait(0.0005)
            seen.append(reactor.stats()["bytes_live"] - before)
            super().write(data)

    writer = Slow()
    if how == "sync":
        with rangeio.open(path, reactor=reactor, chunk=CHUNK, prefetch=prefetch) as reader:
            assert reader.copy(writer) == NBYTES
    else:
        need_module(how)

        async def main() -> None:
            async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK, prefetch=prefetch) as reader:
                assert await reader.copy(writer) == NBYTES

        run_on(how, main)
    assert writer.taken == pattern(0, NBYTES)
    assert len(seen) == -(-NBYTES // CHUNK)
    assert 0 < max(seen) <= prefetch + 2 * CHUNK


def test_progress(reader: rangeio.Reader) -> None:
    seen: list[tuple[int, int | None]] = []
    reader.copy(io.BytesIO(), (10, 200_010), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(min(step * CHUNK, 200_000), 200_000) for step in range(1, 5)]


@pytest.mark.parametrize("answer", [0, -1, CHUNK + 1, "5", 1.5])
def test_writers_that_lie(reader: rangeio.Reader, answer: Any) -> None:
    with pytest.raises(OSError, match="bytes and returned"):
        reader.copy(Lying(answer))


def test_full_raw_writer(reader: rangeio.Reader) -> None:
    """None of a raw file means that it took nothing."""

    class Full(io.RawIOBase):
        def write(self, data: Any, /) -> None:  # type: ignore[override]
            return None

    with pytest.raises(BlockingIOError):
        reader.copy(Full())


def test_failing_writer_stops_the_reads(reader: rangeio.Reader) -> None:
    class Failing(Greedy):
        def write(self, data: Any) -> int:
            if len(self.taken) > CHUNK:
                raise ZeroDivisionError
            return super().write(data)

    with pytest.raises(ZeroDivisionError):
        reader.copy(Failing())
    with pytest.raises(TypeError, match="is not a writer"):
        reader.copy(object())


def test_async_writer_of_a_sync_reader(reader: rangeio.Reader) -> None:
    """There is no loop to wait on."""

    class Waiting(Greedy):
        async def write(self, data: Any) -> int:  # type: ignore[override]
            await asyncio.sleep(0)
            return super().write(data)

    with pytest.raises(TypeError, match="open_async"):
        reader.copy(Waiting())


def test_awaited_writers(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader:
            for writer in (Greedy(), Silent(), Drained(), Awaitable(), Deprecated()):
                seen: list[Any] = []
                copied = await reader.copy(writer, (3, None), progress=lambda *pair: seen.append(pair))  # noqa: B023
                assert copied == NBYTES - 3
                assert writer.taken == pattern(3, NBYTES)
                assert seen[-1] == (NBYTES - 3, NBYTES - 3)
            assert Drained.drains == 0
            with pytest.raises(OSError, match="bytes and returned"):
                await reader.copy(Lying(-5))

    loop.run(main)


def test_to_a_socket(reactor: _uring.Reactor, path: Path) -> None:
    """asyncio's own writer, with a reader at the other end that takes its time."""

    async def main() -> None:
        received = bytearray()
        done = asyncio.Event()

        async def serve(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while piece := await source.read(50_000):
                received.extend(piece)
                await asyncio.sleep(0)
            target.close()
            done.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader:
            assert await reader.copy(writer) == NBYTES
        writer.close()
        await writer.wait_closed()
        await done.wait()
        server.close()
        await server.wait_closed()
        assert received == pattern(0, NBYTES)

    asyncio.run(main())


def test_to_a_trio_stream(reactor: _uring.Reactor, path: Path) -> None:
    trio = need_module("trio")
    testing = need_module("trio.testing")

    async def main() -> None:
        left, right = testing.memory_stream_pair()
        received = bytearray()

        async def receive() -> None:
            async for piece in right:
                received.extend(piece)

        async with rangeio.open_async(path, reactor=reactor) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            assert await reader.copy(left) == NBYTES
            await left.aclose()
        assert received == pattern(0, NBYTES)

    trio.run(main)


# --- sink ----------------------------------------------------------------------------------------------------


class Consumer:
    def __init__(self, fail_at: int = -1) -> None:
        self.seen: list[Any] = []
        self.fail_at = fail_at

    def send(self, buffer: Any) -> None:
        if len(self.seen) == self.fail_at:
            raise ZeroDivisionError
        self.seen.append(buffer)

    def flush(self) -> None:
        self.seen.append(b"flushed")

    def close(self) -> None:
        self.seen.append(b"closed")


def test_sinks(reader: rangeio.Reader) -> None:
    seen: list[Any] = []
    assert reader.sink(seen.append, (5, 100_000)) == 99_995
    assert b"".join(seen) == pattern(5, 100_000)
    line: queue.Queue[Any] = queue.Queue()
    assert reader.sink(line) == NBYTES
    assert b"".join(line.queue) == pattern(0, NBYTES)
    consumer = Consumer()
    assert reader.sink(consumer) == NBYTES
    assert consumer.seen[-2:] == [b"flushed", b"closed"]
    assert b"".join(consumer.seen[:-2]) == pattern(0, NBYTES)
    with pytest.raises(TypeError, match="is not a consumer"):
        reader.sink(5)


def test_bounded_queue(reader: rangeio.Reader) -> None:
    """put() blocks the reads until somebody takes."""
    line: queue.Queue[Any] = queue.Queue(2)
    taken: list[Any] = []

    def take() -> None:
        while (buffer := line.get()) is not None:
            taken.append(buffer)

    thread = threading.Thread(target=take)
    thread.start()
    reader.sink(line)
    line.put(None)
    thread.join(30)
    assert b"".join(taken) == pattern(0, NBYTES)


def test_failing_sink(reactor: _uring.Reactor, path: Path) -> None:
    """It is raised, nothing is flushed, and hardly anything more is read."""
    consumer = Consumer(fail_at=3)
    with rangeio.open(path, reactor=reactor) as reader:
        before = reactor.stats()["bytes_fetched"]
        with pytest.raises(ZeroDivisionError):
            reader.sink(consumer, chunk=CHUNK, prefetch=2 * CHUNK)
        assert len(consumer.seen) == 3
        assert reactor.stats()["bytes_fetched"] - before <= 7 * CHUNK


def test_awaited_sinks(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader:
            seen: list[Any] = []

            async def call(buffer: Any) -> None:
                seen.append(buffer)

            assert await reader.sink(call) == await reader.sink(seen.append) == NBYTES
            assert b"".join(seen) == 2 * pattern(0, NBYTES)
            consumer = Consumer()
            assert await reader.sink(consumer, (0, 10)) == 10
            assert consumer.seen == [pattern(0, 10), b"flushed", b"closed"]
            failing = Consumer(fail_at=2)
            with pytest.raises(ZeroDivisionError):
                await reader.sink(failing)
            assert len(failing.seen) == 2

    loop.run(main)


def test_asyncio_queue(reactor: _uring.Reactor, path: Path) -> None:
    async def main() -> None:
        line: asyncio.Queue[Any] = asyncio.Queue(2)
        async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader:
            task = asyncio.ensure_future(_awaited(reader.sink(line)))
            taken = [await line.get() for _ in range(-(-NBYTES // CHUNK))]
            assert await task == NBYTES
        assert b"".join(taken) == pattern(0, NBYTES)

    asyncio.run(main())


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def test_full_sync_queue_does_not_hold_the_loop(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """The thread that takes is slow; the loop turns meanwhile."""
    line: queue.Queue[Any] = queue.Queue(1)
    taken: list[Any] = []
    go = threading.Event()

    def take() -> None:
        go.wait(30)
        while (buffer := line.get()) is not None:
            taken.append(buffer)

    thread = threading.Thread(target=take)
    thread.start()

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader:

            def progress(buffer: Any) -> None:
                go.set()

            await reader.sink(progress, (0, 1))
            assert await reader.sink(line) == NBYTES

    loop.run(main)
    line.put(None)
    thread.join(30)
    assert b"".join(taken) == pattern(0, NBYTES)


def test_trio_channel(reactor: _uring.Reactor, path: Path) -> None:
    """Closed when all has been sent, so that whoever receives comes to an end."""
    trio = need_module("trio")

    async def main() -> None:
        sending, receiving = trio.open_memory_channel(1)
        taken: list[Any] = []

        async def receive() -> None:
            async for buffer in receiving:
                taken.append(buffer)

        async with (
            rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(receive)
            assert await reader.sink(sending) == NBYTES
        assert b"".join(taken) == pattern(0, NBYTES)

    trio.run(main)


def test_async_consumer_of_a_sync_reader(reader: rangeio.Reader) -> None:
    with pytest.raises(TypeError, match="open_async"):
        reader.sink(asyncio.Queue(1))


class LeftSync:
    """A client that leaves in the midst; the frame that raises holds what it was given."""

    def __init__(self) -> None:
        self.calls = 0

    def write(self, data: Any) -> int:
        self.calls += 1
        if self.calls == 2:
            raise ConnectionError("the client has left")
        return len(data)


class LeftAwaited:
    """The same, awaited."""

    def __init__(self) -> None:
        self.calls = 0

    async def write(self, data: Any) -> int:
        self.calls += 1
        await checkpoint()
        if self.calls == 2:
            raise ConnectionError("the client has left")
        return len(data)


def test_a_writer_that_fails_holds_no_buffer(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    before = reactor.stats()["buffers_live"]
    with pytest.raises(ConnectionError) as raised:
        reader.copy(LeftSync())
    deadline, other = time.monotonic() + 10, rangeio.from_bytes(bytes(10))
    while reactor.stats()["buffers_live"] != before:  # what was read ahead is on its way
        assert time.monotonic() < deadline
        other.read_at(0, 10)
    assert raised.traceback


def test_an_awaited_writer_that_fails_holds_no_buffer(
    reactor: _uring.Reactor, path: Path, loop: Loop
) -> None:
    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, chunk=CHUNK) as reader:
            before = reactor.stats()["buffers_live"]
            with pytest.raises(ConnectionError) as raised:
                await reader.copy(LeftAwaited())
            deadline = time.monotonic() + 10
            while reactor.stats()["buffers_live"] != before:  # what was read ahead is on its way
                assert time.monotonic() < deadline
                await checkpoint()
            assert raised.traceback

    loop.run(main)
