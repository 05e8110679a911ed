"""A way to a file on a real server, through the fault proxy, by every loop; `conftest.py` names this module."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop, cancel_when
from faults.machine import need_module

import rangeio
from rangeio.http import attempt, responses
from rangeio.policy import RetryBudget
from rangeio.threads import CONNECTING
from servers.fixtures import Sites
from servers.proxy import Proxy, proxy
from servers.scripted import sockets

DATA = bytes(range(251)) * 1000
SIZE = len(DATA)
PATIENT = rangeio.Retry(attempts=8, backoff_s=0.001, max_backoff_s=0.05)


class Line:
    """A reader's way to a file on a server, through a proxy."""

    def __init__(self, place: Proxy, url: str, options: dict[str, Any], loop: Loop | None) -> None:
        self.proxy = place
        self.scheme = url.partition(":")[0]
        self._url, self._options, self._loop = url, options, loop
        self._readers: list[Any] = []

    def open(self, host: str = "localhost", **options: Any) -> Any:
        """With secrets on board."""
        given = {
            "retry": PATIENT,
            "headers": {"X-Api-Token": "tok3n"},
            "proxy": "",
            **self._options,
            **options,
        }
        url = self._url.replace("//localhost", f"//me:hunter2@{host}") + "?sig=abc"
        if self._loop is None:
            reader: Any = rangeio.open(url, **given)
        else:
            reader = Awaited(rangeio.open_async(url, **given), self._loop)
        self._readers.append(reader)
        return reader

    def stream(self, reader: Any) -> bytes:
        """All of it."""
        if self._loop is None:
            return b"".join(map(bytes, reader.stream()))

        async def collect() -> bytes:
            return b"".join([bytes(piece) async for piece in reader.reader.stream()])

        found: bytes = self._loop.run(collect)
        return found

    def cancel(self, reader: Any, ranges: Any, met: Callable[[], bool]) -> None:
        """Begin to read, and give it up once `met()`."""
        loop = self._loop
        assert loop is not None

        async def main() -> None:
            await cancel_when(loop.name, met, reader.reader.read_ranges(ranges))

        loop.run(main)

    def close(self) -> None:
        """Close the readers; the loop has nothing to do then."""
        for reader in self._readers:
            reader.close()
        if self._loop is not None:
            assert not self._loop.tasks()
            self._loop.close()


@pytest.fixture
def nothing_remains() -> Iterator[None]:
    """No socket, and no connection that is being opened; what is told of by warnings fails the test anyway."""
    before = sockets()
    yield
    assert CONNECTING.wait(10)  # the read that it is opened for is over
    gc.collect()
    assert sockets() - before == set()


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> RetryBudget:
    """Of this test alone: the process's own would tell one test of the failures of another."""
    made = RetryBudget(tokens=10_000)
    for module in (responses, attempt):
        monkeypatch.setattr(module, "RETRIES", made)
    return made


PLAIN, SECURE = ([f"{way}-{scheme}" for way in ("sync", *LOOPS)] for scheme in ("http", "https"))


@pytest.fixture(params=PLAIN + SECURE)
def way(request: pytest.FixtureRequest) -> str:
    """By which loop, if any, and over what."""
    name: str = request.param
    return name


@pytest.fixture
def line(way: str, sites: Sites, budget: RetryBudget, nothing_remains: None) -> Iterator[Line]:
    caller, _, scheme = way.partition("-")
    site = sites(f"nginx-{scheme}")
    site.put("faulty", DATA)
    if caller != "sync":
        need_module(caller)
    loop = None if caller == "sync" else Loop(caller)
    with proxy(site.program.port) as place:
        made = Line(place, f"{scheme}://localhost:{place.port}/faulty", site.options, loop)
        yield made
        made.close()
