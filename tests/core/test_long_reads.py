"""Long reads of an uncached file: in order through the page cache, or past it where `direct="auto"` says so."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import need, need_module

import _uring
import rangeio
from rangeio.cli.machine import resident_share

NBYTES = (40 << 20) + 777


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("long") / "data", NBYTES)


def evict(descriptor: int, start: int = 0, length: int = 0) -> None:
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def descriptor(path: Path) -> Any:
    descriptor = os.open(path, os.O_RDONLY)
    evict(descriptor)
    need(resident_share(descriptor) == 0, "needs mincore(2), and a cache that can be emptied")
    yield descriptor
    os.close(descriptor)


def test_whatever_is_cached(reactor: _uring.Reactor, path: Path, descriptor: int) -> None:
    """Cached pieces are copied and the rest is read around them, into a Buffer and into memory of the caller's."""
    chance = random.Random(5)
    with rangeio.open(path, reactor=reactor, direct=False) as reader:
        for _ in range(8):
            for _ in range(chance.randrange(6)):
                evict(descriptor, chance.randrange(NBYTES), chance.randrange(NBYTES))
            start = chance.randrange(1 << 20)
            stop = NBYTES - chance.randrange(1 << 20)
            assert reader.read_at(start, stop - start) == pattern(start, stop)
            evict(descriptor, chance.randrange(NBYTES), chance.randrange(NBYTES))
            space = bytearray(NBYTES)
            assert reader.read_into(space, start) == NBYTES - start
            assert space[: NBYTES - start] == pattern(start, NBYTES)
        evict(descriptor)
        assert reader.read_at(3, 2**62) == pattern(3, NBYTES)


@pytest.mark.parametrize("loop", LOOPS)
def test_awaited(reactor: _uring.Reactor, path: Path, descriptor: int, loop: str) -> None:
    need_module(loop)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=False) as reader:
            evict(descriptor, 5 << 20, 20 << 20)
            assert await reader.read_at(9, NBYTES) == pattern(9, NBYTES)
            evict(descriptor)
            space = bytearray(NBYTES)
            assert await reader.read_into(space, 11) == NBYTES - 11
            assert space[: NBYTES - 11] == pattern(11, NBYTES)

    run_on(loop, main)


PAST_THE_CACHE = code("""
    import asyncio
    import os, sys
    import rangeio
    from rangeio.cli.machine import resident_share
    path, nbytes = sys.argv[1], int(sys.argv[2])
    descriptor = os.open(path, os.O_RDONLY)
    data = os.pread(descriptor, nbytes, 0)
    told = []

    def left(read, wanted, cached=0):
        "What of the file is in the page cache after a read that begins when so many bytes of it are."
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(descriptor, cached, 0)
        before = resident_share(descriptor)
        told.append(read() == wanted)
        return resident_share(descriptor) > before

    async def awaited():
        async with rangeio.open_async(path) as reader:
            return await reader.read_at(5, nbytes)

    with rangeio.open(path) as reader:
        facts = {
            "whole": left(lambda: reader.read_at(0, nbytes), data),
            "unaligned": left(lambda: reader.read_at(4097, nbytes - 5000), data[4097:nbytes - 903]),
            "past the end": left(lambda: reader.read_at(77, 2**62), data[77:]),
            "awaited": left(lambda: asyncio.run(awaited()), data[5:]),
            "ranges": left(
                lambda: reader.read_ranges([(i << 21, (i + 1) << 21) for i in range(16)], gap=None),
                [data[i << 21:(i + 1) << 21] for i in range(16)],
            ),
            "short": left(lambda: reader.read_at(0, 1 << 20), data[:1 << 20]),
            "cached": left(lambda: reader.read_at(0, nbytes), data, nbytes // 2),
            "reason": "auto" in reader.capability.direct_reason and not reader.capability.direct,
        }
    with rangeio.open(path, direct=False) as reader:
        facts["direct=False"] = left(lambda: reader.read_at(0, nbytes), data)
    say(right=all(told), **facts)
""")


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
def test_auto_reads_long_ranges_past_the_cache(lab: Lab, path: Path, descriptor: int) -> None:
    """A long read of uncached bytes leaves the page cache as it was; others go through it."""
    with rangeio.open(path, direct=True) as reader:
        need(reader.capability.direct, reader.capability.direct_reason)
    with rangeio.open(path) as reader:
        need("except" in reader.capability.direct_reason, "statx(2) does not tell the alignment")
    child = lab.run(PAST_THE_CACHE, path, NBYTES, RANGEIO_DIRECT_FROM=str(16 << 20))
    past = dict.fromkeys(("whole", "unaligned", "past the end", "awaited", "ranges"), False)
    through = dict.fromkeys(("short", "cached", "direct=False", "reason"), True)
    assert child.facts() == {"right": True, **past, **through}


MIB = 1 << 20
JOINED = {
    "all, in pieces": ([*range(20)], 3),
    "a gap": ([0, 1, 2, 4, 5], 2),
    "twice, and backwards": ([7, 7, 6, 5], 4),
    "up to the end, and again": ([37, 38, 39, 0, 1], 2),
}


@pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("case", JOINED)
def test_records_that_follow_each_other_are_one_read(reactor: _uring.Reactor, path: Path, case: str) -> None:
    """With O_DIRECT, up to 8 MiB."""
    places, reads = JOINED[case]
    with rangeio.open(path, reactor=reactor, direct=True) as reader:
        need(reader.capability.direct, "needs a file system with O_DIRECT")
        before = reactor.stats()
        table = reader.read_batch([place * MIB for place in places], MIB)
        after = reactor.stats()
        assert bytes(table) == b"".join(pattern(place * MIB, (place + 1) * MIB) for place in places)
        assert sum(after[name] - before[name] for name in ("ring_reads", "pool_reads")) == reads
        assert after["reads"] - before["reads"] == len(places)
