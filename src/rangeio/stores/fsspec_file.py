"""One file of an fsspec filesystem: `cat_file` reads it, `info` says what it is. Nothing is opened, or kept open."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any

from rangeio.errors import ConfigInvalidError, IsDirectoryError
from rangeio.stores.failures import shown
from rangeio.stores.one_at_a_time import turn_of
from rangeio.stores.store import Info, Store

# What distinguishes versions, as the filesystems name it, in lower case without - and _. Not the time of the last
# access, which reading changes, and not the time of creation if there is another, which a chmod changes.
_VERSIONS = ("etag", "generation", "versionid", "md5hash", "contentmd5", "md5", "checksum", "fileid", "ino")
_TIMES = ("mtime", "lastmodified", "modified", "updated", "modificationtime", "modify", "lastwritetime")
_CREATED = ("created", "creationtime")

# Filesystems with one connection or one open file, which mix up the answers of several threads: a second request over
# the SFTP connection of paramiko takes the answer of the first, which then waits for ever.
_ONE_AT_A_TIME = {"SFTPFileSystem", "FTPFileSystem", "TarFileSystem", "LibArchiveFileSystem"}
_NO_SUCH_FILE = 0xC000000F  # of SMB, for which smbprotocol has no errno


class FsspecFile(Store):
    """`fs.cat_file(path, start, end)`, and its coroutine on the filesystem's own loop if it has one."""

    backend = "fsspec"

    def __init__(self, fs: Any, path: str) -> None:
        lacking = [name for name in ("cat_file", "info") if not callable(getattr(fs, name, None))]
        if lacking:
            raise TypeError(
                f"from_fsspec needs a filesystem of fsspec; {type(fs).__name__} has no {lacking[0]}"
            )
        self._fs = fs
        self._path = path
        self.path = shown(path)
        layers = _layers(fs)
        # A filesystem over another may say that it is async although the other is not.
        self._is_async = all(getattr(layer, "async_impl", False) for layer in layers) and hasattr(
            fs, "_cat_file"
        )
        self._own_loop = bool(getattr(fs, "asynchronous", False))
        """Whether it must be awaited on the caller's loop, because it has none."""
        slow = [
            layer
            for layer in layers
            if _ONE_AT_A_TIME.intersection(kind.__name__ for kind in type(layer).__mro__)
        ]
        self.alone = bool(slow)
        self._turn = turn_of(slow[0]) if slow else None

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        self._refuse_own_loop()
        return self._in_turn(partial(self._fs.cat_file, self._path, start=offset, end=offset + n))

    def info(self) -> Info:
        self._refuse_own_loop()
        self._forget()
        return _info_of(self._in_turn(partial(self._fs.info, self._path)), self.path)

    def _in_turn(self, call: Callable[[], Any]) -> Any:
        return call() if self._turn is None else self._turn.take(call)

    def failed(self, error: BaseException) -> str | None:
        return "NotFoundError" if getattr(error, "ntstatus", None) == _NO_SUCH_FILE else None

    def can_await(self) -> bool:
        return self._is_async

    def pread_async(self, offset: int, n: int, known: Info | None) -> Awaitable[Any] | None:
        return self._awaited("_cat_file", start=offset, end=offset + n)

    def info_async(self) -> Awaitable[Info] | None:
        return self._info_awaited() if self._own_loop else None

    async def _info_awaited(self) -> Info:
        self._forget()
        return _info_of(await self._awaited("_info"), self.path)

    def _awaited(self, name: str, **options: int) -> Awaitable[Any]:
        """A coroutine of the filesystem, on its own loop, which runs in a thread of fsspec."""
        call = getattr(self._fs, name)
        running = asyncio.get_running_loop()
        theirs = running if self._own_loop else self._fs.loop
        if theirs is running:
            return call(self._path, **options)  # type: ignore[no-any-return]
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(self._path, **options), theirs))

    def _forget(self) -> None:
        """Filesystems that cache listings answer `info` from them."""
        forget = getattr(self._fs, "invalidate_cache", None)
        if forget is not None:
            forget(self._path)

    def _refuse_own_loop(self) -> None:
        if self._own_loop:
            raise ConfigInvalidError(
                "this filesystem was made with asynchronous=True, so only asyncio can read it: use from_fsspec_async"
            )


def _layers(fs: Any) -> list[Any]:
    """The filesystem, the one it wraps, and so on."""
    layers = [fs]
    while len(layers) < 8 and callable(getattr(inner := getattr(layers[-1], "fs", None), "cat_file", None)):
        layers.append(inner)
    return layers


def _info_of(said: Any, path: str) -> Info:
    if said.get("type") == "directory":
        raise IsDirectoryError(f"{path!r}: it is a directory", path=path)
    size = said.get("size")
    named = {str(name).lower().replace("-", "").replace("_", ""): value for name, value in said.items()}
    found = [name for name in _VERSIONS if named.get(name)]
    found += [name for name in _TIMES if named.get(name)][:1] or [n for n in _CREATED if named.get(n)][:1]
    when = next((named[name] for name in _TIMES if named.get(name)), None)
    etag = named.get("etag")
    version = named.get("generation") or named.get("versionid")
    return Info(
        None if size is None else int(size),
        tuple(str(named[name]) for name in found),
        "+".join(found),
        mtime_ns=_ns_of(when),
        etag=None if etag is None else str(etag),
        version=None if version is None else str(version),
    )


def _ns_of(when: object) -> int | None:
    """Nanoseconds since 1970, of a time in one of the forms of the filesystems; None for others."""
    if isinstance(when, datetime):
        return int(when.timestamp() * 1e6) * 1000
    return int(when * 1e9) if isinstance(when, (int, float)) else None
