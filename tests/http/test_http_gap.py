"""`gap="auto"`: how near two ranges must be to be fetched as one follows from how far away and how fast a server is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.fixtures import Sites
from servers.scripted import Script, Scripted, honest, reply, scripted

import rangeio
from _uring.records import MEASURED
from rangeio.http.latency import Latency

need_module("urllib3")

DATA = bytes(range(251)) * 8000
DEFAULT = 48 << 10
LARGE = 256 << 10
LEAST, MOST = 8 << 10, 256 << 10
# Between these ranges lie 0 to 300 KiB.
EDGES = [0, 0, 4, 12, 30, 60, 100, 180, 240, 300]


def ranges() -> list[tuple[int, int]]:
    found, at = [], 0
    for kib in EDGES:
        at += kib << 10
        found.append((at, at + 1000))
        at += 1000
    return found


# --- what replies say ----------------------------------------------------------------------------------------


def gap_of(reader: Any) -> int:
    gap = reader.plan(ranges()).gap
    assert isinstance(gap, int)
    return gap


def pace_of(*replies: tuple[float, float, int]) -> Latency:
    pace = Latency()
    for found in replies:
        pace.record(found)
    return pace


def test_nothing_is_said_before_there_are_enough() -> None:
    assert Latency().gap() is None
    assert pace_of(*[(0.001, 0.01, 1 << 20)] * 3).gap() is None
    assert pace_of(*[(0.001, 0.01, 1 << 20)] * 4).gap() is not None


@pytest.mark.parametrize(
    ("wait_s", "receive_s", "gap"),
    [
        (0.001, 0.0104, 100_824),  # 1 MiB in 10.4 ms: what comes in one
        (0.1, 0.01, MOST),
        (0.00001, 0.01, LEAST),
        (0.0, 0.01, LEAST),
        (0.001, 0.0, MOST),  # all of it was there with the first byte
    ],
)
def test_gap(wait_s: float, receive_s: float, gap: int) -> None:
    assert pace_of(*[(wait_s, receive_s, 1 << 20)] * 8).gap() == gap


def test_odd_replies_do_not_count() -> None:
    usual = (0.001, 0.0104, 1 << 20)
    for odd in [(30.0, 0.0104, 1 << 20), (0.001, 60.0, 1 << 20), (0.001, 0.0, 1 << 20), (5.0, 60.0, 1 << 20)]:
        assert pace_of(usual, odd, usual, usual, odd, usual, usual).gap() == 100_824


def test_a_server_may_become_another() -> None:
    pace = pace_of(*[(0.1, 0.01, 1 << 20)] * 100)
    for _ in range(100):
        pace.record((0.0001, 0.01, 1 << 20))
    assert pace.gap() == 10_485


def test_from_many_threads() -> None:
    pace = pace_of(*[(0.001, 0.0104, 1 << 20)] * 4)
    found: set[int | None] = set()

    def work() -> None:
        for _ in range(2000):
            pace.record((0.001, 0.0104, 1 << 20))
            found.add(pace.gap())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {100_824}


# --- servers -------------------------------------------------------------------------------------------------


def at(wait_s: float) -> Script:
    """So far away: honest, a pause before the first byte, and bodies of 256 KiB that take at least 15 ms."""
    return lambda asked: replace(honest(DATA, asked), wait_s=wait_s, pause_s=0.005)


@pytest.fixture(params=["sync", *LOOPS])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[Any, Scripted]]]:
    """A function from a script to a reader with gap="auto", and its server."""
    loop = None if request.param == "sync" else Loop(need_module(request.param).__name__)
    with ExitStack() as stack:

        def make(script: Script, **options: Any) -> tuple[Any, Scripted]:
            server = stack.enter_context(scripted(script))
            opened: Any = rangeio.open if loop is None else rangeio.open_async
            reader = opened(server.url, gap="auto", **options)
            stack.callback(reader.close)
            return (reader if loop is None else Awaited(reader, loop)), server

        yield make
    if loop is not None:
        loop.close()


def measure(reader: Any, replies: int = 5) -> None:
    for number in range(replies):
        assert len(reader.read_at(number << 10, LARGE)) == LARGE


def test_far_and_near(serve: Any) -> None:
    """The plan is what is sent, and results are the same bytes, whatever the gap."""
    requests = []
    for wait_s in (0.0, 0.05):
        reader, server = serve(at(wait_s))
        measure(reader)
        plan = reader.plan(ranges())
        assert LEAST <= plan.gap <= MOST
        server.asked.clear()
        assert reader.read_ranges(ranges()) == [DATA[start:stop] for start, stop in ranges()]
        sent = [(start, stop - start) for start, stop in sorted(server.ranges)]
        assert sent == [(offset, length) for _, offset, length in plan.requests]
        assert plan.requests == reader.plan(ranges(), gap=plan.gap).requests
        found = dict(reader.iter_ranges(ranges()))
        assert [found[index] for index in range(len(found))] == [DATA[a:b] for a, b in ranges()]
        requests.append((plan.gap, -len(plan.requests)))
    near, far = requests
    assert near[0] < far[0]
    assert near[1] < far[1]


def test_the_default_until_it_is_known(serve: Any) -> None:
    """Small replies, refusals and lookups of the size say nothing."""
    reader, server = serve(lambda asked: honest(DATA, asked))
    assert gap_of(reader) == DEFAULT
    for number in range(10):
        reader.read_at(number, MEASURED - 1)
        assert reader.stat().size == len(DATA)
    server.script = lambda _: reply(404, bytes(200_000))
    for _ in range(5):
        with pytest.raises(rangeio.NotFoundError):
            reader.read_at(0, LARGE)
    assert gap_of(reader) == DEFAULT


def test_of_a_slice_and_for_one_call(serve: Any) -> None:
    reader, _ = serve(at(0.05))
    measure(reader)
    part = reader.slice(1000, None)
    assert part.plan(ranges()).gap == reader.plan(ranges()).gap == reader.plan(ranges(), gap="auto").gap
    assert part.plan(ranges(), gap=7).gap == 7
    assert part.plan(ranges(), gap=None).gap is None


def test_of_where_it_is_redirected_to(serve: Any) -> None:
    _, near = serve(at(0.0))
    reader, _ = serve(lambda _: reply(302, Location=near.url))
    measure(reader)
    assert gap_of(reader) != DEFAULT


def test_objects_of_one_operator_share_it() -> None:
    with scripted(at(0.05)) as server, scripted(at(0.0)) as other:
        operator = rangeio.Operator("http", gap="auto")
        with operator.open(server.url + "/a") as reader:
            measure(reader)
        with operator.open(server.url + "/b") as reader:
            assert gap_of(reader) > DEFAULT
        with operator.open(other.url) as reader:
            assert gap_of(reader) == DEFAULT


def test_s3() -> None:
    with scripted(at(0.05)) as server:
        s3 = rangeio.Operator("s3", bucket="bucket", endpoint_url=server.url, anonymous=True)
        with s3.open("key", gap="auto") as reader:
            assert gap_of(reader) == DEFAULT
            measure(reader)
            assert gap_of(reader) > DEFAULT


@pytest.mark.parametrize("name", ["nginx-http", "nginx-https"])
@pytest.mark.parametrize("way", ["read_at", "read_ranges"])
def test_real_replies_are_measured(sites: Sites, name: str, way: str) -> None:
    """Those of first reads and of connections that are kept, plain and over TLS."""
    site = sites(name)
    with rangeio.open(site.put("gap", DATA), gap="auto", **site.options) as reader:
        before = gap_of(reader)
        if way == "read_at":
            measure(reader)
        else:
            wanted = [(number * LARGE, (number + 1) * LARGE) for number in range(6)]
            assert reader.read_ranges(wanted, gap=None) == [DATA[a:b] for a, b in wanted]
        plan = reader.plan(ranges())
        assert before == DEFAULT
        assert plan.gap is not None
        assert LEAST <= plan.gap <= MOST
        assert plan.gap != DEFAULT
        assert reader.read_ranges(ranges()) == [DATA[start:stop] for start, stop in ranges()]
