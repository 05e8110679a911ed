"""`_uring.exchange`: a request and its reply in one call. What it returns, and that it loses nothing."""

import errno
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

import _uring

HEAD = b"HTTP/1.1 206 Word\r\nContent-Length: 500\r\n\r\n"
ANNOUNCED = b"\r\nContent-Length: 500\r\n"
BODY = bytes(range(250)) * 2
REQUEST = b"GET / HTTP/1.1\r\n\r\n"

pytestmark = pytest.mark.skipif(_uring.exchange is None, reason="there is no extension")


class Line:
    """Both ends of a connection. `ask` is `exchange` on ours, with memory for a head and a body."""

    def __init__(self, *, waits: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.ours = socket.create_connection(listener.getsockname())
            self.theirs, _ = listener.accept()
        self.waits = waits
        self.ours.setblocking(waits)
        self.head, self.body = bytearray(len(HEAD)), bytearray(len(BODY))
        self.spare = b""

    def limit(self, seconds: float) -> None:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def ask(self, request: bytes = b"", announced: bytes = ANNOUNCED, *, bare: bool = False) -> int:
        assert _uring.exchange is not None
        body = None if bare else memoryview(self.body)
        head = self.head if bare else self.head + b"-"
        try:
            return _uring.exchange(self.ours.fileno(), request, memoryview(head), announced, body, self.waits)
        finally:
            self.head, self.spare = head[: len(self.head)], bytes(head[len(self.head) :])

    def tell(self, data: bytes) -> None:
        """Send, and wait until it has arrived."""
        had = self.pending()
        self.theirs.sendall(data)
        while self.pending() < had + len(data):
            select.select([], [], [], 0.001)

    def pending(self) -> int:
        self.ours.setblocking(False)
        try:
            return len(self.ours.recv(1 << 16, socket.MSG_PEEK))
        except BlockingIOError:
            return 0
        finally:
            self.ours.setblocking(self.waits)

    @property
    def came(self) -> bytes:
        return bytes(self.head + self.body)


@contextmanager
def opened(*, waits: bool) -> Iterator[Line]:
    line = Line(waits=waits)
    try:
        yield line
    finally:
        line.ours.close()
        line.theirs.close()


@pytest.fixture(params=[False, True], ids=["at once", "waits"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with opened(waits=request.param) as made:
        yield made


@pytest.fixture
def waiting() -> Iterator[Line]:
    with opened(waits=True) as made:
        yield made


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_request_alone(line: Line) -> None:
    line.head = bytearray()
    assert line.ask(REQUEST, bare=True) == 0
    assert line.theirs.recv(100) == REQUEST


def test_a_whole_reply(line: Line) -> None:
    line.tell(HEAD + BODY)
    assert line.ask(REQUEST) == len(HEAD + BODY)
    assert line.came == HEAD + BODY
    assert line.theirs.recv(100) == REQUEST


def test_a_quiet_connection(line: Line) -> None:
    """Nothing is taken by the look, and nothing waited for."""
    assert _uring.is_quiet is not None
    assert _uring.is_quiet(line.ours.fileno())
    line.tell(b"x")
    for _ in range(2):
        assert not _uring.is_quiet(line.ours.fileno())
    assert line.pending() == 1


@pytest.mark.parametrize("how", ["closed", "reset", "shut", "no socket"])
def test_a_connection_that_is_over(line: Line, how: str) -> None:
    assert _uring.is_quiet is not None
    if how == "reset":
        line.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "shut":
        line.theirs.shutdown(socket.SHUT_WR)
    elif how == "no socket":
        line.ours.close()
    else:
        line.theirs.close()
    if how != "no socket":
        select.select([line.ours], [], [], 20)
    assert not _uring.is_quiet(line.ours.fileno())


def test_more_than_the_reply(line: Line) -> None:
    """One byte of it, as a sign: what follows is nothing that was asked for."""
    line.tell(HEAD + BODY + b"more")
    assert line.ask() == len(HEAD + BODY) + 1
    assert line.came == HEAD + BODY
    assert line.spare == b"m"
    assert line.pending() == 3


def test_no_more_than_the_reply(line: Line) -> None:
    line.tell(HEAD + BODY)
    assert line.ask() == len(HEAD + BODY)
    assert line.spare == b"-"


def test_a_head_alone(line: Line) -> None:
    line.tell(HEAD + BODY)
    assert line.ask(bare=True) == len(HEAD)
    assert line.head == HEAD
    assert line.pending() == len(BODY)


@pytest.mark.parametrize(
    "came",
    [
        HEAD[:10],
        HEAD[:-1],
        HEAD.replace(b"Word", b"Words") + BODY[:100],
        HEAD.replace(b"Word", b"Wor") + BODY[:100],
        HEAD.replace(b"500", b"499") + BODY[:100],
        HEAD.replace(b"Length", b"lengtH") + BODY[:100],
        HEAD.replace(b"\r\n\r\n", b"\r\n\rx") + BODY[:100],
        b"x" * 300,
    ],
)
def test_nothing_else_is_waited_for(line: Line, came: bytes) -> None:
    """What is not as announced is given as it is, in one piece; a socket that waits would wait for ever for more."""
    line.tell(came)
    assert line.ask() == len(came)
    assert line.came[: len(came)] == came


def test_in_pieces(waiting: Line) -> None:
    """A body that takes its time is waited for, from the head on."""

    def send() -> None:
        assert waiting.theirs.recv(100) == REQUEST
        for piece in (HEAD, BODY[:1], BODY[1:99], BODY[99:]):
            threading.Event().wait(0.02)
            waiting.theirs.sendall(piece)

    with beside(send):
        assert waiting.ask(REQUEST) == len(HEAD + BODY)
    assert waiting.came == HEAD + BODY


def test_part_of_a_body(line: Line) -> None:
    line.limit(0.05)
    line.tell(HEAD + BODY[:7])
    assert line.ask() == len(HEAD) + 7
    assert line.came[: len(HEAD) + 7] == HEAD + BODY[:7]


def test_a_drip_is_no_reason_to_stay(waiting: Line) -> None:
    """Whatever comes in the meantime, the socket's limit ends the call: other limits are the caller's to look at."""
    waiting.limit(0.1)
    over = threading.Event()

    def drip() -> None:
        waiting.theirs.sendall(HEAD)
        for byte in BODY:
            if over.wait(0.02):
                break
            waiting.theirs.sendall(bytes([byte]))

    with beside(drip):
        count = waiting.ask()
        over.set()
    assert len(HEAD) <= count < len(HEAD + BODY)
    assert waiting.came[:count] == (HEAD + BODY)[:count]


def test_nothing(line: Line) -> None:
    line.limit(0.05)
    with pytest.raises(BlockingIOError):
        line.ask(REQUEST)
    assert line.theirs.recv(100) == REQUEST


def test_the_end(line: Line) -> None:
    line.tell(HEAD + BODY[:7])
    line.theirs.close()
    assert line.ask() == len(HEAD) + 7
    assert line.ask() == 0
    assert line.ask() == 0


def test_a_reset(line: Line) -> None:
    line.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.theirs.close()
    select.select([line.ours], [], [], 20)
    with pytest.raises(ConnectionResetError):
        line.ask()
    with pytest.raises(BrokenPipeError):
        line.ask(REQUEST)


def test_a_request_that_is_not_taken(line: Line) -> None:
    """It is not waited for, whatever the socket does: an idle connection takes it at once."""
    line.limit(0.001)

    def ask_on() -> None:
        for _ in range(1000):
            with suppress(BlockingIOError):
                line.ask(b"x" * 65_536)

    with pytest.raises(ConnectionError, match="could not be sent"):
        ask_on()


def test_a_closed_socket(line: Line) -> None:
    line.ours.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        line.ask(REQUEST)


def test_memory_that_cannot_be_written_to(line: Line) -> None:
    assert _uring.exchange is not None
    with pytest.raises(BufferError):
        _uring.exchange(line.ours.fileno(), REQUEST, memoryview(bytes(9)), b"", None, line.waits)
    with pytest.raises(BufferError):
        _uring.exchange(line.ours.fileno(), b"", memoryview(line.head), b"", memoryview(bytes(9)), line.waits)
    assert line.pending() == 0
    line.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        line.theirs.recv(1)


def test_a_signal_ends_the_waiting(waiting: Line) -> None:
    main = threading.main_thread().ident
    assert main is not None
    waiting.limit(20)

    def ask() -> None:
        waiting.ask()
        signal.pause()

    for came in (b"", HEAD + BODY[:9]):
        waiting.tell(came)
        timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ask()
        timer.join()
    assert waiting.came == HEAD + BODY[:9] + bytes(len(BODY) - 9)
