"""The service for hdfs://: files of HDFS by its own protocol, with the library hdfs-native."""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from _uring import yield_if_due
from rangeio.errors import ConfigInvalidError, Error, TimedOutError
from rangeio.hdfs.listing import Walk
from rangeio.hdfs.name_nodes import joined
from rangeio.hdfs.native import Clients, NativeFile, check_library, class_of
from rangeio.hdfs.settings import Settings
from rangeio.hdfs.statuses import FileStatus
from rangeio.options import Options
from rangeio.ranges import OPEN
from rangeio.service import Location, Service, Stat
from rangeio.services.http_options import conditions
from rangeio.services.store_object import in_thread
from rangeio.services.store_source import DEFAULTS, StoreSource
from rangeio.stores.failures import mapped
from rangeio.threads import THREADS

if TYPE_CHECKING:
    from _uring import Reactor

# Where the library finds them. The values are the paths of files, and a name.
_CREDENTIALS = ("HADOOP_TOKEN_FILE_LOCATION", "KRB5CCNAME", "HADOOP_USER_NAME")


class HdfsService(Service):
    """Files of one HDFS cluster, below `root`.

    cluster: host:port of the RPC of the name node, or a nameservice of HADOOP_CONF_DIR; default: fs.defaultFS.
    settings: of Hadoop, by name, over those of HADOOP_CONF_DIR. HADOOP_USER_NAME, tickets of kinit and
    HADOOP_TOKEN_FILE_LOCATION are those of the library; kerberos_principal, kerberos_keytab and kerberos_cache replace
    what the machine has.

    Under asyncio the library itself is awaited; otherwise threads wait for it. A call of it may take connect_s and
    first_byte_s of `timeout` together. It cannot be used in a child that was forked after its first use.
    """

    scheme = "hdfs"
    defaults = DEFAULTS
    option_names = ("cluster", "root", "settings", "kerberos_principal", "kerberos_keytab", "kerberos_cache")

    def __init__(
        self,
        reactor: "Reactor",
        cluster: str | None = None,
        root: str = "",
        *,
        settings: Mapping[str, str] | None = None,
        kerberos_principal: str | None = None,
        kerberos_keytab: str | None = None,
        kerberos_cache: str | None = None,
    ) -> None:
        if cluster is not None and (not cluster or "/" in cluster or "@" in cluster):
            raise ConfigInvalidError("cluster must be host:port or the name of a nameservice")
        self._reactor = reactor
        self._cluster, self._root = cluster, joined("", root)
        kerberos = {
            name: value
            for name, value in (
                ("kerberos_principal", kerberos_principal),
                ("kerberos_keytab", kerberos_keytab),
                ("kerberos_cache", kerberos_cache),
            )
            if value is not None
        }
        url = None if cluster is None else f"hdfs://{cluster}"
        self._clients = Clients(url, settings or {}, kerberos)

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """Paths are used as they are: "%20" is three characters."""
        cluster, _, path = rest.partition("/")
        return Location({"cluster": cluster} if cluster else {}, path)

    def open(self, path: str, options: Options) -> StoreSource:
        if conditions(options):
            raise ConfigInvalidError("'hdfs' has no conditions such as if_match", path=path)
        file = NativeFile(self._clients, joined(self._root, path), self.shown(path), _limit_s(options))
        return StoreSource(self._reactor, file, options)

    def shown(self, path: str) -> str:
        return f"hdfs://{self._cluster or ''}{joined(self._root, path)}"

    def uri(self, path: str) -> str:
        """See `Service`. That of a directory ends in a slash, as its prefix in a listing does."""
        return self.shown(path).rstrip("/") + "/" if path.endswith("/") else self.shown(path)

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """See `Service`. The library chooses among the credentials as the name node asks."""
        yield "library", check_library()
        settings = Settings(self._clients.settings)
        named = self._cluster or settings.default_cluster()
        nodes = [] if named is None else settings.name_nodes(named, "rpc")
        shown = ", ".join(nodes) or (named or "none: fs.defaultFS is not set").rpartition("@")[2]
        from_settings = settings.place if nodes or self._cluster is None else ""
        yield "name nodes", f"{shown} (of {from_settings})" if from_settings else shown
        given = [f"{name}=" for name in self._clients.kerberos]
        there = [f"{name} ({os.environ[name]!r})" for name in _CREDENTIALS if os.environ.get(name)]
        yield "credentials", ", ".join([*given, *there]) or "the user of this process, or its default tickets"

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        listing = _Directories(self, prefix, delimiter, options)
        while listing.more:
            yield from listing.next()

    def list_async(self, prefix: str, delimiter: str | None, options: Options) -> AsyncIterator[Stat]:
        return _AsyncListing(_Directories(self, prefix, delimiter, options))


class _Directories:
    """A listing, one directory at a time."""

    def __init__(self, service: HdfsService, prefix: str, delimiter: str | None, options: Options) -> None:
        self._service = service
        self._walk = Walk(service._root, prefix, delimiter)
        self._limit_s = _limit_s(options)

    @property
    def more(self) -> bool:
        return self._walk.next is not None

    def next(self) -> list[Stat]:
        """The entries that come next. Blocks, at most for a time."""
        assert self._walk.next is not None
        directory, _ = self._walk.next
        shown = f"hdfs://{self._service._cluster or ''}{directory}"
        try:
            found = _within(self._limit_s, partial(self._entries, directory), shown)
        except Error:
            raise
        except Exception as error:
            raise mapped(error, class_of(error), shown, 0, OPEN) from error
        return [replace(stat, path=self._walk.path(stat.path)) for stat in self._walk.took(found, more=False)]

    def _entries(self, directory: str) -> list[FileStatus]:
        try:
            found = [*self._service._clients.sync.list_status(directory)]
        except FileNotFoundError:
            return []
        below = directory.rstrip("/") + "/"
        return [
            FileStatus(one.path.removeprefix(below), one.isdir, one.length, one.modification_time)
            for one in found
            if one.path.startswith(below)  # a file has itself as its only entry
        ]


class _AsyncListing(AsyncIterator[Stat]):
    """A listing, whose directories are read by threads; yields to other tasks of the loop between entries."""

    def __init__(self, directories: _Directories) -> None:
        self._directories = directories
        self._ready: deque[Stat] = deque()

    async def __anext__(self) -> Stat:
        await yield_if_due()
        while not self._ready:
            if not self._directories.more:
                raise StopAsyncIteration
            self._ready.extend(await in_thread(self._directories.next))
        return self._ready.popleft()


def _limit_s(options: Options) -> float | None:
    """The time that one call of the library may take: it waits for minutes for a server that is not there."""
    parts = (options.timeout.connect_s, options.timeout.first_byte_s)
    return None if None in parts else sum(part for part in parts if part is not None)


def _within(limit_s: float | None, call: Callable[[], Any], shown: str) -> Any:
    """The result of `call`, made by a thread. TimedOutError if it takes longer."""
    landed: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            landed.put((call(), None))
        except BaseException as error:
            landed.put((None, error))

    THREADS.start(work)
    try:
        found, error = landed.get(timeout=limit_s)
    except Empty:
        text = f"{shown!r}: the name node did not answer within {limit_s:g} s"
        raise TimedOutError(text, path=shown) from None
    if error is None:
        return found
    try:
        raise error
    finally:
        del error  # its traceback refers to this frame
