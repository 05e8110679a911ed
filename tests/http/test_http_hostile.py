"""Replies of servers that are hostile or badly broken: an error within its time at worst, and never other bytes."""

import io
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from awaited import LOOPS, beside, run_on
from faults.machine import need_module
from servers.opening import OPTIONS, MakeReader
from servers.scripted import Answer, Asked, Script, honest, reply, scripted

import rangeio
from rangeio.awaitables import pause
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.heads import Head
from rangeio.http.remote_object import Access
from rangeio.threads import CONNECTING

need_module("urllib3")

DATA = bytes(range(256)) * 800
SIZE = len(DATA)


def raw(status: bytes, *fields: bytes, body: bytes = b"") -> Answer:
    return Answer(b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""]) + body)


HEADS: dict[str, Answer] = {
    "status in superscript": raw(b"\xb2\xb2\xb2 OK", b"Content-Length: 0"),
    "status of one digit": raw(b"2 OK", b"Content-Length: 0"),
    "length of 5000 digits": raw(b"200 OK", b"Content-Length: " + b"9" * 5000),
    "range of 5000 digits": raw(
        b"206 OK", b"Content-Length: 10", b"Content-Range: bytes 0-9/" + b"9" * 5000, body=DATA[:10]
    ),
    "value with a line feed": raw(
        b"206 OK",
        b"Content-Length: 10",
        b'ETag: "a"\nX-Evil: 1',
        b"Content-Range: bytes 0-9/99",
        body=DATA[:10],
    ),
}


