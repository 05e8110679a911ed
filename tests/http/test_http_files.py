"""Files and streams over a network: few requests, and the right bytes."""

import asyncio
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from faults.data import pattern
from faults.machine import need_module
from servers.scripted import Answer, Asked, Scripted, honest, scripted

import rangeio

need_module("urllib3")

NBYTES = 3_000_000
DATA = bytes(pattern(0, NBYTES))


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(lambda asked: honest(DATA, asked)) as server:
        yield server


@pytest.fixture
def file(server: Scripted) -> Iterator[io.BufferedReader]:
    with rangeio.open(server.url) as reader:
        yield reader.as_file()


def ranges_of(server: Scripted) -> list[tuple[int, int]]:
    """What was asked for since the last call."""
    ranges = [asked.fields["range"].removeprefix("bytes=").split("-") for asked in server.asked]
    del server.asked[:]
    return sorted((int(start), int(stop) + 1) for start, stop in ranges)


def test_what_a_call_asks_for_is_one_request(server: Scripted, file: io.BufferedReader) -> None:
    file.seek(100_000)
    assert file.read(160_001) == DATA[100_000:260_001]
    assert ranges_of(server) == [(100_000, 260_001)]
    file.seek(1_000_000)
    memory = bytearray(300_000)
    assert file.readinto(memory) == 300_000
    assert memory == DATA[1_000_000:1_300_000]
    assert ranges_of(server) == [(1_000_000, 1_300_000)]
    file.seek(500_000)
    assert file.read1(70_000) == DATA[500_000:570_000]
    assert ranges_of(server) == [(500_000, 570_000)]
    file.seek(2_000_000)
    assert file.read() == DATA[2_000_000:]
    assert ranges_of(server) == [(2_000_000, NBYTES)]


def test_reads_elsewhere_fetch_little(server: Scripted, file: io.BufferedReader) -> None:
    for place in (0, 2_000_000, 700_000):
        file.seek(place)
        assert file.read(10) == DATA[place : place + 10]
        assert file.read(10) == DATA[place + 10 : place + 20]
    file.seek(10)
    assert file.readline() == io.BytesIO(DATA[10:]).readline()
    assert all(stop - start == 48 << 10 for start, stop in ranges_of(server))


def test_reading_on_fetches_more_each_time(server: Scripted, file: io.BufferedReader) -> None:
    assert b"".join(iter(lambda: file.read(1000), b"")) == DATA
    asked = ranges_of(server)
    sizes = [stop - start for start, stop in asked]
    assert sizes[:3] == [48 << 10, 192 << 10, 768 << 10]
    assert len(asked) <= 6


def test_a_wish_ends_with_its_call(server: Scripted, file: io.BufferedReader) -> None:
    """A failed or short call leaves nothing behind that makes later ones fetch more."""
    file.seek(NBYTES - 10)
    assert file.read(1_000_000) == DATA[-10:]
    file.seek(200_000)
    assert file.peek(1)[:5] == DATA[200_000:200_005]
    assert (200_000, 200_000 + (48 << 10)) in ranges_of(server)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(10)


def test_a_read_of_more_than_there_is_memory(server: Scripted, file: io.BufferedReader) -> None:
    """It takes memory for what there is. The size comes with the first response, or with a HEAD."""
    assert file.read(1 << 60) == DATA
    assert file.read(1 << 60) == file.read1(1 << 60) == b""
    file.seek(-10, 2)
    assert file.read1(1 << 60) == DATA[-10:]
    with rangeio.open(server.url) as reader, reader.as_file((5, 1_000)) as part:
        assert part.read1(1 << 60) == DATA[5:1_000]


def test_a_buffer_of_ones_own(server: Scripted) -> None:
    with rangeio.open(server.url) as reader, reader.as_file(buffer_size=1000) as file:
        assert file.read(100) == DATA[:100]
        assert ranges_of(server) == [(0, 1000)]


def test_columns_of_a_parquet_file() -> None:
    """One request for each column chunk, and a few for the footer."""
    arrow, parquet = need_module("pyarrow"), need_module("pyarrow.parquet")
    numbers = [index * 7919 % 65_537 for index in range(40_000)]
    table = arrow.table({name: [number + ord(name) for number in numbers] for name in "abcdefgh"})
    written = io.BytesIO()
    parquet.write_table(table, written, row_group_size=10_000, compression="none", use_dictionary=False)
    with scripted(lambda asked: honest(written.getvalue(), asked)) as server:
        with rangeio.open(server.url) as reader:
            got = parquet.read_table(reader.as_file(), columns=["c", "g"])
            assert got.equals(table.select(["c", "g"]))
        assert len(server.asked) <= 4 * 2 + 3


