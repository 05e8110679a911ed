"""Replies that are no longer as those before, on a connection that is kept: nothing is taken for plain that is not."""

import asyncio
import gc
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import _uring
import rangeio
from _uring.loops import current_key
from awaited import Awaited, Loop, run_on
from faults.machine import need_module
from rangeio.http import standing, wire
from rangeio.http.exchange import SCRATCH
from rangeio.http.plain import Plain
from rangeio.http.pool import Pool, Security
from rangeio.http.remote import Remote
from rangeio.http.rules import Version
from rangeio.services import http_source
from rangeio.waiting import pause
from servers.scripted import (
    Answer,
    Asked,
    Script,
    Scripted,
    cut,
    honest,
    identity_of,
    reply,
    scripted,
)

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

DATA = bytes(range(256)) * 800
SIZE = len(DATA)
ODD = 5
"""The request that is answered in another way than those before it."""

# --- heads ---------------------------------------------------------------------------------------------------

HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nServer: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 10\r\n"
    b'Connection: keep-alive\r\nETag: "v1"\r\nContent-Range: bytes 100-109/1000'
)


def plain_for(head: bytes = HEAD) -> Plain:
    made = Plain(Version(known=True, etag='"v1"', size=1000))
    assert made.accepts(head, 100, 110)
    return made


NEXT = HEAD.replace(b"100-109", b"200-219").replace(b": 10\r", b": 20\r")


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"", b""),
        (b"00:00:00", b"00:00:01"),
        (b"Server: nginx", b"X-Request-Id: 17"),
        (b"Server: nginx\r\n", b""),
        (b"ETag: ", b"etag: "),
        (b"Content-Length: 20\r\n", b"content-length: 20\r\n"),
        (b"Content-Range:", b"content-range:"),
        (b"Content-Range: bytes", b"Content-Range:  Bytes"),
        (b"Connection: keep-alive\r\n", b""),
        (b"206 Partial Content", b"206 OK"),
        (b"Content-Length: 20\r\n", b"Content-Length: 20\r\nContent-Length: 20\r\n"),
    ],
)
def test_plain_heads(was: bytes, now: bytes) -> None:
    plain = plain_for()
    for _ in range(2):
        assert plain.accepts(NEXT.replace(was, now), 200, 220)
    assert plain.accepts(HEAD, 100, 110)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"206 Partial Content", b"200 OK"),
        (b"206 Partial Content", b"416 Partial Content"),
        (b"HTTP/1.1", b"HTTP/2.0"),
        (b'ETag: "v1"', b'ETag: "v2"'),
        (b'ETag: "v1"\r\n', b""),
        (b'ETag: "v1"\r\n', b'ETag: "v1"\r\nETag: "v2"\r\n'),
        (b"keep-alive", b"close"),
        (b"keep-alive", b"keep-alive\r\nContent-Encoding: gzip"),
        (b"keep-alive", b"keep-alive\r\nContent-Encoding: identity\r\nContent-Encoding: identity"),
        (b"keep-alive", b"keep-alive\r\nTransfer-Encoding: chunked"),
        (b"keep-alive", b"keep-alive\r\ntransfer-encoding: chunked"),
        (b"keep-alive", b"keep-alive\r\nTransfer-Encoding : chunked"),
        (b"keep-alive", b"keep-alive\r\nContent-Length: 21"),
        (b"keep-alive", b"keep-alive\r\nnonsense"),
        (b"Content-Length: 20", b"Content-Length: 21"),
        (b"Content-Length: 20\r\n", b""),
        (b"200-219", b"201-220"),
        (b"200-219", b"200-220"),
        (b"/1000", b"/1001"),
        (b"/1000", b"/*"),
        (b"\r\nContent-Range: bytes 200-219/1000", b""),
        (b"Content-Range: bytes", b"Content-Range: lines"),
    ],
)
def test_heads_that_are_not_plain(was: bytes, now: bytes) -> None:
    head = NEXT.replace(was, now)
    assert head != NEXT
    plain = plain_for()
    assert not plain.accepts(head, 200, 220)
    assert not Plain(Version(known=True, etag='"v1"', size=1000)).accepts(head, 200, 220)
    assert plain.accepts(NEXT, 200, 220)


