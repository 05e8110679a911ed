"""One range over one connection, in the core: wherever a response is cut, and however long its head is."""

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


class Place:
    """Steady reads over one connection, by a loop that is turned by hand."""

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
        assert _uring.LoopTransfers is not None
        self.loop = _uring.LoopTransfers()

    def renew(self) -> None:
        """Over another connection from now on."""
        self.idle.clear()
        self.connection.close()
        self.connection = Ours()
        self.idle.keep(self.connection)

    def begin(self, start: int, stop: int, into: memoryview | None = None) -> Any:
        begun = self.loop.start(self.steady, start, stop - start, into, "token")
        asked = self.connection.theirs.recv(4096)
        assert asked == b"GET / HTTP/1.1\r\nRange: bytes=%d-%d\r\n\r\n" % (start, stop - 1)
        return begun

    def landed(self) -> Any:
        """What has come of it; None if more has to come."""
        for token, result in self.loop.poll():
            assert token == "token"
            return result
        return None

    def result(self) -> Any:
        """What comes of it."""
        while (found := self.landed()) is None:
            assert select.select([self.loop], [], [], 5)[0], "nothing comes any more"
        return found

    def close(self) -> None:
        self.idle.clear()
        self.connection.close()


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
    assert place.loop.start(place.steady, 0, 10, None, "token") is None
    assert place.connection.sock.fileno() < 0


@pytest.mark.parametrize("turns", [0, 5])
@pytest.mark.parametrize("length", [10, 3000, 60_000])
def test_what_is_not_plain_is_handed_over_as_it_came(place: Place, turns: int, length: int) -> None:
    """With and without an expected length of the head."""
    start, stop = 7, 7 + length
    for _ in range(turns):
        place.begin(start, stop)
        place.connection.tell(head_of(start, stop) + DATA[start:stop])
        while place.landed() is None:
            select.select([place.loop], [], [], 5)
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
    select.select([place.loop], [], [], 5)
    found = place.landed()
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
    assert _uring.LoopTransfers is not None
    cycle: list[Any] = [_uring.LoopTransfers()]
    cycle.append(cycle[0].start(place.steady, 0, 500, memory, cycle))
    cycle.append(cycle)
    del memory, cycle
    gc.collect()
    gc.collect()
    assert place.connection.sock.fileno() >= 0


def test_cancelled(place: Place) -> None:
    """Its connection is closed, and nothing of it comes any more."""
    begun = place.begin(0, 500)
    place.connection.tell(head_of(0, 500) + DATA[:100])
    place.loop.cancel(begun)
    assert place.connection.sock.fileno() < 0
    assert place.landed() is None
    assert len(place.loop) == 0


def test_late_ones_are_told(place: Place) -> None:
    begun = place.begin(0, 500)
    assert place.loop.late() == []
    select.select([], [], [], 0.25)
    assert place.loop.late() == [begun]
    found = place.loop.hand_over(begun)
    assert (found.head, found.placed, found.errno) == (b"", 0, errno.EAGAIN)
    assert len(place.loop) == 0


def test_wanted_by_others(place: Place) -> None:
    """No read begins over a connection that others wait for, and what is given back goes to them."""
    place.begin(0, 10)
    place.idle.wanted = True
    place.connection.tell(head_of(0, 10) + DATA[:10])
    assert place.landed() == DATA[:10]
    assert len(place.idle) == 1  # by `give_back`
    assert place.loop.start(place.steady, 0, 10, None, "token") is None
    with suppress(OSError):
        place.connection.close()
