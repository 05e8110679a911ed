"""Async contenders. Each result is dropped at once, as in a server that forwards it."""

import asyncio
import time
from importlib import import_module
from typing import Any, ClassVar

from rangeio_bench.contender import Action, Role, Setting
from rangeio_bench.http.clients import Client, Get, Obstore, obstore_of
from rangeio_bench.work import Work


class Awaiting(Client):
    """Many tasks of an event loop; each takes the next offset as soon as it has a result."""

    has_latency = False

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.loop = asyncio.new_event_loop()

    def _tasks(self, work: Work) -> Any:
        return self.loop.run_until_complete(self._all(work, None))

    def latencies(self, action: Action, work: Work) -> list[int]:
        """See `Client`."""
        times: list[int] = []
        self.loop.run_until_complete(self._all(work, times))
        return times

    async def _all(self, work: Work, times: list[int] | None) -> Any:
        read, length, offsets, clock = (
            await self.reading(),
            work.length,
            iter(work.offsets),
            time.perf_counter_ns,
        )
        last: Any = None

        async def take() -> None:
            nonlocal last
            for offset in offsets:
                last = await read(offset, length)

        async def take_timed() -> None:
            for offset in offsets:
                start = clock()
                await read(offset, length)
                assert times is not None
                times.append(clock() - start)

        await asyncio.gather(*[take() if times is None else take_timed() for _ in range(self.depth)])
        return last

    async def reading(self) -> Get:
        """The awaitable of one read."""
        raise NotImplementedError

    async def ended(self) -> None:
        """Close what must be closed on the loop."""

    def _close(self) -> None:
        self.loop.run_until_complete(self.ended())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        super()._close()


class ObstoreThreads(Obstore):
    """Obstore at its fastest, without asyncio: the reference of the targets of awaited reads."""

    calls = {"tasks": "threads, get_range"}

    def _tasks(self, work: Work) -> Any:
        return self._threads(work)


class ObstoreAwaiting(Awaiting):
    """Rust's object_store behind asyncio."""

    name = "obstore, asyncio"
    module = "obstore"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "get_range_async"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.store, self.key = obstore_of(setting)

    async def reading(self) -> Get:
        """See `Awaiting`."""
        get, store, key = import_module("obstore").get_range_async, self.store, self.key
        return lambda offset, length: get(store, key, start=offset, length=length)


class Aiohttp(Awaiting):
    """The usual asyncio client; without timeouts and retries here."""

    name = "aiohttp"
    module = "aiohttp"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "get"}
    session: Any = None

    async def reading(self) -> Get:
        """See `Awaiting`."""
        aiohttp = import_module("aiohttp")
        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=self.depth))
        get, url = self.session.get, self.setting.url

        async def read(offset: int, length: int) -> Any:
            async with get(url, headers={"Range": f"bytes={offset}-{offset + length - 1}"}) as response:
                return await response.read()

        return read

    async def ended(self) -> None:
        """See `Awaiting`."""
        if self.session is not None:
            await self.session.close()
