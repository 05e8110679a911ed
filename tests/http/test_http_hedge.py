"""Requests made twice because the first had no answer for long: the faster wins, whatever becomes of the other."""

import gc
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop, cancel_when, run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, Script, honest, reply, scripted, sockets

import rangeio

need_module("urllib3")

DATA = bytes(range(256)) * 800
STALL = Answer(b"", "stall")


@pytest.fixture(params=["sync", *LOOPS])
def open_reader(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function from a script to a reader that hedges after 50 ms, and its server."""
    servers: list[Any] = []
    readers: list[Any] = []
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)

    def make(script: Script, **options: Any) -> tuple[Any, Any]:
        servers.append(scripted(script))
        server = servers[-1].__enter__()
        options = {"hedge": 0.05, "retry": rangeio.Retry(attempts=2, backoff_s=0.001), **options}
        opened: Any = rangeio.open if loop is None else rangeio.open_async
        reader = opened(server.url, **options)
        readers.append(reader)
        return (reader if loop is None else Awaited(reader, loop)), server

    yield make
    for reader in readers:
        reader.close()
    for server in servers:
        server.__exit__(None, None, None)
    if loop is not None:
        loop.close()


def counts() -> tuple[int, int]:
    found = rangeio.stats()
    return found["hedges"], found["hedges_won"]


def stalling(*starts: int) -> Script:
    """Honest, but the first request from each of these offsets is never answered.

    A machine that is busy may be slow enough for more hedges, so tests count at least what they provoke.
    """
    left = set(starts)

    def script(asked: Asked) -> Answer:
        start = asked.range[0] if asked.range else 0
        if start in left:
            left.discard(start)
            return STALL
        return honest(DATA, asked)

    return script


@pytest.mark.parametrize("slow", [0, 1000])
def test_the_second_wins(open_reader: Any, slow: int) -> None:
    """Of the first read of an object, and of one over a connection that is kept."""
    before = counts()
    reader, server = open_reader(stalling(slow))
    for offset in (0, 1000):
        assert reader.read_at(offset, 100) == DATA[offset : offset + 100]
    assert min(now - was for now, was in zip(counts(), before, strict=True)) >= 1
    same = [asked for asked in server.asked if asked.range == (slow, slow + 100)]
    assert len(same) >= 2
    assert same[0].fields == same[1].fields
    assert same[0].connection != same[1].connection


def test_among_many(open_reader: Any) -> None:
    """Each slow part of a large read, and each slow range, is overtaken on its own."""
    before = counts()
    reader, server = open_reader(stalling(40_000, 80_000), chunk=20_000)
    assert reader.read_range() == DATA
    wanted = [(at, at + 10) for at in range(0, 100_000, 10_000)]
    server.script = stalling(30_000)
    assert reader.read_ranges(wanted, gap=None) == [DATA[a:b] for a, b in wanted]
    assert min(now - was for now, was in zip(counts(), before, strict=True)) >= 3


def test_size(open_reader: Any) -> None:
    reader, server = open_reader(stalling(0))
    assert reader.stat().size == len(DATA)
    assert [asked.method for asked in server.asked[:2]] == ["HEAD", "HEAD"]


def test_the_second_fails(open_reader: Any) -> None:
    """Its failure is nobody's as long as the first may be answered."""
    failing: Queue[threading.Thread] = Queue()

    def script(asked: Asked) -> Answer:
        if asked.number == 0:
            failing.get().join()  # the other reply is sent by then
            return honest(DATA, asked)
        failing.put(threading.current_thread())
        return reply(503, then="close")

    before = counts()
    reader, server = open_reader(script)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert counts() == (before[0] + 1, before[1])
    assert len(server.asked) == 2


def test_both_fail(open_reader: Any) -> None:
    reader, _ = open_reader(lambda _: STALL, timeout=rangeio.Timeout(first_byte_s=0.1))
    with pytest.raises(rangeio.TimedOutError, match="first_byte_s") as caught:
        reader.read_at(5, 10)
    assert caught.value.attempts == 2


def test_what_is_certain_is_not_waited_for(open_reader: Any) -> None:
    """The second says that there is no such object: nothing that the first may say would make that untrue."""
    reader, _ = open_reader(lambda asked: STALL if asked.number == 0 else reply(404))
    with pytest.raises(rangeio.NotFoundError):
        reader.read_at(5, 10)


def test_never_two_versions(open_reader: Any) -> None:
    """The rival's reply is held to the pin as any other."""
    slow = stalling(10)

    def script(asked: Asked) -> Answer:
        asked.fields.pop("if-match", None)
        answer = slow(asked)
        if asked.range == (10, 20):
            answer.data = answer.data.replace(b'"v1"', b'"v2"')
        return answer

    reader, _ = open_reader(script)
    assert reader.read_at(0, 10) == DATA[:10]
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_at(10, 10)


def test_into_the_memory_of_the_caller(open_reader: Any) -> None:
    """The one that was too late writes nothing into it afterwards, and holds it no longer."""
    late: Queue[None] = Queue()

    def script(asked: Asked) -> Answer:
        if asked.number == 1:
            late.get()
            return Answer(honest(bytes(len(DATA)), asked).data)
        return honest(DATA, asked)

    reader, _ = open_reader(script)
    assert reader.read_at(0, 10) == DATA[:10]
    memory = bytearray(1000)
    assert reader.read_into(memory, 1000) == 1000
    memory[:] = bytes(1000)
    late.put(None)
    assert reader.read_at(5000, 10) == DATA[5000:5010]
    assert memory == bytes(1000)
    memory.extend(b"x")  # refused while anybody has a view of it


@pytest.mark.parametrize("name", LOOPS)
def test_cancelled_with_both_under_way(name: str) -> None:
    need_module(name)
    before = sockets()
    with scripted(lambda asked: STALL if asked.number else honest(DATA, asked)) as server:

        async def main() -> None:
            async with rangeio.open_async(server.url, hedge=0.05) as reader:
                assert await reader.read_at(0, 10) == DATA[:10]
                memory = bytearray(100)
                await cancel_when(name, lambda: len(server.asked) >= 3, reader.read_into(memory, 1000))
                memory.extend(b"x")
                server.script = lambda asked: honest(DATA, asked)
                assert await reader.read_at(20, 10) == DATA[20:30]

        run_on(name, main)
    server.wait_closed()
    gc.collect()
    assert sockets() - before == set()


def test_closed_with_both_under_way(open_reader: Any) -> None:
    """New reads are refused; that one completes."""
    slow, began = stalling(1000), threading.Event()

    def script(asked: Asked) -> Answer:
        if asked.range is not None and asked.range[0] == 1000:  # not a second request of the read before
            began.set()
        return slow(asked)

    reader, _ = open_reader(script)
    assert reader.read_at(0, 10) == DATA[:10]

    def close() -> None:
        assert began.wait(30)
        reader.close()

    closing = threading.Thread(target=close)
    closing.start()
    assert reader.read_at(1000, 10) == DATA[1000:1010]
    closing.join()
    with pytest.raises(rangeio.ClosedError):
        reader.read_at(0, 10)


def test_each_is_signed() -> None:
    slow = stalling(1000)
    keys = {"access_key_id": "AKID", "secret_access_key": "secret", "region": "eu-west-1"}
    with (
        scripted(slow) as server,
        rangeio.open("s3://bucket/key", endpoint_url=server.url, hedge=0.05, **keys) as reader,  # type: ignore[arg-type]
    ):
        assert reader.read_at(0, 10) == DATA[:10]
        assert reader.read_at(1000, 10) == DATA[1000:1010]
        same = [asked.fields for asked in server.asked if asked.range == (1000, 1010)]
        assert len(same) >= 2
        assert all(fields["authorization"].startswith("AWS4-HMAC-SHA256") for fields in same)


def test_off_by_default(open_reader: Any) -> None:
    before = counts()
    reader, server = open_reader(stalling(5), hedge=None, retry=2, timeout=rangeio.Timeout(first_byte_s=0.2))
    assert reader.read_at(5, 10) == DATA[5:15]
    assert counts() == before
    assert server.connections == 2
    assert rangeio.Options().hedge is None


@pytest.mark.parametrize("wrong", [0, -1, "soon", True])
def test_wrong_values(wrong: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="hedge"):
        rangeio.open("http://example.org/", hedge=wrong)