def test_async_file(server: Scripted) -> None:
    async def main() -> None:
        async with rangeio.open_async(server.url) as reader, reader.as_async_file() as file:
            assert await file.read(10) == DATA[:10]
            assert ranges_of(server) == [(0, 48 << 10)]
            await file.seek(1_000_000)
            assert await file.read(160_000) == DATA[1_000_000:1_160_000]
            assert ranges_of(server) == [(1_000_000, 1_160_000)]

    asyncio.run(main())


@pytest.mark.parametrize("way", ["sync", "awaited"])
def test_a_stream_reads_ahead_once_the_end_is_known(way: str) -> None:
    """The first reply tells the size; the others are then asked for before any of them is answered."""
    together: Any = None

    def script(asked: Asked) -> Answer:
        nonlocal together
        if asked.number == 0:
            together = threading.Barrier(2)
        elif asked.number <= 2:
            together.wait(20)
        return honest(DATA, asked)

    async def gather(url: str) -> bytes:
        async with rangeio.open_async(url, chunk=1 << 20) as reader:
            return b"".join([bytes(buffer) async for buffer in reader.stream()])

    with scripted(script) as server:
        if way == "awaited":
            got = asyncio.run(gather(server.url))
        else:
            with rangeio.open(server.url, chunk=1 << 20) as reader:
                got = b"".join(map(bytes, reader.stream()))
    assert got == DATA


@pytest.mark.parametrize("way", ["sync", "awaited"])
def test_progress_tells_the_whole_once_it_is_known(server: Scripted, way: str) -> None:
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    async def main() -> int:
        async with rangeio.open_async(server.url) as reader:
            return await reader.copy(io.BytesIO(), (7, None), progress=progress, chunk=1 << 20)

    if way == "awaited":
        assert asyncio.run(main()) == NBYTES - 7
    else:
        with rangeio.open(server.url) as reader:
            assert reader.copy(io.BytesIO(), (7, None), progress=progress, chunk=1 << 20) == NBYTES - 7
    assert seen == [(done, NBYTES - 7) for done in (1 << 20, 2 << 20, NBYTES - 7)]


@pytest.mark.parametrize("way", ["sync", "awaited"])
def test_pieces_of_an_iteration_are_those_of_its_plan(server: Scripted, way: str) -> None:
    ranges = [(0, 500_000), (1_000_000, 1_300_001)]

    async def main() -> list[tuple[int, bytes]]:
        async with rangeio.open_async(server.url) as reader:
            await reader.read_at(0, 1)  # before a server is known to do ranges it is sent nothing in pieces
            assert len((await reader.plan(ranges, chunk=100_000)).requests) == 9
            del server.asked[:]
            return [(index, bytes(got)) async for index, got in reader.iter_ranges(ranges, chunk=100_000)]

    if way == "awaited":
        found = asyncio.run(main())
    else:
        with rangeio.open(server.url) as reader:
            reader.read_at(0, 1)
            del server.asked[:]
            found = [(index, bytes(got)) for index, got in reader.iter_ranges(ranges, chunk=100_000)]
    assert sorted(found) == [(index, DATA[slice(*pair)]) for index, pair in enumerate(ranges)]
    asked = ranges_of(server)
    assert len(asked) == 9
    assert max(stop - start for start, stop in asked) == 100_000


@pytest.mark.parametrize("threads", [1, 8])
def test_requests_and_connections_are_counted(server: Scripted, threads: int) -> None:
    before = rangeio.stats()
    with rangeio.open(server.url) as reader:

        def read() -> None:
            for offset in range(50):
                reader.read_at(offset * 1000, 10)

        workers = [threading.Thread(target=read) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        reader.read_ranges([(0, 10), (1_000_000, 1_000_010)])
    after = rangeio.stats()
    assert after["requests"] - before["requests"] == len(server.asked) == threads * 50 + 2
    assert after["connections"] - before["connections"] == server.connections
