"""Bytes that are honest over connections, redirects and validators that are not, by every loop; and no read that hangs.

The kinds of response are in test_http_matrix.py; this is what happens between responses, and around them.
"""

import contextlib
import fcntl
import random
import socket
import ssl
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop, run_on
from faults.machine import need_module
from servers.opening import OPTIONS, MakeReader
from servers.scripted import Answer, Asked, Scripted, honest, identity_of, reply, scripted

import rangeio
from rangeio.errors import UnexpectedError
from rangeio.http.connection_pool import ConnectionPool
from rangeio.http.range_read import RangeRead
from rangeio.http.urls import Origin, parse_url

need_module("urllib3")

DATA = bytes(i * 7 % 251 for i in range(200_000))
SIZE = len(DATA)
RANGES = [(5, 10), (100_000, 100_005)]


# --- bytes that nobody asked for ------------------------------------------------------------------------------

STRAY: dict[str, Answer] = {
    "the range that is read next": reply(
        206, b"EVIL!", Content_Range=f"bytes 5-9/{SIZE}", Content_Length="5", ETag='"v1"'
    ),
    "404": reply(404),
    "400, close": reply(400, Connection="close"),
    "408, close": reply(408, Connection="close"),
    "200": reply(200, b"hello", ETag='"v1"'),
    "200 of nothing": reply(200, ETag='"v1"'),
    "not HTTP": Answer(b"EVIL" * 10),
    "one byte": Answer(b"\n"),
}


def one(reader: Any) -> None:
    assert reader.read_at(5, 5) == DATA[5:10]


def many(reader: Any) -> None:
    assert reader.read_ranges(RANGES, gap=None) == [DATA[a:b] for a, b in RANGES]


def into(reader: Any) -> None:
    memory = bytearray(5)
    assert reader.read_into(memory, 5) == 5
    assert memory == DATA[5:10]


def as_they_land(reader: Any) -> None:
    found = dict(reader.iter_ranges(RANGES, gap=None))
    assert [found[index] for index in range(2)] == [DATA[a:b] for a, b in RANGES]


def large(reader: Any) -> None:
    assert reader.read_range((5, SIZE)) == DATA[5:]


def stat(reader: Any) -> None:
    assert reader.stat().size == SIZE


WAYS = [one, many, into, as_they_land, large, stat]


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    folder = tmp_path_factory.mktemp("identity")
    return identity_of(["127.0.0.1"], folder), str(folder / "ca.pem")


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", STRAY)
def test_what_lies_on_an_idle_connection_is_no_response(
    opened: MakeReader,
    identity: tuple[ssl.SSLContext, str],
    name: str,
    tls: bool,
    read: Callable[[Any], None],
) -> None:
    """RFC 9112 sections 6.3 and 9.2. The read goes on over another connection, and that costs no attempt."""
    context, ca_file = identity
    with scripted(lambda asked: honest(DATA, asked), context if tls else None) as server:
        given = {"ca_file": ca_file, "retry": 1, "chunk": 100_000, "pin": name != "200 of nothing"}
        reader = opened(server.url + "/o", **given)
        for start in range(4):
            assert reader.read_at(start, 10) == DATA[start : start + 10]
        tell_all(server, STRAY[name].data)
        read(reader)
        one(reader)


def tell_all(server: Scripted, data: bytes) -> None:
    """Send it over each connection, and see it arrive."""
    for sock in server._open:
        with contextlib.suppress(OSError, ValueError):
            sock.sendall(data)
            end = time.monotonic() + 10
            while unacknowledged(sock) and time.monotonic() < end:
                threading.Event().wait(0.001)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the other side has not received. Source: tcp(7), SIOCOUTQ."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("status", [400, 408])
