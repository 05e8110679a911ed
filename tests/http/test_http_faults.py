"""Bad days: what a network, a server or a balancer does to connections, and what a read makes of it.

Each fault is done to real connections of a real server, by a proxy of ours, under every loop, plain and over TLS.
A read survives it byte for byte, or fails with one error that says enough; either way nothing is left behind.
"""

import gc
import pickle
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest
from awaited import LOOPS, at_once, run_on
from faults.machine import need_module
from servers.line import DATA, PLAIN, SECURE, SIZE, Line
from servers.nginx import nginx
from servers.program import Site, public_folder
from servers.proxy import Fault, first, refusal

import rangeio
from rangeio.http import connection_pool as connections
from rangeio.http import drivers
from rangeio.policy import RetryBudget

pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")

IMPATIENT = rangeio.Retry(attempts=3, backoff_s=0.001)
SECRETS = ("hunter2", "sig=abc", "tok3n")
# Bytes from the server, before the first byte of a body: its head, and over TLS the handshake and tickets before that.
MID_HEAD = {"http": 40, "https": 1000}
MID_BODY = {"http": 10_000, "https": 20_000}


def read(reader: Any) -> Any:
    return reader.read_at(5, 100_000)


EXPECTED = DATA[5:100_005]


def check_error(
    error: rangeio.Error,
    attempts: int,
    *,
    http_status: int | None = None,
    request_id: str | None = None,
    advice: str = "retry=",
) -> None:
    """It says what was asked for and how often, what came, and what to do; and no secret."""
    text = str(error)
    assert (error.status, error.attempts, error.offset, error.limit) == ("persistent", attempts, 5, 100_000)
    assert "bytes [5, 100005) of " in text
    assert "/faulty" in text
    assert attempts == 1 or f"{attempts} attempts" in text
    if http_status is not None:
        assert (error.http_status, error.request_id) == (http_status, request_id)
        assert f"HTTP {http_status}" in text
        assert str(request_id) in text
    assert advice in text
    assert "\n" not in text
    chain = [error.__cause__, error.__context__]
    shown = [
        text,
        repr(error),
        repr(error.__dict__),
        pickle.dumps(error).decode("latin-1"),
        repr(chain),
        *map(str, chain),
    ]
    for secret in SECRETS:
        assert not any(secret in text for text in shown), secret


# --- connections that break ----------------------------------------------------------------------------------

