"""Files of HDFS by its own protocol, with the library hdfs-native, as objects of another library (`stores.store`)."""

import ctypes
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rangeio.errors import ConfigInvalidError, IsDirectoryError, ObjectChangedError, UnsupportedError
from rangeio.stores.store import Info, Store

FORKED = (
    "hdfs-native waits for ever in a child that was forked after its first use: start processes with 'spawn', or read"
    " with webhdfs://"
)
# The process that has used the library: its threads, on which everything runs, are missing in a forked child.
_used_in: list[int] = []
# A client that is freed waits for its threads, with the GIL held. If one of them waits for the GIL to complete an
# awaited call, the process stands still; seen with 0.14.7. So no client is ever freed, not even at exit.
_clients: dict[object, Any] = {}
# What a client takes from the environment when it is made.
_VARIABLES = (
    "HADOOP_CONF_DIR",
    "HADOOP_HOME",
    "HADOOP_USER_NAME",
    "HADOOP_PROXY_USER",
    "HADOOP_TOKEN_FILE_LOCATION",
    "KRB5CCNAME",
    "KRB5_CONFIG",
)


def _library() -> Any:
    try:
        import hdfs_native
    except ImportError:
        raise UnsupportedError(
            "hdfs:// needs the package hdfs-native (pip install 'rangeio[hdfs]'); webhdfs:// does not"
        ) from None
    return hdfs_native


@dataclass
class Clients:
    """The clients of one cluster: one for threads, one for asyncio. Made when they are needed, which reads settings;
    shared by the process.

    url: None for fs.defaultFS. settings: of Hadoop, over those of HADOOP_CONF_DIR.
    """

    url: str | None
    settings: Mapping[str, str]
    kerberos: Mapping[str, str] = field(default_factory=dict)

    @property
    def sync(self) -> Any:
        """Blocks, and lets go of the GIL. Any thread may call it."""
        return self._shared("Client")

    @property
    def awaited(self) -> Any:
        """For the running asyncio loop."""
        return self._shared("AsyncClient")

    def _shared(self, kind: str) -> Any:
        check_fork()
        given = (self.url, *sorted(self.settings.items()), *sorted(self.kerberos.items()))
        key = (kind, given, tuple(os.environ.get(name) for name in _VARIABLES))
        client = _clients.get(key)
        if client is None:
            client = _clients.setdefault(key, self._made(getattr(_library(), kind)))
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
        return client

    def _made(self, kind: Callable[..., Any]) -> Any:
        try:
            return kind(self.url, dict(self.settings), **self.kerberos)
        except Exception as error:  # before any I/O: wrong settings
            raise ConfigInvalidError(f"hdfs-native: {error}") from error


def check_library() -> str:
    """The library and its version, for display. UnsupportedError if it is missing."""
    _library()
    return f"hdfs-native {version('hdfs-native')}"


def check_fork() -> None:
    """UnsupportedError in a child of the process that used the library: a new client hangs there, too."""
    if not _used_in:
        _used_in.append(os.getpid())
    elif _used_in[0] != os.getpid():
        raise UnsupportedError(FORKED)


