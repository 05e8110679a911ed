"""One object of a store of obstore, or of any that has the protocols of obspec.

With `get`, each response says which version it is from, and later requests are made under the ETag of the first: no
request but those for bytes. With `get_range` alone, `head` is asked.
"""

import os
import re
from collections.abc import Awaitable
from typing import Any

from rangeio.errors import NotFoundError, UnexpectedError, UnsupportedError
from rangeio.ranges import OPEN
from rangeio.stores.failures import shown
from rangeio.stores.store import Info, Store, Told

# The threads of obstore's connections are not in a forked child, which would wait for ever for an answer. Files and
# memory need none.
_WITHOUT_CONNECTIONS = ("LocalStore", "MemoryStore")
_used_in: int | None = None

# What a GenericError of obstore says, and the error that it is.
_GENERIC = (
    (r"(?i)status code: 416|invalid range|range was invalid", "RangeNotSatisfiedError"),
    (r"status code: 429", "RateLimitedError"),
    (r"status code: 5\d\d", "ServerError"),
    (r"(?i)timed out|timeout", "TimedOutError"),
    (r"error sending request|HTTP error", "ConnectionFailedError"),
)


class ObstoreObject(Store):
    """version: which version to read; None for the newest."""

    backend = "obstore"

    def __init__(self, store: Any, path: str, version: str | None) -> None:
        self._store = store
        self._path = path
        self._version = version
        self.path = shown(path)
        self.tells = callable(getattr(store, "get", None))
        if not (self.tells or callable(getattr(store, "get_range", None))):
            raise TypeError(
                f"from_obstore needs a store of obstore, or one with get() or get_range() of obspec;"
                f" {type(store).__name__} has neither"
            )
        if version is not None and not self.tells:
            raise UnsupportedError("version= needs a store with get()", path=self.path)
        kind = type(store)
        self._connects = kind.__module__.startswith("obstore") and kind.__name__ not in _WITHOUT_CONNECTIONS
        self._awaits = callable(getattr(store, "get_async" if self.tells else "get_range_async", None))

    def _refuse_after_fork(self) -> None:
        global _used_in
        if self._connects and (_used_in := _used_in or os.getpid()) != os.getpid():
            raise UnsupportedError(
                f"{self.path!r}: a forked child cannot use the connections of obstore after its parent has used them;"
                " start the process with spawn or forkserver",
                path=self.path,
            )

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        self._refuse_after_fork()
        if not self.tells:
            return self._store.get_range(self._path, start=offset, end=offset + n)
        result = self._store.get(self._path, options=self._options(offset, n, known))
        said = self._said(result, offset)  # first: reading the bytes ends it
        return Told(result.buffer() if hasattr(result, "buffer") else result.bytes(), said)

    def info(self) -> Info:
        self._refuse_after_fork()
        if self._version is not None:
            options: dict[str, Any] = {"version": self._version, "head": True}
            return self._of_version(_info_of(self._store.get(self._path, options=options).meta))
        head = getattr(self._store, "head", None)
        return Info(None) if head is None else _info_of(head(self._path))

    def can_await(self) -> bool:
        return self._awaits

    def pread_async(self, offset: int, n: int, known: Info | None) -> Awaitable[Any] | None:
        self._refuse_after_fork()
        return self._told(offset, n, known) if self._awaits else None

    async def _told(self, offset: int, n: int, known: Info | None) -> Any:
        if not self.tells:
            return await self._store.get_range_async(self._path, start=offset, end=offset + n)
        result = await self._store.get_async(self._path, options=self._options(offset, n, known))
        said = self._said(result, offset)
        read = result.buffer_async if hasattr(result, "buffer_async") else result.bytes_async
        return Told(await read(), said)

    def failed(self, error: BaseException) -> str | None:
        if type(error).__name__ != "GenericError":
            return None
        said = str(error).partition("\n")[0]
        return next((name for pattern, name in _GENERIC if re.search(pattern, said)), None)

    def _options(self, offset: int, n: int, known: Info | None) -> dict[str, Any]:
        options: dict[str, Any] = {"range": (offset, min(offset + n, OPEN))}
        # A weak ETag never matches (RFC 9110 section 13.1.1); each response is compared anyway.
        if known is not None and known.etag and not known.etag.startswith("W/"):
            options["if_match"] = known.etag
        if self._version is not None:
            options["version"] = self._version
        return options

    def _said(self, result: Any, offset: int) -> Info:
        start, _ = result.range
        if start != offset:
            raise UnexpectedError(f"the store returned bytes from {start} on for bytes from {offset} on")
        return self._of_version(_info_of(result.meta))

    def _of_version(self, info: Info) -> Info:
        if self._version is not None and info.version != self._version:
            raise NotFoundError(
                f"{self.path!r}: the store has no version {self._version!r}, or no versions at all",
                path=self.path,
            )
        return info


def _info_of(meta: Any) -> Info:
    etag, modified = meta.get("e_tag"), meta.get("last_modified")
    strong = etag and not etag.startswith("W/")
    mtime_ns = None if modified is None else int(modified.timestamp() * 1e6) * 1000
    return Info(
        int(meta["size"]),
        (etag,) if strong else tuple(part for part in (etag, mtime_ns) if part is not None),
        "etag" if strong else "last_modified",
        mtime_ns=mtime_ns,
        etag=etag,
        version=meta.get("version"),
    )
