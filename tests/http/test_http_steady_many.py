"""Reads in the steady state, which the core makes by itself: what is unusual is made good, or said, as all else is."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
import pytest
from faults.machine import need_allocator_across_fork
from servers.odd import BAD, DATA, GOOD, OPTIONS, PLAIN, SIZE, changed
from servers.scripted import Answer, Asked, cut, honest, reply, scripted

import _uring
import rangeio
from _uring.records import Unfinished
from rangeio.http import steady
from rangeio.http.connection_pool import ConnectionPool
from rangeio.policy import RETRIES
from rangeio.services import http_source

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")
pytestmark = pytest.mark.skipif(_uring.LoopTransfers is None, reason="there is no extension")

WIDTH = 8


class Counting:
    """A `SteadyReads`, and what came of its reads: "done", "unfinished", or "none"."""

    def __init__(self, steady: Any, outcomes: Counter[str]) -> None:
        self.steady, self.outcomes = steady, outcomes

    def read_at(self, offset: object, limit: object) -> Any:
        return self.noted(self.steady.read_at(offset, limit))

    def read_into(self, view: memoryview, start: int) -> Any:
        return self.noted(self.steady.read_into(view, start))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.steady, name)

    def read_many(self, starts: Any, lengths: Any, buffers: list[Any], *rest: Any) -> Any:
        before = len(buffers)
        unfinished = self.steady.read_many(starts, lengths, buffers, *rest)
        if unfinished is None:
            self.outcomes["none"] += 1
        else:
            self.outcomes["unfinished"] += len(unfinished)
            self.outcomes["done"] += len(buffers) - before - len(unfinished)
        return unfinished

    def iter_many(self, *arguments: Any) -> Any:
        batch = self.steady.iter_many(*arguments)
        if batch is None:
            self.outcomes["none"] += 1
            return None
        return CountingBatch(batch, self.outcomes)

    def noted(self, found: Any) -> Any:
        self.outcomes[
            "none" if found is None else "unfinished" if isinstance(found, Unfinished) else "done"
        ] += 1
        return found


class CountingBatch:
    def __init__(self, batch: Any, outcomes: Counter[str]) -> None:
        self.batch, self.outcomes = batch, outcomes
        self.close = batch.close

    def next(self) -> Any:
        found = self.batch.next()
        self.outcomes["done"] += found is not None
        return found

    def unfinished(self) -> Any:
        found = self.batch.unfinished()
        self.outcomes["unfinished"] += len(found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)


@pytest.fixture(autouse=True)
def good_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a test gets is not a matter of how busy the machine is."""
    monkeypatch.setattr(steady, "_GOOD_S", 60.0)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of all reads in the steady state."""
    counted: Counter[str] = Counter()
    make = http_source.steady_reads

    def counting(*arguments: Any) -> Any:
        made = make(*arguments)
        return None if made is None else Counting(made, counted)

    monkeypatch.setattr(http_source, "steady_reads", counting)
    return counted


def widened(reader: Any) -> None:
    """WIDTH connections are idle."""
    for _ in range(2):
        pairs = [(100 * number, 100 * number + 100) for number in range(8 * WIDTH)]
        assert [bytes(found) for found in reader.read_ranges(pairs, gap=None, concurrent=WIDTH)] == [
            DATA[start:stop] for start, stop in pairs
        ]


def pairs_of(count: int, length: int) -> list[tuple[int, int]]:
    return [(start, start + length) for start in range(1000, 1000 + 7 * count, 7)]


def read(reader: Any, pairs: list[tuple[int, int]], **options: Any) -> list[bytes]:
    return [bytes(found) for found in reader.read_ranges(pairs, gap=None, concurrent=WIDTH, **options)]


def iterate(reader: Any, pairs: list[tuple[int, int]], **options: Any) -> list[bytes]:
    found = [None] * len(pairs)
    for index, buffer in reader.iter_ranges(pairs, gap=None, concurrent=WIDTH, **options):
        assert found[index] is None
        found[index] = bytes(buffer)
    return found


BOTH = pytest.mark.parametrize("way", [read, iterate])


def right(pairs: list[tuple[int, int]]) -> list[bytes]:
    return [DATA[start:stop] for start, stop in pairs]


class Turning:
    """A script that is honest, and answers one request otherwise: the one that is `left` from now."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.answer, self.left = answer, -1
        self.lock = threading.Lock()

    def __call__(self, asked: Asked) -> Answer:
        with self.lock:
            self.left -= 1
            now = self.left == 0
        return self.answer(asked) if now else honest(DATA, asked)


