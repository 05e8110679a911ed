"""A store of zarr over rangeio: `ZarrStore`. Needs the extra ``zarr``.

array = zarr.open_array(rangeio.adapters.zarr.ZarrStore("s3://bucket/data.zarr"), mode="r")
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeAlias

try:
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] != "zarr":
        raise
    raise ImportError("rangeio.adapters.zarr needs zarr 3: pip install 'rangeio[zarr]'") from None

from builtins import BaseExceptionGroup  # of Python 3.11, which zarr needs

from rangeio.awaitables import run_now
from rangeio.errors import Error, IsDirectoryError, NotDirectoryError, NotFoundError, ObjectChangedError
from rangeio.locks import begin_lock
from rangeio.operator import Operator
from rangeio.ranges import Range, Suffix
from rangeio.service import Stat
from rangeio.services.registry import WITHOUT_NETWORK, located, service_class

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    Value: TypeAlias = Buffer | None
    # Defined here, because inside the class `list` is a method.
    Values: TypeAlias = list[Value]
    Batch: TypeAlias = Sequence[tuple[int, Value]]

_NOTHING_THERE = (NotFoundError, IsDirectoryError, NotDirectoryError)
_NO_PLACE = ("NoSuchBucket", "ContainerNotFound")
_MOST_READERS = 256
_LARGEST_GAP = 256 << 10  # that "auto" chooses
_WITHOUT_LISTING = ("http", "https")

# The places of parts in a shard. zarr reads its index, which is at the start or at the end, then what that names.
_WITHIN, _AT_START, _AT_END = range(3)


class ZarrStore(Store):
    """The keys below a URI, for reading: ``ZarrStore("s3://bucket/data.zarr")``.

    where: a URI, a directory, or an Operator whose root is that of the store. options: those of `rangeio.open`; with an
    Operator, those of its objects. read_only: only what zarr is told; nothing can be written. Any thread and event
    loop. Pickles as URI and options, without secrets.

    None is the value of a key that does not exist, of a directory, and of a key below a file. Everything else raises
    an error of rangeio, also a bucket or local root that does not exist: its chunks are not empty.
    """

    supports_writes = False
    supports_deletes = False
    supports_partial_writes: Literal[False] = False

    def __init__(
        self, where: str | os.PathLike[str] | Operator, *, read_only: bool = True, **options: Any
    ) -> None:
        super().__init__(read_only=read_only)
        opened = where.with_options(**options) if isinstance(where, Operator) else _rooted(where, options)
        self._operator = opened
        self._scheme, self._known = self._operator.scheme, self._operator.options
        self._gap = self._known.get("gap", service_class(self._scheme).defaults.gap)
        self._supports_sync_io = self._scheme in WITHOUT_NETWORK
        self._awaited = _Way(opened.open_async, self._scheme, waits=True)
        self._at_once = _Way(opened.open, self._scheme, waits=False)

    # --- values --------------------------------------------------------------------------------------------------

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Value:
        """The value of a key, or a part of it; None if there is no such key. One request, also for a suffix.

        Parts that zarr reads of a shard after its index are of the version that had the index, or ObjectChangedError
        is raised.
        """
        return await self._get(self._awaited, key, prototype, byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Value:
        """Like `get`, in the thread of the caller."""
        given = default_buffer_prototype() if prototype is None else prototype
        return run_now(lambda: self._get(self._at_once, key, given, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> Values:
        """Many values or parts, in this order. All are in flight together."""
        reads = [asyncio.ensure_future(self.get(key, prototype, part)) for key, part in key_ranges]
        try:
            return await asyncio.gather(*reads)
        finally:
            for read in reads:
                read.cancel()

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        max_concurrency: int = 10,
        max_gap_bytes: int = 1 << 20,
        max_coalesced_bytes: int = 16 << 20,
    ) -> AsyncIterator[Batch]:
        """Parts of one value, as one batch: one `read_ranges`, with the limits of the store.

        Parts are merged over gaps of `max_gap_bytes`, but not over more than the `gap` of the store: zarr's MiB may
        read ten times what is wanted. Failures are raised in a BaseExceptionGroup, FileNotFoundError for no such key.
        """
        if byte_ranges:
            yield await self._get_ranges(self._awaited, key, byte_ranges, prototype, max_gap_bytes)

    def get_ranges_sync(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        max_gap_bytes: int = 1 << 20,
        max_coalesced_bytes: int = 16 << 20,
    ) -> Batch:
        """Like `get_ranges`, in the thread of the caller."""
        if not byte_ranges:
            return ()
        return run_now(lambda: self._get_ranges(self._at_once, key, byte_ranges, prototype, max_gap_bytes))

    async def _get(
        self, way: _Way, key: str, prototype: BufferPrototype, request: ByteRequest | None
    ) -> Value:
        wanted, place = _part(request)
        try:
            if request is None:
                found = await self._whole(way, key)
            else:
                found = await self._follow(way, key, place, lambda reader: reader.read_range(wanted))
        except _NOTHING_THERE as error:
            self._check_place(error)
            return None
        return prototype.buffer.from_bytes(found)

    async def _whole(self, way: _Way, key: str) -> Any:
        if way is self._awaited:  # for one read less work than an AsyncReader
            return (await self._operator.read_ranges_async([(key, None)]))[0]
        with self._operator.open(key) as reader:
            return reader.read_range()

    async def _get_ranges(
        self,
        way: _Way,
        key: str,
        requests: Sequence[ByteRequest | None],
        prototype: BufferPrototype,
        max_gap: int,
    ) -> Batch:
        wanted = [_part(request)[0] for request in requests]
        gap = _smaller(self._gap, max_gap)
        try:
            if len(wanted) == 1:
                found = [await self._follow(way, key, _WITHIN, lambda reader: reader.read_range(wanted[0]))]
            else:
                found = await self._follow(
                    way, key, _WITHIN, lambda reader: reader.read_ranges(wanted, gap=gap)
                )
        except Error as error:
            # For zarr, a shard that is gone is a shard without chunks.
            gone = error if isinstance(error, _NOTHING_THERE) else error.__cause__
            if isinstance(gone, _NOTHING_THERE):
                raise BaseExceptionGroup("no such key", [FileNotFoundError(key)]) from error
            raise BaseExceptionGroup("a read failed", [error]) from None
        return [(index, prototype.buffer.from_bytes(buffer)) for index, buffer in enumerate(found)]

    async def _follow(self, way: _Way, key: str, place: int, read: Callable[[Any], Any]) -> Any:
        """What `read` reads: of the version that had the index, if this task or thread has read that before."""
        index = _INDEX.get()
        if index is None or index.store is not self or index.key != key or place >= index.place:
            found, version = await way.read_part(key, read, tell=place != _WITHIN)
            if place != _WITHIN:
                _INDEX.set(_Index(self, key, version, place))
            return found
        try:
            return (await way.read_part(key, read, index.version))[0]
        except (*_NOTHING_THERE, ObjectChangedError) as error:
            _INDEX.set(None)
            raise ObjectChangedError(
                f"{key!r} of {self}: the object was replaced after its index was read; read again",
                path=error.path,
            ) from error

    def _check_place(self, error: Error) -> None:
        """Raise the error of a missing key, if all keys are missing."""
        root = self._known.get("root")
        if error.context.get("code") in _NO_PLACE or (
            self._scheme == "fs" and root is not None and not os.path.isdir(root)
        ):
            raise error

    # --- keys ----------------------------------------------------------------------------------------------------

    async def exists(self, key: str) -> bool:
        """Whether there is a value for `key`."""
        return await self._operator.exists_async(key)

    async def getsize(self, key: str) -> int:
        """The size of a value, without reading it. FileNotFoundError if there is none."""
        try:
            async with self._operator.open_async(key) as reader:
                size = (await reader.stat()).size
                return len(await reader.read_range()) if size is None else size
        except (IsDirectoryError, NotDirectoryError) as error:
            raise NotFoundError(f"{key!r} of {self}: there is no such key", path=error.path) from error

    async def getsize_prefix(self, prefix: str) -> int:
        """The size of all values below a prefix, as the listing tells it."""
        return sum([stat.size or 0 async for stat in self._stats(prefix, None)])

    @property
    def supports_listing(self) -> bool:
        """Whether keys can be listed: not over HTTP. Groups need consolidated metadata then."""
        return self._scheme not in _WITHOUT_LISTING

    async def list(self) -> AsyncIterator[str]:
        """All keys, sorted."""
        async for stat in self._stats("", None):
            yield stat.path

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The keys below a prefix, which ends where a name ends, with or without a slash."""
        async for stat in self._stats(prefix, None):
            yield stat.path

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names of keys and prefixes directly below a prefix."""
        above = len(_folder(prefix))
        async for stat in self._stats(prefix, "/"):
            if name := stat.path[above:].rstrip("/"):
                yield name

    async def _stats(self, prefix: str, delimiter: str | None) -> AsyncIterator[Stat]:
        try:
            async for stat in self._operator.list_async(_folder(prefix), delimiter):
                yield stat
        except (NotFoundError, NotDirectoryError) as error:
            self._check_place(error)

    # --- what does not write -------------------------------------------------------------------------------------

    async def set(self, key: str, value: Buffer) -> None:
        """ValueError, like all that would write."""
        _refuse()

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """ValueError."""
        _refuse()

    async def delete(self, key: str) -> None:
        """ValueError."""
        _refuse()

    async def delete_dir(self, prefix: str) -> None:
        """ValueError."""
        _refuse()

    def set_sync(self, key: str, value: Buffer) -> None:
        """ValueError. zarr takes `get_sync` only from a store that has all three."""
        _refuse()

    def delete_sync(self, key: str) -> None:
        """ValueError."""
        _refuse()

    # --- the store -----------------------------------------------------------------------------------------------

    def with_read_only(self, read_only: bool = False) -> ZarrStore:
        """The same store, if `read_only`; else NotImplementedError."""
        if not read_only:
            raise NotImplementedError(f"with_read_only is not implemented for the {type(self)} store type.")
        return _restored(type(self), self._operator, True)

    def close(self) -> None:
        """Drop the readers that are kept. zarr may go on using the store."""
        super().close()
        self._awaited.forget()
        self._at_once.forget()

    def _identity(self) -> tuple[Any, ...]:
        return self._scheme, self._known, self.read_only

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrStore) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((str(self), self.read_only))

    def __str__(self) -> str:
        if self._scheme == "fs":
            return str(self._known.get("root", ""))
        return self._operator.uri("zarr.json").removesuffix("zarr.json").rstrip("/")

    def __repr__(self) -> str:
        return f"ZarrStore({str(self)!r})" if self.read_only else f"ZarrStore({str(self)!r}, read_only=False)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._operator, self.read_only)


def _restored(kind: type[ZarrStore], operator: Operator, read_only: bool) -> ZarrStore:
    return kind(operator, read_only=read_only)


class _Index(NamedTuple):
    """What was last read as the index of a shard in a task or thread."""

    store: ZarrStore
    key: str
    version: Any
    place: int


_INDEX: ContextVar[_Index | None] = ContextVar("_INDEX", default=None)


class _Way:
    """How the values of one store are read: awaited, or at once in the thread of the caller.

    A file is opened for each read, so that no descriptor is kept; its version is a text. Over a network the readers of
    parts are kept, since the second request of a reader costs less; a version is a reader, pinned to it.
    """

    _lock: threading.RLock

    def __init__(self, open_key: Callable[[str], Any], scheme: str, *, waits: bool) -> None:
        begin_lock(self)
        self._open, self._waits = open_key, waits
        self._is_local, self._keeps = scheme == "fs", scheme not in WITHOUT_NETWORK
        self._readers: OrderedDict[str, Any] = OrderedDict()

    async def read_part(
        self, key: str, read: Callable[[Any], Any], version: Any = None, *, tell: bool = False
    ) -> tuple[Any, Any]:
        """What `read` reads, and its version, if it is given or wanted. ObjectChangedError if it is not `version`."""
        if self._is_local:
            return await self._read_file(key, read, version, tell)
        reader = self._reader(key) if version is None else version
        try:
            found = read(reader)
            return await found if self._waits else found, reader
        except ObjectChangedError:
            self._drop(key, reader)
            if version is not None:
                raise
        except _NOTHING_THERE:
            self._drop(key, reader)
            raise
        reader = self._reader(key)
        found = read(reader)
        return await found if self._waits else found, reader

    async def _read_file(
        self, key: str, read: Callable[[Any], Any], version: Any, tell: bool
    ) -> tuple[Any, Any]:
        reader = self._open(key)
        try:
            found = read(reader)
            if self._waits:
                found = await found
            if version is None and not tell:
                return found, None
            stat = reader.stat()
            pin = (await stat if self._waits else stat).pin
        finally:
            reader.close()
        if version is not None and pin != version:
            raise ObjectChangedError(f"{key!r} was replaced", path=reader.path)
        return found, pin

    def _reader(self, key: str) -> Any:
        with self._lock:
            reader = self._readers.pop(key, None)
            if reader is None:
                reader = self._open(key)
            if self._keeps:
                self._readers[key] = reader
                if len(self._readers) > _MOST_READERS:
                    self._readers.popitem(last=False)  # not closed: a task may be reading with it
        return reader

    def _drop(self, key: str, reader: Any) -> None:
        with self._lock:
            if self._readers.get(key) is reader:
                del self._readers[key]

    def forget(self) -> None:
        """Drop the readers that are kept."""
        with self._lock:
            self._readers.clear()


def _rooted(where: str | os.PathLike[str], options: dict[str, Any]) -> Operator:
    scheme, _, path = located(where)
    if scheme in _WITHOUT_LISTING:
        return Operator("http", **{"root": path, **options})
    if scheme == "fs":
        return Operator("fs", **{"root": os.path.abspath(path), **options})
    return Operator.from_uri(where, **options)


def _part(request: ByteRequest | None) -> tuple[Range, int]:
    """The range of a request of zarr, and its place."""
    if request is None:
        return None, _AT_START
    if isinstance(request, RangeByteRequest):
        return (request.start, request.end), _WITHIN if request.start else _AT_START
    if isinstance(request, OffsetByteRequest):
        return (request.offset, None), _WITHIN if request.offset else _AT_START
    if isinstance(request, SuffixByteRequest):
        return Suffix(request.suffix), _AT_END
    raise TypeError(f"Unexpected byte_range, got {request}")


def _smaller(own: Any, most: int) -> Any:
    """The smaller one of two gaps."""
    if own is None or (own == "auto" and most >= _LARGEST_GAP):
        return own
    return most if own == "auto" else min(own, most)


def _folder(prefix: str) -> str:
    """A prefix of whole names."""
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _refuse() -> NoReturn:
    raise ValueError("store was opened in read-only mode and does not support writing")
