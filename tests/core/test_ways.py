"""Which way a read goes: what is cached costs neither turn nor future, what is not goes in together and waits alone."""

import asyncio
import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awaited import LOOPS, run_on
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.disk import command
from faults.machine import need, need_backend, need_module, need_root_and
from faults.notify import Supervisor
from faults.stalling import Server

import _uring
import rangeio
from _uring.pure import workers as threads
from rangeio.cli.machine import resident_share

NBYTES = 8 << 20
NATIVE = pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)
RING = pytest.mark.parametrize("backend", ["uring"], indirect=True)
LOOPED = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("ways") / "data", NBYTES)


# --- cached ----------------------------------------------------------------------------------------------------


@NATIVE
def test_a_cached_read_enters_no_ring_and_no_queue(reactor: _uring.Reactor, path: Path) -> None:
    with rangeio.open(path, reactor=reactor) as reader:
        reader.read_at(0, 1)
        before = reactor.stats()
        for place in range(100):
            assert reader.read_at(place * 4096, 4096) == pattern(place * 4096, place * 4096 + 4096)
        after = reactor.stats()
    assert after["inline_hits"] - before["inline_hits"] == 100
    for counter in ("ring_enters", "ring_reads", "pool_reads"):
        assert after[counter] == before[counter]


class Watched:
    """Awaits a coroutine, and counts how often that gives up its turn."""

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.turns = 0

    def __await__(self) -> Any:
        sent = None
        try:
            while True:
                asked = self.coroutine.send(sent)
                self.turns += 1
                sent = yield asked
        except StopIteration as returned:
            return returned.value


@NATIVE
@LOOPED
@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.read_at(4096, 4096),
        lambda reader: reader.read_into(bytearray(4096), 4096),
        lambda reader: reader.read_batch([0, 4096], 100),
        lambda reader: reader.read_ranges([(0, 100), (4096, 8192)]),
    ],
    ids=["read_at", "read_into", "read_batch", "read_ranges"],
)
def test_a_cached_await_gives_up_no_turn(reactor: _uring.Reactor, path: Path, loop: str, read: Any) -> None:
    """Twenty in a row run through, but for the one of 64 that ends a go: nothing is left for the loop to do."""
    need_module(loop)

    async def twenty(reader: rangeio.AsyncReader) -> None:
        for _ in range(20):
            assert await read(reader) is not None

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, NBYTES)
            watched = Watched(twenty(reader))
            await watched
            assert watched.turns <= 1

    run_on(loop, main)


# --- awaited, and not cached -----------------------------------------------------------------------------------


@RING
@LOOPED
def test_reads_of_one_turn_go_in_together(reactor: _uring.Reactor, path: Path, loop: str) -> None:
    """A hundred tasks, a hundred reads of the device: one io_uring_enter."""
    need_module(loop)
    found: list[bool] = []

    async def read(reader: rangeio.AsyncReader, place: int) -> None:
        found.append(await reader.read_at(place, 4096) == pattern(place, place + 4096))

    async def all_of(reader: rangeio.AsyncReader) -> None:
        reads = [read(reader, index * 65_536) for index in range(100)]
        if loop == "trio":
            import trio

            async with trio.open_nursery() as nursery:
                for coroutine in reads:
                    nursery.start_soon(_awaited, coroutine)
        else:
            await asyncio.gather(*reads)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            need(reader.capability.direct, "needs a file system with O_DIRECT")
            await reader.read_at(0, 1)
            before = reactor.stats()
            await all_of(reader)
            after = reactor.stats()
            assert found == [True] * 100
            assert after["ring_reads"] - before["ring_reads"] == 100
            assert after["ring_enters"] - before["ring_enters"] <= 2

    run_on(loop, main)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class Counting(asyncio.SelectorEventLoop):
    """Counts the futures that it makes."""

    futures = 0

    def create_future(self) -> "asyncio.Future[Any]":
        self.futures += 1
        return super().create_future()


