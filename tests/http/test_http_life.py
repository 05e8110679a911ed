"""What becomes of connections: kept, shared, bounded, closed with their reader, given up, left by a fork."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, at_once, beside, cancel_when, run_on
from faults.machine import need_module
from servers.scripted import Answer, Asked, honest, scripted, sockets

import rangeio
from rangeio import counters
from rangeio.awaitables import pause
from rangeio.http import drivers, readiness, responses
from rangeio.http.connection_pool import ConnectionPool, Security
from rangeio.http.urls import Origin
from rangeio.policy import RETRIES, Retry, RetryBudget, Timeout

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

DATA = bytes(range(256)) * 4000


@pytest.fixture
def server() -> Iterator[Any]:
    with scripted(lambda asked: honest(DATA, asked)) as running:
        yield running


def test_close_leaves_no_socket(server: Any) -> None:
    before = sockets()
    with rangeio.open(server.url, chunk=100_000) as reader:
        assert reader.read_range() == DATA
        assert server.connections > 1
    for thread in threading.enumerate():
        if "_serve" in thread.name:
            thread.join()  # ends when the client's end is closed
    assert sockets() - before == set()


def test_an_operator_keeps_connections(server: Any) -> None:
    operator = rangeio.Operator("http", root=server.url)
    for name in ("a", "b", "c"):
        with operator.open(name) as reader:
            assert reader.read_at(0, 10) == DATA[:10]
    assert server.connections == 1
    jobs = [(name, (5, 15)) for name in "abcdef"]
    assert operator.read_ranges(jobs) == [DATA[5:15]] * 6


def test_many_threads(server: Any) -> None:
    wrong: list[object] = []

    def read(reader: rangeio.Reader, first: int) -> None:
        for offset in range(first, first + 2000, 100):
            if reader.read_at(offset, 100) != DATA[offset : offset + 100]:
                wrong.append(offset)

    with rangeio.open(server.url) as reader:
        threads = [threading.Thread(target=read, args=(reader, 3000 * number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert server.connections <= 8


def test_small_results_pin_little(server: Any) -> None:
    with rangeio.open(server.url) as reader:
        results = reader.read_ranges([(0, 100), (60_000, 60_100), (120_000, 120_100)], gap=1 << 20)
        assert len(server.asked) == 1
        assert all(result.nbytes_pinned <= 8192 for result in results)


@pytest.mark.parametrize("name", LOOPS)
def test_cancelling(name: str) -> None:
    """It returns at once, and its connection is closed, so the server hears of it."""
    pytest.importorskip(name)
    gone = threading.Event()

    def stalling(asked: Asked) -> Answer:
        return Answer(b"", "stall")

    with scripted(stalling) as server:

        async def main() -> None:
            async with rangeio.open_async(server.url) as reader:
                await cancel_when(name, lambda: bool(server.asked), reader.read_at(0, 10))

        run_on(name, main)
        for thread in threading.enumerate():
            if "_serve" in thread.name:
                thread.join()  # ends when the client has gone
        gone.set()
    assert gone.is_set()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_a_busy_loop_is_not_a_slow_server(name: str) -> None:
    """What has come while other tasks held the loop is read before anybody asks how long it took."""
    pytest.importorskip(name)
    over = threading.Event()  # all limits, and by then the reply is there

    def script(asked: Asked) -> Answer:
        threading.Timer(0.8, over.set).start()
        return honest(DATA, asked)

    with scripted(script) as server:

        async def hold() -> None:
            """Keep the loop from looking."""
            while not server.asked:
                await pause(0.001)
            over.wait()
            over.clear()

        async def main() -> None:
            limits = rangeio.Timeout(first_byte_s=0.4, idle_s=0.4)
            async with rangeio.open_async(server.url, timeout=limits, hedge=0.4, retry=1) as reader:
                for offset in (0, 10):
                    del server.asked[:]
                    assert await beside(name, hold, reader.read_at(offset, 10)) == DATA[offset : offset + 10]
                    assert len(server.asked) == 1

        run_on(name, main)


@pytest.mark.parametrize("name", LOOPS)
def test_leaving_an_iteration(server: Any, name: str) -> None:
    pytest.importorskip(name)

    async def main() -> None:
        async with rangeio.open_async(server.url) as reader:
            async for buffer in reader.stream(chunk=10_000):
                assert buffer == DATA[:10_000]
                break

    run_on(name, main)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork(server: Any) -> None:
    """A child opens connections of its own; the parent's go on."""
    with rangeio.open(server.url) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        child = os.fork()
        if not child:
            try:
                os._exit(0 if reader.read_at(10, 10) == DATA[10:20] else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert reader.read_at(20, 10) == DATA[20:30]
    assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("bare", [True, False], ids=["epoll", "selectors"])
def test_a_driver_of_a_forked_child_is_its_own(monkeypatch: pytest.MonkeyPatch, bare: bool) -> None:
    """What the child watches no longer, the parent still hears."""
    if not bare:
        monkeypatch.setattr(readiness, "select", None)
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []
    driver = drivers.ThreadDriver()
    driver.watch(ours.fileno(), lambda: heard.append(ours.recv(1)))
    child = os.fork()
    if not child:
        driver.unwatch(ours.fileno())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    theirs.send(b"x")
    driver.later(5, lambda: None)
    driver.step()
    driver.close()
    ours.close()
    theirs.close()
    assert heard == [b"x"]


WAYS: dict[str, Callable[[rangeio.Reader], list[Any]]] = {
    "at once": lambda reader: [reader.read_at(0, 60_000)],
    "large": lambda reader: [reader.read_at(0, 300_000)],
    "many": lambda reader: reader.read_ranges([(n, n + 50_000) for n in range(0, 300_000, 50_000)], gap=None),
    "iterated": lambda reader: [
        piece for _, piece in sorted(reader.iter_ranges([(0, 50_000), (50_000, 90_000)], gap=None))
    ],
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("known", [True, False])
def test_a_handler_forks_amid_a_read(way: str, known: bool) -> None:
    """Both go on with it. Were they to receive over one connection, each would have what the other has not."""
    children: list[int] = []
    main = threading.main_thread().ident
    assert main is not None

    def fork(*_: object) -> None:
        children.append(os.fork())
        if not children[-1]:
            signal.alarm(30)

    def script(asked: Asked) -> Answer:
        answer = honest(DATA, asked)
        if not children and not timers and len(answer.data) > 10_000:
            answer.piece, answer.pause_s = 10_000, 0.02
            timers.append(threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)))
            timers[0].start()
        return answer

    timers: list[threading.Timer] = []
    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with scripted(script) as server, rangeio.open(server.url, retry=2) as reader:
            for offset in range(3 * known):
                reader.read_at(offset, 10)
            found = b""
            try:
                found = b"".join(WAYS[way](reader))
            finally:
                if children and not children[0]:
                    os._exit(0 if found and DATA.startswith(found) else 1)
            timers[0].join()
            assert found
            assert DATA.startswith(found)
            assert os.waitpid(children[0], 0)[1] == 0
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_fork_while_credentials_are_asked_for(server: Any) -> None:
    """By a thread that the child does not have: the child asks for itself."""
    asked, over = threading.Event(), threading.Event()

    def credentials() -> dict[str, str]:
        if not asked.is_set():
            asked.set()
            assert over.wait(30)
        return {"Authorization": "Bearer 1"}

    with rangeio.open(server.url, credentials=credentials) as reader:
        first = threading.Thread(target=reader.read_at, args=(0, 10))
        first.start()
        assert asked.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # it would wait for a lock that nobody holds
            os._exit(0 if reader.read_at(10, 10) == DATA[10:20] else 1)
        status = os.waitpid(child, 0)[1]
        over.set()
        first.join()
    assert status == 0


