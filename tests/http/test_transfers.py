"""One range over one connection, awaited in the core: wherever a response is cut, and however long its head is."""

import asyncio
import errno
import gc
import random
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import _uring
from _uring.records import Unfinished
from _uring.waiters import Waiter

pytestmark = pytest.mark.skipif(_uring.LoopTransfers is None, reason="there is no extension")

SIZE = 400_000
DATA = random.Random(3).randbytes(SIZE)


class Ours(_uring.Connection):
    """Our end of a connection whose other end is in the test's hands."""

    def __init__(self) -> None:
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sock = socket.create_connection(listener.getsockname())
            self.theirs, _ = listener.accept()
        self.theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.attach(self.sock.fileno())

    def close(self) -> None:
        self.sock.close()
        self.theirs.close()

    def tell(self, data: bytes) -> None:
        """Send, and wait until it has arrived."""
        self.theirs.sendall(data)
        select.select([self.sock], [], [], 5)


class Adopted:
    """Goes on with what was no plain response, by doing nothing."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Place:
    """Steady reads over one connection, on a loop whose part is done by hand. It is their reader, too."""

    def __init__(self) -> None:
        self.idle = _uring.IdleConnections()
        self.connection = Ours()
        self.idle.keep(self.connection)
        expected = _uring.Expected(SIZE, b'"v1"', None, None)
        request = _uring.RangeRequest(b"GET / HTTP/1.1\r\nRange: bytes=", b"\r\n\r\n", expected)
        made = _uring.default_reactor().steady(
            self.idle,
            request,
            self.idle.keep,
            most=SIZE,
            absolute=False,
            good_s=1000.0,
            timeout=(0.2, None),
            asked=int,
            answered=int,
            measured=max,
        )
        assert made is not None
        self.steady = made
        self.loop = asyncio.new_event_loop()
        self.found: list[Any] = []
        self.adopted: list[Adopted] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def renew(self) -> None:
        """Over another connection from now on."""
        self.idle.clear()
        self.connection.close()
        self.connection = Ours()
        self.idle.keep(self.connection)

    async def read_soon(self, start: int, count: int, into: memoryview | None, /) -> Any:
        return "again"

    def otherwise(
        self, found: Any, start: int, stop: int, into: memoryview | None, waiter: Waiter, key: object, /
    ) -> Adopted:
        assert key is self.loop
        self.found.append(found)
        self.adopted.append(Adopted())
        return self.adopted[-1]

    def turn(self) -> None:
        """The loop does what it can do now."""
        for _ in range(4):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def start(self, start: int, stop: int, into: memoryview | None = None) -> "asyncio.Task[Any]":
        count = stop - start
        task = self.loop.create_task(_uring.awaited(self.steady, start, count, into, self, True))
        self.tasks.append(task)
        self.turn()
        return task

    def begin(self, start: int, stop: int, into: memoryview | None = None) -> "asyncio.Task[Any]":
        task = self.start(start, stop, into)
        asked = self.connection.theirs.recv(4096)
        assert asked == b"GET / HTTP/1.1\r\nRange: bytes=%d-%d\r\n\r\n" % (start, stop - 1)
        return task

    def landed(self) -> Any:
        """What has come of the last one; None if more has to come."""
        self.turn()
        if self.found:
            return self.found.pop()
        return self.tasks.pop().result() if self.tasks[-1].done() else None

    def result(self) -> Any:
        """What comes of it."""
        until = self.loop.time() + 5
        while (found := self.landed()) is None:
            assert self.loop.time() < until, "nothing comes any more"
        return found

    def under_way(self) -> int:
        """How many of them."""
        places = [item for item in gc.get_objects() if isinstance(item, _uring.LoopTransfers)]
        return sum(map(len, places))

    def close(self) -> None:
        self.idle.clear()
        self.connection.close()
        for task in self.tasks:
            task.cancel()
        self.turn()
        self.loop.close()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def head_of(start: int, stop: int, more: int = 0, **fields: str) -> bytes:
    lines = [
        "HTTP/1.1 206 Word",
        f"Content-Range: bytes {start}-{stop - 1}/{SIZE}",
        f"Content-Length: {stop - start}",
        'ETag: "v1"',
        "X: " + "x" * more,
        *[f"{name}: {value}" for name, value in fields.items()],
    ]
    return "\r\n".join([*lines, "", ""]).encode()


RANGES = st.tuples(st.integers(0, SIZE - 1), st.sampled_from([1, 2, 100, 1500, 5000, 9000, 70_000]))
MORE = st.sampled_from([0, 0, 0, 1, 6, 12, 700, 1100, 7800])
CUTS = st.lists(st.integers(0, 9500), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(RANGES, MORE, CUTS), min_size=1, max_size=8))
def test_every_byte_finds_its_place(reads: list[tuple[tuple[int, int], int, list[int]]]) -> None:
    """Whatever the heads before have made it expect, and wherever the response is cut."""
    place = Place()
    for (start, length), more, cuts in reads:
        stop = min(SIZE, start + length)
        response = head_of(start, stop, more) + DATA[start:stop]
        place.begin(start, stop)
        ends = sorted({cut for cut in cuts if 0 < cut < len(response)})
        at = 0
        for end in ends:
            place.connection.tell(response[at:end])
            assert place.landed() is None
            at = end
        place.connection.tell(response[at:])
        assert place.result() == DATA[start:stop]
        assert len(place.idle) == 1
    place.close()


@pytest.mark.parametrize("more", [0, 3, 900, 4000])
@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 408 Late\r\n\r\n"])
@pytest.mark.parametrize("length", [10, 5000, 60_000])
def test_bytes_after_the_body(place: Place, more: int, surplus: bytes, length: int) -> None:
    """The read is right, and its connection is not used again; or they are seen before it is."""
    for turn in range(6):
        last = turn == 5
        start, stop = 10, 10 + length
        place.begin(start, stop)
        place.connection.tell(head_of(start, stop, 0 if turn < 5 else more) + DATA[start:stop])
        if last:
            place.connection.tell(surplus)
        assert place.result() == DATA[start:stop]
    assert place.start(0, 10).result() == "again"
    assert place.connection.sock.fileno() < 0


@pytest.mark.parametrize("turns", [0, 5])
@pytest.mark.parametrize("length", [10, 3000, 60_000])
def test_what_is_not_plain_is_handed_over_as_it_came(place: Place, turns: int, length: int) -> None:
    """With and without an expected length of the head."""
    start, stop = 7, 7 + length
    for _ in range(turns):
        place.begin(start, stop)
        place.connection.tell(head_of(start, stop) + DATA[start:stop])
        place.result()
    refusals = [
        head_of(start, stop).replace(b"206", b"200") + DATA[start:stop][:500],
        head_of(start, stop, ETag='"v2"'),
        b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nno.",
        b"\x00" * 700 + b"\n",
    ]
    for refusal in refusals:
        place.renew()
        place.begin(start, stop)
        place.connection.tell(refusal)
        found = place.result()
        assert isinstance(found, Unfinished)
        assert (found.start, found.stop, found.placed) == (start, stop, 0)
        assert refusal.startswith(found.head)
        assert found.head
        assert found.errno == errno.EAGAIN


def test_broken_off_in_the_body(place: Place) -> None:
    start, stop = 100, 50_100
    place.begin(start, stop)
    head = head_of(start, stop)
    place.connection.tell(head + DATA[start : start + 5])
    assert place.landed() is None
    place.connection.theirs.close()
    found = place.result()
    assert isinstance(found, Unfinished)
    assert (found.head, found.placed, found.errno) == (head, 5, 0)
    assert bytes(_uring.default_reactor().writable(found.destination[0])[:5]) == DATA[start : start + 5]


def test_into_memory_of_the_caller(place: Place) -> None:
    memory = bytearray(500)
    place.begin(3, 503, memoryview(memory))
    with pytest.raises(BufferError):
        memory.append(0)
    place.connection.tell(head_of(3, 503) + DATA[3:503])
    assert place.landed() == 500
    assert memory == DATA[3:503]
    memory.append(0)


def test_memory_of_the_caller_in_a_cycle_is_collected(place: Place) -> None:
    """A read that is under way when its loop is gone: nothing of it is left, and the process goes on."""
    memory = memoryview(bytearray(500))  # the oldest of the cycle, which is cleared first
    cycle: list[Any] = [memory, asyncio.new_event_loop()]
    place.loop.close()
    place.loop = cycle[1]
    cycle.append(place.start(0, 500, memory))
    cycle.append(cycle)
    place.tasks.clear()
    place.loop.set_exception_handler(lambda *_: None)  # it tells of a task that is destroyed while it waits
    place.loop.close()
    place.loop = asyncio.new_event_loop()
    del memory, cycle
    gc.collect()
    gc.collect()
    assert place.under_way() == 0
    assert place.connection.sock.fileno() < 0


def test_cancelled(place: Place) -> None:
    """Its connection is closed, and nothing of it comes any more."""
    task = place.begin(0, 500)
    place.connection.tell(head_of(0, 500) + DATA[:100])
    task.cancel()
    place.turn()
    assert task.cancelled()
    assert place.connection.sock.fileno() < 0
    assert place.under_way() == 0


def test_cancelled_while_another_goes_on_with_it(place: Place) -> None:
    """Who goes on with it is told."""
    task = place.begin(0, 500)
    place.connection.tell(b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nno.")
    assert isinstance(place.result(), Unfinished)
    [adopted] = place.adopted
    assert not adopted.cancelled
    task.cancel()
    place.turn()
    assert task.cancelled()
    assert adopted.cancelled


def test_late_ones_are_handed_over(place: Place) -> None:
    place.begin(0, 500)
    began = place.loop.time()
    found = place.result()
    assert place.loop.time() - began >= 0.15
    assert (found.head, found.placed, found.errno) == (b"", 0, errno.EAGAIN)
    assert place.under_way() == 0


def test_wanted_by_others(place: Place) -> None:
    """No read begins over a connection that others wait for, and what is given back goes to them."""
    place.begin(0, 10)
    place.idle.wanted = True
    place.connection.tell(head_of(0, 10) + DATA[:10])
    assert place.landed() == DATA[:10]
    assert len(place.idle) == 1  # by `give_back`
    assert place.start(0, 10).result() == "again"
    with suppress(OSError):
        place.connection.close()