@NATIVE
def test_a_batch_is_one_future(reactor: _uring.Reactor, path: Path) -> None:
    ranges = [(index * 8192, index * 8192 + 4096) for index in range(500)]

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            need(reader.capability.direct, "needs a file system with O_DIRECT")
            await reader.read_at(0, 1)
            loop.futures = 0
            assert await reader.read_ranges(ranges, gap=None) == [pattern(*pair) for pair in ranges]
            assert loop.futures == 1
            await reader.read_batch([start for start, _ in ranges], 4096)
            assert loop.futures == 2

    loop = Counting()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


# --- by the ring, or not ---------------------------------------------------------------------------------------


@RING
def test_a_ring_reads_where_the_file_system_can_complete_later(reactor: _uring.Reactor, path: Path) -> None:
    def reads() -> tuple[int, int]:
        stats = reactor.stats()
        return stats["ring_reads"], stats["pool_reads"]

    with rangeio.open(path, reactor=reactor, direct=True) as reader:
        need(reader.capability.direct, "needs a file system with O_DIRECT")
        by_ring, by_workers = reads()
        assert reader.read_at(4096, 100_000) == pattern(4096, 104_096)
        assert reader.read_ranges([(0, 10), (500_000, 500_010)]) == [
            pattern(0, 10),
            pattern(500_000, 500_010),
        ]
        assert reads() == (by_ring + 3, by_workers)


@RING
def test_workers_read_where_a_ring_would_block(reactor: _uring.Reactor, stalling: Server) -> None:
    """FUSE knows no RWF_NOWAIT: its reads in a ring take a kernel thread each, or hold up the caller."""

    def reads() -> tuple[int, int]:
        stats = reactor.stats()
        return stats["ring_reads"], stats["pool_reads"]

    async def awaited() -> None:
        async with rangeio.open_async(stalling.path("plain"), reactor=reactor) as reader:
            assert await reader.read_at(5, 100_000) == pattern(5, 100_005)

    by_ring, by_workers = reads()
    with rangeio.open(stalling.path("plain"), reactor=reactor) as reader:
        assert reader.read_at(5, 100_000) == pattern(5, 100_005)
        assert reader.read_ranges([(0, 10), (500_000, 500_010)]) == [
            pattern(0, 10),
            pattern(500_000, 500_010),
        ]
        assert len(list(reader.iter_ranges([(0, 10), (500_000, 500_010)], gap=None))) == 2
    asyncio.run(awaited())
    assert reads() == (by_ring, by_workers + 1 + 2 + 2 + 1)


