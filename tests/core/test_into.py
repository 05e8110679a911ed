"""Many reads into memory of the caller: that fail, are cancelled, or that O_DIRECT cannot make in place."""

import asyncio
import errno
import os
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awaited import LOOPS, cancel_when, run_on
from faults.data import pattern
from faults.machine import need, need_module
from faults.stalling import Server

import _uring
import rangeio
from rangeio.awaitables import pause
from rangeio.cli.machine import resident_share

DATA = random.Random(75).randbytes(3_000_003)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.write_bytes(DATA)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    return made


def uncached(path: Path) -> Path:
    """The file, with no byte of it in the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def by_await(reader: rangeio.AsyncReader, places: Any, **options: Any) -> Any:
    async def read() -> Any:
        return await reader.read_ranges_into(places, **options)

    return asyncio.run(read())


# --- one batch -----------------------------------------------------------------------------------------------


def test_neighbours_are_one_read(reactor: _uring.Reactor, path: Path) -> None:
    """Whether cached or not: they follow each other in the list, in the file and in memory."""
    if str(reactor.backend) != "uring":
        pytest.skip("counted by the ring")
    with rangeio.open(uncached(path), reactor=reactor) as reader:
        pool = np.zeros(40_000, "u1")
        before = reactor.stats()["ring_reads"]
        places = [(pool[at : at + 1000], 500_000 + at) for at in range(0, 40_000, 1000)]
        assert reader.read_ranges_into(places) == [1000] * 40
        assert reactor.stats()["ring_reads"] - before <= 2
        assert bytes(pool) == DATA[500_000:540_000]


def test_hot_ranges_are_copied_out_of_a_mapping(reactor: _uring.Reactor, path: Path) -> None:
    with rangeio.open(path, reactor=reactor) as reader:
        if not reader.capability.mapped:
            pytest.skip("files are not mapped here")
        spaces = [bytearray(4096) for _ in range(32)]
        before = reactor.stats()["mapped_reads"]
        for _ in range(3):
            assert (
                reader.read_ranges_into([(space, 8192 * i) for i, space in enumerate(spaces)]) == [4096] * 32
            )
        assert reactor.stats()["mapped_reads"] - before == 64
        assert [bytes(space) for space in spaces] == [DATA[8192 * i : 8192 * i + 4096] for i in range(32)]


@pytest.mark.parametrize("shift", [0, 1, 8, 64, 511, 512, 4095])
@pytest.mark.parametrize("length", [1, 513, 65_536, 65_537, 1_000_001, 2_999_000])
@pytest.mark.parametrize("awaited", [False, True])
def test_direct_into_memory_that_is_not_aligned(
    reactor: _uring.Reactor, path: Path, shift: int, length: int, awaited: bool
) -> None:
    """Nothing beside the range is written to, however memory and offset are aligned."""
    with rangeio.open(uncached(path), reactor=reactor, direct=True) as reader:
        for start in (0, 1000, 1024, 3_000_003 - length, 3_000_003 - length // 2):
            pool = np.full(length + 9000, 45, "u1")
            at = -pool.ctypes.data % 4096 + shift
            place = pool[at : at + length]
            if awaited:
                got = by_await(rangeio.open_async(path, reactor=reactor, direct=True), [(place, start)])[0]
            else:
                got = reader.read_into(place, start)
            assert got == len(DATA[start : start + length])
            expected = bytearray(b"-" * len(pool))
            expected[at : at + got] = DATA[start : start + got]
            assert bytes(pool) == bytes(expected)


def test_direct_leaves_the_page_cache_alone(reactor: _uring.Reactor, path: Path) -> None:
    """Also the ends of ranges, and memory at odd addresses."""
    with rangeio.open(path, reactor=reactor, direct=True) as reader:
        if not reader.capability.direct:
            pytest.skip(reader.capability.direct_reason)
        reader.read_at(0, 1)  # the first one asks the file system what it can do
        with uncached(path).open("rb") as file:
            need(resident_share(file.fileno()) == 0.0, "needs mincore(2), and a cache that can be emptied")
        pool = np.zeros(1_500_000, "u1")
        places = [
            (pool[at + at // 1000 :][:n], 3 * at + 11)
            for at, n in ((7, 100_000), (200_000, 700), (300_000, 900_000))
        ]
        assert reader.read_ranges_into(places) == [100_000, 700, 900_000]
        with path.open("rb") as file:
            assert resident_share(file.fileno()) == 0.0
        assert all(bytes(place) == DATA[start : start + len(place)] for place, start in places)


# --- failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_a_file_that_is_replaced(reactor: _uring.Reactor, path: Path, on_error: Any) -> None:
    """Bytes of two versions are an error of all ranges, even of small ones."""
    with rangeio.open(path, reactor=reactor) as reader, open(path, "r+b") as other:
        spaces = [bytearray(100), bytearray(200_000)]
        assert reader.read_ranges_into([(space, 7) for space in spaces], on_error=on_error) == [100, 200_000]
        other.write(b"new")
        other.flush()
        os.utime(path, ns=(0, 0))
        if on_error == "raise":
            with pytest.raises(rangeio.ObjectChangedError):
                reader.read_ranges_into([(space, 7) for space in spaces])
        else:
            got = reader.read_ranges_into([(space, 7) for space in spaces], on_error=on_error)
            assert [type(error) for error in got] == [rangeio.ObjectChangedError] * 2
            assert [error.index for error in got if isinstance(error, rangeio.Error)] == [0, 1]
        for space in spaces:
            space.append(0)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_file_that_is_cut_short(reactor: _uring.Reactor, path: Path, awaited: bool) -> None:
    """Unpinned: what is left is counted, and the rest of the memory is as it was."""
    reader: Any = (rangeio.open_async if awaited else rangeio.open)(path, reactor=reactor, pin=False)
    spaces = [bytearray(b"-" * 100_000) for _ in range(3)]
    places = [(space, start) for space, start in zip(spaces, (0, 50_000, 140_000), strict=True)]
    os.truncate(path, 100_010)
    got = by_await(reader, places) if awaited else reader.read_ranges_into(places)
    assert got == [100_000, 50_010, 0]
    assert spaces[1] == DATA[50_000:100_010] + b"-" * 49_990
    assert spaces[2] == b"-" * 100_000
    reader.close()


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("awaited", [False, True])
def test_ranges_that_cannot_be_read(
    reactor: _uring.Reactor, stalling: Server, awaited: bool, on_error: Any
) -> None:
    """The error names the one that failed; with "return" the others are there."""
    path, spaces = stalling.path("eio-500000"), [bytearray(10), bytearray(20_000), bytearray(10)]
    reader: Any = (rangeio.open_async if awaited else rangeio.open)(path, reactor=reactor)
    places = [(spaces[0], 490_000), (spaces[1], 490_000), (spaces[2], 5)]

    def read() -> Any:
        if awaited:
            return by_await(reader, places, on_error=on_error)
        return reader.read_ranges_into(places, on_error=on_error)

    if on_error == "raise":
        with pytest.raises(rangeio.Error, match="EIO") as raised:
            read()
        assert (raised.value.index, raised.value.offset, raised.value.limit) == (1, 490_000, 20_000)
    else:
        got = read()
        assert (got[0], got[2], got[1].index, got[1].errno) == (10, 10, 1, errno.EIO)
        assert (spaces[0], spaces[2]) == (pattern(490_000, 490_010), pattern(5, 15))
    reader.close()
    for space in spaces:
        space.append(0)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("direct", [True, False])
def test_cancelled_at_any_point(reactor: _uring.Reactor, path: Path, loop: str, direct: bool) -> None:
    """Nothing writes to any of the memory after the await has ended."""
    need_module(loop)
    pool, rng, left = bytearray(2_000_000), random.Random(18), 0
    view = memoryview(pool)
    sizes = [(i * 40_000, i * 60_000 + i % 3, (1, 700, 4096, 30_000)[i % 4]) for i in range(48)]

    async def cancelled(reader: rangeio.AsyncReader, turns: int) -> bool:
        left_after = iter(range(turns))
        try:
            places = [(view[at : at + n], start) for at, start, n in sizes]
            await cancel_when(loop, lambda: next(left_after, None) is None, reader.read_ranges_into(places))
        except (AssertionError, pytest.fail.Exception):
            return False  # it was read before
        except BaseException as error:
            if type(error).__name__ not in ("ExceptionGroup", "BaseExceptionGroup"):
                raise
            return False
        return True

    async def main() -> None:
        nonlocal left
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            await reader.read_at(0, 1)
            for _ in range(10):
                uncached(path)
                left += await cancelled(reader, rng.randrange(3))
                pool[:] = bytes(len(pool))  # ours again
                until = time.monotonic() + 10
                while reactor.stats()["in_flight"] and time.monotonic() < until:
                    await pause(0.001)
                assert not any(pool)
            places = [(view[at : at + n], start) for at, start, n in sizes]
            assert await reader.read_ranges_into(places) == [n for _, _, n in sizes]
            assert all(pool[at : at + n] == DATA[start : start + n] for at, start, n in sizes)

    run_on(loop, main)


def test_an_operator_reads_into_many_files(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Each file once, whatever the order; a failure is that of its job."""
    operator = rangeio.Operator("fs", root=tmp_path, reactor=reactor)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    spaces = [bytearray(10) for _ in range(5)]
    jobs: list[Any] = [
        ("a", spaces[0], 0),
        ("c", spaces[1], 995),
        ("a", spaces[2], 990),
        ("gone", spaces[3], 0),
    ]
    read_async = partial(operator.read_ranges_into_async, jobs)

    async def awaited(**options: Any) -> Any:
        return await read_async(**options)

    for read in (partial(operator.read_ranges_into, jobs), lambda **options: asyncio.run(awaited(**options))):
        with pytest.raises(rangeio.NotFoundError) as raised:
            read()
        assert raised.value.index == 3
        got = read(on_error="return")
        assert (got[:3], type(got[3]), got[3].index) == ([10, 5, 10], rangeio.NotFoundError, 3)
        assert spaces == [b"a" * 10, b"c" * 5 + bytes(5), b"a" * 10, bytes(10), bytes(10)]
    assert operator.read_ranges_into(iter([(tmp_path / "b", spaces[4], 3)][:0])) == []
    for wrong, error in (
        (("a", b"frozen", 0), TypeError),
        (("a", spaces[0], -1), ValueError),
        (("b", memoryview(spaces[4])[2:], 0), ValueError),
        ((spaces[0], 0), TypeError),
        ((5, spaces[0], 0), TypeError),
    ):
        with pytest.raises(error, match=r"jobs\[1\]"):
            operator.read_ranges_into([("a", spaces[4], 0), wrong])  # type: ignore[list-item]
        with pytest.raises(error, match=r"jobs\[1\]"):
            operator.read_ranges_into_async([("a", spaces[4], 0), wrong])  # type: ignore[list-item]
    for space in spaces:
        space.append(0)
