"""A read that failed keeps no memory, neither in a circle that only the collector finds, nor while somebody has the
error; and nothing keeps the error, whose traceback would keep the frames of the caller, and all that is in them.
"""

import gc
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop
from faults.machine import need_module

import _uring
import rangeio
from rangeio.awaitables import pause

NBYTES = 1 << 20
RANGES = [(start, start + 90_000) for start in range(0, 1_000_000, 100_000)]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def changing(tmp_path: Path) -> Callable[[], None]:
    """Writes the file once more, so that all that is read of one opened before is an error."""
    path = tmp_path / "data"

    def change() -> None:
        path.write_bytes(os.urandom(16) * (NBYTES // 16))

    change()
    return change


SYNC: dict[str, Callable[[rangeio.Reader], Any]] = {
    "read_at": lambda reader: reader.read_at(0, NBYTES),
    "read_ranges": lambda reader: reader.read_ranges(RANGES, gap=None),
    "read_ranges, merged": lambda reader: reader.read_ranges(RANGES, gap=10_000),
    "read_ranges, errors returned": lambda reader: raised(reader.read_ranges(RANGES, on_error="return")),
    "iter_ranges": lambda reader: list(reader.iter_ranges(RANGES, gap=None)),
    "stream": lambda reader: list(reader.stream(chunk=100_000)),
    "first of a stream": lambda reader: next(reader.stream(chunk=100_000)),
    "read_batch": lambda reader: reader.read_batch([start for start, _ in RANGES], 90_000),
    "read_into": lambda reader: reader.read_into(bytearray(NBYTES)),
    "copy": lambda reader: reader.copy(io.BytesIO()),
}


def raised(results: list[Any]) -> Any:
    raise results.pop()  # and no name for it here: the frame would hold it


async def listed(iteration: Any) -> list[Any]:
    return [item async for item in iteration]


AWAITED: dict[str, Callable[[rangeio.AsyncReader], Any]] = {
    "read_at": lambda reader: reader.read_at(0, NBYTES),
    "read_ranges": lambda reader: reader.read_ranges(RANGES, gap=None),
    "read_ranges, merged": lambda reader: reader.read_ranges(RANGES, gap=10_000),
    "iter_ranges": lambda reader: listed(reader.iter_ranges(RANGES, gap=None)),
    "stream": lambda reader: listed(reader.stream(chunk=100_000)),
    "read_batch": lambda reader: reader.read_batch([start for start, _ in RANGES], 90_000),
    "read_into": lambda reader: reader.read_into(bytearray(NBYTES)),
}


def live(reactor: _uring.Reactor) -> int:
    return reactor.stats()["buffers_live"]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("read", SYNC)
def test_a_read_that_failed(
    reactor: _uring.Reactor, tmp_path: Path, changing: Callable[[], None], read: str
) -> None:
    before = live(reactor)
    for _ in range(3):
        with rangeio.open(tmp_path / "data", reactor=reactor) as reader:
            changing()
            try:
                SYNC[read](reader)
            except rangeio.ObjectChangedError as error:
                kept = error
        assert live(reactor) == before, "while somebody has the error"
        error_is_gone = weakref.ref(kept)
        del kept
        assert error_is_gone() is None


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("read", AWAITED)
def test_an_awaited_read_that_failed(
    reactor: _uring.Reactor, tmp_path: Path, changing: Callable[[], None], read: str, name: str
) -> None:
    need_module(name)
    before = live(reactor)
    kept: list[BaseException] = []

    async def main() -> None:
        async with rangeio.open_async(tmp_path / "data", reactor=reactor) as reader:
            changing()
            try:
                await AWAITED[read](reader)
            except rangeio.ObjectChangedError as error:
                kept.append(error)
        for _ in range(2000):  # others of an iteration are read to their end
            if live(reactor) == before:
                break
            await pause(0.001)

    loop = Loop(name)
    try:
        for _ in range(3):
            loop.run(main)
            assert len(kept) == 1
            # A worker thread may have begun a read of the iteration only now: its bytes are dropped when it ends.
            settling = threading.Event()
            for _ in range(10_000):
                if live(reactor) == before or settling.wait(0.001):
                    break
            assert live(reactor) == before, "while somebody has the error"
            error_is_gone = weakref.ref(kept.pop())
            assert error_is_gone() is None
    finally:
        loop.close()
