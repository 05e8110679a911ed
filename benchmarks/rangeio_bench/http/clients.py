"""Contenders that read from a server: each library with its suitable call; concurrency by its own means or threads.

For clients that only return fresh memory, the parts are copied into one buffer if one buffer is required, as their
users have to do.
"""

import http.client
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from rangeio_bench.contender import Action, Contender, Role, Setting
from rangeio_bench.work import Work

PART = 8 << 20
"""The parts of a large read, if the library leaves splitting to its users."""

AZURE_KEY = "YSBrZXkgb2YgdGhlIGJlbmNoLCBhcyBsb25nIGFzIHRoYXQgb2YgYW4gYWNjb3VudCBvZiBBenVyZQ=="

Get: TypeAlias = Callable[[int, int], Any]
"""The bytes of a length from an offset."""


class Client(Contender):
    """A contender that reads from `setting.url`."""

    speaks_tls: ClassVar[bool] = True
    stores: ClassVar[tuple[str, ...]] = ("s3",)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.parts = urlsplit(setting.url)
        self.depth = setting.depth or 1
        self.pool = ThreadPoolExecutor(self.depth)

    def _close(self) -> None:
        self.pool.shutdown()

    def spread(self, work: Callable[[Iterator[Any]], Any], items: Iterable[Any]) -> list[Any]:
        """`depth` threads process `items` until none are left. Returns the result of each."""
        shared = iter(items)
        return [done.result() for done in [self.pool.submit(work, shared) for _ in range(self.depth)]]

    def latencies(self, action: Action, work: Work) -> list[int]:
        """The duration of each single read in nanoseconds, as its caller sees it; empty if it cannot be measured."""
        return []


def any_of(results: list[Any]) -> Any:
    """The result of one of the threads; some may have started too late to read anything."""
    return next(result for result in results if result is not None)


class Getting(Client):
    """A contender with one range per call; concurrency by threads."""

    def getter(self) -> Get:
        """The client of one thread."""
        raise NotImplementedError

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.getters = [self.getter() for _ in range(self.depth)]
        self.get = self.getters[0]

    def _each(self, work: Work) -> Any:
        get, length = self.get, work.length
        result: Any = None
        for offset in work.offsets:
            result = get(offset, length)
        return result

    def _threads(self, work: Work) -> Any:
        length, getters = work.length, iter(self.getters)

        def take(offsets: Iterator[int]) -> Any:
            get, result = next(getters), None
            for offset in offsets:
                result = get(offset, length)
            return result

        return any_of(self.spread(take, work.offsets))

    def _batch(self, work: Work) -> Any:
        results, getters = [None] * work.reads, iter(self.getters)

        def take(jobs: Iterator[tuple[int, int, int]]) -> None:
            get = next(getters)
            for index, offset, length in jobs:
                results[index] = get(offset, length)

        self.spread(take, zip(range(work.reads), work.offsets, work.lengths, strict=True))
        return results

    _ranges = _batch

    def _whole(self, work: Work) -> Any:
        table, getters = self.setting.scratch.bytes(work.nbytes), iter(self.getters)
        memory = table.data

        def take(offsets: Iterator[int]) -> None:
            get = next(getters)
            for offset in offsets:
                length = min(PART, work.nbytes - offset)
                memory[offset : offset + length] = memoryview(get(offset, length)).cast("B")

        if self.depth == 1:
            return self.get(0, work.nbytes)
        self.spread(take, range(0, work.nbytes, PART))
        return table

    def latencies(self, action: Action, work: Work) -> list[int]:
        """See `Client`."""
        times: list[int] = []
        clock, getters = time.perf_counter_ns, iter(self.getters)

        def take(offsets: Iterator[int]) -> None:
            get = next(getters)
            for offset in offsets:
                start = clock()
                get(offset, work.length)
                times.append(clock() - start)

        self.spread(take, work.offsets)
        return times


class HttpClient(Getting):
    """The standard library: a persistent connection per thread; reads bodies into the destination if there is one."""

    name = "http.client"
    calls = {
        "each": "read",
        "batch": "threads, read",
        "threads": "read",
        "whole": "readinto",
        "ranges": "threads, read",
    }

    def __init__(self, setting: Setting) -> None:
        self.connections: list[http.client.HTTPConnection] = []
        super().__init__(setting)

    def _request(self) -> Callable[[int, int], http.client.HTTPResponse]:
        host, port = self.parts.hostname or "", self.parts.port
        connection: http.client.HTTPConnection
        if self.parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.setting.ca_file or None)
            connection = http.client.HTTPSConnection(host, port, context=context)
        else:
            connection = http.client.HTTPConnection(host, port)
        self.connections.append(connection)
        path = self.parts.path

        def ask(offset: int, length: int) -> http.client.HTTPResponse:
            connection.request("GET", path, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
            return connection.getresponse()

        return ask

    def getter(self) -> Get:
        """See `Getting`."""
        ask = self._request()
        self.asking = [*getattr(self, "asking", []), ask]
        return lambda offset, length: ask(offset, length).read()

    def _whole(self, work: Work) -> Any:
        table, asking = self.setting.scratch.bytes(work.nbytes), iter(self.asking)
        memory, part = table.data, work.nbytes if self.depth == 1 else PART

        def take(offsets: Iterator[int]) -> None:
            ask = next(asking)
            for offset in offsets:
                space = memory[offset : offset + part]
                response = ask(offset, len(space))
                while space:
                    space = space[response.readinto(space) :]
                response.read()

        self.spread(take, range(0, work.nbytes, part))
        return table

    def _close(self) -> None:
        super()._close()
        for connection in self.connections:
            connection.close()


class Urllib3(Getting):
    """The library below requests and botocore."""

    name = "urllib3"
    module = "urllib3"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "request",
        "batch": "threads",
        "threads": "request",
        "whole": "request",
        "ranges": "threads",
    }

    def getter(self) -> Get:
        """See `Getting`."""
        if not hasattr(self, "manager"):
            self.manager = import_module("urllib3").PoolManager(
                maxsize=self.depth, ca_certs=self.setting.ca_file or None
            )
        request, url = self.manager.request, self.setting.url
        return lambda offset, length: (
            request("GET", url, headers={"Range": f"bytes={offset}-{offset + length - 1}"}).data
        )

    def _close(self) -> None:
        super()._close()
        self.manager.clear()