@pytest.mark.parametrize("after", [0, 3], ids=["first", "later"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_that_cannot_be_meant(open_reader: MakeReader, name: str, after: int) -> None:
    """The first reply, or one over a connection that has been plain so far."""
    reader, _ = open_reader(lambda asked: HEADS[name] if asked.number >= after else honest(DATA, asked))
    for _ in range(after):
        assert reader.read_at(0, 10) == DATA[:10]
    with pytest.raises(rangeio.Error) as caught:
        reader.read_at(0, 10)
    assert caught.value.attempts == 2
    assert "is invalid" in str(caught.value)


def in_chunks(size: bytes, asked: Asked, **fields: str) -> Answer:
    """The first five bytes in one chunk, whose size is written so."""
    body = size + b"\r\n" + DATA[:5] + b"\r\n0\r\n\r\n"
    coding = {"Content_Length": None, "Transfer_Encoding": "chunked", **fields}
    return reply(206, body, ETag='"v1"', Content_Range=f"bytes 0-4/{SIZE}", **coding)


@pytest.mark.parametrize("size", [b"0x5", b"0X5", b"-5", b"+5", b" 5", b"5_", b"", b"0" * 17 + b"5"])
def test_chunk_sizes_that_others_read_differently(open_reader: MakeReader, size: bytes) -> None:
    reader, _ = open_reader(lambda asked: in_chunks(size, asked))
    with pytest.raises(rangeio.ServerError, match="not a chunk size"):
        reader.read_at(0, 5)


@pytest.mark.parametrize("size", [b"5", b"05", b"5 ", b"5;name=value"])
def test_chunk_sizes(open_reader: MakeReader, size: bytes) -> None:
    reader, _ = open_reader(lambda asked: in_chunks(size, asked))
    assert reader.read_at(0, 5) == DATA[:5]


@pytest.mark.parametrize("both", [False, True])
def test_a_connection_whose_end_is_told_twice(open_reader: MakeReader, both: bool) -> None:
    """Content-Length beside chunks: the bytes are good, and nothing that follows is taken for a reply."""
    fields = {"Content_Length": "7"} if both else {}
    reader, server = open_reader(lambda asked: in_chunks(b"5", asked, **fields))
    for _ in range(2):
        assert reader.read_at(0, 5) == DATA[:5]
    assert [asked.connection for asked in server.asked] == ([0, 1] if both else [0, 0])


ENDLESS: dict[str, tuple[bytes, str, bytes]] = {
    "hints": (b"", "responses", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "trailers": (
        b'HTTP/1.1 206 Word\r\nETag: "v1"\r\nContent-Range: bytes 0-99/204800\r\n'
        + b"Transfer-Encoding: chunked\r\n\r\n64\r\n"
        + DATA[:100]
        + b"\r\n0\r\n",
        "trailers",
        b"X-Trailer: x\r\n",
    ),
}


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_does_not_end_is_bounded(open_reader: MakeReader, kind: str, after: int) -> None:
    """It is never silent, and there is no time limit for all of a read."""
    begin, said, more = ENDLESS[kind]
    begin = begin.replace(b"204800", b"%d" % SIZE)

    def script(asked: Asked) -> Answer:
        if asked.number < after:
            return honest(DATA, asked)
        return Answer(begin + more * 20_000, then="stall")

    reader, _ = open_reader(script, retry=1)
    for number in range(after):
        assert reader.read_at(number, 10) == DATA[number : number + 10]
    with pytest.raises(rangeio.ServerError, match=said):
        reader.read_at(0, 100)


def test_a_few_hints_are_none_too_many(open_reader: MakeReader) -> None:
    hint = ENDLESS["hints"][2]
    reader, _ = open_reader(lambda asked: Answer(hint * 16 + honest(DATA, asked).data), retry=1)
    for number in range(4):
        assert reader.read_at(number, 100) == DATA[number : number + 100]


def test_a_total_that_is_told_late(open_reader: MakeReader) -> None:
    """Told first by the reply to a part of a large read: the read goes on to its end."""

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        if asked.number:
            return answer
        return Answer(answer.data.replace(f"/{SIZE}".encode(), b"/*", 1))

    reader, server = open_reader(script, chunk=20_000)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert reader.read_at(0, 100_000) == DATA[:100_000]
    assert reader.read_range() == DATA
    assert len(server.asked) == 1 + 5 + 11


def test_a_total_that_is_never_told(open_reader: MakeReader) -> None:
    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        return Answer(answer.data.replace(f"/{SIZE}".encode(), b"/*", 1))

    reader, _ = open_reader(script, chunk=20_000)
    assert reader.read_at(0, 100_000) == DATA[:100_000]
    assert reader.read_ranges([(0, 50_000), (SIZE - 30_000, SIZE + 30_000)]) == [
        DATA[:50_000],
        DATA[-30_000:],
    ]


def test_a_download_in_chunks_above_its_cap(open_reader: MakeReader) -> None:
    """Its length is not known beforehand, and what was kept is not taken for all of it."""

    def script(asked: Asked) -> Answer:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, DATA)
        return reply(200, body, Content_Length=None, Transfer_Encoding="chunked")

    reader, _ = open_reader(script, on_no_range="download", no_range_cap=1000)
    with pytest.raises(rangeio.RangeNotSupportedError, match="no_range_cap"):
        reader.read_at(0, 10)
    with pytest.raises(rangeio.RangeNotSupportedError, match="no_range_cap"):
        reader.read_at(990, 100)
    kept, _ = open_reader(script, on_no_range="download", no_range_cap=SIZE)
    assert kept.read_at(SIZE - 10, 100) == DATA[-10:]


def test_an_object_that_became_empty(open_reader: MakeReader) -> None:
    """The server refuses HEAD, and does not look at If-Match."""

    def script(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return reply(403)
        return honest(DATA, asked) if asked.number == 0 else reply(416, Content_Range="bytes */0")

    reader, _ = open_reader(script)
    assert reader.read_at(0, 10) == DATA[:10]
    with pytest.raises(rangeio.ObjectChangedError):
        reader.stat()


def test_more_than_there_is_memory_for(open_reader: MakeReader) -> None:
    """An error for who reads, at once; and reads that fit go on."""
    size = 1 << 59

    def script(asked: Asked) -> Answer:
        start, stop = asked.range or (0, 0)
        stop = min(stop, start + 10)
        span = f"bytes {start}-{stop - 1}/{size}"
        return reply(206, DATA[start:stop], ETag='"v1"', Content_Range=span)

    reader, _ = open_reader(script)
    with pytest.raises(MemoryError):
        reader.read_range()
    assert reader.read_at(0, 10) == DATA[:10]
    with pytest.raises(MemoryError):
        reader.read_range()


def ten_at_a_time(size: int) -> Script:
    """Of an object of any size."""

    def script(asked: Asked) -> Answer:
        start, stop = asked.range or (0, 0)
        stop = min(stop, start + 10)
        span = f"bytes {start}-{stop - 1}/{size}"
        return reply(206, b"x" * (stop - start), ETag='"v1"', Content_Range=span)

    return script


TOO_LARGE = 1 << 58
WITHOUT_MEMORY: dict[str, Callable[[Any], Any]] = {
    "iter_ranges": lambda reader: list(reader.iter_ranges([(5, 10), (0, TOO_LARGE), (20, 30)], gap=0)),
    "iter_ranges, alone": lambda reader: list(reader.iter_ranges([(0, TOO_LARGE)], on_error="return")),
    "read_ranges": lambda reader: reader.read_ranges([(5, 10), (0, TOO_LARGE), (20, 30)], gap=None),
    "read_ranges, errors returned": lambda reader: reader.read_ranges(
        [(5, 10), (0, TOO_LARGE), (20, 30)], gap=None, on_error="return"
    ),
    "read_ranges, exactly": lambda reader: reader.read_ranges(
        [(0, TOO_LARGE)], exact=True, on_error="return"
    ),
    "copy": lambda reader: reader.copy(io.BytesIO(), chunk=TOO_LARGE),
}


@pytest.mark.parametrize("read", WITHOUT_MEMORY)
def test_no_memory_for_one_of_many(open_reader: MakeReader, read: str) -> None:
    """MemoryError is no error of the tree: it is raised, and never handed out as a reply, which would have a length."""
    reader, _ = open_reader(ten_at_a_time(1 << 59))
    assert reader.read_at(0, 5) == b"x" * 5
    with pytest.raises(MemoryError):
        WITHOUT_MEMORY[read](reader)
    assert reader.read_ranges([(0, 5), (50, 55)], gap=None) == [b"x" * 5] * 2


def test_no_memory_for_a_piece_of_a_stream() -> None:
    with scripted(ten_at_a_time(1 << 59)) as server, rangeio.open(server.url, **OPTIONS) as reader:
        assert reader.read_at(0, 5) == b"x" * 5
        with pytest.raises(MemoryError):
            next(reader.stream(chunk=TOO_LARGE))


def test_no_memory_for_one_job_of_many() -> None:
    """By an Operator; whether errors are returned or raised."""
    with scripted(ten_at_a_time(1 << 59)) as server:
        operator = rangeio.Operator("http")
        jobs = [(f"{server.url}/a", (0, 5)), (f"{server.url}/b", (0, TOO_LARGE))]
        choices: list[Any] = ["raise", "return"]
        for on_error in choices:
            with pytest.raises(MemoryError):
                operator.read_ranges(jobs, on_error=on_error)


# --- numbers that no object has ------------------------------------------------------------------------------

LARGEST = 2**63 - 1
BEYOND = [2**63, 2**64, 9_999_999_999_999_999_999, 10**40]


def of_size(size: object) -> Script:
    """Sends ten bytes of it each time, wherever they are asked for, and says that it has so many."""

    def script(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return reply(200, ETag='"v1"', Content_Length=str(size))
        start, stop = asked.range or (0, 0)
        stop = min(stop, start + 10)
        return reply(
            206, b"x" * (stop - start), ETag='"v1"', Content_Range=f"bytes {start}-{stop - 1}/{size}"
        )

    return script


SIZED: dict[str, Callable[[Any], Any]] = {
    "one by one": lambda reader: [reader.read_at(start, 5) for start in range(3)],
    "stat": lambda reader: reader.stat(),
    "the end": lambda reader: reader.read_range(rangeio.Suffix(10)),
    "ends of many": lambda reader: reader.read_ranges([rangeio.Suffix(10), (0, 5)], gap=None),
    "a batch": lambda reader: reader.read_batch([0, 5], 5),
}


@pytest.mark.parametrize("read", SIZED)
@pytest.mark.parametrize("size", BEYOND)
def test_a_size_that_no_object_has(open_reader: MakeReader, read: str, size: int) -> None:
    reader, _ = open_reader(of_size(size))
    with pytest.raises(rangeio.ServerError, match="is invalid"):
        SIZED[read](reader)


@pytest.mark.parametrize("read", SIZED)
def test_the_largest_size(open_reader: MakeReader, read: str) -> None:
    reader, _ = open_reader(of_size(LARGEST))
    SIZED[read](reader)
    assert reader.stat().size == LARGEST


@pytest.mark.parametrize("size", BEYOND)
def test_the_end_of_a_file_of_a_size_that_no_object_has(size: int) -> None:
    with scripted(of_size(size)) as server, rangeio.open(server.url, **OPTIONS) as reader:
        file = reader.as_file()
        with pytest.raises(rangeio.ServerError):
            file.seek(0, io.SEEK_END)


def in_one_chunk(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n%x\r\n" % size + bytes(100)


# Each with a number that is too large by itself, or by one once it is added to another.
TOO_MUCH: dict[str, Answer] = {
    "Content-Length": reply(200, b"hello", Content_Length=str(2**63)),
    "Content-Length of a range": reply(206, b"x", Content_Range="bytes 0-0/9", Content_Length=str(2**63)),
    "total of no range": reply(416, Content_Range=f"bytes */{2**63}"),
    "last byte": reply(206, b"x", Content_Range=f"bytes 0-{2**63 - 1}/*", Content_Length=None),
    "last byte, by far": reply(206, b"x", Content_Range=f"bytes 0-{2**64}/*", Content_Length=None),
    "a chunk": Answer(in_one_chunk(2**63), "close"),
    "chunks together": Answer(in_one_chunk(2**63 - 5), "close"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_more_than_an_object_can_have(open_reader: MakeReader, name: str) -> None:
    for on_no_range in ("error", "slice", "download"):
        reader, _ = open_reader(lambda asked: TOO_MUCH[name], on_no_range=on_no_range, no_range_cap=LARGEST)
        with pytest.raises(rangeio.ServerError, match="is invalid"):
            reader.read_range()
        with pytest.raises(rangeio.ServerError, match="is invalid"):
            reader.read_ranges([(0, 50)])


# --- redirects -----------------------------------------------------------------------------------------------


def test_redirects_to_raw_bytes(open_reader: MakeReader) -> None:
    """Servers write UTF-8 as it is, and spaces."""

    def script(asked: Asked) -> Answer:
        if asked.target == "/object":
            return raw(b"302 Found", b"Content-Length: 0", "Location: /é b?q=ü".encode())
        return honest(DATA, asked)

    reader, server = open_reader(script)
    assert reader.read_at(0, 10) == DATA[:10]
    assert server.asked[1].target == "/%C3%A9%20b?q=%C3%BC"


def test_a_relative_place_is_relative_to_who_names_it() -> None:
    """Though another read has found the object elsewhere meanwhile."""
    began, moved = threading.Event(), threading.Event()

    def script(asked: Asked) -> Answer:
        if asked.target != "/object":
            return honest(DATA, asked)
        if asked.range == (0, 10):
            began.set()
            assert moved.wait(30)
            return reply(302, Location="/here")
        return reply(302, Location=f"{other.url}/there")

    with (
        scripted(lambda asked: honest(DATA, asked)) as other,
        scripted(script) as server,
        rangeio.open(f"{server.url}/object") as reader,
        ThreadPoolExecutor(1) as thread,
    ):
        first = thread.submit(reader.read_at, 0, 10)
        assert began.wait(30)
        assert reader.read_at(10, 10) == DATA[10:20]
        moved.set()
        assert first.result() == DATA[:10]
        assert [asked.target for asked in server.asked] == ["/object", "/object", "/here"]
        assert [asked.target for asked in other.asked] == ["/there"]


def test_moved_while_a_connection_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant for one server never goes to another, whatever other threads hear in between."""
    with (
        scripted(lambda asked: honest(DATA, asked)) as other,
        scripted(lambda asked: honest(DATA, asked)) as server,
        rangeio.open(f"{server.url}/object", chunk=64 << 10) as reader,  # by the engine
    ):
        assert reader.read_at(0, 10) == DATA[:10]
        assert reader.read_at(10, 10) == DATA[10:20]
        remote: Any = reader._source._remote  # type: ignore[attr-defined]
        take = ConnectionPool.take

        def taken(*args: Any) -> Any:
            connection = take(*args)
            head = Head(302, {"location": f"{other.url}/object"}, 0, False, False)
            remote.redirect(remote.target, head)
            return connection

        monkeypatch.setattr(ConnectionPool, "take", taken)
        assert reader.read_at(20, 10) == DATA[20:30]
        assert reader.read_at(30, 10) == DATA[30:40]
        assert len(server.asked) + len(other.asked) == 4
        assert other.asked
        assert all(asked.fields["host"] in place.url for place in (server, other) for asked in place.asked)


# --- secrets -------------------------------------------------------------------------------------------------


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came of, shown or not."""
    known: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is not None and found not in known:
            known.append(found)
            waiting += [found.__cause__, found.__context__]
            yield found


MALFORMED = ["http://me:hunter2", "http://me:hunter2@host:hunter2/", "http://me:hunter2@[::1/"]
MALFORMED += ["http://me:hunter2@host\u2100/"]
HOSTLESS = ["http://me:hunter2@ho st/", "http://me:hunter2@" + "x" * 70 + "ü/"]


@pytest.mark.parametrize("as_proxy", [False, True])
@pytest.mark.parametrize("url", MALFORMED + HOSTLESS)
def test_malformed_urls(url: str, as_proxy: bool) -> None:
    if as_proxy and url in HOSTLESS:
        return  # that nobody has this name is found out by looking for it
    with pytest.raises(rangeio.ConfigInvalidError) as caught:
        rangeio.open("http://example.org/" if as_proxy else url, proxy=url if as_proxy else "")
    for error in chain(caught.value):
        assert "hunter2" not in repr(error) + str(error) + repr(error.__dict__)


def test_representations() -> None:
    security = Security(client_cert=("cert.pem", "key.pem", "hunter2"))
    access = Access(None, {"Authorization": "hunter2"})  # type: ignore[arg-type]
    assert "hunter2" not in repr(security) + repr(access)


@pytest.mark.parametrize("status", [403, 500])
def test_secrets_in_what_errors_came_of(open_reader: MakeReader, status: int, caplog: Any) -> None:
    caplog.set_level(0)
    reader, _ = open_reader(
        lambda asked: reply(status, b"you sent sig=hunter2 and tok3n"),
        "/object?sig=hunter2",
        headers={"X-Api-Token": "tok3n"},
        auth=("me", "passw0rd"),
    )
    calls = (
        lambda: reader.read_at(0, 10),
        lambda: reader.read_ranges([(0, 1), (5, 9)]),
        lambda: reader.stat(),
    )
    for call in calls:
        with pytest.raises(rangeio.Error) as caught:
            call()
        texts = [caplog.text, *traceback.format_exception(caught.value)]
        for error in chain(caught.value):
            texts += [repr(error), str(error), repr(error.__dict__), repr(error.args)]
        texts.append(pickle.dumps(caught.value).decode("latin-1"))
        for secret in ("hunter2", "tok3n", "passw0rd", "cGFzc3cwcmQ"):
            assert not [text for text in texts if secret in text]


# --- time ----------------------------------------------------------------------------------------------------


def test_a_proxy_that_drips(opened: MakeReader) -> None:
    """Each byte of its reply to CONNECT comes in time, all of them do not."""
    over = threading.Event()

    def drip() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 200 ")
            while not over.wait(0.05):
                sock.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        dripping = thread.submit(drip)
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        timeout = rangeio.Timeout(connect_s=0.3)
        reader = opened("https://example.org/", proxy=proxy, retry=1, timeout=timeout)
        with pytest.raises(rangeio.TimedOutError, match="connect_s"):
            reader.read_at(0, 10)
        over.set()
        dripping.result()
    settle()


@pytest.mark.parametrize("bound", ["connect_s", "total_s"])
def test_a_name_that_takes_long(opened: MakeReader, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """The resolver cannot be interrupted; who reads does not wait for it."""
    over = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    reader = opened("http://example.org/", proxy="", retry=1, timeout=rangeio.Timeout(**{bound: 0.2}))
    with pytest.raises(rangeio.TimedOutError, match=bound):
        reader.read_at(0, 10)
    over.set()
    settle()


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_goes_on_while_a_name_is_looked_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up ends only when another task of the same loop has had many turns."""
    need_module(name)
    over, began = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *given: Any, **named: Any) -> Any:
        if host == "far.example":
            began.set()
            assert over.wait(30), "the loop stood still"
            host = "127.0.0.1"
        return resolve(host, port, *given, **named)

    async def others() -> None:
        while not began.is_set():
            await pause(0.001)
        for _ in range(100):
            await pause(0)
        over.set()

    async def main(port: int) -> None:
        async with rangeio.open_async(f"http://far.example:{port}/", proxy="", retry=1) as reader:
            assert await beside(name, others, reader.read_at(5, 100)) == DATA[5:105]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with scripted(lambda asked: honest(DATA, asked)) as server:
        run_on(name, lambda: main(server.listener.getsockname()[1]))
    settle()


def settle() -> None:
    """Connections that nobody waits for end when they are let."""
    assert CONNECTING.wait(30)
