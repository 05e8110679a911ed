"""Who has which connection, and for how long: iterations that rest, servers that serve one at a time."""

import itertools
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.opening import MakeReader
from servers.scripted import Asked, honest, scripted

import rangeio
from rangeio.http import attempt, connection_pool

need_module("urllib3")

DATA = bytes(i * 7 % 251 for i in range(300_000))
RANGES = [(at, at + 500) for at in range(0, len(DATA) - 500, 1000)]
WANTED = [DATA[a:b] for a, b in RANGES]


# --- iterations that rest ------------------------------------------------------------------------------------


@pytest.fixture
def never_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits in line waits until somebody gives a connection back: time helps nobody."""
    monkeypatch.setattr(connection_pool, "_STUCK_S", 1e9)


def rest_of(iteration: Iterator[tuple[int, Any]], given: int) -> None:
    """All other results, each once."""
    found = dict(iteration)
    assert len(found) == len(RANGES) - given
    assert all(found[index] == WANTED[index] for index in found)


@pytest.mark.parametrize("begun_with", ["small reads", "nothing"])
def test_iterations_that_rest_keep_nobody_waiting(
    opened: MakeReader, never_stuck: None, begun_with: str
) -> None:
    """More of them than there may be connections; they go on where they were."""
    with scripted(lambda asked: honest(DATA, asked)) as server:
        sync = rangeio.open(server.url, gap=None, timeout=30)
        sync.read_at(0, 10)
        if begun_with == "small reads":
            sync.read_ranges(RANGES[:16])
        resting = []
        for _ in range(10):
            iteration = sync.iter_ranges(RANGES)
            index, first = next(iteration)
            assert first == WANTED[index]
            resting.append(iteration)
        assert sync.read_at(5, 5) == DATA[5:10]
        assert sync.read_ranges(RANGES[:4]) == WANTED[:4]
        assert sync.read_range((0, 10_000)) == DATA[:10_000]
        reader = opened(server.url, gap=None, timeout=30)
        assert reader.read_ranges(RANGES[:4]) == WANTED[:4]
        for iteration in resting[::2]:
            rest_of(iteration, 1)
        del resting, iteration
        assert sync.read_ranges(RANGES[:40]) == WANTED[:40]
        sync.close()


def test_iterations_that_rest_leave_the_bounds_to_others(never_stuck: None) -> None:
    """Each call has one connection beyond the bounds at most."""
    with (
        scripted(lambda asked: honest(DATA, asked)) as server,
        rangeio.open(server.url, gap=None, timeout=30) as reader,
    ):
        reader.read_at(0, 10)
        resting = [reader.iter_ranges(RANGES) for _ in range(12)]
        for iteration in resting:
            next(iteration)
        source = reader._source  # type: ignore[attr-defined]
        assert source._pool.stats()["connections_open"] <= connection_pool.PER_HOST + len(resting)
        for iteration in random.Random(1).sample(resting, 12):
            rest_of(iteration, 1)
        assert server.connections <= connection_pool.PER_HOST + len(resting)


# --- servers that serve one connection at a time ---------------------------------------------------------------


@contextmanager
def one_at_a_time() -> Iterator[str]:
    """Keeps a connection alive until the client closes it, and looks at no other before."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve() -> None:
        for number in itertools.count():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, suppress(OSError):
                converse(sock, number)

    def converse(sock: socket.socket, number: int) -> None:
        received = b""
        while more := sock.recv(65_536):
            received += more
            while b"\r\n\r\n" in received:
                head, _, received = received.partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                method, target, _ = first.split(" ")
                sock.sendall(honest(DATA, Asked(method, target, fields, 0, number)).data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/object"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such servers are known soon."""
    monkeypatch.setattr(connection_pool, "_SERIAL_S", 0.1)
    monkeypatch.setattr(connection_pool, "SERIAL", connection_pool._Serial())
    monkeypatch.setattr(attempt, "SERIAL", connection_pool.SERIAL)


LIMITS = rangeio.Timeout(first_byte_s=0.8, total_s=30)
"""Looked at each tenth of a second; what hangs ends."""


@pytest.mark.parametrize("name", ["sync", *LOOPS])
def test_reads_do_not_wait_for_each_others_idle_connections(name: str, soon: None) -> None:
    loop = None if name == "sync" else Loop(need_module(name).__name__)

    def opened(url: str) -> Any:
        options: Any = {"gap": None, "timeout": LIMITS, "retry": 1}
        if loop is None:
            return rangeio.open(url, **options)
        return Awaited(rangeio.open_async(url, **options), loop)

    with one_at_a_time() as url:
        first, second = opened(url), opened(url)
        for start in range(6):
            reader = (first, second)[start % 2]
            assert reader.read_at(start, 5) == DATA[start : start + 5]
        assert first.read_ranges(RANGES[:20]) == WANTED[:20]
        assert second.read_ranges(RANGES[:20]) == WANTED[:20]
        first.close()
        second.close()
    if loop is not None:
        loop.close()


def test_many_ranges_at_once(soon: None) -> None:
    with one_at_a_time() as url, rangeio.open(url, gap=None, timeout=LIMITS, retry=1) as reader:
        assert reader.read_ranges(RANGES[:20]) == WANTED[:20]


def test_slow_servers_keep_their_connections(soon: None) -> None:
    """That a response takes long is no proof: others that wait with it are answered while a connection is idle."""

    def script(asked: Asked) -> Any:
        answer = honest(DATA, asked)
        answer.wait_s = 0.3 if asked.fields.get("range", "").startswith("bytes=7") else 0.0
        return answer

    with scripted(script) as server, rangeio.open(server.url, gap=None, timeout=LIMITS) as reader:
        reader.read_ranges(RANGES[:8])
        for _ in range(2):
            reader.read_ranges([(7000, 7100), (1, 5), (7100, 7200), (5, 9)])
        before = server.connections
        for start in range(20):
            reader.read_at(start, 10)
        assert server.connections <= before + 1