# --- many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("odd", "length"),
    [
        (odd, length)
        for odd in GOOD
        for length in (100, 50_000)
        if length == 50_000 or not odd.startswith(("silent", "stalls"))
    ],
)
@pytest.mark.parametrize("at", [1, 30, 64])
@BOTH
def test_one_of_many_is_odd(outcomes: Counter[str], way: Any, odd: str, length: int, at: int) -> None:
    """The others are there, whether they came before it, are under way with it, or come after it."""
    script, pairs = Turning(GOOD[odd][0]), pairs_of(64, length)
    with scripted(script) as server, rangeio.open(server.url, **OPTIONS) as reader:
        widened(reader)
        outcomes.clear()
        script.left = at
        assert way(reader, pairs) == right(pairs)
        assert script.left <= 0
        assert (odd not in PLAIN) <= outcomes["unfinished"] <= WIDTH
        assert at - WIDTH <= outcomes["done"] <= 64
        assert way(reader, pairs) == right(pairs)


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("odd", BAD)
@BOTH
def test_one_of_many_is_wrong(outcomes: Counter[str], way: Any, odd: str, on_error: Any) -> None:
    answer, error = BAD[odd]
    script, pairs = Turning(answer), pairs_of(64, 9000)
    with scripted(script) as server, rangeio.open(server.url, **{**OPTIONS, "retry": 1}) as reader:
        widened(reader)
        outcomes.clear()
        script.left = 20
        if on_error == "raise":
            with pytest.raises(error):
                way(reader, pairs)
        else:
            options: Any = {"gap": None, "concurrent": WIDTH, "on_error": "return"}
            if way is read:
                found = reader.read_ranges(pairs, **options)
            else:
                found = [each for _, each in reader.iter_ranges(pairs, **options)]
            (bad,) = [each for each in found if isinstance(each, Exception)]
            assert isinstance(bad, error)
            good = [bytes(each) for each in found if not isinstance(each, Exception)]
            assert len(good) == 63
            assert set(good) <= set(right(pairs))
        assert outcomes["unfinished"] >= (on_error == "raise")