# What may stand in a head beside what has to, and what of it has the numbers of the range.
BESIDE = [
    b"content-length: %(nbytes)d",
    b"Content-Length:%(nbytes)d",
    b"Content-Length: %(nbytes)d",
    b"Content-Length: 0%(nbytes)d",
    b"content-range: bytes %(at)d-%(last)d/1000",
    b"Content-Range: bytes %(at)d-%(last)d/1000",
    b"X-Range: bytes %(at)d-%(last)d/1000",
    b"X: Content-Length: %(nbytes)d",
    b"100%%: %%d of %%s",
    b"Content-Encoding: identity",
    b"Connection: keep-alive",
    b"Date: now",
]
RANGE = st.tuples(st.sampled_from([0, 1, 9, 90, 99, 900]), st.sampled_from([1, 5, 9, 10, 99, 100]))


@st.composite
def heads(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """A range, and a head that answers a request for it in some way."""
    at, nbytes = draw(RANGE)
    has = [b'ETag: "v1"', b"Content-Length: %(nbytes)d", b"Content-Range: bytes %(at)d-%(last)d/1000"]
    lines = draw(st.permutations(has + draw(st.lists(st.sampled_from(BESIDE), max_size=3))))
    long = b"X-Long: " + b"x" * draw(st.one_of(st.just(0), st.integers(SCRATCH - 220, SCRATCH)))
    numbers = {b"nbytes": nbytes, b"at": at, b"last": at + nbytes - 1}
    return at, at + nbytes, b"\r\n".join([b"HTTP/1.1 206 Word", long, *lines]) % numbers


@given(st.lists(heads(), min_size=1, max_size=4), RANGE)
def test_nothing_is_foretold_that_would_be_refused(seen: list[tuple[int, int, bytes]], then: Any) -> None:
    """Whatever was accepted before: what is compared as a whole next could be accepted, and would be received whole."""
    known = Plain(Version(known=True, etag='"v1"', size=1000))
    for at, stop, head in seen:
        new = Plain(Version(known=True, etag='"v1"', size=1000))
        assert known.accepts(head, at, stop) == new.accepts(head, at, stop)
    at, nbytes = then
    foretold = known.expect(at, at + nbytes)
    if foretold is not None:
        head, length, announced = foretold
        new = Plain(Version(known=True, etag='"v1"', size=1000))
        assert new.accepts(head[:-4], at, at + nbytes) or at + nbytes > 1000
        assert announced in head
        assert 0 < length <= SCRATCH


# --- replies -------------------------------------------------------------------------------------------------

Ways = Callable[..., Any]


class Desk:
    """A reader of a scripted server that has answered plainly so far, and two ways to read on."""

    def __init__(self, kind: str, tls: Path | None = None) -> None:
        self.loop = None if kind == "sync" else Loop(kind)
        self.identity = None if tls is None else identity_of(["127.0.0.1"], tls)
        self.options: Any = {} if tls is None else {"ca_file": str(tls / "ca.pem")}

    def serve(self, script: Script) -> AbstractContextManager[Scripted]:
        return scripted(script, self.identity)

    def open(self, url: str, **options: Any) -> Any:
        options |= self.options
        if self.loop is None:
            return rangeio.open(url, **options)
        return Awaited(rangeio.open_async(url, **options), self.loop)

    def close(self) -> None:
        if self.loop is not None:
            self.loop.close()


KINDS = (
    "sync",
    "sync without repeats",
    "sync without the extension",
    "sync over TLS",
    "asyncio",
    "asyncio over TLS",
    "uvloop",
    "trio",
)


@pytest.fixture(params=KINDS)
def desk(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    kind, _, how = request.param.partition(" ")
    if kind in ("uvloop", "trio"):
        pytest.importorskip(kind)
    if how.startswith("without"):
        monkeypatch.setattr(http_source, "repeat_for", lambda *_: None)
    if how == "without the extension":
        monkeypatch.setattr(wire, "exchange", None)
    elif _uring.exchange is None:
        pytest.skip(f"the extension is not there: {_uring.extension_error()}")
    made = Desk(kind, tmp_path_factory.mktemp("tls") if how == "over TLS" else None)
    yield made
    made.close()


def one(reader: Any, start: int, stop: int) -> bytes:
    return bytes(reader.read_at(start, stop - start))


def into(reader: Any, start: int, stop: int) -> bytes:
    memory = bytearray(stop - start)
    assert reader.read_into(memory, start) == stop - start
    return bytes(memory)


def many(reader: Any, start: int, stop: int) -> bytes:
    middle = (start + stop) // 2
    first, second = reader.read_ranges([(start, middle), (middle, stop)], gap=None, concurrent=1)
    return bytes(first) + bytes(second)


def changed(etag: str | None = '"v1"', **fields: str | None) -> Callable[[Asked], Answer]:
    """An honest reply, but for these fields."""

    def answer(asked: Asked) -> Answer:
        start, stop = asked.range or (0, 0)
        span = f"bytes {start}-{stop - 1}/{SIZE}"
        return reply(206, DATA[start:stop], **{"ETag": etag, "Content_Range": span, **fields})

    return answer


def shorter(asked: Asked) -> Answer:
    start, _ = asked.range or (0, 0)
    return reply(206, DATA[start : start + 9], ETag='"v1"', Content_Range=f"bytes {start}-{start + 8}/{SIZE}")


def earlier(asked: Asked) -> Answer:
    start, stop = asked.range or (0, 0)
    span = f"bytes {start - 5}-{stop - 1}/{SIZE}"
    return reply(206, DATA[start - 5 : stop], ETag='"v1"', Content_Range=span)


def chunked(asked: Asked) -> Answer:
    start, stop = asked.range or (0, 0)
    span = f"bytes {start}-{stop - 1}/{SIZE}"
    made = reply(206, ETag='"v1"', Content_Range=span, Content_Length=None, Transfer_Encoding="chunked")
    return Answer(made.data + b"%x\r\n%b\r\n0\r\n\r\n" % (stop - start, DATA[start:stop]))


def other_case(asked: Asked) -> Answer:
    head, _, body = honest(DATA, asked).data.partition(b"\r\n\r\n")
    status, _, fields = head.partition(b"\r\n")
    return Answer(status + b"\r\n" + fields.lower() + b"\r\n\r\n" + body)


def informed(asked: Asked) -> Answer:
    return Answer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + honest(DATA, asked).data)


# What the odd request is answered, where the next one begins (counted from the odd one's start, None: none follows).
GOOD: dict[str, tuple[Callable[[Asked], Answer], int | None]] = {
    "shorter": (shorter, 9),
    "earlier": (earlier, None),
    "chunked": (chunked, None),
    "informed": (informed, None),
    "closing": (changed(Connection="close"), None),
    "long head": (changed(X_Long="x" * 6000), None),
    "other case": (other_case, None),
    "busy": (lambda _: reply(503), 0),
    "two lengths": (changed(content_length="7"), 0),
    "cut at the head": (lambda asked: cut(honest(DATA, asked), 0, "close"), 0),
    "cut": (lambda asked: cut(honest(DATA, asked), 33, "close"), 33),
    "reset": (lambda asked: cut(honest(DATA, asked), 0, "reset"), 0),
    "no reply": (lambda _: Answer(b"", "close"), 0),
    "half a head": (lambda _: Answer(b"HTTP/1.1 206 Par", "close"), 0),
    "silent": (lambda _: Answer(b"", "stall"), 0),
    "stalls in the head": (lambda _: Answer(b"HTTP/1.1 206 Par", "stall"), 0),
    "stalls in the body": (lambda asked: cut(honest(DATA, asked), 44, "stall"), 44),
}
BAD: dict[str, tuple[Callable[[Asked], Answer], type[Exception]]] = {
    "other ETag": (changed('"v2"'), rangeio.ObjectChangedError),
    "no ETag": (changed(None), rangeio.ObjectChangedError),
    "other size": (changed(Content_Range=f"bytes 2000-9999/{SIZE + 1}"), rangeio.Error),
    "412": (lambda _: reply(412), rangeio.ObjectChangedError),
    "404": (lambda _: reply(404), rangeio.NotFoundError),
    "encoded": (changed(Content_Encoding="gzip"), rangeio.ContentEncodedError),
    "no range": (changed(Content_Range=None), rangeio.RangeNotSupportedError),
    "other range": (changed(Content_Range=f"bytes 0-9/{SIZE}"), rangeio.Error),
}
OPTIONS: Any = {
    "retry": rangeio.Retry(attempts=2, backoff_s=0.001),
    "timeout": rangeio.Timeout(first_byte_s=0.5, idle_s=0.5),
}


def prepared(reader: Any) -> None:
    """So many plain reads that the next one has the number ODD."""
    for number in range(ODD):
        assert reader.read_at(100 * number, 100) == DATA[100 * number : 100 * number + 100]


# Silences are slow by nature: a body of one size is enough for them.
@pytest.mark.parametrize(
    ("odd", "length"),
    [(odd, length) for odd in GOOD for length in (100, 50_000) if length == 50_000 or odd[0] != "s"],
)
@pytest.mark.parametrize("way", [one, into, many])
def test_what_is_odd_is_made_good(desk: Desk, odd: str, way: Ways, length: int) -> None:
    answer, follows = GOOD[odd]
    with desk.serve(lambda asked: answer(asked) if asked.number == ODD else honest(DATA, asked)) as server:
        reader = desk.open(server.url, **OPTIONS)
        prepared(reader)
        start, stop = 2000, 2000 + length
        assert way(reader, start, stop) == DATA[start:stop]
        middle = (start + stop) // 2 if way is many else stop
        asked = [(start, middle)] if follows is None else [(start, middle), (start + follows, middle)]
        assert sorted(server.ranges[ODD:]) == (asked if middle == stop else [*asked, (middle, stop)])
        assert one(reader, 7, 17) == DATA[7:17]
        reader.close()


@pytest.mark.parametrize("way", [one, into, many])
@pytest.mark.parametrize("odd", BAD)
def test_what_is_wrong_is_an_error(desk: Desk, odd: str, way: Ways) -> None:
    answer, error = BAD[odd]
    with desk.serve(lambda asked: answer(asked) if asked.number == ODD else honest(DATA, asked)) as server:
        reader = desk.open(server.url, **{**OPTIONS, "retry": 1})
        prepared(reader)
        with pytest.raises(error):
            way(reader, 2000, 10_000)
        reader.close()


SLOW = ("silent", "stalls in the head", "stalls in the body")


@pytest.mark.parametrize("way", [one, into, many])
@pytest.mark.parametrize("odd", [odd for odd in {**GOOD, **BAD} if odd not in SLOW])
def test_both_ways_are_one(desk: Desk, odd: str, way: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, requests and errors are the same where nothing is taken for plain."""
    answer: Callable[[Asked], Answer] = {**GOOD, **BAD}[odd][0]

    def outcome() -> Any:
        with desk.serve(
            lambda asked: answer(asked) if asked.number == ODD else honest(DATA, asked)
        ) as server:
            reader = desk.open(server.url, **OPTIONS)
            try:
                prepared(reader)
                return way(reader, 2000, 10_000), server.ranges
            except rangeio.Error as error:
                said = str(error).replace(server.url, "")
                return type(error), said, error.status, error.http_status, error.attempts, server.ranges
            finally:
                reader.close()

    found = outcome()
    monkeypatch.setattr(Remote, "plain", None)
    assert outcome() == found


@pytest.mark.parametrize("junk", [b"x", b"HTTP/1.1 206 Word\r\n\r\n", b"twice"])
@pytest.mark.parametrize("way", [one, into, many])
def test_bytes_after_a_body(desk: Desk, way: Ways, junk: bytes) -> None:
    """They are not taken for the beginning of the next reply: that connection is used no more."""

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        if asked.number == ODD:
            answer.data += answer.data if junk == b"twice" else junk
        return answer

    with desk.serve(script) as server:
        reader = desk.open(server.url, retry=1)
        prepared(reader)
        for start in (2000, 3000, 4000):
            assert way(reader, start, start + 700) == DATA[start : start + 700]
        assert server.connections > len({asked.connection for asked in server.asked[:ODD]})
        reader.close()


@pytest.mark.parametrize("way", [one, into, many])
@pytest.mark.parametrize("piece", [65_536, 290, 150])
def test_heads_of_all_lengths(desk: Desk, way: Ways, piece: int) -> None:
    """How long a head will be is told by the last one: whatever it is, each byte of the body finds its place."""
    dice = random.Random(piece)

    def script(asked: Asked) -> Answer:
        answer = changed(X_Request_Id="x" * dice.choice([1, 2, 2, 2, 3, 40]))(asked)
        answer.piece = piece
        return answer

    with desk.serve(script) as server:
        reader = desk.open(server.url, **OPTIONS)
        for _ in range(40):
            start = 10 ** dice.randrange(1, 6)
            stop = start + dice.choice([1, 2, 3, 90, 700])
            assert way(reader, start, stop) == DATA[start:stop]
        assert server.connections <= 2
        reader.close()


def test_a_head_byte_by_byte(desk: Desk) -> None:
    """Over TLS each byte of it is a record of its own: more of them than calls may be nested."""

    def script(asked: Asked) -> Answer:
        if asked.number != ODD:
            return honest(DATA, asked)
        answer = changed(X_Long="x" * 3000)(asked)
        answer.piece = 1
        return answer

    with desk.serve(script) as server:
        reader = desk.open(server.url, **OPTIONS)
        prepared(reader)
        assert one(reader, 2000, 2100) == DATA[2000:2100]
        reader.close()


def test_a_connection_closed_while_idle_costs_no_attempt(desk: Desk) -> None:
    def script(asked: Asked) -> Answer:
        return honest(DATA, asked, then="close" if asked.number % 2 else "keep")

    with desk.serve(script) as server:
        reader = desk.open(server.url, retry=1)
        for number in range(8):
            assert one(reader, 10 * number, 10 * number + 10) == DATA[10 * number : 10 * number + 10]
        assert server.connections >= 4
        reader.close()


def test_all_of_a_read_is_bounded_in_time(desk: Desk) -> None:
    with desk.serve(
        lambda asked: Answer(b"", "stall") if asked.number >= ODD else honest(DATA, asked)
    ) as server:
        reader = desk.open(server.url, timeout=0.5)
        prepared(reader)
        with pytest.raises(rangeio.TimedOutError, match="total_s"):
            reader.read_at(0, 1000)
        reader.close()


def dripping(asked: Asked) -> Answer:
    """A plain reply: its head, and then a body that comes in as many bytes at a time. It takes 14 s."""
    answer = honest(DATA, asked)
    if asked.number >= ODD:
        answer.piece, answer.pause_s = answer.data.index(b"\r\n\r\n") + 4, 0.03
    return answer


def test_all_of_a_read_that_drips_is_bounded_in_time(desk: Desk) -> None:
    """Bytes come in all the while, so that nothing but the time for all of it is up."""
    with desk.serve(dripping) as server:
        reader = desk.open(server.url, timeout=0.5)
        prepared(reader)
        with pytest.raises(rangeio.TimedOutError, match="total_s"):
            reader.read_at(0, 50_000)
        reader.close()


def test_interrupted_while_it_drips() -> None:
    main = threading.main_thread().ident
    assert main is not None
    with scripted(dripping) as server, rangeio.open(server.url) as reader:
        prepared(reader)
        timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            reader.read_at(0, 50_000)
        timer.join()


@pytest.mark.parametrize("without", [False, True], ids=["", "without the extension"])
@pytest.mark.parametrize(("length", "stop"), [(100, 0), (100, 3), (200_000, 0), (200_000, 70_000)])
def test_signals_do_not_stop_the_clock(
    monkeypatch: pytest.MonkeyPatch, without: bool, length: int, stop: int
) -> None:
    """A handler that runs more often than the time is looked at: a call that is begun anew begins to wait anew."""
    if without:
        monkeypatch.setattr(wire, "exchange", None)
        monkeypatch.setattr(http_source, "repeat_for", lambda *_: None)

    def stalling(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        return answer if asked.number < ODD else cut(answer, stop, "stall")

    def handler(*_: object) -> None:
        heard.append(1)
        if len(heard) > 1000:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise AssertionError("it still waits after ten seconds")

    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with scripted(stalling) as server:
            reader = rangeio.open(server.url, retry=1, timeout=rangeio.Timeout(first_byte_s=0.5, idle_s=0.5))
            prepared(reader)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            with reader, pytest.raises(rangeio.TimedOutError):
                reader.read_at(0, length)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interrupted_while_it_waits() -> None:
    def script(asked: Asked) -> Answer:
        if asked.number == ODD:
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
            return Answer(b"", "stall")
        return honest(DATA, asked)

    main = threading.main_thread().ident
    with scripted(script) as server, rangeio.open(server.url) as reader:
        prepared(reader)
        with pytest.raises(KeyboardInterrupt):
            reader.read_at(0, 1000)
        assert one(reader, 7, 17) == DATA[7:17]


def test_results_are_recycled_at_once() -> None:
    """A large result that was dropped is free again without a collection: nothing else holds its memory."""
    with scripted(lambda asked: honest(DATA, asked)) as server:
        for options in ({}, {"chunk": 50_000}):
            with rangeio.open(server.url, **options) as reader:
                one(reader, 0, 10)
                for _ in range(3):
                    before = rangeio.stats()["bytes_live"]
                    result = reader.read_at(0, SIZE)
                    assert rangeio.stats()["bytes_live"] > before
                    del result
                    assert rangeio.stats()["bytes_live"] == before


# --- what a loop keeps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "trio"])
def test_connections_outlive_their_loop(kind: str) -> None:
    if kind != "asyncio":
        pytest.importorskip(kind)
    with scripted(lambda asked: honest(DATA, asked)) as server:
        for number in range(4):
            loop = Loop(kind)
            if not number:
                reader = Awaited(rangeio.open_async(server.url), loop)
            again = Awaited(reader.reader, loop)
            prepared(again)
            if number == 3:
                again.close()
            loop.close()
        assert server.connections == 1


def test_a_cancelled_read_leaves_no_connection() -> None:
    async def main(url: str) -> None:
        async with rangeio.open_async(url) as reader:
            for number in range(ODD):
                await reader.read_at(number, 10)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read_at(0, 1000), 0.05)
            assert bytes(await reader.read_at(7, 10)) == DATA[7:17]

    def script(asked: Asked) -> Answer:
        return Answer(b"", "stall") if asked.number == ODD else honest(DATA, asked)

    with scripted(script) as server:
        asyncio.run(main(server.url))
        assert server.connections == 2
        assert server.ranges[ODD:] == [(0, 1000), (7, 17)]


def test_a_closed_reader_keeps_no_connection() -> None:
    async def main(url: str) -> None:
        operator = rangeio.Operator("http", root=url)
        pool = operator.open("object")._source._pool  # type: ignore[attr-defined]
        reader = operator.open_async("object")
        for _ in range(2):
            await asyncio.gather(*[reader.read_at(number, 10) for number in range(16)])
        kept = pool.stats()
        assert kept["connections_open"] > kept["connections_idle"]
        pool._reclaim()
        assert pool.stats()["connections_idle"] == kept["connections_open"]
        reader.close()
        del operator

    with scripted(lambda asked: honest(DATA, asked)) as server:
        asyncio.run(main(server.url))


# --- between reads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_a_watch_that_ends_late(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may hold what it calls back for longer than it watches, as amid that call. That ends nothing new."""
    need_module(name)
    held: list[Any] = []
    wait, go_on = threading.Event(), threading.Event()

    class Held(standing._Watch):
        def __init__(self, place: standing.Standing) -> None:
            super().__init__(place)
            held.append(self)

    monkeypatch.setattr(standing, "_Watch", Held)
    monkeypatch.setattr(standing, "_IDLE_S", 0.01)

    def script(asked: Asked) -> Answer:
        if wait.is_set():
            go_on.wait(20)
        return honest(DATA, asked)

    async def main(url: str) -> None:
        async with rangeio.open_async(url, retry=1) as reader:
            for offset in range(3):  # the first asks, the second is plain
                assert await reader.read_at(offset, 10) == DATA[offset : offset + 10]
            (first,) = held
            while not first._standing.ended:  # nothing was asked of it for long
                await pause(0.001)
            assert await reader.read_at(9, 10) == DATA[9:19]
            assert len(held) == 2
            wait.set()
            threading.Timer(0.1, go_on.set).start()
            del first
            reading = reader.read_at(20, 10)
            held.pop(0)
            gc.collect()
            assert await reading == DATA[20:30]
            assert not held[0]._standing.ended
            held.clear()

    with scripted(script) as server:
        run_on(name, lambda: main(server.url))


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_a_watch_that_has_ended_is_called(name: str) -> None:
    """As trio may do, which has scheduled the call by then."""
    pytest.importorskip(name)
    pool = Pool(Security(), "")

    async def main() -> None:
        place = standing.Standing(pool, current_key())
        place.end()
        place.ready()

    run_on(name, main)
