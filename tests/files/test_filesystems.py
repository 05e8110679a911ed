"""Files on each kind of file system, and which way reads of them take: by the counters, not by the clock."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from contract import DATA, Make, ReaderContract
from faults.data import pattern
from faults.disk import flipped_block
from faults.machine import need, need_backend
from faults.mounts import IN_MEMORY, KINDS, OVER, file_system, overlay
from faults.rights import without_privileges
from faults.stalling import Server

import _uring
import rangeio

PAGE = 4096
RANGES = [(at, at + PAGE) for at in range(0, 40 * PAGE, 2 * PAGE)]

Place = tuple[Path, Path]


@pytest.fixture(params=["uring", "pool"])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend `python` reads all file systems alike."""
    name: str = request.param
    need_backend(name)
    return name


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Mounts a kind of file system at its first use."""
    made: dict[str, tuple[Any, Place]] = {}

    def place(kind: str) -> Place:
        if kind not in made:
            entered = file_system(kind, tmp_path_factory.mktemp("place"))
            made[kind] = entered, entered.__enter__()
        return made[kind][1]

    yield place
    for entered, _ in made.values():
        entered.__exit__(None, None, None)


def write(place: Place, name: str, data: bytes = DATA) -> Path:
    """The file, its bytes on the device: what is dirty stays in the page cache."""
    with open(place[0] / name, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return place[1] / name


@pytest.fixture
def hot(places: Callable[[str], Place], request: pytest.FixtureRequest) -> Path:
    """A file of DATA on the kind of file system that the test is given, in the page cache."""
    path = write(places(request.param), "hot")
    path.read_bytes()
    return path


def evict(path: Path) -> None:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class TestEach(ReaderContract):
    @pytest.fixture(params=["uring"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        need_backend("uring")
        return "uring"

    @pytest.fixture(params=KINDS)
    def make(
        self, reactor: _uring.Reactor, places: Callable[[str], Place], request: pytest.FixtureRequest
    ) -> Iterator[Make]:
        readers: list[rangeio.Reader] = []

        def make(data: bytes) -> rangeio.Reader:
            path = write(places(request.param), f"object{len(data)}", data)
            readers.append(rangeio.open(path, reactor=reactor))
            return readers[-1]

        yield make
        for reader in readers:
            reader.close()


def ways(reactor: _uring.Reactor, read: Callable[[], object]) -> tuple[int, int]:
    """Reads made by the caller, and requests given to the ring or workers, while `read` runs."""
    before = reactor.stats()
    read()
    now = {name: value - before[name] for name, value in reactor.stats().items()}
    return now["inline_hits"], now["ring_reads"] + now["pool_reads"]


def awaited(
    path: Path, reactor: _uring.Reactor, use: Callable[[rangeio.AsyncReader], Awaitable[object]]
) -> None:
    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, 1)
            await use(reader)

    asyncio.run(main())


CACHED = pytest.mark.parametrize("hot", [*IN_MEMORY, *OVER], indirect=True)
LAYERED = pytest.mark.parametrize("hot", ["overlay over ext4"], indirect=True)


@CACHED
def test_cached_reads_are_made_by_the_caller(reactor: _uring.Reactor, hot: Path) -> None:
    with rangeio.open(hot, reactor=reactor) as reader:
        reader.read_at(0, 1)  # finds out how the file is read
        space = bytearray(PAGE)
        assert ways(reactor, lambda: [reader.read_at(at, PAGE) for at in range(10)]) == (10, 0)
        assert ways(reactor, lambda: reader.read_into(space, PAGE)) == (1, 0)
        assert space == DATA[PAGE : 2 * PAGE]


@CACHED
def test_nothing_cached_goes_to_workers(reactor: _uring.Reactor, hot: Path) -> None:
    """Batches, long reads, iterations, file objects."""
    with rangeio.open(hot, reactor=reactor) as reader:
        for read in (
            lambda: reader.read_ranges(RANGES, gap=None),
            lambda: list(reader.iter_ranges(RANGES, gap=None)),
            lambda: reader.read_batch([start for start, _ in RANGES], PAGE),
            lambda: reader.read_at(0, 150_000),
            lambda: reader.as_file().read(150_000),
        ):
            assert ways(reactor, read)[1] == 0
        assert reader.read_ranges(RANGES, gap=None) == [DATA[start:stop] for start, stop in RANGES]


@CACHED
def test_cached_reads_are_there_before_they_are_awaited(reactor: _uring.Reactor, hot: Path) -> None:
    async def use(reader: rangeio.AsyncReader) -> None:
        for at in range(5):
            assert await reader.read_at(at * 1000, PAGE) == DATA[at * 1000 :][:PAGE]
        assert await reader.read_ranges(RANGES, gap=None) == [DATA[start:stop] for start, stop in RANGES]

    assert ways(reactor, lambda: awaited(hot, reactor, use)) == (5, 0)


@LAYERED
def test_awaited_reads_that_are_not_cached_are_not_made_on_the_loop(
    reactor: _uring.Reactor, hot: Path
) -> None:
    async def use(reader: rangeio.AsyncReader) -> None:
        assert await reader.read_at(0, PAGE) == DATA[:PAGE]
        evict(hot)
        assert await reader.read_at(100_000, PAGE) == DATA[100_000:][:PAGE]

    evict(hot)
    # The first read of the file, which brings its neighbours, and the last.
    assert ways(reactor, lambda: awaited(hot, reactor, use)) == (1, 2)


@LAYERED
def test_cold_reads_of_a_thread_are_its_own(reactor: _uring.Reactor, hot: Path) -> None:
    with rangeio.open(hot, reactor=reactor) as reader:
        reader.read_at(0, 1)
        evict(hot)
        assert ways(reactor, lambda: reader.read_at(100_000, PAGE)) == (1, 0)


@LAYERED
def test_a_file_that_is_closed_as_a_read_begins_stays_mapped_for_none(
    reactor: _uring.Reactor, hot: Path
) -> None:
    """The mapping would keep the file system busy, and the space of a file that is removed taken."""

    def close_when_it_begins(reader: rangeio.Reader, begun: list[bool]) -> None:
        while not begun:
            pass
        reader.close()

    interval, readers = sys.getswitchinterval(), []
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(300):
            reader, begun = rangeio.open(hot, reactor=reactor), list[bool]()
            readers.append(reader)
            thread = threading.Thread(target=close_when_it_begins, args=(reader, begun))
            thread.start()
            begun.append(True)
            with suppress(rangeio.ClosedError):
                reader.read_ranges(RANGES, gap=None)
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert str(hot) not in Path("/proc/self/maps").read_text()


@LAYERED
def test_what_is_not_cached_is_iterated_over_with_many_under_way(reactor: _uring.Reactor, hot: Path) -> None:
    """By the ring, where there is one: workers make the reads of an iteration one after the other."""
    ranges = [(at, at + PAGE) for at in range(0, 45 * PAGE, 15 * PAGE)]
    with rangeio.open(hot, reactor=reactor) as reader:
        evict(hot)
        before = reactor.stats()
        assert dict(reader.iter_ranges(ranges, gap=None)) == {
            index: DATA[start:stop] for index, (start, stop) in enumerate(ranges)
        }
        name = "ring_reads" if str(reactor.backend) == "uring" else "pool_reads"
        assert reactor.stats()[name] > before[name]


def test_a_bad_block_below_an_overlay(
    reactor: _uring.Reactor, places: Callable[[str], Place], tmp_path: Path
) -> None:
    """EIO in whichever way it is read, and nowhere but there."""
    bad = 1 << 20
    with (
        flipped_block(tmp_path, bad) as below,
        overlay(below.parent, tmp_path / "overlay", places("tmpfs")[0]) as point,
        rangeio.open(point / "data", reactor=reactor) as reader,
    ):
        assert reader.read_at(0, PAGE) == pattern(0, PAGE)
        for read in (
            lambda: reader.read_at(bad, PAGE),
            lambda: reader.read_into(bytearray(PAGE), bad),
            lambda: reader.read_ranges([(0, 10), (bad, bad + 10)], gap=None),
            lambda: list(reader.iter_ranges([(0, 10), (bad, bad + 10)], gap=None)),
            lambda: awaited(point / "data", reactor, lambda reader: reader.read_at(bad, PAGE)),
        ):
            with pytest.raises(rangeio.Error, match="EIO"):
                read()
        assert reader.read_at(bad + (1 << 20), PAGE) == pattern(bad + (1 << 20), bad + (1 << 20) + PAGE)


@LAYERED
def test_who_is_not_told_what_is_cached_uses_workers(reactor: _uring.Reactor, hot: Path) -> None:
    """mincore(2) tells neither who may write to the file nor owns it: it says that all is there."""

    async def use(reader: rangeio.AsyncReader) -> None:
        assert await reader.read_at(100_000, PAGE) == DATA[100_000:][:PAGE]

    os.chown(hot, 12345, 12345)
    os.chmod(hot, 0o444)
    assert ways(reactor, lambda: without_privileges(lambda: awaited(hot, reactor, use))) == (0, 2)


@LAYERED
def test_a_file_that_shrinks(reactor: _uring.Reactor, hot: Path) -> None:
    """Nobody touches the mapping: no SIGBUS, and never a byte that is not there."""
    with rangeio.open(hot, reactor=reactor, pin=False) as reader:
        assert reader.read_ranges(RANGES, gap=None)[0] == DATA[:PAGE]
        os.truncate(hot, 10_000)
        assert reader.read_at(8192, PAGE) == DATA[8192:10_000]
        assert [len(part) for part in reader.read_ranges(RANGES, gap=None)][:3] == [PAGE, 10_000 - 8192, 0]
        with open(hot, "ab") as file:
            file.write(b"x" * 300_000)
        assert reader.read_at(200_000, PAGE) == b"x" * PAGE
        assert reader.read_ranges([(250_000, 260_000)]) == [b"x" * 10_000]


@LAYERED
def test_a_pinned_file_that_shrinks(reactor: _uring.Reactor, hot: Path) -> None:
    with rangeio.open(hot, reactor=reactor) as reader:
        assert reader.read_ranges(RANGES, gap=None)[0] == DATA[:PAGE]
        os.truncate(hot, 10_000)
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_at(100_000, PAGE)


def mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@LAYERED
def test_a_closed_file_is_not_mapped(reactor: _uring.Reactor, hot: Path) -> None:
    reader = rangeio.open(hot, reactor=reactor)
    reader.read_ranges(RANGES, gap=None)
    assert mappings(hot) == 1
    reader.close()
    assert mappings(hot) == 0


@LAYERED
def test_mappings_are_bounded(reactor: _uring.Reactor, hot: Path) -> None:
    """A process may have 65530 of them, and needs some for its memory."""
    readers = [rangeio.open(hot, reactor=reactor) for _ in range(1100)]
    for reader in readers:
        assert reader.read_ranges(RANGES[:2], gap=None)[1] == DATA[2 * PAGE : 3 * PAGE]
    assert mappings(hot) == 1024
    for reader in readers:
        reader.close()
    assert mappings(hot) == 0


@pytest.mark.parametrize("hot", ["fuse"], indirect=True)
def test_what_a_process_serves_is_read_by_workers(reactor: _uring.Reactor, hot: Path) -> None:
    with rangeio.open(hot, reactor=reactor) as reader:
        assert ways(reactor, lambda: [reader.read_at(at, PAGE) for at in range(3)]) == (0, 3)
        assert ways(reactor, lambda: reader.read_ranges(RANGES, gap=None)) == (0, len(RANGES))


def test_an_overlay_over_what_a_process_serves(
    reactor: _uring.Reactor, stalling: Server, places: Callable[[str], Place], tmp_path: Path
) -> None:
    """As that itself: whoever reads it may have to wait for ever."""
    writable = places("tmpfs")[0]
    with (
        overlay(stalling.folder, tmp_path / "overlay", writable) as point,
        rangeio.open(point / "plain", reactor=reactor) as reader,
    ):
        assert ways(reactor, lambda: [reader.read_at(at, PAGE) for at in range(3)]) == (0, 3)


def test_memory_without_a_name(reactor: _uring.Reactor) -> None:
    """memfd_create(2) makes files of tmpfs."""
    need(hasattr(os, "memfd_create"), "needs memfd_create")
    fd = os.memfd_create("data")
    os.write(fd, DATA)
    with rangeio.from_fd(fd, closefd=True, reactor=reactor) as reader:
        reader.read_at(0, 1)
        assert ways(reactor, lambda: reader.read_at(1000, PAGE)) == (1, 0)
