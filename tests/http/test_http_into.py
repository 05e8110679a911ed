"""Many reads over HTTP into memory of the caller: all at once, each body received in its place."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faults.data import pattern
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, reply, scripted

import rangeio

need_module("urllib3")

DATA = bytes(pattern(0, 300_000))
ROUND = 6


def in_company(sizes: set[int]) -> Callable[[Asked], Answer]:
    """Answers ranges of these sizes only when all ROUND of them have been asked for."""
    together = threading.Barrier(ROUND)

    def script(asked: Asked) -> Answer:
        if asked.range is not None and asked.range[1] - asked.range[0] in sizes:
            together.wait(30)
        return honest(DATA, asked)

    return script


def by_await(read: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await read()

    return asyncio.run(main())


@pytest.mark.parametrize("awaited", [False, True])
def test_all_are_in_flight(awaited: bool) -> None:
    spaces = [bytearray(10_000 + i) for i in range(ROUND)]
    places = [(space, 40_000 * i) for i, space in enumerate(spaces)]
    with scripted(in_company({len(space) for space in spaces})) as server:
        if awaited:
            reader = rangeio.open_async(server.url)

            async def read() -> Any:
                await reader.read_at(0, 5)
                return await reader.read_ranges_into(places)

            got = asyncio.run(read())
            reader.close()
        else:
            with rangeio.open(server.url) as plain:
                plain.read_at(0, 5)
                got = plain.read_ranges_into(places)
    assert got == [len(space) for space in spaces]
    assert all(space == DATA[at : at + len(space)] for space, at in places)


@pytest.mark.parametrize("awaited", [False, True])
def test_objects_of_an_operator_are_read_at_once(awaited: bool) -> None:
    spaces = [bytearray(10_000) for _ in range(ROUND)]
    jobs = [(f"object{i}", space, 1000 * i) for i, space in enumerate(spaces)]
    with scripted(in_company({10_000})) as server:
        operator = rangeio.Operator("http", root=server.url)
        if awaited:
            got = by_await(lambda: operator.read_ranges_into_async(jobs))
        else:
            got = operator.read_ranges_into(jobs)
        assert sorted(asked.target for asked in server.asked) == [f"/object{i}" for i in range(ROUND)]
    assert got == [10_000] * ROUND
    assert all(space == DATA[at : at + 10_000] for _, space, at in jobs)


@pytest.mark.parametrize("awaited", [False, True])
def test_failures_are_those_of_their_jobs(awaited: bool) -> None:
    """One that is missing, and one that is refused before any request; the memory is let go."""

    def script(asked: Asked) -> Answer:
        return reply(404) if asked.target == "/gone" else honest(DATA, asked)

    spaces = [bytearray(5) for _ in range(4)]
    paths = ["a", "gone", "../a", "a"]
    jobs: Any = [
        (path, space, 299_997 * (i == 3)) for i, (path, space) in enumerate(zip(paths, spaces, strict=True))
    ]
    with scripted(script) as server:
        operator = rangeio.Operator("http", root=server.url)

        def read(**options: Any) -> Any:
            if awaited:
                return by_await(lambda: operator.read_ranges_into_async(jobs, **options))
            return operator.read_ranges_into(jobs, **options)

        got = read(on_error="return")
        assert (got[0], got[3]) == (5, 3)
        assert [type(error) for error in got[1:3]] == [rangeio.NotFoundError, rangeio.PermissionDeniedError]
        assert [error.index for error in got[1:3]] == [1, 2]
        assert spaces == [DATA[:5], bytes(5), bytes(5), DATA[-3:] + bytes(2)]
        with pytest.raises(rangeio.NotFoundError) as raised:
            read()
        assert raised.value.index == 1
        with operator.open("gone") as reader:
            got = reader.read_ranges_into([(space, 0) for space in spaces], on_error="return")
            assert [(type(error), getattr(error, "index", None)) for error in got] == [
                (rangeio.NotFoundError, index) for index in range(4)
            ]
    for space in spaces:
        space.append(0)


def test_a_changed_object_is_refused() -> None:
    etag = '"v1"'
    with scripted(lambda asked: honest(DATA, asked, etag)) as server, rangeio.open(server.url) as reader:
        space, table = bytearray(100), bytearray(200)
        assert reader.read_ranges_into([(space, 0)]) == [100]
        assert reader.read_batch([5, 1000], 100, out=table) is table
        etag = '"v2"'
        with pytest.raises(rangeio.ObjectChangedError) as raised:
            reader.read_ranges_into([(space, 5), (table, 0)])
        assert raised.value.index == 0
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_batch([5, 1000], 100, out=table)
    space.append(0)
    table.append(0)


@pytest.mark.parametrize("awaited", [False, True])
def test_records_that_follow_each_other_are_one_request(awaited: bool) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as plain:
        reader: Any = rangeio.open_async(server.url) if awaited else plain

        def read(offsets: list[int], length: int) -> Any:
            if awaited:
                return by_await(lambda: reader.read_batch(offsets, length))
            return reader.read_batch(offsets, length)

        read([0], 1)
        offsets = [*range(5000, 6000, 10), 10, 0, 20, 30, 30]
        before = len(server.ranges)
        assert bytes(read(offsets, 10)) == b"".join(DATA[at : at + 10] for at in offsets)
        assert sorted(server.ranges[before:]) == [(0, 10), (10, 20), (20, 40), (30, 40), (5000, 6000)]
        with pytest.raises(rangeio.UnexpectedEofError, match="record 2 ") as raised:
            read([0, len(DATA) - 10, len(DATA)], 10)
        assert raised.value.index == 2
        if awaited:
            by_await(reader.aclose)

    with scripted(lambda asked: reply(500) if asked.range == (100, 120) else honest(DATA, asked)) as server:
        with rangeio.open(server.url, retry=1) as reader, pytest.raises(rangeio.ServerError) as raised:
            reader.read_batch([0, 10, 100, 110], 10)
        assert raised.value.index == 2


@pytest.mark.parametrize("way", ["reader", "slice", "operator"])
@pytest.mark.parametrize("awaited", [False, True])
def test_neighbours_are_one_request(way: str, awaited: bool) -> None:
    """Those that follow each other in the list, in the object and in memory, of any type; each has its own count."""
    table = np.zeros((10, 1000), np.uint8)  # its rows are objects of their own, in one memory
    apart = bytearray(1000)
    rows = [(row, 100 + 1000 * i) for i, row in enumerate(table)]
    places: list[tuple[Any, int]] = [*rows[:5], (apart, 5100), *rows[5:], (bytearray(), 10_100)]
    with scripted(lambda asked: honest(DATA[:9_600], asked)) as server:

        def read() -> Any:
            if way == "operator":
                operator = rangeio.Operator("http", root=server.url)
                jobs = [("a", space, at) for space, at in places]
                return operator.read_ranges_into_async(jobs) if awaited else operator.read_ranges_into(jobs)
            if awaited:
                reader = rangeio.open_async(server.url)
                return (reader.slice(0, 9_600) if way == "slice" else reader).read_ranges_into(places)
            plain = rangeio.open(server.url)
            return (plain.slice(0, 9_600) if way == "slice" else plain).read_ranges_into(places)

        got = by_await(read) if awaited else read()
        assert len([asked for asked in server.asked if asked.range]) == 3
    assert got == [1000] * 10 + [500, 0]
    assert table.tobytes() == DATA[100:9_600] + bytes(500)
    assert apart == DATA[5100:6100]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_failure_of_neighbours_is_that_of_each(awaited: bool) -> None:
    def script(asked: Asked) -> Answer:
        return reply(404) if asked.range and asked.range[0] >= 50_000 else honest(DATA, asked)

    space = bytearray(60)
    places = [(memoryview(space)[at : at + 10], (50_000 if at >= 20 else 0) + at) for at in range(0, 60, 10)]
    with scripted(script) as server:

        def read(**options: Any) -> Any:
            if awaited:
                return by_await(lambda: rangeio.open_async(server.url).read_ranges_into(places, **options))
            return rangeio.open(server.url).read_ranges_into(places, **options)

        got = read(on_error="return")
        assert got[:2] == [10, 10]
        assert [(type(error), error.index) for error in got[2:]] == [
            (rangeio.NotFoundError, i) for i in range(2, 6)
        ]
        with pytest.raises(rangeio.NotFoundError) as raised:
            read()
        assert raised.value.index == 2
    places.clear()
    space.append(0)