@RING
def test_whether_a_ring_can_is_asked_without_read_ahead(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """With O_DIRECT not one page of the file enters the page cache."""
    path = write_pattern(tmp_path / "data", 1 << 20)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        need(resident_share(descriptor) == 0, "needs a file system that can drop pages")
        with rangeio.open(path, reactor=reactor, direct=True) as reader:
            need(reader.capability.direct, "needs a file system with O_DIRECT")
            assert reader.read_at(500_000, 100_000) == pattern(500_000, 600_000)
        assert resident_share(descriptor) == 0
    finally:
        os.close(descriptor)


def test_prefetch_fills_the_page_cache(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """All of each range, however long, and nothing far from them; the caller does not wait."""
    path = write_pattern(tmp_path / "data", 4 * NBYTES)
    with rangeio.open(path, reactor=reactor) as reader, open(path, "rb") as file:
        descriptor = file.fileno()
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        need(resident_share(descriptor) == 0, "needs mincore(2), and a cache that can be emptied")
        reader.prefetch([(0, NBYTES), (2 * NBYTES, 2 * NBYTES + 5), (NBYTES, NBYTES), (10 * NBYTES, None)])
        while (resident_share(descriptor) or 0) < 0.25:
            threading.Event().wait(0.002)
        assert (resident_share(descriptor) or 0) < 0.35
        assert reader.read_at(0, NBYTES) == pattern(0, NBYTES)


def test_no_read_waits_for_hints_and_they_end_with_their_file(reactor: _uring.Reactor, path: Path) -> None:
    """Of a file so large that none of them would ever be done."""

    def held() -> int:
        stats = reactor.stats()
        return stats["files_open"] + stats["in_flight"]

    before = held()
    fd = os.memfd_create("endless")
    os.truncate(fd, 1 << 60)
    with rangeio.from_fd(fd, reactor=reactor, closefd=True) as endless:
        for _ in range(200):
            endless.prefetch([(0, None)] * 3)
        assert reactor.read_files([(path, 5, 9)] * 3) == [pattern(5, 9)] * 3
    while held() > before:
        threading.Event().wait(0.002)


# --- O_DIRECT --------------------------------------------------------------------------------------------------


def test_direct_reads_leave_the_page_cache_alone(reactor: _uring.Reactor, path: Path) -> None:
    """Whatever the range: the aligned stretch around it comes from the device."""
    aligned = np.frombuffer(mmap.mmap(-1, 1 << 20), "u1")
    with open(path, "rb") as file, rangeio.open(path, reactor=reactor, direct=True) as reader:
        need(reader.capability.direct, reader.capability.direct_reason)
        reader.read_at(0, 1)  # the first one asks the file system what it can do
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        need(resident_share(file.fileno()) == 0.0, "needs mincore(2), and a cache that can be emptied")
        assert reader.read_at(4095, 2) == pattern(4095, 4097)
        assert reader.read_at(1_000_001, 300_000) == pattern(1_000_001, 1_300_001)
        found = reader.read_ranges([(7, 9), (NBYTES - 3, NBYTES + 5)])
        assert found == [pattern(7, 9), pattern(NBYTES - 3, NBYTES)]
        table = reader.read_batch([77, 5_000_001], 513)
        assert bytes(table) == pattern(77, 590) + pattern(5_000_001, 5_000_514)
        assert reader.read_into(aligned, 4096) == 1 << 20
        assert aligned.tobytes() == pattern(4096, 4096 + (1 << 20))
        assert b"".join(reader.stream((5, 3_000_000))) == pattern(5, 3_000_000)
        space = bytearray(100_001)
        assert reader.read_into(space, 1) == 100_001  # into memory that is not aligned, too
        assert space == pattern(1, 100_002)
        assert resident_share(file.fileno()) == 0.0


@pytest.fixture
def on_large_sectors(tmp_path: Path) -> Iterator[Path]:
    """A file on a device whose sectors are 4096 bytes: O_DIRECT at any finer offset is EINVAL there."""
    need_root_and("losetup", "mkfs.ext4", "mount")
    image, point = tmp_path / "image", tmp_path / "mount"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    made = command("losetup", "--sector-size", 4096, "--find", "--show", image)
    need(made.returncode == 0, f"losetup: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        for words in (("mkfs.ext4", "-q", "-F", device), ("mount", device, point)):
            done = command(*words)
            need(done.returncode == 0, f"{words[0]}: {done.stderr.strip()}")
        yield write_pattern(point / "data", 300_001)
    finally:
        command("umount", "-l", point)
        command("losetup", "--detach", device)


@NATIVE
def test_direct_reads_are_aligned_as_the_file_wants(reactor: _uring.Reactor, on_large_sectors: Path) -> None:
    """By statx(2), STATX_DIOALIGN: what would do for smaller sectors is refused here."""
    straight = os.open(on_large_sectors, os.O_RDONLY | os.O_DIRECT)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.preadv(straight, [mmap.mmap(-1, 4096)], 512)
    finally:
        os.close(straight)
    with rangeio.open(on_large_sectors, reactor=reactor, direct=True) as reader:
        assert (reader.capability.direct, reader.capability.alignment) == (True, 4096)
        ranges = [
            (0, 1),
            (511, 513),
            (512, 1024),
            (4095, 4097),
            (4096, 8192),
            (5000, 250_001),
            (299_999, 300_009),
        ]
        expected = [pattern(start, min(stop, 300_001)) for start, stop in ranges]
        assert [reader.read_at(start, stop - start) for start, stop in ranges] == expected
        assert reader.read_ranges(ranges, gap=None) == expected
        assert bytes(reader.read_batch([512, 100_001], 513)) == pattern(512, 1025) + pattern(100_001, 100_514)
        assert b"".join(reader.stream((7, None), chunk=10_000)) == pattern(7, 300_001)
        space = bytearray(100_000)
        assert reader.read_into(space, 513) == 100_000
        assert space == pattern(513, 100_513)


@pytest.fixture
def without_direct(tmp_path: Path) -> Iterator[Path]:
    """A file on ramfs, which refuses O_DIRECT."""
    need_root_and("mount")
    point = tmp_path / "ramfs"
    point.mkdir()
    made = command("mount", "-t", "ramfs", "none", point)
    need(made.returncode == 0, f"mount -t ramfs: {made.stderr.strip()}")
    try:
        yield write_pattern(point / "data", 300_000)
    finally:
        command("umount", "-l", point)


@NATIVE
def test_a_file_system_that_refuses_direct_reads(reactor: _uring.Reactor, without_direct: Path) -> None:
    """Falls back to the page cache, and says so."""
    with pytest.raises(OSError, match="Invalid argument"):
        os.open(without_direct, os.O_RDONLY | os.O_DIRECT)
    with rangeio.open(without_direct, reactor=reactor, direct=True) as reader:
        assert not reader.capability.direct
        assert "refused" in reader.capability.direct_reason
        assert "page cache" in reader.capability.direct_reason
        assert reader.capability.alignment == 0
        assert reader.read_at(5, 100_000) == pattern(5, 100_005)
        assert reader.read_ranges([(1, 2), (299_999, 300_005)]) == [pattern(1, 2), pattern(299_999, 300_000)]


@NATIVE
def test_made_up_files_have_no_alignment(reactor: _uring.Reactor) -> None:
    for direct in (True, False, "auto"):
        with rangeio.open("/proc/version", reactor=reactor, direct=direct) as reader:
            assert (reader.capability.direct, reader.capability.alignment) == (False, 0)


# --- registered with the ring ----------------------------------------------------------------------------------

BATCHES = code("""
    import sys, rangeio
    reader = rangeio.open(sys.argv[1], direct=True)
    nbytes, count = map(int, sys.argv[2:])
    places = [i * 7919 % (4 << 20) // nbytes * nbytes for i in range(count)]
    good = b"".join(pattern(place, place + nbytes) for place in places)
    say(direct=reader.capability.direct, first=bytes(reader.read_batch([0], 1)) == pattern(0, 1))
    ask_parent("io_uring_register")
    say(table=bytes(reader.read_batch(places, nbytes)) == good, name=str(rangeio.backend()))
""")
# Two calls register the file, one the memory; one each takes them back.
HALVINGS = [
    pytest.param(16 << 20, [0, 0, 0], 5, id="at once"),
    pytest.param(16 << 20, [0, 0, errno.ENOMEM, errno.ENOMEM, 0], 7, id="a quarter of it"),
    pytest.param(16 << 20, [0, 0, *[errno.ENOMEM] * 100], 2 + 4 + 1, id="16 MiB, halved to 2, then without"),
    pytest.param(4 << 20, [0, 0, *[errno.ENOMEM] * 100], 2 + 2 + 1, id="4 MiB, halved to 2, then without"),
    pytest.param(4 << 20, [errno.ENOMEM, 0, 0], 3, id="no file"),
]


@pytest.mark.parametrize(("nbytes", "answers", "calls"), HALVINGS)
def test_buffers_are_registered_by_halves(
    auto_lab: Lab, pattern_file: Path, nbytes: int, answers: list[int], calls: int
) -> None:
    """As RLIMIT_MEMLOCK makes the kernel answer; the records are the same."""
    need_backend("uring")
    with Supervisor({"io_uring_register": answers}) as supervisor:
        child = auto_lab.start(BATCHES, pattern_file, 4096, nbytes // 4096, wire=supervisor.childs.fileno())
        facts = child.finish().facts()
        need(facts["direct"], "needs a file system with O_DIRECT")
        assert facts == {"direct": True, "first": True, "table": True, "name": "uring"}
        assert supervisor.heard["io_uring_register"] == calls


# --- while something stalls ------------------------------------------------------------------------------------

KINDS = {
    "read_at": "reader.read_at(299_000, 2000)",
    "read_exact": "reader.read_exact(299_000, 2000)",
    "read_into": "fill(reader)",
    "read_range": "reader.read_range((299_000, 301_000))",
    "read_ranges": "reader.read_ranges([(299_000, 301_000), (0, 10)])[0]",
    "iter_ranges": "dict(reader.iter_ranges([(0, 10), (299_000, 301_000)]))[1]",
    "read_batch": "reader.read_batch([299_000], 2000)",
    "stream": "next(reader.stream((299_000, 301_000)))",
    "as_file": "reader.as_file((299_000, 301_000)).read()",
    "Operator": "operator.read_ranges([(sys.argv[1], (299_000, 301_000))])[0]",
}


@pytest.mark.parametrize("kind", KINDS)
def test_python_goes_on_while_a_read_waits(lab: Lab, stalling: Server, kind: str) -> None:
    """The GIL is not held: the main thread says so while the other one is in the middle of the call."""
    program = code(f"""
        import sys, threading, rangeio
        reader, operator = rangeio.open(sys.argv[1]), rangeio.Operator("fs")
        def fill(reader):
            space = bytearray(2000)
            assert reader.read_into(space, 299_000) == 2000
            return space
        results = []
        thread = threading.Thread(target=lambda: results.append(bytes({KINDS[kind]})))
        thread.start()
        input()
        say(alive=thread.is_alive(), results=len(results))
        thread.join()
        say(right=results == [pattern(299_000, 301_000)])
    """)
    child = lab.start(program, stalling.path("stall-300000"))
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"alive": True, "results": 0}
    stalling.release()
    assert child.finish().facts() == {"right": True}


@pytest.mark.parametrize("how", ["sync", "async"])
def test_files_of_one_call_are_read_at_the_same_time(lab: Lab, stalling: Server, how: str) -> None:
    """Both stall: the second is under way although the first does not come."""
    program = code("""
        import asyncio, sys, rangeio
        operator = rangeio.Operator("fs", root=sys.argv[1])
        jobs = [("stall-300000", (299_000, 301_000)), ("stall-700000", (699_000, 701_000)), ("plain", (5, 9))]

        async def main():
            return await operator.read_ranges_async(jobs)

        found = operator.read_ranges(jobs) if sys.argv[2] == "sync" else asyncio.run(main())
        say(wrong=wrong(found, [pair for _, pair in jobs]))
    """)
    child = lab.start(program, stalling.folder, how)
    both = {stalling.wait_for("stalled")["file"], stalling.wait_for("stalled")["file"]}
    assert both == {"stall-300000", "stall-700000"}
    stalling.release()
    assert child.finish().facts() == {"wrong": 0}


STREAMS = {
    "sync": """
        stream = rangeio.open(sys.argv[1]).stream(chunk=65_536, prefetch=1 << 20)
        found += [next(stream), next(stream)]
        begun()
        found += stream
    """,
    "async": """
        async def main():
            async with rangeio.open_async(sys.argv[1]) as reader:
                stream = reader.stream(chunk=65_536, prefetch=1 << 20)
                found.append(await anext(stream))
                found.append(await anext(stream))
                begun()
                async for buffer in stream:
                    found.append(buffer)

        run_on(sys.argv[2], main)
    """,
}


@pytest.mark.parametrize("loop", ["sync", *LOOPS])
def test_a_stream_begins_before_the_rest_is_there(lab: Lab, stalling: Server, loop: str) -> None:
    """Its first Buffers come while a later one stalls."""
    if loop != "sync":
        need_module(loop)
    program = code(
        """
        import sys, rangeio
        from awaited import run_on

        found = []

        def begun():
            say(first=wrong(found, [(0, 65_536), (65_536, 131_072)]))
            input()
        """,
        STREAMS["sync" if loop == "sync" else "async"],
        """
        say(whole=b"".join(found) == pattern(0, 1 << 20))
        """,
    )
    child = lab.start(program, stalling.path("stall-300000"), loop)
    assert child.line() == {"first": 0}
    child.tell()
    stalling.wait_for("stalled")
    stalling.release()
    assert child.finish().facts() == {"whole": True}


def test_who_waits_for_one_part_does_no_later_one_meanwhile() -> None:
    """The later one may stall, as above: the part that is done would be given when that ends."""
    own, begun, later = threading.get_ident(), threading.Event(), threading.Event()
    done_here = []

    class Process(threads.Process):
        def help(self, task: Callable[[], object], times: int, threads: int = 0) -> None:
            super().help(task, times, threads)
            assert begun.wait(30)  # a worker thread has taken the first

    def job(index: int) -> int:
        if threading.get_ident() == own:
            done_here.append(index)
            later.set()
        if index == 0:
            begun.set()
            later.wait(0.5)  # time enough to do another meanwhile
        return index

    results = Process(workers=2).as_completed(3, 2, job, ordered=True)
    assert next(results) == (0, 0)
    assert not done_here
    assert list(results) == [(1, 1), (2, 2)]


CANCEL = code("""
    import asyncio, select, sys, rangeio
    from awaited import run_on
    from rangeio.awaitables import pause

    loop, said = sys.argv[2], []

    def held():
        return rangeio.stats()["buffers_live"] > 0

    async def begin(reader):
        try:
            await reader.read_at(299_000, 2000)
            said.append("read")
        except BaseException as error:
            said.append(type(error).__name__)
            raise

    async def leave(reader):
        "Returns when the read is given up."
        if loop == "trio":
            import trio
            async with trio.open_nursery() as nursery:
                nursery.start_soon(begin, reader)
                await until_told()
                nursery.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(begin(reader))
            await until_told()
            task.cancel()
            await asyncio.wait([task])

    async def until_told():
        while not select.select([sys.stdin], [], [], 0)[0]:
            await pause(0.001)
        sys.stdin.readline()

    async def main():
        async with rangeio.open_async(sys.argv[1]) as reader:
            await reader.read_at(0, 1)
            await leave(reader)
            same = bytes(await reader.read_at(0, 4096)) == pattern(0, 4096)
            say(said=said, held=held(), same=same)
            await until_told()
            while held():
                await pause(0.001)
            say(again=bytes(await reader.read_at(299_000, 2000)) == pattern(299_000, 301_000))

    run_on(loop, main)
    say(leaks=leaks())
""")


@LOOPED
def test_a_read_that_stalls_is_cancelled_at_once(
    lab: Lab, stalling: Server, stalling_device: Path, loop: str
) -> None:
    """Before it is answered; its memory stays its own until then, and nobody hears of the answer."""
    need_module(loop)
    child = lab.start(CANCEL, stalling_device, loop)
    stalling.wait_for("stalled")
    child.tell()
    cancelled = "Cancelled" if loop == "trio" else "CancelledError"
    assert child.line() == {"said": [cancelled], "held": True, "same": True}
    stalling.release()
    stalling.wait_for("answered")
    child.tell()
    assert child.finish().facts() == {"again": True, "leaks": {}}