BREAKS: dict[str, Callable[[str], Fault]] = {
    "reset at connect": lambda scheme: Fault("refuse"),
    "reset in the head": lambda scheme: Fault("reset", MID_HEAD[scheme]),
    "reset in the body": lambda scheme: Fault("reset", MID_BODY[scheme]),
    "cut in the head": lambda scheme: Fault("close", MID_HEAD[scheme]),
    "cut in the body": lambda scheme: Fault("close", MID_BODY[scheme]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_connections(line: Line, name: str) -> None:
    fault = BREAKS[name](line.scheme)
    line.proxy.script = first(3, fault)
    assert read(line.open()) == EXPECTED
    assert line.proxy.connections == 4
    line.proxy.script = lambda number: fault
    with pytest.raises(rangeio.ConnectionFailedError) as caught:
        read(line.open(retry=IMPATIENT))
    check_error(caught.value, attempts=3)
    assert line.proxy.connections == 7


def test_reset_before_the_handshake() -> None:
    """Between the two steps of connecting; the standard library would leave the socket to the collector."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        select.select([ours], [], [], 30)
        with pytest.raises(OSError):
            connections.Security().context().wrap_socket(ours, server_hostname="localhost")
    gc.collect()


@pytest.mark.parametrize("way", SECURE)
def test_flipped_bytes(line: Line) -> None:
    """TLS tells; without it nothing would, and nothing could."""
    fault = Fault("flip", MID_BODY["https"])
    line.proxy.script = first(3, fault)
    assert read(line.open()) == EXPECTED
    assert line.proxy.connections == 4
    line.proxy.script = lambda number: fault
    with pytest.raises(rangeio.ConnectionFailedError) as caught:
        read(line.open(retry=IMPATIENT))
    check_error(caught.value, attempts=3)


def test_half_closed_while_idle(line: Line) -> None:
    """The server has said goodbye to a kept connection: that is noticed, and is no failure of the next read."""
    reader = line.open(retry=1)
    for number in range(1, 4):
        assert read(reader) == EXPECTED
        assert line.proxy.connections == number
        line.proxy.half_close()


def test_refused_for_a_while(line: Line) -> None:
    """Nobody listens; then somebody does."""
    line.proxy.refuse()
    with pytest.raises(rangeio.ConnectionFailedError, match="refused") as caught:
        read(line.open(retry=IMPATIENT))
    check_error(caught.value, attempts=3)
    reader = line.open(retry=rangeio.Retry(attempts=100, backoff_s=0.01, max_backoff_s=0.05))
    threading.Timer(0.1, line.proxy.listen).start()
    assert read(reader) == EXPECTED


@pytest.mark.parametrize("shape", ["parts", "ranges", "stream", "into"])
def test_many_connections_that_break(line: Line, shape: str) -> None:
    """Parts land where they belong, whichever of their connections break."""
    line.proxy.script = lambda number: Fault("reset", MID_BODY[line.scheme]) if number % 3 else None
    reader = line.open(chunk=20_000, concurrent=4, retry=rangeio.Retry(attempts=50, backoff_s=0.001))
    if shape == "parts":
        assert reader.read_range() == DATA
    elif shape == "ranges":
        wanted = [(at, at + 7_000) for at in range(0, SIZE - 7_000, 9_000)]
        assert reader.read_ranges(wanted, gap=0) == [DATA[start:stop] for start, stop in wanted]
    elif shape == "stream":
        assert line.stream(reader) == DATA
    else:
        space = bytearray(SIZE)
        assert reader.read_into(space) == SIZE
        assert space == DATA


# --- names ---------------------------------------------------------------------------------------------------


def test_names_that_do_not_resolve(line: Line) -> None:
    with pytest.raises(rangeio.ConnectionFailedError, match=r"unknown\.invalid") as caught:
        read(line.open(host="unknown.invalid", retry=IMPATIENT))
    check_error(caught.value, attempts=3)


def test_names_that_do_not_resolve_for_a_while(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")] * 3
    real = socket.getaddrinfo

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert read(line.open()) == EXPECTED
    assert not failures


# --- connections that are slow -------------------------------------------------------------------------------


@pytest.mark.parametrize(("places", "bound"), [(MID_HEAD, "first_byte_s"), (MID_BODY, "idle_s")])
def test_stalls(line: Line, places: dict[str, int], bound: str) -> None:
    """Before the head is whole, and in the body."""
    fault = Fault("stall", places[line.scheme])
    line.proxy.script = first(2, fault)
    timeout = rangeio.Timeout(connect_s=0.2, first_byte_s=0.2, idle_s=0.2)
    assert read(line.open(timeout=timeout)) == EXPECTED
    assert line.proxy.connections >= 3
    line.proxy.script = lambda number: fault
    with pytest.raises(rangeio.TimedOutError) as caught:
        read(line.open(timeout=timeout, retry=IMPATIENT))
    check_error(caught.value, attempts=3, advice="_s=0.2")


@pytest.mark.slow
def test_slow_drip(line: Line) -> None:
    """Bytes that keep coming are no reason to give up, however few; only the time for all of it is."""
    line.proxy.script = lambda number: Fault("drip", MID_BODY[line.scheme], pace_s=0.02, lasts=75)
    assert read(line.open(timeout=rangeio.Timeout(idle_s=1.0), retry=1)) == EXPECTED
    with pytest.raises(rangeio.TimedOutError) as caught:
        read(line.open(timeout=rangeio.Timeout(idle_s=30, total_s=0.3)))
    check_error(caught.value, attempts=1, advice="total_s=0.3")


# --- refusals ------------------------------------------------------------------------------------------------

KINDS = {
    429: rangeio.RateLimitedError,
    500: rangeio.ServerError,
    502: rangeio.ServerError,
    503: rangeio.ServerError,
    504: rangeio.TimedOutError,
}
SOON: dict[str, Callable[[], dict[str, str]]] = {
    "none": dict,
    "seconds": lambda: {"Retry_After": "0"},
    "date": lambda: {"Retry_After": formatdate(time.time() - 1, usegmt=True)},
    "nonsense": lambda: {"Retry_After": "tomorrow"},
}


@pytest.mark.parametrize("way", PLAIN)
@pytest.mark.parametrize("status", KINDS)
@pytest.mark.parametrize("after", SOON)
def test_refusals(line: Line, status: int, after: str) -> None:
    fault = refusal(status, X_Request_Id="id-7", **SOON[after]())
    line.proxy.script = first(3, fault)
    assert read(line.open()) == EXPECTED
    line.proxy.script = lambda number: fault
    with pytest.raises(KINDS[status]) as caught:
        read(line.open(retry=IMPATIENT))
    check_error(caught.value, attempts=3, http_status=status, request_id="id-7")


@pytest.mark.parametrize("way", PLAIN)
@pytest.mark.parametrize("status", KINDS)
def test_refused_for_too_long(line: Line, status: int) -> None:
    """Who is asked to come back in an hour says so at once, whichever way it is written."""
    for later in ("3600", formatdate(time.time() + 3600, usegmt=True)):
        line.proxy.script = lambda number, later=later: refusal(
            status, X_Request_Id="id-7", Retry_After=later
        )
        with pytest.raises(KINDS[status]) as caught:
            read(line.open())
        check_error(caught.value, attempts=1, http_status=status, request_id="id-7", advice="Retry-After")


@pytest.mark.slow
@pytest.mark.parametrize("way", PLAIN)
def test_the_time_asked_for_is_waited(line: Line) -> None:
    began = time.monotonic()
    line.proxy.script = first(1, refusal(503, Retry_After="1"))
    assert read(line.open()) == EXPECTED
    assert time.monotonic() - began >= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("way", [name for name in PLAIN if not name.startswith("sync")])
def test_a_wait_that_outlasts_the_watch_of_a_loop(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a retry waits nothing is watched, and the loop may let go of the descriptor by which it watches."""
    monkeypatch.setattr(drivers, "_KEPT_S", 0.001)
    line.proxy.script = first(1, refusal(503, Retry_After="1"))
    assert read(line.open()) == EXPECTED


# --- who does not wait ---------------------------------------------------------------------------------------

PLACES: dict[str, dict[str, int]] = {
    "connecting": {"http": 0, "https": 0},
    "head": MID_HEAD,
    "body": MID_BODY,
}


@pytest.mark.parametrize("way", [name for name in PLAIN + SECURE if not name.startswith("sync")])
@pytest.mark.parametrize("place", PLACES)
def test_cancelled(line: Line, place: str) -> None:
    """At once, wherever it was; nothing goes on behind the caller's back, and the reader reads on."""
    line.proxy.script = lambda number: Fault("stall", PLACES[place][line.scheme])
    reader = line.open(chunk=30_000)
    line.cancel(reader, [(5, 100_005), (150_000, None)], line.proxy.reached.is_set)
    line.proxy.script = lambda number: None
    assert read(reader) == EXPECTED


def test_closed_with_a_read_under_way(line: Line) -> None:
    """New reads are refused; that one completes."""
    line.proxy.script = lambda number: Fault("drip", MID_BODY[line.scheme], pace_s=0.002)
    reader = line.open()

    def close() -> None:
        line.proxy.reached.wait(30)
        reader.close()

    closing = threading.Thread(target=close)
    closing.start()
    assert read(reader) == EXPECTED
    closing.join()
    with pytest.raises(rangeio.ClosedError):
        read(reader)


# --- servers that are restarted ------------------------------------------------------------------------------


class Load:
    """Readers at work, while the server is restarted `times` times."""

    def __init__(self, site: Site, budget: RetryBudget, times: int = 3) -> None:
        self._site, self._budget, self._times = site, budget, times
        self._reads = [0] * 4
        self._pause = threading.Event()
        self.over = threading.Event()

    def restart(self) -> None:
        """Each time once all readers have read, and until some have failed."""
        try:
            for _ in range(self._times):
                self._wait_until(self._all_have_read([*self._reads]))
                self._site.program.stop()
                before = self._budget.spent
                self._wait_until(lambda before=before: self._budget.spent >= before + 4)
                self._site.program.start()
            self._wait_until(self._all_have_read([*self._reads]))
        finally:
            self.over.set()

    def _all_have_read(self, before: list[int]) -> Callable[[], bool]:
        return lambda: all(now > then for now, then in zip(self._reads, before, strict=True))

    def _wait_until(self, met: Callable[[], bool]) -> None:
        while not met() and not self.over.is_set():
            self._pause.wait(0.002)

    def check(self, reader: int, found: Any) -> None:
        assert found == [DATA[at : at + 1000] for at in range(reader, SIZE - 1000, 50_000)]
        self._reads[reader] += 1

    def wanted(self, reader: int) -> list[tuple[int, int]]:
        return [(at, at + 1000) for at in range(reader, SIZE - 1000, 50_000)]

    def read(self, reader: Any, number: int) -> None:
        """For a thread."""
        try:
            while not self.over.is_set():
                self.check(number, reader.read_ranges(self.wanted(number), gap=0, concurrent=2))
        finally:
            self.over.set()

    async def read_async(self, reader: Any, number: int) -> None:
        """For a task."""
        try:
            while not self.over.is_set():
                self.check(number, await reader.read_ranges(self.wanted(number), gap=0, concurrent=2))
        finally:
            self.over.set()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync", *LOOPS])
def test_restarts_under_load(way: str, budget: RetryBudget, nothing_remains: None) -> None:
    """No reader hears of it."""
    options: Any = {"retry": rangeio.Retry(attempts=500, backoff_s=0.01, max_backoff_s=0.05), "proxy": ""}
    with public_folder() as folder, nginx(folder / "nginx") as site, ThreadPoolExecutor(5) as threads:
        url, load = site.put("faulty", DATA), Load(site, budget)
        jobs = [threads.submit(load.restart)]
        if way == "sync":
            with rangeio.open(url, **options) as reader:
                jobs += [threads.submit(load.read, reader, number) for number in range(4)]
                wait(jobs)
        else:
            need_module(way)

            async def main() -> None:
                async with rangeio.open_async(url, **options) as reader:
                    await at_once(way, [partial(load.read_async, reader, number) for number in range(4)])

            run_on(way, main)
        for job in jobs:
            job.result()