@BOTH
def test_many_by_the_core_alone(outcomes: Counter[str], way: Any) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        outcomes.clear()
        pairs = pairs_of(500, 777)
        before = dict(reader.stats), rangeio.stats()["requests"]
        assert way(reader, pairs) == right(pairs)
        assert outcomes == {"done": 500, "unfinished": 0}
        assert reader.stats["requests"] - before[0]["requests"] == 500
        assert rangeio.stats()["requests"] - before[1] == 500
        assert sorted(filter(None, server.ranges[-500:])) == sorted(pairs)
        assert server.connections == WIDTH
        assert len({asked.connection for asked in server.asked[-500:]}) == WIDTH


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 10), (SIZE - 5, SIZE + 5)],
        [(0, 10), (SIZE, SIZE + 5)],
        [(0, 10), (5, 5)],
        [(0, 10), (0, 150_000)],
        [(0, 10), (20, None)],
    ],
)
def test_what_is_not_small_or_not_within_goes_another_way(outcomes: Counter[str], pairs: list[Any]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        outcomes.clear()
        found = reader.read_ranges(pairs, gap=None, concurrent=2)
        assert [bytes(each) for each in found] == [DATA[start:stop] for start, stop in pairs]
        assert not outcomes["unfinished"]


@pytest.mark.parametrize("junk", [b"", b"x", b"HTTP/1.1 206 Word\r\n\r\n"])
def test_a_connection_that_ends_while_others_are_busy(junk: bytes) -> None:
    """It has nothing more to bring; were it kept, the next read over it would meet its end, or what is left on it."""
    last = WIDTH - 1

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        if asked.range == (0, 1000):
            answer.wait_s = 1.0
        elif asked.range == (1000, 2000):
            answer.data += junk
            answer.then = "keep" if junk else "close"
            answer.piece, answer.pause_s = len(answer.data) - len(junk), 0.05
        return answer

    with scripted(script) as server, rangeio.open(server.url, retry=1) as reader:
        widened(reader)
        pairs = [(1000 * number, 1000 * number + 1000) for number in range(WIDTH)]
        assert read(reader, pairs) == right(pairs)
        assert len(reader._source._pool._idle[reader._source._remote.target.origin]) == last  # type: ignore[attr-defined]
        widened(reader)
        assert server.connections == WIDTH + 1


def test_fewer_connections_than_wanted_are_opened_first(outcomes: Counter[str]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        assert reader.read_at(0, 10) == DATA[:10]
        pairs = pairs_of(64, 5000)
        for _ in range(3):
            assert read(reader, pairs) == right(pairs)
        assert server.connections == WIDTH
        assert outcomes["none"]
        assert outcomes["done"] >= 64


def test_chunks_below_a_small_read_are_cut(outcomes: Counter[str]) -> None:
    with (
        scripted(lambda asked: honest(DATA, asked)) as server,
        rangeio.open(server.url, chunk=1000) as reader,
    ):
        widened(reader)
        assert reader.read_at(500, 2500) == DATA[500:3000]
        assert read(reader, [(0, 2000), (5000, 6500)]) == [DATA[:2000], DATA[5000:6500]]
        assert sorted(server.ranges[-7:-4]) == [(500, 1500), (1500, 2500), (2500, 3000)]
        assert not outcomes
        widened(reader)
        with rangeio.open(server.url) as whole:
            widened(whole)
            outcomes.clear()
            assert read(whole, [(0, 2000)] * 2, chunk=1000, max_merged=1) == [DATA[:2000]] * 2
            assert not outcomes


@pytest.mark.parametrize("ask", [read, iterate])
def test_chunk_of_one_call_is_the_most_of_a_request(outcomes: Counter[str], ask: Any) -> None:
    data = DATA * 8
    with scripted(lambda asked: honest(data, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        outcomes.clear()
        pairs, before = [(0, 1_500_000), (1_600_000, 1_600_010)], len(server.ranges)
        assert ask(reader, pairs, chunk=700_000) == [data[start:stop] for start, stop in pairs]
        cut_up = [(0, 700_000), (700_000, 1_400_000), (1_400_000, 1_500_000), (1_600_000, 1_600_010)]
        assert sorted(server.ranges[before:]) == cut_up
        assert not outcomes
        assert ask(reader, pairs[:1], chunk=1_500_000) == [data[:1_500_000]]
        assert server.ranges[-1] == pairs[0]
        assert outcomes["done"] == 1


# --- one -----------------------------------------------------------------------------------------------------


def test_one_by_one_call(outcomes: Counter[str]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        memory = bytearray(300)
        for start in range(0, 5000, 50):
            assert reader.read_at(start, 700) == DATA[start : start + 700]
            assert reader.read_into(memory, start) == 300
            assert memory == DATA[start : start + 300]
        assert reader.read_at(SIZE - 9, 700) == DATA[-9:]
        assert reader.read_into(memory, SIZE - 9) == 9
        assert memory[:9] == DATA[-9:]
        assert reader.read_at(SIZE, 700) == b""
        assert reader.slice(1000, 3000).read_at(1990, 700) == DATA[2990:3000]
        assert outcomes["done"] >= 200
        assert not outcomes["unfinished"]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1, 5), ValueError),
        ((0, -5), ValueError),
        ((0.5, 1), TypeError),
        ((0, "5"), TypeError),
        ((2**63, 1), OverflowError),
    ],
)
def test_arguments(outcomes: Counter[str], arguments: Any, error: type[Exception]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        for _ in range(4):
            reader.read_at(0, 10)
        assert outcomes["done"]
        with pytest.raises(error):
            reader.read_at(*arguments)
        assert reader.read_at(True, 2) == DATA[1:3]
        assert server.connections == 1


def test_closed(outcomes: Counter[str]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server:
        reader = rangeio.open(server.url)
        for _ in range(4):
            reader.read_at(0, 10)
        reader.close()
        for call in (
            lambda: reader.read_at(0, 10),
            lambda: reader.read_ranges([(0, 10), (20, 30)], gap=None),
        ):
            with pytest.raises(rangeio.ClosedError):
                call()


def test_closed_amid_an_iteration(outcomes: Counter[str]) -> None:
    """It goes on to its end, whatever strays; nothing is kept."""
    script, pairs = Turning(lambda _: Answer(b"", "close")), pairs_of(64, 500)
    with scripted(script) as server:
        reader = rangeio.open(server.url)
        pool: ConnectionPool = reader._source._pool  # type: ignore[attr-defined]
        widened(reader)
        script.left = 30
        found: dict[int, bytes] = {}
        for index, buffer in reader.iter_ranges(pairs, gap=None, concurrent=WIDTH):
            found[index] = bytes(buffer)
            reader.close()
        assert [found[index] for index in range(64)] == right(pairs)
        assert outcomes["unfinished"]
        assert pool.stats()["connections_open"] == 0


def test_nothing_is_tried_in_vain(outcomes: Counter[str]) -> None:
    """An unusual argument goes another way; what is good is not made anew for it."""
    made: list[object] = []
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        for _ in range(4):
            reader.read_at(0, 10)
        source: Any = reader._source
        before = source._steady
        made.append(before)
        assert before is not None
        assert reader.read_at(np.int64(5), np.uint8(10)) == DATA[5:15]
        assert source._steady is before


def test_what_is_meant_for_a_proxy_goes_to_no_other(outcomes: Counter[str]) -> None:
    """A connection that was opened when the environment said otherwise is asked in its own form."""
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        for _ in range(4):
            reader.read_at(0, 10)
        pool: Any = reader._source._pool  # type: ignore[attr-defined]
        idle = pool.idle(reader._source._remote.target.origin)  # type: ignore[attr-defined]
        for connection in idle.clear():
            connection.absolute = True
            idle.keep(connection)
        outcomes.clear()
        assert reader.read_at(5, 10) == DATA[5:15]
        assert not outcomes["done"]
        assert server.asked[-1].target.startswith("http://")


def test_retries_are_paid_back() -> None:
    """By each read that went well, however it did."""
    tokens = RETRIES._tokens
    script = Turning(lambda _: reply(503))
    with scripted(script) as server, rangeio.open(server.url, retry=rangeio.Retry(backoff_s=0.001)) as reader:
        for _ in range(4):
            reader.read_at(0, 10)
        script.left = 1
        reader.read_at(0, 10)
        assert RETRIES._tokens < tokens
        for start in range(10):
            reader.read_at(start, 10)
        assert RETRIES._tokens == tokens


def test_closed_amid_a_read(outcomes: Counter[str]) -> None:
    """It goes on to its end; its connection is not kept, and the reader stays closed."""
    waiting, over = threading.Event(), threading.Event()

    def script(asked: Asked) -> Answer:
        if asked.range == (7, 17):
            waiting.set()
            over.wait(30)
        return honest(DATA, asked)

    with scripted(script) as server:
        reader = rangeio.open(server.url)
        for _ in range(4):
            reader.read_at(0, 10)
        pool: ConnectionPool = reader._source._pool  # type: ignore[attr-defined]
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(reader.read_at(7, 10)))
        thread.start()
        assert waiting.wait(30)
        reader.close()
        over.set()
        thread.join()
        assert found == [DATA[7:17]]
        assert pool.stats()["connections_open"] == 0
        with pytest.raises(rangeio.ClosedError):
            reader.read_at(7, 10)


def test_threads(outcomes: Counter[str]) -> None:
    """Each has a connection of its own while it reads, and its own bytes."""
    wrong: list[Any] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(100):
            start, length = dice.randrange(SIZE - 3000), dice.randrange(1, 3000)
            if reader.read_at(start, length) != DATA[start : start + length]:
                wrong.append((start, length))

    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert outcomes["done"] > 300
        assert server.connections <= 12


# --- heads ---------------------------------------------------------------------------------------------------


def numbered(text: str) -> Callable[[Asked], Answer]:
    """A reply with a name of its own, made of the request's number."""
    return lambda asked: changed(X_Name=text % asked.number)(asked)


@pytest.mark.parametrize("way", ["one length", "any length", "in turns"])
def test_a_field_that_is_another_each_time(outcomes: Counter[str], way: str) -> None:
    """As the time is, or the name of a request: how long it is is no matter."""
    lengths = {"one length": [6], "any length": range(1, 50), "in turns": [1, 6, 12]}[way]

    def script(asked: Asked) -> Answer:
        return changed(X_Name=f"{asked.number}".rjust(lengths[asked.number % len(lengths)], "x"))(asked)

    with scripted(script) as server, rangeio.open(server.url) as reader:
        reader.read_at(0, 10)
        outcomes.clear()
        for start in range(50):
            length = (100, 9000, 70_000, 1)[start % 4]
            assert reader.read_at(start, length) == DATA[start : start + length]
        assert outcomes["done"] >= 50
        assert not outcomes["unfinished"]


@pytest.mark.parametrize("status", [404, 412, 503])
@pytest.mark.parametrize("way", [read, iterate, lambda reader, pairs: reader.read_at(*pairs[0])])
def test_a_short_refusal_is_heard_at_once(way: Any, status: int) -> None:
    """Though it is shorter in all than the head that was expected: nobody waits for the rest, here an hour."""
    script = Turning(lambda _: Answer(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status))
    timeout = rangeio.Timeout(first_byte_s=4000, idle_s=4000, connect_s=4000)
    object.__setattr__(timeout, "tick_s", 3600.0)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            way(reader, pairs_of(20, 500))
        except rangeio.Error as error:
            errors.append(error)

    with scripted(script) as server, rangeio.open(server.url, retry=1, timeout=timeout) as reader:
        widened(reader)
        reader.read_at(0, 10)
        script.left = 1
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert len(errors) == 1


def test_a_request_is_used_for_its_time_only(outcomes: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature ages while many are read, and while a consumer takes its time: the rest is asked for anew."""
    monkeypatch.setattr(steady, "_GOOD_S", 0.05)
    made: list[float] = []
    make = http_source.steady_reads

    def counting(*arguments: Any) -> Any:
        made.append(time.monotonic())
        return make(*arguments)

    monkeypatch.setattr(http_source, "steady_reads", counting)
    slow = Answer(b"")

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        answer.wait_s = slow.wait_s
        return answer

    pairs = pairs_of(200, 500)
    with scripted(script) as server, rangeio.open(server.url) as reader:
        widened(reader)
        slow.wait_s = 0.01
        outcomes.clear()
        for way in (read, iterate):
            made.clear()
            assert way(reader, pairs) == right(pairs)
            assert len(made) > 2
        made.clear()
        for number, _ in enumerate(reader.iter_ranges(pairs[:20], gap=None, concurrent=WIDTH)):
            if number == 5:
                threading.Event().wait(0.1)
        assert made
        assert outcomes["done"] > 100
        assert not outcomes["unfinished"]


def test_no_descriptor_left() -> None:
    """What the thread has open already serves as well."""
    resource = pytest.importorskip("resource")
    pairs = pairs_of(64, 500)
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        read(reader, [(0, 150_000), (5, 10)], chunk=100_000)  # the thread keeps what waits for the engine
        was = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.dup(0)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, was[1]))
        try:
            with suppress(OSError):
                while True:
                    held.append(os.dup(0))
            assert read(reader, pairs) == right(pairs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, was)
            for fd in held:
                os.close(fd)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (f"a\r\nContent-Range: bytes 0-99/{SIZE}", rangeio.Error),
        ('a\r\nETag: "v2"', rangeio.ServerError),
        ("a\r\nContent-Encoding: gzip", rangeio.ContentEncodedError),
        ("a\r\nX-Other: b", None),
        ("a\tb", None),
        ("a\x7fb", None),
    ],
)
def test_fields_within_a_field(outcomes: Counter[str], name: str, error: type[Exception] | None) -> None:
    """What may end a field for some does not go unseen."""
    odd = False

    def script(asked: Asked) -> Answer:
        return changed(X_Name=name if odd else "x" * len(name))(asked)

    with scripted(script) as server, rangeio.open(server.url, retry=1) as reader:
        for _ in range(6):
            reader.read_at(0, 10)
        outcomes.clear()
        odd = True
        if error is None:
            assert reader.read_at(100, 100) == DATA[100:200]
        else:
            with pytest.raises(error):
                reader.read_at(100, 100)
        assert outcomes["unfinished"] == (error is not None or "\x7f" in name)


# --- time, signals, forks ------------------------------------------------------------------------------------


def dripping(asked: Asked) -> Answer:
    answer = honest(DATA, asked)
    answer.piece, answer.pause_s = answer.data.index(b"\r\n\r\n") + 4, 0.03
    return answer


@pytest.mark.parametrize(
    ("odd", "timeout", "said"),
    [
        (lambda _: Answer(b"", "stall"), rangeio.Timeout(first_byte_s=1.0), "first_byte_s"),
        (lambda asked: cut(honest(DATA, asked), 9, "stall"), rangeio.Timeout(idle_s=1.0), "idle_s"),
        (dripping, rangeio.Timeout(total_s=2.0), "total_s"),
    ],
)
@BOTH
def test_one_of_many_is_late(way: Any, odd: Any, timeout: rangeio.Timeout, said: str) -> None:
    """The others are busy all the while, for longer than it may take."""
    script = Turning(odd)
    with scripted(script) as server, rangeio.open(server.url, retry=1, timeout=timeout) as reader:
        widened(reader)
        script.left = 5
        with pytest.raises(rangeio.TimedOutError, match=said):
            way(reader, pairs_of(200, 50_000))
        widened(reader)


@BOTH
def test_a_late_one_is_overtaken(outcomes: Counter[str], way: Any) -> None:
    """As `hedge` says, also where the core had begun it."""
    script = Turning(lambda _: Answer(b"", "stall"))
    with scripted(script) as server, rangeio.open(server.url, hedge=0.1) as reader:
        widened(reader)
        before = rangeio.stats()["hedges_won"]
        for at, pairs in ((5, pairs_of(64, 5000)), (1, pairs_of(1, 5000))):
            script.left = at
            assert way(reader, pairs) == right(pairs)
        assert rangeio.stats()["hedges_won"] - before == 2
        assert outcomes["unfinished"]


def for_ever(way: Any, reader: Any, pairs: list[tuple[int, int]]) -> None:
    while True:
        way(reader, pairs)


@pytest.mark.parametrize("busy", [True, False])
@BOTH
def test_interrupted_amid_many(way: Any, busy: bool) -> None:
    """Whether it waits for the one that is left or is never without work. None is kept that a reply is to come over."""
    main = threading.main_thread().ident
    assert main is not None
    script = Turning(lambda _: Answer(b"", "stall"))
    with scripted(script) as server, rangeio.open(server.url) as reader:
        widened(reader)
        script.left = -1 if busy else 3
        timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        counted, heard = rangeio.stats()["requests"], len(server.asked)
        with pytest.raises(KeyboardInterrupt):
            for_ever(way, reader, pairs_of(4000 if busy else 10, 100))
        timer.join()
        assert rangeio.stats()["requests"] - counted >= len(server.asked) - heard
        script.left = -1
        widened(reader)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@BOTH
def test_a_handler_forks_amid_many(way: Any) -> None:
    """Both go on: the child over connections of its own."""
    need_allocator_across_fork()
    children: list[int] = []

    def fork(*_: object) -> None:
        children.append(os.fork())
        if not children[-1]:
            signal.alarm(30)

    main = threading.main_thread().ident
    assert main is not None
    script, pairs = Turning(dripping), pairs_of(64, 3000)
    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with scripted(script) as server, rangeio.open(server.url, retry=2) as reader:
            widened(reader)
            script.left = 30
            timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1))
            timer.start()
            found: list[bytes] = []
            try:
                while not children:
                    found = way(reader, pairs)
                    script.left = 30
            finally:
                if children and not children[0]:
                    os._exit(found != right(pairs))
            timer.join()
            assert found == right(pairs)
            assert os.waitpid(children[0], 0)[1] == 0
            widened(reader)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_opens_its_own() -> None:
    need_allocator_across_fork()
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        child = os.fork()
        if not child:
            signal.alarm(30)
            try:
                widened(reader)
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        widened(reader)
        assert server.connections == 2 * WIDTH


# --- taken one by one ----------------------------------------------------------------------------------------


def test_what_is_not_taken_is_not_read_ahead(outcomes: Counter[str]) -> None:
    """As many as are wanted at once, and no more; what is left half-way leaves no connection with a reply to come."""
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        before = len(server.asked)
        iteration = reader.iter_ranges(pairs_of(64, 500), gap=None, concurrent=WIDTH)
        for _ in range(10):
            next(iteration)
        assert len(server.asked) - before <= 10 + WIDTH
        iteration.close()
        assert outcomes["done"] >= 10
        widened(reader)


def test_two_iterations_at_once(outcomes: Counter[str]) -> None:
    """The second finds no idle connection, and opens its own."""
    pairs = pairs_of(40, 900)
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        found: list[dict[int, bytes]] = [{}, {}]
        iterations = [reader.iter_ranges(pairs, gap=None, concurrent=WIDTH) for _ in range(2)]
        for both in zip(*iterations, strict=True):
            for into, (index, buffer) in zip(found, both, strict=True):
                into[index] = bytes(buffer)
        assert [[each[index] for index in range(40)] for each in found] == [right(pairs)] * 2
        assert server.connections <= 2 * WIDTH


def test_an_iteration_holds_nothing_it_gave(outcomes: Counter[str]) -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        before = rangeio.stats()["buffers_live"]
        for _, buffer in reader.iter_ranges(pairs_of(64, 5000), gap=None, concurrent=1):
            assert rangeio.stats()["buffers_live"] - before <= 2
            del buffer
        assert outcomes["done"]


def test_what_is_nearly_taken_keeps_no_connection_idle() -> None:
    """Others have those on which nothing more is to be asked, while the consumer takes its time."""
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        pool: ConnectionPool = reader._source._pool  # type: ignore[attr-defined]
        for number, _ in enumerate(reader.iter_ranges(pairs_of(64, 500), gap=None, concurrent=WIDTH)):
            if number == 62:
                assert pool.stats()["connections_idle"] >= WIDTH - 2
        assert pool.stats()["connections_idle"] == WIDTH


def test_an_iteration_that_was_closed() -> None:
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        source: Any = reader._source
        numbers = np.arange(64, dtype=np.int64)
        for end in ("close", "unfinished"):
            widened(reader)
            batch = source._steady_now().iter_many(numbers, numbers + 1, 0, WIDTH, time.monotonic())
            assert batch.next() is not None
            getattr(batch, end)()
            assert batch.next() is None
            assert batch.unfinished() == []
            batch.close()


@pytest.mark.parametrize(
    "way", [read, iterate, lambda reader, pairs: [bytes(reader.read_at(a, b - a)) for a, b in pairs]]
)
def test_a_server_that_takes_its_time(outcomes: Counter[str], way: Any) -> None:
    """Within what it may take, though longer than it takes to look about."""
    slow = Answer(b"")

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        answer.wait_s = slow.wait_s
        return answer

    with scripted(script) as server, rangeio.open(server.url, hedge=1.2) as reader:
        widened(reader)
        reader.read_at(0, 10)
        outcomes.clear()
        slow.wait_s = 0.45
        pairs = pairs_of(2, 50)
        assert way(reader, pairs) == right(pairs)
        assert outcomes["done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("taken", [0, 5, 60])
def test_an_iteration_goes_on_in_a_child(taken: int) -> None:
    """And in its parent."""
    need_allocator_across_fork()
    pairs = pairs_of(64, 3000)
    with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
        widened(reader)
        iteration = reader.iter_ranges(pairs, gap=None, concurrent=WIDTH)
        found = {index: bytes(buffer) for index, buffer in islice(iteration, taken)}
        child = os.fork()
        if not child:
            signal.alarm(30)
        try:
            found |= {index: bytes(buffer) for index, buffer in iteration}
        finally:
            if not child:
                os._exit([found.get(index) for index in range(64)] != right(pairs))
        assert [found[index] for index in range(64)] == right(pairs)
        assert os.waitpid(child, 0)[1] == 0


def test_a_consumer_that_takes_its_time(outcomes: Counter[str]) -> None:
    """While it is away nobody is late."""
    timeout = rangeio.Timeout(first_byte_s=0.6, idle_s=0.6)
    with (
        scripted(lambda asked: honest(DATA, asked)) as server,
        rangeio.open(server.url, timeout=timeout) as reader,
    ):
        widened(reader)
        outcomes.clear()
        for number, _ in enumerate(reader.iter_ranges(pairs_of(20, 500), gap=None, concurrent=WIDTH)):
            if number in (3, 12):
                threading.Event().wait(0.9)
        assert outcomes["done"] >= 15
