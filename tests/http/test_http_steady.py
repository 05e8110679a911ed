"""Replies that are no longer as those before, on a connection that is kept: nothing is taken for plain that is not."""

import asyncio
import gc
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from awaited import Awaited, Loop, run_on
from faults.machine import need_module
from servers.odd import BAD, DATA, GOOD, OPTIONS, SIZE, changed
from servers.scripted import (
    Answer,
    Asked,
    Script,
    Scripted,
    cut,
    honest,
    identity_of,
    scripted,
)

import _uring
import rangeio
from _uring import event_loops
from _uring.event_loops import current_key
from _uring.waiters import Watched
from rangeio.awaitables import pause
from rangeio.http import drivers
from rangeio.http.remote_object import RemoteObject
from rangeio.services import http_source

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

ODD = 5
"""The request that is answered in another way than those before it."""

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
    "sync without the core",
    "sync over TLS",
    "asyncio",
    "asyncio without the core",
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
    if how == "without the core":
        monkeypatch.setattr(http_source, "steady_reads", lambda *_: None)
    elif _uring.LoopTransfers is None:
        pytest.skip(f"the extension is not available: {_uring.extension_error()}")
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


@pytest.mark.parametrize("start", [0, 60_000])
def test_a_first_read_fans_out_with_its_first_head(desk: Desk, start: int) -> None:
    """All other requests of it are sent while the body of the first response has not begun to come."""

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        return answer if asked.number else cut(answer, 0, "stall")

    pieces = [(at, min(at + 40_000, SIZE)) for at in range(start, SIZE, 40_000)]
    with desk.serve(script) as server:
        reader = desk.open(server.url, chunk=40_000, **OPTIONS)
        assert one(reader, start, SIZE) == DATA[start:]
        assert server.ranges[0] == pieces[0]
        assert sorted(server.ranges[: len(pieces)]) == pieces
        assert server.ranges[len(pieces) :] == pieces[:1]  # once more, after its silence
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
    monkeypatch.setattr(RemoteObject, "expected", None)
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


@pytest.mark.parametrize("without", [False, True], ids=["", "without the core"])
@pytest.mark.parametrize(("length", "stop"), [(100, 0), (100, 3), (200_000, 0), (200_000, 70_000)])
def test_signals_do_not_stop_the_clock(
    monkeypatch: pytest.MonkeyPatch, without: bool, length: int, stop: int
) -> None:
    """A handler that runs more often than the time is looked at: a call that is begun anew begins to wait anew."""
    if without:
        monkeypatch.setattr(http_source, "steady_reads", lambda *_: None)

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


def test_a_loop_keeps_no_connection() -> None:
    """What is idle is for all threads."""

    async def main(url: str) -> None:
        operator = rangeio.Operator("http", root=url)
        pool = operator.open("object")._source._pool  # type: ignore[attr-defined]
        reader = operator.open_async("object")
        for _ in range(2):
            await asyncio.gather(*[reader.read_at(number, 10) for number in range(16)])
        kept = pool.stats()
        assert kept["connections_open"] == kept["connections_idle"] > 1
        reader.close()

    with scripted(lambda asked: honest(DATA, asked)) as server:
        asyncio.run(main(server.url))


# --- between reads -------------------------------------------------------------------------------------------


def by_core_or_not(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are made in this way; and what a loop keeps is kept for a moment."""
    if how == "without the core":
        monkeypatch.setattr(http_source, "steady_reads", lambda *_: None)
        monkeypatch.setattr(drivers, "_KEPT_S", 0.01)
    elif _uring.LoopTransfers is None:
        pytest.skip(f"the extension is not there: {_uring.extension_error()}")
    else:
        monkeypatch.setattr(import_module("_uring.transfers"), "KEPT_S", 0.01)


HOWS = ["by the core", "without the core"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_a_watch_that_ends_late(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may hold what it calls back for longer than it watches, as amid that call. That ends nothing new."""
    need_module(name)
    by_core_or_not(how, monkeypatch)
    held: list[Any] = []
    wait, go_on = threading.Event(), threading.Event()

    class Held(Watched):
        def __init__(self, callback: Any, failed: Any, gone: Any) -> None:
            super().__init__(callback, failed, gone)
            if how == "without the core" or isinstance(gone.__self__, _uring.LoopTransfers):
                held.append(self)

    def place(watched: Any) -> Any:
        return watched._gone.__self__

    monkeypatch.setattr(event_loops, "Watched", Held)

    def script(asked: Asked) -> Answer:
        if wait.is_set():
            go_on.wait(20)
        return honest(DATA, asked)

    async def main(url: str) -> None:
        async with rangeio.open_async(url, retry=1) as reader:
            for offset in range(3):  # the first asks, the second is plain
                assert await reader.read_at(offset, 10) == DATA[offset : offset + 10]
            first = held[-1]
            while not place(first).ended:  # nothing was asked of it for long
                await pause(0.001)
            assert await reader.read_at(9, 10) == DATA[9:19]
            assert held[-1] is not first
            wait.set()
            threading.Timer(0.1, go_on.set).start()
            del first
            reading = reader.read_at(20, 10)
            del held[:-1]
            gc.collect()
            assert await reading == DATA[20:30]
            assert server.connections == 1
            held.clear()

    with scripted(script) as server:
        run_on(name, lambda: main(server.url))


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_a_watch_that_has_ended_is_called(name: str) -> None:
    """As trio may do, which has scheduled the call by then."""
    pytest.importorskip(name)
    if _uring.LoopTransfers is None:
        pytest.skip(f"the extension is not there: {_uring.extension_error()}")

    async def main() -> None:
        place = _uring.LoopTransfers(current_key())
        place.end()
        place.poll()

    run_on(name, main)
