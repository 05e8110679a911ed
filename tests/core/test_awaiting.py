"""The core's reads, awaited: the same bytes and errors as without a loop, whatever the backend."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.data import pattern, write_pattern

import _uring
import rangeio

NBYTES = 500_000


@pytest.fixture
def file(reactor: _uring.Reactor, tmp_path: Path) -> Iterator[_uring.File]:
    file = reactor.open(str(write_pattern(tmp_path / "data", NBYTES)))
    yield file
    file.close()


def test_every_read(file: _uring.File) -> None:
    async def main() -> None:
        space = bytearray(1000)
        assert await file.read_at_async(5, 100) == pattern(5, 105)
        assert await file.read_at_async(0, 2**63 - 1) == pattern(0, NBYTES)
        assert await file.read_at_async(NBYTES - 5, 100) == pattern(NBYTES - 5, NBYTES)
        assert len(await file.read_at_async(NBYTES, 100)) == len(await file.read_at_async(5, 0)) == 0
        assert await file.read_into_async(space, 7) == 1000
        assert space == pattern(7, 1007)
        assert await file.read_many_async([5, 0, NBYTES], [10, 200_000, 1]) == [
            pattern(5, 15),
            pattern(0, 200_000),
            b"",
        ]
        table = await file.read_batch_async([100, 0], 50)
        assert table.shape == (2, 50)
        assert bytes(table) == pattern(100, 150) + pattern(0, 50)

    asyncio.run(main())


def test_many_tasks(file: _uring.File) -> None:
    async def read(index: int) -> bool:
        start = index * 977 % (NBYTES - 5000)
        return await file.read_at_async(start, 5000) == pattern(start, start + 5000)

    async def main() -> None:
        assert all(await asyncio.gather(*map(read, range(500))))

    asyncio.run(main())
    asyncio.run(main())


def test_arguments_are_refused_by_the_call(file: _uring.File) -> None:
    """In the caller's frame, not when awaited; a closed file too."""

    async def main() -> None:
        with pytest.raises(ValueError, match="negative"):
            file.read_at_async(-1, 5)
        with pytest.raises(TypeError):
            file.read_into_async(bytes(5))
        with pytest.raises(TypeError):
            file.read_many_async([0.5], [1])
        with pytest.raises(rangeio.UnexpectedEofError):
            await file.read_batch_async([NBYTES], 1)
        file.close()
        with pytest.raises(rangeio.ClosedError):
            await file.read_at_async(0, 5)

    asyncio.run(main())


def test_no_loop(file: _uring.File) -> None:
    with pytest.raises(RuntimeError, match="no event loop"):
        file.read_into_async(bytearray(200_000))


def test_cancelled_and_closed(file: _uring.File, reactor: _uring.Reactor) -> None:
    """A read that nobody waits for any more still has its memory and its file until it is done, and then no longer."""

    async def main() -> None:
        tasks = [asyncio.ensure_future(file.read_many_async([0] * 50, [9000] * 50)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(result, asyncio.CancelledError) or result == [pattern(0, 9000)] * 50
            for result in results
        )
        waiting = asyncio.ensure_future(file.read_at_async(0, 300_000))
        await asyncio.sleep(0)
        file.close()
        assert await waiting == pattern(0, 300_000)

    asyncio.run(main())
    other = rangeio.from_bytes(bytes(1000))
    deadline = time.monotonic() + 10
    while reactor.stats()["in_flight"] or reactor.stats()["buffers_live"]:
        other.read_at(0, 1000)  # what was cancelled completes on threads that want their turn
        assert time.monotonic() < deadline


class Slot:
    """A waiter of `begin_at`, which may raise whenever it is told."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises
        self.results: list[object] = []

    def done(self) -> bool:
        return False

    def set_result(self, value: object) -> None:
        self.results.append(value)
        if self.raises:
            raise ZeroDivisionError

    def set_exception(self, error: BaseException) -> None:
        self.set_result(error)


@pytest.mark.parametrize("direct", [False, True])
def test_a_waiter_that_raises_keeps_nothing_from_others(
    reactor: _uring.Reactor, tmp_path: Path, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All reads that end in one turn of the loop are told; a waiter that raises is told so, and the loop is not."""
    file = reactor.open(str(write_pattern(tmp_path / "data", 4 << 20)), direct=direct)
    slots = [Slot(raises=index % 3 == 0) for index in range(30)]
    heard: list[object] = []
    ignored: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: ignored.append(kind))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(context))
        for index, slot in enumerate(slots):
            file.begin_at(index, 3 << 20, slot)
        until = time.monotonic() + 10
        while not all(slot.results for slot in slots) and time.monotonic() < until:
            await asyncio.sleep(0.001)

    asyncio.run(main())
    for index, slot in enumerate(slots):
        assert slot.results[0] == pattern(index, index + (3 << 20))
        assert [type(error) for error in slot.results[1:]] == [rangeio.UnexpectedError] * slot.raises
    assert not heard
    assert ignored == [ZeroDivisionError] * sum(slot.raises for slot in slots)
    slots.clear()
    file.close()


@pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)
def test_a_cancelled_copy_stops(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Cached bytes that the workers copy for a task which is gone: they copy no further."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * (64 << 20))
    file = reactor.open(str(path))

    async def cancelled() -> int:
        """The bytes that were copied all the same."""
        space = bytearray(64 << 20)
        reading = asyncio.ensure_future(file.read_into_async(space))
        reading.cancel()
        await asyncio.wait([reading])
        while True:
            try:
                space.append(0)  # BufferError while the read has it
            except BufferError:
                await asyncio.sleep(0.001)
            else:
                return space.count(b"x")

    async def main() -> list[int]:
        return [await cancelled() for _ in range(10)]

    # On a busy machine all may be copied before the task is cancelled, but not every time.
    assert min(asyncio.run(main())) < 64 << 20
    file.close()
