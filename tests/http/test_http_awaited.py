"""Awaited reads of an object whose version is known, when something fails beside the server: each ends, and cleanly."""

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from awaited import LOOPS, Awaited, Loop
from faults.machine import need_module
from servers.odd import DATA
from servers.scripted import Answer, Asked, Script, cut, honest, identity_of, reply, scripted, sockets

import _uring
import rangeio
from rangeio.awaitables import pause
from rangeio.counters import REQUESTS
from rangeio.errors import UnexpectedError
from rangeio.http.awaited_reads import LoopReads
from rangeio.http.engine import Engine
from rangeio.policy import RETRIES
from rangeio.services import http_source
from rangeio.services.http_source import HttpSource

need_module("urllib3")

HOWS = ("by the core", "without the core", "over TLS")
ODD = 4
"""The number of the first request that is not answered plainly."""


class Place:
    """Reads on one loop, in one of three ways."""

    def __init__(self, name: str, how: str, folder: Path) -> None:
        self.loop = Loop(name)
        self.how = how
        self.identity = identity_of(["127.0.0.1"], folder) if how == "over TLS" else None
        self.options: Any = {"retry": 1} | ({"ca_file": str(folder / "ca.pem")} if self.identity else {})

    def serve(self, script: Script) -> Any:
        return scripted(script, self.identity)

    def open(self, url: str, **options: Any) -> Awaited:
        """Its version is known, and connections to its server are idle."""
        reader = Awaited(rangeio.open_async(url, **{**self.options, **options}), self.loop)
        for start in range(ODD):
            assert reader.read_at(start, 10) == DATA[start : start + 10]
        return reader


@pytest.fixture(params=HOWS)
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    found: str = request.param
    if found == "without the core":
        monkeypatch.setattr(http_source, "steady_reads", lambda *_: None)
    elif found == "by the core" and _uring.LoopTransfers is None:
        pytest.skip(f"the extension is not available: {_uring.extension_error()}")
    return found