HELD: dict[str, Callable[[Any], Any]] = {
    "opening": lambda reader: reader,
    "counters of a reader": lambda reader: reader._counters,
    "the first response": lambda _: responses._LEARNING,
    "requests": lambda _: counters.REQUESTS,
    "connections": lambda _: counters.CONNECTIONS,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("what", HELD)
def test_fork_while_another_thread_holds_a_lock(server: Any, what: str) -> None:
    """The child does not have that thread, and does not wait for it."""
    held, over = threading.Event(), threading.Event()

    def hold(owner: Any) -> None:
        with owner._lock:
            held.set()
            over.wait(30)

    async def read() -> bool:
        pairs = await reader.read_ranges([(0, 10), (500_000, 500_010)])
        reader.close()
        counted = reader.stats["requests"] == 2 and rangeio.stats()["connections"] > 0
        return counted and pairs == [DATA[:10], DATA[500_000:500_010]]

    reader = rangeio.open_async(server.url)
    thread = threading.Thread(target=hold, args=(HELD[what](reader),))
    thread.start()
    assert held.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(10)
        try:
            os._exit(0 if asyncio.run(read()) else 1)
        finally:
            os._exit(2)
    status = os.waitpid(child, 0)[1]
    over.set()
    thread.join()
    reader.close()
    assert status == 0


def test_bounds() -> None:
    """So many for one host, so many in all; an idle one of another host makes room."""
    pool = ConnectionPool(Security(), "", per_host=2, in_all=3)
    here, there = Origin("http", "a", 80), Origin("http", "b", 80)
    assert [pool.reserve(here) for _ in range(3)] == [True, True, False]
    assert [pool.reserve(there) for _ in range(2)] == [True, False]
    assert pool.reserve(there, force=True)
    woken: list[Any] = []
    pool.when_free(here, woken.append)
    pool.free(here)
    assert woken == [None]


def bounded(reader: Any, per_host: int, in_all: int = 100) -> ConnectionPool:
    """Its pool, which has no more than so many."""
    pool: ConnectionPool = (
        reader._opened()._pool if isinstance(reader, rangeio.AsyncReader) else reader._source._pool
    )
    pool._per_host, pool._in_all = per_host, in_all
    return pool


@pytest.mark.parametrize("name", LOOPS)
def test_many_tasks_share_the_connections_there_may_be(server: Any, name: str) -> None:
    need_module(name)

    async def main() -> None:
        async with rangeio.open_async(server.url) as reader:
            bounded(reader, 5)

            async def read(offset: int) -> None:
                assert await reader.read_at(offset, 10) == DATA[offset : offset + 10]

            for _ in range(3):
                await at_once(name, [partial(read, 7 * number) for number in range(100)])

    run_on(name, main)
    assert server.connections == 5


def test_many_threads_share_the_connections_there_may_be(server: Any) -> None:
    """Each gets its turn, though those before it read on and on."""
    over = threading.Event()

    def read(first: int) -> None:
        for offset in range(first, first + 500, 100):
            assert reader.read_at(offset, 100) == DATA[offset : offset + 100]

    def read_on() -> None:
        while not over.is_set():
            read(0)

    with rangeio.open(server.url) as reader, ThreadPoolExecutor(24) as threads:
        bounded(reader, 3)
        hogs = [threads.submit(read_on) for _ in range(4)]
        try:
            for done in [threads.submit(read, 1000 * number) for number in range(20)]:
                done.result(30)
        finally:
            over.set()
        for hog in hogs:
            hog.result(30)
    assert server.connections == 3


def test_two_origins_share_the_connections_there_may_be(server: Any) -> None:
    with scripted(lambda asked: honest(DATA[::-1], asked)) as other:
        operator = rangeio.Operator("http")
        with (
            operator.open(server.url) as first,
            operator.open(other.url) as second,
            ThreadPoolExecutor(8) as threads,
        ):
            pool = bounded(first, 2, 2)
            assert bounded(second, 2, 2) is pool

            def read(number: int) -> None:
                reader, data = ((first, DATA), (second, DATA[::-1]))[number % 2]
                for offset in range(0, 1000, 100):
                    assert reader.read_at(offset, 10) == data[offset : offset + 10]
                    assert pool.stats()["connections_open"] <= 2

            for done in [threads.submit(read, number) for number in range(8)]:
                done.result(30)


def test_who_waits_for_nobody_is_let_through(server: Any) -> None:
    """Iterations that nobody goes on with have all there may be, and their own thread wants one more."""
    with rangeio.open(server.url) as reader:
        reader.read_at(0, 10)
        pool = bounded(reader, 4)
        ranges = [(start, start + 50_000) for start in range(0, 500_000, 50_000)]
        iterations = [reader.iter_ranges(ranges, gap=None, concurrent=4) for _ in range(2)]
        found = [dict([next(iteration)]) for iteration in iterations]
        assert reader.read_at(5, 10) == DATA[5:15]
        assert pool.stats()["connections_open"] <= 7
        for known, iteration in zip(found, iterations, strict=True):
            known.update(iteration)
            assert [known[index] for index in range(len(ranges))] == [DATA[slice(*pair)] for pair in ranges]


def test_a_reader_waits_on_the_thread_of_its_loop(server: Any) -> None:
    """The loop has all connections, and cannot give one back as long as it waits for that thread."""

    async def main() -> None:
        async with rangeio.open_async(server.url) as awaited:
            pool = bounded(awaited, 3)
            reading = [asyncio.ensure_future(soon(awaited, number)) for number in range(6)]
            while pool.stats()["connections_open"] < 3:
                await pause(0.001)
            with rangeio.open(server.url) as reader:
                reader._source._pool = reader._source._remote.access.pool = pool  # type: ignore[attr-defined]
                pool.use()
                assert reader.read_at(5, 10) == DATA[5:15]
            assert await asyncio.gather(*reading) == [DATA[number : number + 10] for number in range(6)]

    async def soon(reader: Any, number: int) -> Any:
        return await reader.read_at(number, 10)

    asyncio.run(main())


def test_names_that_do_not_resolve() -> None:
    reader = rangeio.open("http://unknown.invalid/object", retry=1, proxy="")
    with reader, pytest.raises(rangeio.ConnectionFailedError):
        reader.read_at(0, 10)


def test_wrong_options(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"auth": ("a", "b"), "bearer_token": "c"},
        {"headers": {"Range": "bytes=0-1"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"bearer_token": "a\nb"},
        {"timeout": -1},
        {"timeout": "soon"},
        {"retry": 0},
        {"on_no_range": "guess"},
        {"if_match": "a\r\nb"},
        {"credentials": 5},
    ]
    for options in wrong:
        with pytest.raises(rangeio.ConfigInvalidError):
            rangeio.open("http://example.org/", **options)
    for url in ("http://", "http://a b/", "https://host:port/"):
        with pytest.raises(rangeio.ConfigInvalidError):
            rangeio.open(url)
    reader = rangeio.open("https://example.org/", ca_file=str(tmp_path / "none"), retry=1)
    with reader, pytest.raises(rangeio.ConfigInvalidError):
        reader.read_at(0, 1)


def test_retry_budget() -> None:
    budget = RetryBudget(tokens=10, cost=5)
    assert [budget.take("a") for _ in range(3)] == [True, True, False]
    for _ in range(5):
        budget.succeeded("a")
    assert budget.take("a")
    assert not budget.take("a", hedge=True)
    for _ in range(5):
        budget.succeeded("a")
    assert budget.take("a", hedge=True)
    found = budget.stats()
    assert (found["retries"], found["hedges"], found["retries_refused"], found["retry_tokens"]) == (
        3,
        1,
        2,
        10 * 20 - 20 + 10,
    )


def test_retry_budgets_are_of_one_origin_each_and_of_the_process() -> None:
    """One that is down takes nothing of another; many that are down take what the process has."""
    budget = RetryBudget(tokens=10, cost=5, origins=2)
    assert [budget.take("down") for _ in range(3)] == [True, True, False]
    assert [budget.take("well") for _ in range(2)] == [True, True]
    assert not budget.take("another")
    for _ in range(5):
        budget.succeeded("another")
    assert budget.take("another")


def test_retry_budget_of_a_server_fills_again_though_that_of_the_process_is_full() -> None:
    """One server fails for a while, and others fill the process's bucket before it is well again."""
    budget = RetryBudget(tokens=10, cost=5)
    assert [budget.take("down") for _ in range(3)] == [True, True, False]
    for _ in range(20):
        budget.succeeded("well")
    assert budget.stats()["retry_tokens"] == 10 * 20
    assert not budget.take("down")
    for _ in range(5):
        budget.succeeded("down")
    assert budget.take("down")


def test_successes_need_no_lock_while_all_buckets_are_full() -> None:
    """The lock would cost each request more than the count does."""
    budget = RetryBudget(tokens=10, cost=5)
    assert budget.take("down")
    for _ in range(5):
        budget.succeeded("down")
    budget._lock = None  # type: ignore[assignment]  # whoever asks for it fails
    for origin in ("down", "well"):
        budget.succeeded(origin)


def test_pauses() -> None:
    retry = Retry(backoff_s=1, max_backoff_s=4)
    assert all(0 <= (retry.pause_s(9, None) or 0) <= 4 for _ in range(50))
    assert (retry.pause_s(1, 30) or 0) >= 30
    assert retry.pause_s(1, 61) is None
    assert Timeout.of(3).total_s == 3


def test_fork_while_the_budget_of_retries_is_counted() -> None:
    """By a thread that the child does not have."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with RETRIES._lock:
            held.set()
            assert over.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if RETRIES.take("anywhere") else 1)
    status = os.waitpid(child, 0)[1]
    over.set()
    holder.join()
    assert status == 0