def test_a_connection_that_is_ended_in_words_while_the_request_is_on_its_way(
    open_reader: MakeReader, status: int
) -> None:
    """On a connection that has served before. On a new one it is the answer."""

    def script(asked: Asked) -> Answer:
        first = all(other.connection != asked.connection for other in server.asked[:-1])
        return honest(DATA, asked) if first else reply(status, Connection="close", then="close")

    reader, server = open_reader(script, retry=1)
    for start in range(5):
        assert reader.read_at(start, 10) == DATA[start : start + 10]
    assert reader.read_ranges(RANGES, gap=None) == [DATA[a:b] for a, b in RANGES]
    server.script = lambda asked: reply(status, Connection="close", then="close")
    with pytest.raises(rangeio.Error, match=f"HTTP {status}"):
        reader.read_at(0, 10)


# --- versions ------------------------------------------------------------------------------------------------


def tagged(asked: Asked, etag: str | None, value: int, modified: str | None) -> Answer:
    start, stop = asked.range or (0, SIZE)
    fields = {"ETag": etag, "Last_Modified": modified}
    if asked.method == "HEAD":
        return reply(200, Content_Length=str(SIZE), **fields)
    body = bytes([value]) * (min(stop, SIZE) - start)
    return reply(206, body, Content_Range=f"bytes {start}-{min(stop, SIZE) - 1}/{SIZE}", **fields)


DATE, LATER = "Mon, 30 Nov 2026 03:00:00 GMT", "Mon, 30 Nov 2026 03:00:01 GMT"
CHANGES = {
    "weak, another": ('W/"1"', DATE, 'W/"2"', DATE),
    "weak, another, no date": ('W/"1"', None, 'W/"2"', None),
    "strong to weak": ('"1"', DATE, 'W/"1"', DATE),
    "weak to strong": ('W/"1"', DATE, '"1"', DATE),
    "weak, the same, another date": ('W/"1"', DATE, 'W/"1"', LATER),
    "weak, the same, no date any more": ('W/"1"', DATE, 'W/"1"', None),
    "weak, and then none": ('W/"1"', None, None, None),
    "strong, another": ('"1"', DATE, '"2"', DATE),
}


@pytest.mark.parametrize("read", [one, many, into, as_they_land, large, stat])
@pytest.mark.parametrize("name", CHANGES)
def test_another_version(open_reader: MakeReader, name: str, read: Callable[[Any], None]) -> None:
    """RFC 9110 section 8.8.3.2: weak ETags that differ do not match; equal ones prove nothing."""
    etag, date, later_etag, later_date = CHANGES[name]

    def script(asked: Asked) -> Answer:
        return tagged(asked, later_etag, 2, later_date) if changed else tagged(asked, etag, 1, date)

    changed = False
    reader, _ = open_reader(script, retry=1, chunk=100_000)
    for start in range(3):
        assert reader.read_at(start, 10) == b"\1" * 10
    changed = True
    with pytest.raises(rangeio.ObjectChangedError):
        read(reader)


def test_another_version_between_the_parts_of_one_read(open_reader: MakeReader) -> None:
    def script(asked: Asked) -> Answer:
        new = asked.range is not None and asked.range[0] >= 100_000
        return tagged(asked, 'W/"2"' if new else 'W/"1"', 2 if new else 1, DATE)

    for pin in (True, False):
        reader, _ = open_reader(script, retry=1, chunk=50_000, pin=pin)
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_range()


def test_equal_weak_etags(open_reader: MakeReader) -> None:
    """Are no change; and no If-Match is sent, which wants a strong one."""
    reader, server = open_reader(lambda asked: tagged(asked, 'W/"1"', 1, DATE), retry=1, chunk=50_000)
    assert reader.read_range() == b"\1" * SIZE
    assert reader.stat().etag == 'W/"1"'
    assert all("if-match" not in asked.fields for asked in server.asked)


# --- fields that cannot be digested ---------------------------------------------------------------------------