@pytest.fixture(params=LOOPS)
def place(
    request: pytest.FixtureRequest, how: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    need_module(request.param)
    made = Place(request.param, how, tmp_path_factory.mktemp("tls"))
    yield made
    made.loop.close()


def fine(asked: Asked) -> Answer:
    return honest(DATA, asked)


def ignored(*_: Any) -> None:
    """A handler of a loop's exceptions."""


def open_connections(reader: Awaited) -> tuple[int, int]:
    """(open, idle)"""
    found = reader.reader._source._pool.stats()
    return found["connections_open"], found["connections_idle"]


# --- loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
@pytest.mark.parametrize("sent", ["", "a part of the body"])
def test_a_loop_that_is_closed_amid_reads(name: str, how: str, sent: str, tmp_path: Path) -> None:
    """Nothing of them is left once nobody holds their tasks: no connection, no memory."""
    need_module(name)
    place = Place(name, how, tmp_path)
    before, live = sockets(), rangeio.stats()["buffers_live"]

    def script(asked: Asked) -> Answer:
        if asked.number < ODD:
            return fine(asked)
        return cut(fine(asked), 33, "stall") if sent else Answer(b"", "stall")

    memory = bytearray(1000)
    with place.serve(script) as server:
        reader = place.open(server.url)
        loop: Any = place.loop._loop

        async def begin() -> list[Any]:
            tasks = [loop.create_task(reader.reader.read_at(500, 1000))]
            tasks.append(loop.create_task(reader.reader.read_into(memory, 500)))
            while len(server.asked) < ODD + 2:
                await pause(0.001)
            return tasks

        tasks = place.loop.run(begin)
        loop.set_exception_handler(ignored)  # it is told of tasks that are destroyed while they wait
        loop.close()
        tasks.clear()
        gc.collect()
        assert open_connections(reader) == (0, 0)
        memory.append(0)
        assert rangeio.stats()["buffers_live"] == live
    server.wait_closed()
    assert sockets() - before == set()


# --- faults --------------------------------------------------------------------------------------------------


class Fault:
    """Raises in one call of a function."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.error: BaseException | None = None

    def __call__(self, *args: Any) -> Any:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self.work(*args)


def read(reader: Awaited) -> bytes:
    return bytes(reader.read_at(20, 10))


def read_into(reader: Awaited) -> bytes:
    memory = bytearray(10)
    assert reader.read_into(memory, 20) == 10
    memory.append(0)  # refused while anything can write into it
    return bytes(memory[:10])


@pytest.mark.parametrize("way", [read, read_into])
@pytest.mark.parametrize("kind", [ValueError, MemoryError, KeyboardInterrupt])
def test_an_exception_while_a_read_begins(
    place: Place, way: Callable[[Awaited], bytes], kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the tree; what is meant for the program is raised as it is. The connection is closed."""
    fault = Fault(REQUESTS.add)
    monkeypatch.setattr(REQUESTS, "add", fault)
    with place.serve(fine) as server:
        reader = place.open(server.url)
        fault.error = kind("injected")
        with pytest.raises(UnexpectedError if kind is ValueError else kind) as caught:
            way(reader)
        if kind is ValueError:
            assert caught.value.path == reader.path  # type: ignore[attr-defined]
            assert "ValueError" in str(caught.value)
        assert open_connections(reader) == (0, 0)
        assert way(reader) == DATA[20:30]
        assert server.connections == 2
        reader.close()


def test_interrupted_while_a_read_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task raises it, and waits for nothing in the next run of the loop."""
    fault = Fault(RETRIES.succeeded)
    monkeypatch.setattr(RETRIES, "succeeded", fault)
    with place.serve(fine) as server:
        reader = place.open(server.url)
        fault.error = KeyboardInterrupt("injected")
        with pytest.raises(KeyboardInterrupt, match="injected"):
            reader.read_at(20, 10)
        assert not place.loop.tasks()
        assert open_connections(reader) == (0, 0)
        assert reader.read_at(20, 10) == DATA[20:30]
        reader.close()


@pytest.mark.parametrize("then", ["close", "reset"])
def test_memory_after_a_retry(place: Place, then: Literal["close", "reset"]) -> None:
    """It is the caller's at once, not when the garbage of the connection that broke is collected."""

    def script(asked: Asked) -> Answer:
        return cut(fine(asked), 33, then) if asked.number == ODD else fine(asked)

    with place.serve(script) as server:
        reader = place.open(server.url, retry=rangeio.Retry(attempts=2, backoff_s=0.001))
        memory = bytearray(1000)
        gc.disable()
        try:
            assert reader.read_into(memory, 20) == 1000
            assert memory == DATA[20:1020]
            memory.append(0)
        finally:
            gc.enable()
        reader.close()


@pytest.mark.parametrize("silent", [False, True])
def test_a_reader_that_always_fails(place: Place, silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes of a response that is not plain, the read that waits for it ends, and others with it."""

    def broken(*_: Any) -> Any:
        raise ValueError("injected")

    def script(asked: Asked) -> Answer:
        if asked.number < ODD:
            return fine(asked)
        return Answer(b"", "stall") if silent else reply(404)

    with place.serve(script) as server:
        reader = place.open(server.url, timeout=rangeio.Timeout(first_byte_s=0.3))
        monkeypatch.setattr(HttpSource, "_unusual", broken)
        monkeypatch.setattr(LoopReads, "_otherwise", real_once_told(LoopReads._otherwise))
        found: list[BaseException] = []

        async def one(start: int) -> None:
            try:
                await reader.reader.read_at(start, 10)
            except rangeio.Error as error:
                found.append(error)

        place.loop.run(lambda: together(place.loop.name, [lambda: one(0), lambda: one(20)]))
        assert len(found) == 2
        left, idle = open_connections(reader)
        assert left == idle
        found.clear()
        reader.close()


def real_once_told(work: Callable[..., Any]) -> Callable[..., Any]:
    """Of an exception it tells; with all else it fails."""

    def wrapped(place: Any, awaited: Any, found: Any) -> None:
        if not isinstance(found, Exception):
            raise ValueError("injected")
        work(place, awaited, found)

    return wrapped


async def together(name: str, works: list[Callable[[], Any]]) -> None:
    if name == "trio":
        import trio

        async with trio.open_nursery() as nursery:
            for work in works:
                nursery.start_soon(work)
        return
    import asyncio

    await asyncio.gather(*[work() for work in works])


class Stop(Exception):
    """Raised by a signal handler."""


def test_an_exception_of_a_signal_handler_while_a_read_begins(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the program's, and comes to the task that reads as it is."""

    def handler(*_: object) -> None:
        raise Stop

    class Raised(Fault):
        def __call__(self, *args: Any) -> Any:
            if self.error is not None:
                self.error = None
                signal.raise_signal(signal.SIGUSR1)
            return self.work(*args)

    fault = Raised(REQUESTS.add)
    monkeypatch.setattr(REQUESTS, "add", fault)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with place.serve(fine) as server:
            reader = place.open(server.url)
            fault.error = Stop()
            with pytest.raises(Stop):
                reader.read_at(20, 10)
            assert reader.read_at(20, 10) == DATA[20:30]
            reader.close()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("many", [True, False])
def test_a_first_read_leaves_nothing_behind(name: str, many: bool) -> None:
    """Neither in a cycle nor by a timer of the loop: the collector would look at what a thousand reads left."""
    loop = Loop(need_module(name).__name__)

    async def main(url: str) -> int:
        before = engines()
        if many:
            found = (await rangeio.Operator("http", root=url).read_ranges_async([("x", (0, 10))]))[0]
        else:
            async with rangeio.open_async(url) as reader:
                found = await reader.read_at(0, 10)
        assert found == DATA[:10]
        return engines() - before

    gc.collect()
    gc.disable()
    try:
        with scripted(fine) as server:
            assert loop.run(lambda: main(server.url)) == 0
    finally:
        gc.enable()
        loop.close()


def engines() -> int:
    return sum(isinstance(item, Engine) for item in gc.get_objects())
