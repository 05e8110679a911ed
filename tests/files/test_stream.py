"""One range as a stream, sync and async: in order, bounded, stopped when it is left."""

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop
from faults.data import pattern, write_pattern
from faults.machine import need, need_module

import _uring
import rangeio
from _uring.event_loops import AsyncioBinding
from rangeio import Suffix
from rangeio.budget import SHARED

NBYTES = (5 << 20) + 12_345
CHUNK = 65_536


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("stream") / "data", NBYTES)


@pytest.fixture(params=[False, True], ids=["cached", "direct"])
def direct(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture
def reader(reactor: _uring.Reactor, path: Path, direct: bool) -> Iterator[rangeio.Reader]:
    with rangeio.open(path, reactor=reactor, direct=direct) as reader:
        yield reader


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def budget_is_returned() -> Iterator[None]:
    yield
    gc.collect()
    assert SHARED.stats()["budget_in_use"] == 0


RANGES: list[Any] = [
    None,
    (0, 0),
    (0, 1),
    (7, 100_000),
    (CHUNK, 3 * CHUNK),
    (NBYTES - 10, NBYTES + 10),
    (NBYTES, NBYTES + 5),
    (NBYTES + 100, None),
    Suffix(100_000),
    Suffix(0),
    slice(5, None),
]


def expected(wanted: Any) -> bytes:
    whole = pattern(0, NBYTES)
    if isinstance(wanted, Suffix):
        return whole[max(0, NBYTES - wanted.n) :]
    start, stop = (
        (0, None) if wanted is None else wanted if isinstance(wanted, tuple) else (wanted.start, wanted.stop)
    )
    return whole[start:stop]


def check_pieces(pieces: list[Any], wanted: Any, chunk: int) -> None:
    assert b"".join(pieces) == expected(wanted)
    assert all(len(piece) == chunk for piece in pieces[:-1])
    assert not pieces or 0 < len(pieces[-1]) <= chunk


@pytest.mark.parametrize("wanted", RANGES, ids=str)
def test_every_range(reader: rangeio.Reader, wanted: Any) -> None:
    for options in ({}, {"prefetch": 0}, {"prefetch": 3 * CHUNK + 1}, {"prefetch": 2**60}):
        check_pieces(list(reader.stream(wanted, chunk=CHUNK, **options)), wanted, CHUNK)
    check_pieces(list(reader.stream(wanted)), wanted, 1 << 20)


def test_every_range_async(reactor: _uring.Reactor, path: Path, direct: bool, loop: Loop) -> None:
    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            for wanted in RANGES:
                for options in ({}, {"prefetch": 0}, {"prefetch": 3 * CHUNK + 1}):
                    pieces = [buffer async for buffer in reader.stream(wanted, chunk=CHUNK, **options)]
                    check_pieces(pieces, wanted, CHUNK)
                check_pieces([buffer async for buffer in reader.stream(wanted)], wanted, 1 << 20)

    loop.run(main)


def test_slices_and_memory(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    part = reader.slice(1000, 200_000)
    assert b"".join(part.stream((5, None), chunk=4096)) == pattern(1005, 200_000)
    memory = rangeio.from_bytes(pattern(0, 10_000), reactor=reactor)
    assert [len(piece) for piece in memory.stream(chunk=4000)] == [4000, 4000, 2000]


def test_arguments(reader: rangeio.Reader, path: Path) -> None:
    """Refused by the call."""
    for one in (reader, rangeio.open_async(path)):
        for wrong in ({"chunk": 0}, {"chunk": -1}, {"chunk": 1.5}, {"prefetch": -1}):
            with pytest.raises(rangeio.ConfigInvalidError):
                one.stream(**wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="after stop"):
            one.stream((5, 3))
        with pytest.raises(TypeError):
            one.stream((0.5, 3))  # type: ignore[arg-type]


def test_options_of_the_reader(path: Path) -> None:
    with rangeio.open(path, chunk=1000, prefetch=0) as reader:
        assert {len(piece) for piece in reader.stream((0, 5000))} == {1000}


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="needs /proc")
def test_unknown_size(reactor: _uring.Reactor, loop: Loop) -> None:
    """A file that does not know its size is read until it ends."""
    text = Path("/proc/version").read_bytes()
    with rangeio.open("/proc/version", reactor=reactor) as reader:
        assert b"".join(reader.stream(chunk=10)) == text
        assert b"".join(reader.stream(Suffix(5))) == text[-5:]

    async def main() -> None:
        async with rangeio.open_async("/proc/version", reactor=reactor) as reader:
            assert b"".join([piece async for piece in reader.stream(chunk=10)]) == text

    loop.run(main)


def test_cached_pieces_are_handed_out_at_once(reactor: _uring.Reactor, path: Path, backend: str) -> None:
    """Larger than a small read: the loop's thread copies them, without a request."""
    need(backend != "python", "threads make all reads of the python backend")
    chunk = 256 << 10

    async def main() -> tuple[int, list[Any]]:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            assert len(await reader.read_at(0, NBYTES)) == NBYTES
            need(capable(path), "the file system does not say what is cached")
            before = reactor.stats()["inline_hits"]
            pieces = [piece async for piece in reader.stream(chunk=chunk)]
            found = [result async for _, result in reader.iter_ranges([(0, chunk), (5, chunk)], gap=None)]
            assert [bytes(result) for result in found] == [expected((0, chunk)), expected((5, chunk))]
            return reactor.stats()["inline_hits"] - before, pieces

    hits, pieces = asyncio.run(main())
    check_pieces(pieces, None, chunk)
    assert hits > len(pieces) // 2  # the others come after a yield to the loop


def capable(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False


# --- bounds --------------------------------------------------------------------------------------------------


def test_memory_is_bounded(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    """At most `prefetch` ahead of the consumer, and two chunks."""
    prefetch = 4 * CHUNK
    most = 0
    before = reactor.stats()["bytes_live"]
    with rangeio.open(path, reactor=reactor, direct=direct) as reader:
        for _ in reader.stream(chunk=CHUNK, prefetch=prefetch):
            most = max(most, reactor.stats()["bytes_live"] - before)
    slack = 4096 * 8 if direct else 0  # the borders of aligned stretches
    assert most <= prefetch + 2 * CHUNK + slack


def test_memory_is_bounded_async(reactor: _uring.Reactor, path: Path, direct: bool, loop: Loop) -> None:
    prefetch = 4 * CHUNK
    before = reactor.stats()["bytes_live"]

    async def main() -> int:
        most = 0
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            async for _ in reader.stream(chunk=CHUNK, prefetch=prefetch):
                most = max(most, reactor.stats()["bytes_live"] - before)
        return most

    slack = 4096 * 8 if direct else 0
    assert loop.run(main) <= prefetch + 2 * CHUNK + slack


def test_a_thread_that_has_read_keeps_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that does not get on once it has told the loop, as on a machine with more to do than cores."""
    reactor = _uring.Reactor(backend="python")
    go_on = threading.Event()
    tell = AsyncioBinding.call_soon_threadsafe

    def tell_and_stand(
        binding: AsyncioBinding, callback: Callable[..., None], *arguments: Any, **options: Any
    ) -> None:
        tell(binding, callback, *arguments, **options)
        del arguments, options
        go_on.wait()

    async def main() -> int:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, CHUNK)
            await asyncio.sleep(0)  # what wakes a task holds the result until the task waits again
            return reactor.stats()["bytes_live"]

    monkeypatch.setattr(AsyncioBinding, "call_soon_threadsafe", tell_and_stand)
    try:
        assert asyncio.run(main()) == 0
    finally:
        go_on.set()
        reactor.close()


def test_first_before_the_rest(reactor: _uring.Reactor, path: Path) -> None:
    """The first Buffer comes when a fraction has been asked for."""
    before = reactor.stats()["bytes_fetched"]
    with rangeio.open(path, reactor=reactor) as reader:
        stream = reader.stream(chunk=CHUNK, prefetch=4 * CHUNK)
        next(stream)
        assert reactor.stats()["bytes_fetched"] - before <= 6 * CHUNK
        stream.close()


# --- leaving -------------------------------------------------------------------------------------------------


def test_leaving_stops_the_reads(reactor: _uring.Reactor, path: Path, direct: bool, loop: Loop) -> None:
    """By `break`: no more than was ahead is fetched, then or later."""
    options: Any = {"chunk": CHUNK, "prefetch": 2 * CHUNK}
    ahead = 5 * CHUNK + 8 * 4096
    before = reactor.stats()["bytes_fetched"]
    with rangeio.open(path, reactor=reactor, direct=direct) as reader:
        for _ in reader.stream(**options):
            break
        gc.collect()
        assert reactor.stats()["bytes_fetched"] - before <= ahead

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            async for _ in reader.stream(**options):
                break

    before = reactor.stats()["bytes_fetched"]
    loop.run(main)
    loop.run(idle)
    assert reactor.stats()["bytes_fetched"] - before <= ahead


def test_left_half_way(reader: rangeio.Reader) -> None:
    for _ in reader.stream(chunk=CHUNK):
        break
    stream = reader.stream(chunk=CHUNK)
    next(stream)
    stream.close()
    assert list(stream) == []
    two = reader.stream(chunk=CHUNK), reader.stream((CHUNK, None), chunk=CHUNK)
    assert next(two[0]) == pattern(0, CHUNK)
    assert next(two[1]) == next(two[0]) == pattern(CHUNK, 2 * CHUNK)


def test_left_half_way_async(reactor: _uring.Reactor, path: Path, direct: bool, loop: Loop) -> None:
    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            async for _ in reader.stream(chunk=CHUNK):
                break
            stream = reader.stream(chunk=CHUNK)
            await anext(stream)
            await stream.aclose()
            await stream.aclose()
            assert [piece async for piece in stream] == []
            await reader.stream().aclose()
            reader.stream()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.run(main)
        gc.collect()
    loop.run(idle)


async def idle() -> None:
    """Time for what was left to complete."""
    from rangeio.awaitables import pause

    await pause(0.05)


def test_reader_closed_under_it(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    reader = rangeio.open(path, reactor=reactor, direct=direct)
    stream = reader.stream(chunk=CHUNK, prefetch=CHUNK)
    kept = next(stream)
    reader.close()
    with pytest.raises(rangeio.ClosedError):
        list(stream)
    assert kept == pattern(0, CHUNK)


def test_cancelled(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    """In the middle of a wait; the stream goes on where it was."""

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            stream = reader.stream(chunk=CHUNK)
            found = [await anext(stream)]
            task = asyncio.ensure_future(_next(stream))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            lost = 0 if task.cancelled() else 1
            found += [piece async for piece in stream]
            assert len(b"".join(found)) == NBYTES - lost * CHUNK

    asyncio.run(main())


async def _next(stream: Any) -> Any:
    return await anext(stream)


def test_object_changes(reactor: _uring.Reactor, tmp_path: Path, loop: Loop) -> None:
    """What was handed out was right; then the error."""
    path = write_pattern(tmp_path / "data", 1 << 20)
    with rangeio.open(path, reactor=reactor) as reader:
        stream = reader.stream(chunk=CHUNK, prefetch=0)
        assert next(stream) == pattern(0, CHUNK)
        os.truncate(path, 100_000)
        with pytest.raises(rangeio.ObjectChangedError):
            list(stream)

    async def main() -> None:
        write_pattern(path, 1 << 20)
        async with rangeio.open_async(path, reactor=reactor) as reader:
            stream = reader.stream(chunk=CHUNK, prefetch=0)
            assert await anext(stream) == pattern(0, CHUNK)
            os.truncate(path, 100_000)
            with pytest.raises(rangeio.ObjectChangedError):
                [piece async for piece in stream]
            assert [piece async for piece in stream] == []

    loop.run(main)
