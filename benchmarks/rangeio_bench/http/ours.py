"""rangeio itself, from one thread, from many threads, and awaited."""

import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import rangeio
from rangeio_bench.contender import Action, Role, Setting
from rangeio_bench.http.awaiting import Awaiting
from rangeio_bench.http.clients import AZURE_KEY, Client, Get, any_of
from rangeio_bench.work import Work


class Rangeio(Client):
    """The call that the targets refer to."""

    name = "rangeio"
    role: ClassVar[Role] = "ours"
    stores = ("s3", "gs", "az")
    calls = {
        "each": "read_at",
        "batch": "read_ranges",
        "threads": "read_at",
        "whole": "read_at",
        "ranges": "read_ranges",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        uri, options = object_of(setting)
        self.reader = rangeio.open(uri, **options)

    @classmethod
    def version(cls) -> str:
        """The version of the imported package."""
        return rangeio.__version__

    def _each(self, work: Work) -> Any:
        read_at, length = self.reader.read_at, work.length
        result: Any = None
        for offset in work.offsets:
            result = read_at(offset, length)
        return result

    def _threads(self, work: Work) -> Any:
        def take(offsets: Iterator[int]) -> Any:
            read_at, length, result = self.reader.read_at, work.length, None
            for offset in offsets:
                result = read_at(offset, length)
            return result

        return any_of(self.spread(take, work.offsets))

    def _batch(self, work: Work) -> Any:
        return self.reader.read_ranges(work.pairs, gap=None)

    def _ranges(self, work: Work) -> Any:
        return self.reader.read_ranges(work.pairs)

    def _whole(self, work: Work) -> Any:
        return self.reader.read_at(0, work.nbytes)

    def latencies(self, action: Action, work: Work) -> list[int]:
        """With `concurrent` reads in flight, a read begins when the one `concurrent` positions before it is taken."""
        clock, times = time.perf_counter_ns, []
        if action == "threads":

            def take(offsets: Iterator[int]) -> None:
                for offset in offsets:
                    start = clock()
                    self.reader.read_at(offset, work.length)
                    times.append(clock() - start)

            self.spread(take, work.offsets)
            return times
        begun = [clock()] * self.depth
        for number, (index, _) in enumerate(self.reader.iter_ranges(work.pairs, gap=None)):
            now = clock()
            if index >= self.depth and number >= self.depth:
                times.append(now - begun[index])
            begun.append(now)
        return times

    def _close(self) -> None:
        self.reader.close()
        super()._close()


def object_of(setting: Setting) -> tuple[str, dict[str, Any]]:
    """(URI, options) for `rangeio.open`: az, gs or s3 with signed requests if the URL has a bucket, otherwise http."""
    options: dict[str, Any] = {"concurrent": setting.depth} if setting.depth else {}
    if setting.ca_file:
        options["ca_file"] = setting.ca_file
    parts = urlsplit(setting.url)
    bucket, _, key = parts.path.lstrip("/").partition("/")
    if setting.store == "az":
        endpoint = f"{parts.scheme}://{parts.netloc}/{bucket}"
        return f"az://{unquote(key)}", {**options, "endpoint_url": endpoint, "account_key": AZURE_KEY}
    if not key or parts.query:
        return setting.url, options
    options["endpoint_url"] = f"{parts.scheme}://{parts.netloc}"
    options |= {"access_key_id": "bench", "secret_access_key": "bench"}
    if setting.store == "gs":
        return f"gs://{bucket}/{unquote(key)}", options
    options |= {"region": "us-east-1", "addressing": "path"}
    return f"s3://{bucket}/{unquote(key)}", options


class RangeioAwaiting(Awaiting):
    """The call that the targets refer to."""

    name = "rangeio"
    role: ClassVar[Role] = "ours"
    calls = {"tasks": "AsyncReader.read_at"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        uri, options = object_of(setting)
        self.reader = rangeio.open_async(uri, **options)

    @classmethod
    def version(cls) -> str:
        """The version of the imported package."""
        return rangeio.__version__

    async def reading(self) -> Get:
        """See `Awaiting`."""
        await self.reader.read_at(0, 1)
        return self.reader.read_at

    async def ended(self) -> None:
        """See `Awaiting`."""
        self.reader.close()


class RangeioUvloop(RangeioAwaiting):
    """The same on uvloop."""

    name = "rangeio, uvloop"
    module = "uvloop"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.loop.close()
        self.loop = import_module("uvloop").new_event_loop()