class Obstore(Getting):
    """Rust object_store's client of S3 or Google's, unsigned, or of Azure, with a key; for an object at the root of a
    server, its HTTP client.
    """

    name = "obstore"
    module = "obstore"
    role: ClassVar[Role] = "peer"
    stores = ("s3", "gs", "az")
    calls = {
        "each": "get_range",
        "batch": "threads, get_range",
        "threads": "get_range",
        "whole": "get_range",
        "ranges": "get_ranges",
    }

    def __init__(self, setting: Setting) -> None:
        self.obstore = import_module("obstore")
        self.store, self.key = obstore_of(setting)
        super().__init__(setting)

    def getter(self) -> Get:
        """See `Getting`."""
        get_range, store, key = self.obstore.get_range, self.store, self.key
        return lambda offset, length: get_range(store, key, start=offset, length=length)

    def _ranges(self, work: Work) -> Any:
        return self.obstore.get_ranges(self.store, self.key, starts=work.offsets, lengths=work.lengths)


def obstore_of(setting: Setting) -> tuple[Any, str]:
    """(store, key) for the URL."""
    stores, parts = import_module("obstore.store"), urlsplit(setting.url)
    options: dict[str, Any] = {"allow_http": True}
    if setting.ca_file:
        options["allow_invalid_certificates"] = True  # it does not accept a certificate file
    bucket, _, key = parts.path.lstrip("/").partition("/")
    endpoint = f"{parts.scheme}://{parts.netloc}"
    if setting.store == "az":
        container, _, key = key.partition("/")
        login = {"account_name": bucket, "account_key": AZURE_KEY, "endpoint": f"{endpoint}/{bucket}"}
        return stores.AzureStore(container, client_options=options, **login), key
    if not key:
        return stores.HTTPStore(endpoint, client_options=options), bucket
    if setting.store == "gs":
        return stores.GCSStore(bucket, base_url=endpoint, skip_signature=True, client_options=options), key
    store = stores.S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options=options,
    )
    return store, key


class OpenDAL(Getting):
    """Apache OpenDAL's Python binding, its S3 service."""

    name = "opendal"
    module = "opendal"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "read",
        "batch": "threads, read",
        "threads": "read",
        "whole": "read",
        "ranges": "threads, read",
    }
    speaks_tls = False  # it does not accept a custom certificate

    def getter(self) -> Get:
        """See `Getting`."""
        if not hasattr(self, "read"):
            bucket, _, self.key = self.parts.path.lstrip("/").partition("/")
            endpoint = f"{self.parts.scheme}://{self.parts.netloc}"
            make = import_module("opendal").Operator
            if self.key:
                options = {"bucket": bucket, "region": "us-east-1", "allow_anonymous": "true"}
                options |= {
                    "disable_config_load": "true",
                    "disable_ec2_metadata": "true",
                    "skip_signature": "true",
                }
                self.read = make("s3", endpoint=endpoint, **options).read
            else:
                self.key = bucket
                self.read = make("http", endpoint=endpoint).read
        read, key = self.read, self.key
        return lambda offset, length: read(key, offset=offset, size=length)

    def _whole(self, work: Work) -> Any:
        if self.depth == 1:
            return self.get(0, work.nbytes)
        return self.read(self.key, size=work.nbytes, chunk=PART, concurrent=self.depth)


class Arrow(Getting):
    """Arrow's S3 file system (the AWS SDK for C++)."""

    name = "pyarrow"
    module = "pyarrow"
    role: ClassVar[Role] = "peer"
    calls = {"each": "read_at", "batch": "threads, read_at", "threads": "read_at", "whole": "read_at"}
    calls |= {"ranges": "threads, read_at"}
    speaks_tls = False

    def getter(self) -> Get:
        """See `Getting`."""
        if not hasattr(self, "file"):
            key = self.parts.path.lstrip("/")
            if "/" not in key:
                raise OSError("an S3 object has a bucket: the URL needs at least one folder")
            made = import_module("pyarrow.fs").S3FileSystem(
                anonymous=True,
                region="us-east-1",
                scheme=self.parts.scheme,
                endpoint_override=self.parts.netloc,
            )
            self.file = made.open_input_file(key)
        read_at = self.file.read_at
        return lambda offset, length: read_at(length, offset)

    def _close(self) -> None:
        super()._close()
        self.file.close()