FAR_DATE = "Mon, 30 Nov 99999999999999999999 00:00:00 GMT"
LOCATIONS = [
    "//[",
    "http://[::1",
    "http://host:99999/",
    "http://a b/",
    "http://\u00ff\u00fe/",
    "mailto:a@b",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirect_to_what_is_no_place(open_reader: MakeReader, location: str) -> None:
    def script(asked: Asked) -> Answer:
        first = asked.target == "/object" and asked.number < 5
        return reply(302, Location=location) if first else honest(DATA, asked)

    reader, _ = open_reader(script, retry=1)
    with pytest.raises(rangeio.Error):
        reader.read_at(0, 10)
    with pytest.raises(rangeio.Error):
        reader.stat()


@pytest.mark.parametrize("value", [FAR_DATE, "yesterday", "Mon, 99 Foo 2026", "\u00ff", "0", ""])
def test_a_date_that_is_none(open_reader: MakeReader, value: str) -> None:
    """It is ignored: RFC 9110 section 5.6.7."""

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        fields = f"\r\nLast-Modified: {value}\r\nDate: {value}\r\n\r\n".encode("latin-1")
        answer.data = answer.data.replace(b"\r\n\r\n", fields, 1)
        return answer

    reader, _ = open_reader(script, retry=1, if_modified_since=DATE)
    assert reader.stat().mtime_ns is None
    assert reader.read_at(0, 10) == DATA[:10]


@pytest.mark.parametrize("value", [FAR_DATE, "yesterday", "1e9", "\u0663", "-1", "9" * 400])
def test_a_pause_that_is_none(open_reader: MakeReader, value: str) -> None:
    def script(asked: Asked) -> Answer:
        answer = reply(503)
        answer.data = answer.data.replace(
            b"\r\n\r\n", b"\r\nRetry-After: " + value.encode("utf-8") + b"\r\n\r\n"
        )
        return answer if asked.number == 0 else honest(DATA, asked)

    reader, _ = open_reader(script)
    with contextlib.suppress(rangeio.Error):
        assert reader.read_at(0, 10) == DATA[:10]


# --- redirects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_a_redirect_leads_to_is_the_answer(open_reader: MakeReader, status: int) -> None:
    """It was followed just now, so its target has not expired: another time would lead there again."""

    def script(asked: Asked) -> Answer:
        return reply(302, Location="/there") if asked.target == "/object" else reply(status)

    kinds = {404: rangeio.NotFoundError, 410: rangeio.NotFoundError}
    reader, server = open_reader(script)
    for _ in range(2):
        del server.asked[:]
        with pytest.raises(kinds.get(status, PermissionError), match=f"HTTP {status}"):
            reader.read_at(0, 10)
        assert len(server.asked) <= 3
    del server.asked[:]
    with pytest.raises(rangeio.Error, match=f"HTTP {status}"):
        reader.stat()
    assert len(server.asked) <= 4


class Lending:
    """Redirects to a new place each time. The first of them answers `often` times, others `lasting` times, and then
    refuses.
    """

    def __init__(self, status: int, often: int, lasting: int = 10**6) -> None:
        self._status, self._often, self._lasting = status, often, lasting
        self._lock = threading.Lock()
        self._left: list[int] = []

    def __call__(self, asked: Asked) -> Answer:
        with self._lock:
            if asked.target == "/object":
                self._left.append(self._lasting if self._left else self._often)
                return reply(302, Location=f"/lent/{len(self._left)}")
            place = int(asked.target.rpartition("/")[2]) - 1
            self._left[place] -= 1
            return reply(self._status) if self._left[place] < 0 else honest(DATA, asked)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_target_that_expires_under_reads_in_parts(open_reader: MakeReader, status: int) -> None:
    """Each part that is refused begins anew at the address given, also where others have before."""
    for read in (
        lambda reader: reader.read_range(),
        lambda reader: b"".join(
            map(bytes, reader.read_ranges([(at, at + 20_000) for at in range(0, SIZE, 20_000)], gap=None))
        ),
    ):
        reader, _ = open_reader(Lending(status, 3), chunk=20_000, concurrent=8)
        assert read(reader) == DATA


def test_a_target_that_expires_again_and_again(open_reader: MakeReader) -> None:
    reader, _ = open_reader(Lending(403, 3, lasting=3), chunk=20_000, concurrent=1)
    assert reader.read_range() == DATA


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_from_https_to_http(opened: MakeReader, identity: tuple[ssl.SSLContext, str], status: int) -> None:
    """Who opened https wants nobody to read along, or to change the bytes. Nothing is sent there."""
    context, ca_file = identity
    with (
        scripted(lambda asked: honest(DATA, asked)) as plain,
        scripted(lambda _: reply(status, Location=plain.url + "/o?sig=secret"), context) as server,
    ):
        reader = opened(server.url, ca_file=ca_file)
        for read in (one, stat):
            with pytest.raises(rangeio.UnsupportedError, match="insecure_redirects") as caught:
                read(reader)
            assert "secret" not in str(caught.value)
        assert not plain.asked
        one(opened(server.url, ca_file=ca_file, insecure_redirects=True))


def test_from_http_to_https_and_from_https_to_https(
    opened: MakeReader, identity: tuple[ssl.SSLContext, str]
) -> None:
    context, ca_file = identity
    with scripted(lambda asked: honest(DATA, asked), context) as safe:
        for own in (None, context):
            with scripted(lambda _: reply(302, Location=safe.url + "/o"), own) as server:
                one(opened(server.url, ca_file=ca_file))


# --- retries -------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_takes_no_retries_of_another(opened: MakeReader) -> None:
    """The budget is of each origin."""
    retry = rangeio.Retry(attempts=4, backoff_s=0.0001)

    def flaky(asked: Asked) -> Answer:
        return reply(503) if asked.number % 3 == 2 else honest(DATA, asked)

    with scripted(lambda _: reply(503)) as down, scripted(flaky) as server:
        refused = 0
        reader = opened(down.url, retry=retry)
        for _ in range(60):
            with pytest.raises(rangeio.ServerError) as caught:
                reader.read_at(0, 10)
            refused += "the retry budget of this server is exhausted" in str(caught.value)
        assert refused
        for start in range(30):
            other = opened(server.url, retry=retry)
            assert other.read_at(start, 10) == DATA[start : start + 10]


# --- cancellation --------------------------------------------------------------------------------------------


def test_cancelled_while_responses_arrive_under_trio() -> None:
    """In the turn in which a connection becomes readable: the watch is over, though its task was woken."""
    trio = need_module("trio")
    rnd = random.Random(1)
    ranges = [(at, at + 4096) for at in range(0, SIZE - 4096, 5000)]

    async def main(url: str) -> bytes:
        async with rangeio.open_async(url, gap=None) as reader:
            await reader.read_at(0, 10)
            for _ in range(150):
                with trio.move_on_after(rnd.random() * 0.004):
                    await reader.read_ranges(ranges)
            return bytes(await reader.read_at(5, 10))

    with scripted(lambda asked: honest(DATA, asked)) as server:
        assert trio.run(main, server.url) == DATA[5:15]


# --- defects -------------------------------------------------------------------------------------------------


def test_a_hole_is_never_handed_out(monkeypatch: pytest.MonkeyPatch, opened: MakeReader) -> None:
    """Whoever forgets to receive some bytes, or counts some twice, hears of it: not the caller gets them."""
    real = RangeRead.end_at
    with scripted(lambda asked: honest(DATA, asked)) as server:
        reader = opened(server.url, chunk=50_000)
        assert reader.read_at(0, 10) == DATA[:10]
        monkeypatch.setattr(RangeRead, "end_at", lambda read, stop: real(read, max(stop, SIZE + 7)))
        with pytest.raises(UnexpectedError, match="were received"):
            reader.read_at(SIZE - 10, 60_000)
        monkeypatch.undo()
        assert reader.read_at(SIZE - 10, 60_000) == DATA[-10:]


class Bomb:
    """Raises in the n-th call of any of some functions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for owner, names in engine_functions().items():
            for name in names:
                monkeypatch.setattr(owner, name, self._armed(getattr(owner, name)))

    def _armed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise ValueError("injected")
            return work(*arguments, **named)

        return armed


def engine_functions() -> dict[Any, list[str]]:
    """Those that a driver calls back, and those that they call: not the ones that clean up after an exception."""
    from rangeio.http import awaited_reads, heads, responses, validation
    from rangeio.http.attempt import Attempt
    from rangeio.http.engine import Engine
    from rangeio.http.response_parser import ResponseParser

    return {
        Engine: [
            "_begin_read", "_adopt", "_admit", "_expand", "pump", "arrived", "judge", "_complete", "_tick", "_fan_out",
            "next_piece", "piece_arrived",
        ],
        Attempt: [
            "connect", "dial", "_opened", "_send", "_send_rest", "_judge", "_readable", "_completed", "adopt",
            "_begin_piece", "_plain_body",
        ],
        awaited_reads: ["otherwise"],
        awaited_reads.LoopReads: ["begin", "_take"],
        ResponseParser: ["received", "_read_head", "_begin_body", "_count", "_is_accepted"],
        responses: ["judge", "_check_version", "_take", "taken"],
        validation: ["judge", "content_range"],
        heads: ["parse_head"],
        RangeRead: ["room", "piece", "result"],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["sync", *LOOPS])
def test_an_exception_in_any_function_of_the_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read ends with an error of the tree that names it, and the next one is as ever; no loop is told, or dies."""
    loop = None if name == "sync" else Loop(need_module(name).__name__)
    ranges = [(0, 60_000), (70_000, 70_010), (100_000, SIZE)]
    wanted = [DATA[a:b] for a, b in ranges]
    bomb = Bomb(monkeypatch)

    def open_reader(url: str) -> Any:
        options = {**OPTIONS, "gap": None, "chunk": 50_000, "concurrent": 2}
        if loop is None:
            return rangeio.open(url, **options)
        return Awaited(rangeio.open_async(url, **options), loop)

    def attempt(url: str, at: int) -> int:
        """How many calls were left when it was over."""
        reader = open_reader(url)
        bomb.left = at
        try:
            assert reader.read_ranges(ranges) == wanted
            assert [reader.read_at(a, 10) for a in range(3)] == [DATA[a : a + 10] for a in range(3)]
        except rangeio.Error as error:
            assert "ValueError" in str(error)  # noqa: PT017  # it may also go well
            assert error.path == reader.path  # noqa: PT017
        left, bomb.left = bomb.left, 0
        assert reader.read_at(5, 5) == DATA[5:10]
        reader.close()
        return left

    with scripted(lambda asked: honest(DATA, asked)) as server:
        at = left = 0
        while left <= 0:
            at += 1
            left = attempt(server.url, at)
        assert at > 50
    if loop is not None:
        loop.close()


@pytest.mark.parametrize("name", LOOPS)
def test_loops_that_end_while_another_thread_takes_their_connections(name: str) -> None:
    """An epoll is not closed by one thread amid a call of another: EBADF or EINVAL, or a read of somebody else."""
    need_module(name)
    over = threading.Event()
    failures: list[BaseException] = []

    async def read(operator: rangeio.Operator) -> None:
        async with operator.open_async("o") as reader:
            for start in range(4):
                assert await reader.read_at(start, 10) == DATA[start : start + 10]

    def run_loops(operator: rangeio.Operator) -> None:
        try:
            for _ in range(15):
                run_on(name, lambda: read(operator))
        except BaseException as error:
            failures.append(error)
        finally:
            over.set()

    def take_back(pool: ConnectionPool, origin: Origin) -> None:
        try:
            while not over.is_set():
                connection = pool.take(origin)
                if connection is not None:
                    pool.give_back(connection)
        except BaseException as error:
            failures.append(error)

    with scripted(lambda asked: honest(DATA, asked)) as server:
        operator = rangeio.Operator("http", root=server.url)
        with operator.open("o") as reader:
            pool, origin = reader._source._pool, parse_url(server.url).origin  # type: ignore[attr-defined]
            threads = [threading.Thread(target=run_loops, args=(operator,)) for _ in range(2)]
            threads += [threading.Thread(target=take_back, args=(pool, origin))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert not failures