class NativeFile(Store):
    """One file. With a pin it is opened once, which tells where its blocks are: reads are of the version opened then.

    A read past the end makes the library panic, so no read goes there. After a failure the file is opened again, once:
    its blocks may be elsewhere.
    """

    backend = "hdfs-native"
    forked = FORKED

    def __init__(self, clients: Clients, path: str, shown: str, call_s: float | None) -> None:
        self._clients, self._path, self.path = clients, path, shown
        self.call_s = call_s
        self._file: Any = None
        self._awaited_file: Any = None

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        """See `Store`."""
        file = self._file
        if file is not None and known is not None:
            try:
                return self._read(file, offset, n, known)
            except Exception as error:
                self._file = None
                _check_same(known, self.info(), error)
        return self._read(self._clients.sync.read(self._path), offset, n, known)

    def _read(self, file: Any, offset: int, n: int, known: Info | None) -> Any:
        stop = _stop(file, offset, n, known)
        found = file.read_range(offset, stop - offset) if stop > offset else b""
        self._file = file
        return found

    def info(self) -> Info:
        """See `Store`."""
        return self._info_of(self._clients.sync.get_file_info(self._path))

    def can_await(self) -> bool:
        """See `Store`."""
        return True

    def pread_async(self, offset: int, n: int, known: Info | None) -> Awaitable[Any] | None:
        """See `Store`."""
        return self._pread_awaited(offset, n, known)

    async def _pread_awaited(self, offset: int, n: int, known: Info | None) -> Any:
        file = self._awaited_file
        if file is not None and known is not None:
            try:
                return await self._read_awaited(file, offset, n, known)
            except Exception as error:
                self._awaited_file = None
                _check_same(known, await self._info_awaited(), error)
        return await self._read_awaited(await self._clients.awaited.read(self._path), offset, n, known)

    async def _read_awaited(self, file: Any, offset: int, n: int, known: Info | None) -> Any:
        stop = _stop(file, offset, n, known)
        found = await file.read_range(offset, stop - offset) if stop > offset else b""
        self._awaited_file = file
        return found

    def info_async(self) -> Awaitable[Info] | None:
        """See `Store`."""
        return self._info_awaited()

    async def _info_awaited(self) -> Info:
        return self._info_of(await self._clients.awaited.get_file_info(self._path))

    def _info_of(self, status: Any) -> Info:
        if status.isdir:
            raise IsDirectoryError("it is a directory; Operator.list() lists its content")
        modified_ms = status.modification_time
        return Info(status.length, (modified_ms,), "mtime", mtime_ns=modified_ms * 10**6)

    def failed(self, error: BaseException) -> str | None:
        """See `Store`."""
        return class_of(error)


def _stop(file: Any, offset: int, n: int, known: Info | None) -> int:
    """The end of a read; not past the end of the file."""
    if known is not None and known.size != len(file):
        raise ObjectChangedError(
            f"it changed after it was opened: it has {len(file)} bytes now; open it again"
        )
    return min(offset + n, len(file))


def _check_same(known: Info, found: Info, error: Exception) -> None:
    """ObjectChangedError if a read failed because the file is another one now, whose blocks are elsewhere."""
    if not known.is_same(found):
        raise ObjectChangedError("it changed after it was opened; open it again") from error


# The library has one exception for all that is no OSError: RuntimeError('RPCError("org.apache...", "...")').
_REMOTE = re.compile(r'(?:RPCError|FatalRPCError)\("(?:[\w.$]*[.$])?(\w+)"')
_CLASSES = {
    "AccessControlException": "PermissionDeniedError",
    "FileNotFoundException": "NotFoundError",
    "ParentNotDirectoryException": "NotDirectoryError",
    "InvalidToken": "UnauthenticatedError",
    "StandbyException": "ServerError",
    "RetriableException": "ServerError",
    "SafeModeException": "ServerError",
    "SaslException": "UnauthenticatedError",
}
_BEGINNINGS = {
    "DataTransferError": "ServerError",
    "SASLError": "UnauthenticatedError",
    "GSSAPIError": "UnauthenticatedError",
    "NoSASLMechanism": "UnauthenticatedError",
    "IOError": "ConnectionFailedError",
    "IsADirectoryError": "IsDirectoryError",
    "UnsupportedFeature": "UnsupportedError",
    "UnsupportedErasureCodingPolicy": "UnsupportedError",
    "ChecksumError": "ServerError",
    "OperationFailed": "ServerError",
}


def class_of(error: BaseException) -> str | None:
    """The name of the class of `rangeio.errors` for an exception of the library; None for the general rules."""
    text = str(error)
    found = _REMOTE.search(text)
    if found is not None:
        return _CLASSES.get(found[1])
    return _BEGINNINGS.get(text.partition("(")[0]) if isinstance(error, RuntimeError) else None
