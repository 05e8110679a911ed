"""An Operator that is closed: what it refuses, what lives on, and when its connections end."""

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.machine import need_module
from servers.scripted import Scripted, honest, scripted, sockets

import rangeio
from rangeio import ClosedError, Operator

DATA = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[Scripted]:
    pytest.importorskip("urllib3", reason="urllib3 is not installed (pip install 'rangeio[http]')")
    with scripted(lambda asked: honest(DATA, asked)) as running:
        yield running


@pytest.fixture(params=["fs", "memory", "http"])
def operator(request: pytest.FixtureRequest, tmp_path: Path) -> Operator:
    """An object `a` in each service."""
    (tmp_path / "a").write_bytes(DATA)
    if request.param == "http":
        return Operator("http", root=request.getfixturevalue("server").url)
    own: dict[str, Any] = {"fs": {"root": tmp_path}, "memory": {"objects": {"a": DATA}}}[request.param]
    return Operator(request.param, **own)


def calls(operator: Operator) -> list[Callable[[], Any]]:
    """The calls that a closed Operator refuses."""
    return [
        lambda: operator.open("a"),
        lambda: operator.open_async("a"),
        lambda: operator.stat("a"),
        lambda: operator.exists("a"),
        lambda: operator.list(),
        lambda: operator.list_async(),
        lambda: operator.with_options(gap=1),
        lambda: operator.diagnosis(),
        lambda: operator.read_ranges([("a", (0, 1))]),
        lambda: operator.read_ranges([("a", (0, 1))], on_error="return"),
        lambda: operator.read_ranges_into([("a", bytearray(1), 0)]),
    ]


def test_it_refuses_calls(operator: Operator) -> None:
    with operator as entered:
        assert entered is operator
        assert not operator.closed
        assert operator.stat("a").size == len(DATA)
    assert operator.closed
    for call in calls(operator):
        with pytest.raises(ClosedError, match=f"this Operator of '{operator.scheme}' is closed"):
            call()
    operator.close()
    with pytest.raises(ZeroDivisionError), operator:
        1 / 0  # noqa: B018
    assert operator.scheme in repr(operator)


@pytest.mark.parametrize("loop", LOOPS)
def test_it_refuses_awaits(operator: Operator, loop: str) -> None:
    need_module(loop)

    async def main() -> None:
        async with operator as entered:
            assert entered is operator
            assert await operator.read_ranges_async([("a", (0, 3))]) == [DATA[:3]]
        await operator.aclose()
        buffer = bytearray(1)
        # The call raises nothing: the await does, as that of a closed reader.
        for awaited in (
            operator.read_ranges_async([("a", (0, 1))]),
            operator.read_ranges_async([("a", (0, 1))], on_error="return"),
            operator.read_ranges_into_async([("a", buffer, 0)]),
        ):
            with pytest.raises(ClosedError, match="this Operator"):
                await awaited

    run_on(loop, main)


def test_what_it_has_opened_lives_on(operator: Operator) -> None:
    """Readers, also those that nothing was read with, and slices of them."""
    with operator:
        reader, awaited = operator.open("a"), operator.open_async("a")
        part = reader.slice(5, 10)
    assert reader.read_ranges([(0, 3), (9_000, 9_003)]) == [DATA[:3], DATA[9_000:9_003]]
    assert part.read_to_end() == DATA[5:10]
    assert run_on("asyncio", lambda: awaited.read_range((2, 4))) == DATA[2:4]
    reader.close()
    awaited.close()


def test_listings_go_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    with Operator("fs", root=tmp_path) as operator:
        found = operator.list()
    assert [stat.path for stat in found] == ["a"]


def test_with_other_options(operator: Operator) -> None:
    """As a slice: closing it leaves the Operator open that it was made of, which takes it along."""
    inner = operator.with_options(gap=1)
    innermost = inner.with_options(gap=2)
    with inner:
        assert inner.read_ranges([("a", (0, 3))]) == [DATA[:3]]
    assert inner.closed
    assert innermost.closed
    assert not operator.closed
    again = operator.with_options(gap=3)
    assert operator.open("a").read_at(0, 3) == DATA[:3]
    operator.close()
    with pytest.raises(ClosedError):
        again.open("a")


def test_pickles_are_open(operator: Operator) -> None:
    """Whoever gets one has not closed it; nor is a Reader of a closed Operator closed."""
    reader = operator.open("a")
    operator.close()
    assert pickle.loads(pickle.dumps(operator)).exists("a")
    assert pickle.loads(pickle.dumps(reader)).read_at(0, 3) == DATA[:3]


# --- connections ---------------------------------------------------------------------------------------------


def served_out() -> None:
    """Wait until the server has no connection any more."""
    for thread in threading.enumerate():
        if "_serve" in thread.name:
            thread.join(30)
            assert not thread.is_alive(), "the client has not closed a connection"


def test_its_connections_are_closed_at_once(server: Scripted) -> None:
    before = sockets()
    with Operator("http", root=server.url) as operator:
        with operator.open("a") as reader:
            assert reader.read_at(0, 3) == DATA[:3]
        assert operator.with_options(gap=1).read_ranges([("b", (0, 3)), ("c", (0, 3))]) == [DATA[:3]] * 2
        assert sockets() - before
    served_out()
    assert sockets() - before == set()


def test_the_last_reader_closes_the_connections(server: Scripted) -> None:
    """It has them for itself: they are kept alive between its reads."""
    before = sockets()
    with Operator("http", root=server.url) as operator:
        reader = operator.open("a")
        reader.read_at(0, 3)
    for start in range(0, 100, 10):
        assert reader.read_at(start, 10) == DATA[start : start + 10]
    assert server.connections == 1
    reader.close()
    served_out()
    assert sockets() - before == set()


def test_two_closes_count_once(server: Scripted) -> None:
    """Of several threads one lets go of the connections: the readers keep theirs."""
    operator = Operator("http", root=server.url)
    with operator.open("a") as reader:
        reader.read_at(0, 3)
        threads = [threading.Thread(target=operator.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        operator.close()
        for start in range(0, 100, 10):
            assert reader.read_at(start, 10) == DATA[start : start + 10]
        assert server.connections == 1


def test_a_closed_operator_in_a_message() -> None:
    """It names no secret."""
    operator = Operator("http", root="http://user:hidden@127.0.0.1:1/x", bearer_token="hidden")
    operator.close()
    with pytest.raises(rangeio.ClosedError) as caught:
        operator.open("a")
    assert "hidden" not in str(caught.value)
