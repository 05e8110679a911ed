"""rangeio as an object store of obspec: `Store`. Needs the extra ``obspec``.

store = rangeio.obspec.Store("s3", bucket="bucket")
buffer = store.get_range("folder/key", start=0, end=100)
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

try:
    import obspec as _obspec  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "obspec":
        raise
    raise ImportError("rangeio.obspec needs obspec: pip install 'rangeio[obspec]'") from None

from rangeio.errors import ConfigInvalidError, RangeNotSatisfiedError, UnsupportedError, asked
from rangeio.operator import Operator
from rangeio.ranges import OPEN, Range, Suffix, bounds
from rangeio.service import Stat

if TYPE_CHECKING:
    from _uring import Buffer

_PAGE = 1000
_CONDITIONS = ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since")


class Store:
    """The protocols Get, GetRange, GetRanges, Head, List and ListWithDelimiter of obspec, and their async twins.

    scheme, options: as of an Operator. Results are Buffers. Pickles like an Operator, without secrets. An empty range
    and one that begins past the end raise RangeNotSatisfiedError; the end of a range is clipped.
    """

    def __init__(self, scheme: str, **options: Any) -> None:
        self._operator = Operator(scheme, **options)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> "Store":
        """The store at a URL, whose paths are relative to it: ``Store.from_url("s3://bucket/folder")``."""
        store = cls.__new__(cls)
        if url.startswith(("http://", "https://")):
            options = {"root": url, **options}
            store._operator = Operator("http", **options)
        else:
            store._operator = Operator.from_uri(url, **options)
        return store

    @property
    def url(self) -> str:
        """The URL at which paths begin, without credentials: for registries of stores, such as VirtualiZarr's."""
        if self._operator.scheme == "fs":
            return f"file://{os.path.abspath(self._operator.options.get('root') or os.sep)}"
        try:
            return self._operator.uri("-").removesuffix("-")
        except ConfigInvalidError:  # paths begin with a bucket
            return f"{self._operator.scheme}://"

    # --- one object ----------------------------------------------------------------------------------------------

    def get(self, path: str, *, options: Any = None) -> "GetResult":
        """One object or a part of it. The first bytes are requested when they are used."""
        return GetResult(self._operator, path, dict(options or {}))

    async def get_async(self, path: str, *, options: Any = None) -> "GetResultAsync":
        """Like `get`, awaited."""
        result = GetResultAsync(self._operator, path, dict(options or {}))
        await result.begin()
        return result

    def get_range(
        self, path: str, *, start: int, end: int | None = None, length: int | None = None
    ) -> "Buffer":
        """The bytes from `start` to `end`, or `length` bytes. One request."""
        first, last = _span(path, start, end, length)
        with self._operator.open(path) as reader:
            return _not_empty(path, first, last, reader.read_at(first, last - first))

    async def get_range_async(
        self, path: str, *, start: int, end: int | None = None, length: int | None = None
    ) -> "Buffer":
        """Like `get_range`, awaited."""
        first, last = _span(path, start, end, length)
        async with self._operator.open_async(path) as reader:
            return _not_empty(path, first, last, await reader.read_at(first, last - first))

    def get_ranges(
        self,
        path: str,
        *,
        starts: Sequence[int],
        ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> "list[Buffer]":
        """Many ranges of one object, merged as by `Reader.read_ranges`."""
        spans = _spans(path, starts, ends, lengths)
        with self._operator.open(path) as reader:
            found = reader.read_ranges(spans)
        return [_not_empty(path, *span, buffer) for span, buffer in zip(spans, found, strict=True)]

    async def get_ranges_async(
        self,
        path: str,
        *,
        starts: Sequence[int],
        ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> "list[Buffer]":
        """Like `get_ranges`, awaited."""
        spans = _spans(path, starts, ends, lengths)
        async with self._operator.open_async(path) as reader:
            found = await reader.read_ranges(spans)
        return [_not_empty(path, *span, buffer) for span, buffer in zip(spans, found, strict=True)]

    def head(self, path: str) -> dict[str, Any]:
        """Facts of one object."""
        return _meta(path, self._operator.stat(path))

    async def head_async(self, path: str) -> dict[str, Any]:
        """Like `head`, awaited."""
        async with self._operator.open_async(path) as reader:
            return _meta(path, await reader.stat())

    # --- listings ------------------------------------------------------------------------------------------------

    def list(
        self, prefix: str | None = None, *, offset: str | None = None
    ) -> Iterator[Sequence[dict[str, Any]]]:
        """The objects below a prefix of path segments, after the path `offset`, up to 1,000 at a time."""
        page: list[dict[str, Any]] = []
        for stat in self._operator.list(_folder(prefix)):
            page += _if_after(stat, offset)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    async def list_async(
        self, prefix: str | None = None, *, offset: str | None = None
    ) -> AsyncIterator[Sequence[dict[str, Any]]]:
        """Like `list`, for ``async for``."""
        page: list[dict[str, Any]] = []
        async for stat in self._operator.list_async(_folder(prefix)):
            page += _if_after(stat, offset)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    def list_with_delimiter(self, prefix: str | None = None) -> dict[str, Any]:
        """One level: the objects and the common prefixes, without a slash at their end."""
        return _level(self._operator.list(_folder(prefix), "/"))

    async def list_with_delimiter_async(self, prefix: str | None = None) -> dict[str, Any]:
        """Like `list_with_delimiter`, awaited."""
        return _level([stat async for stat in self._operator.list_async(_folder(prefix), "/")])

    def __repr__(self) -> str:
        return f"<rangeio.obspec.Store {self._operator.scheme}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._operator)


def _restored(kind: type[Store], operator: Operator) -> Store:
    store = kind.__new__(kind)
    store._operator = operator
    return store


class _Result:
    """What `get` and `get_async` return: a range of one version of an object."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path = path
        self.wanted = _wanted(path, options.pop("range", None))
        self.is_head = bool(options.pop("head", False))
        self.opening = {name: _condition(options.pop(name)) for name in _CONDITIONS if name in options}
        version = options.pop("version", None)
        if version is not None:
            self.opening["version"] = version
        if options:
            raise UnsupportedError(f"unknown option of get: {', '.join(options)}", path=path)

    @property
    def attributes(self) -> dict[str, str]:
        """Always empty: rangeio does not keep them."""
        return {}

    @property
    def meta(self) -> dict[str, Any]:
        """Facts of the object."""
        raise NotImplementedError

    def checked(self, buffer: "Buffer") -> "Buffer":
        """The bytes of a range; RangeNotSatisfiedError if it begins past the end, as of `Store.get_range`."""
        self.check_length(len(buffer))
        return buffer

    def check_length(self, length: int) -> None:
        """Raise it if so many bytes came."""
        if length == 0 and isinstance(self.wanted, tuple):
            raise _past_the_end(self.path, *bounds(self.wanted, None))

    @property
    def range(self) -> tuple[int, int]:
        """(start, stop) in the object."""
        size = self.meta["size"]
        start, stop = bounds(self.wanted, size)
        return min(start, size), min(stop, size)


class GetResult(_Result):
    """One object or a part of it, as bytes (`buffer`) or piece by piece."""

    def __init__(self, operator: Operator, path: str, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._reader = operator.open(path, **self.opening)
        self._meta: dict[str, Any] | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """Facts of the object. One HEAD."""
        if self._meta is None:
            self._meta = _meta(self.path, self._reader.stat())
        return self._meta

    def buffer(self) -> "Buffer":
        """All of it. One request."""
        if self.is_head:
            return self._reader.read_at(0, 0)
        return self.checked(self._reader.read_range(self.wanted))

    def __iter__(self) -> "Iterator[Buffer]":
        """All of it, piece by piece."""
        if not self.is_head:
            length = 0
            for piece in self._reader.stream(self.wanted):
                length += len(piece)
                yield piece
            self.check_length(length)


class GetResultAsync(_Result):
    """Like `GetResult`, awaited."""

    def __init__(self, operator: Operator, path: str, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._reader = operator.open_async(path, **self.opening)
        self._meta: dict[str, Any] = {}

    async def begin(self) -> None:
        """Ask for the facts of the object, which `meta` and `range` tell without an await."""
        self._meta = _meta(self.path, await self._reader.stat())

    @property
    def meta(self) -> dict[str, Any]:
        """Facts of the object."""
        return self._meta

    async def buffer_async(self) -> "Buffer":
        """All of it. One request."""
        if self.is_head:
            return await self._reader.read_at(0, 0)
        return self.checked(await self._reader.read_range(self.wanted))

    async def __aiter__(self) -> "AsyncIterator[Buffer]":
        if not self.is_head:
            length = 0
            async for piece in self._reader.stream(self.wanted):
                length += len(piece)
                yield piece
            self.check_length(length)


def _wanted(path: str, given: Any) -> Range:
    if given is None:
        return None
    if isinstance(given, dict):
        return Suffix(given["suffix"]) if "suffix" in given else (given["offset"], None)
    start, end = given
    return _span(path, start, end, None)


def _condition(value: Any) -> Any:
    """A datetime as a header field has it."""
    from email.utils import format_datetime

    return (
        format_datetime(value.astimezone(timezone.utc), usegmt=True) if isinstance(value, datetime) else value
    )


def _span(path: str, start: int, end: int | None, length: int | None) -> tuple[int, int]:
    if (end is None) == (length is None):
        raise ValueError("pass either end or length")
    last = start + length if end is None else end  # type: ignore[operator]
    if start < 0:
        raise ValueError(f"start must not be negative, got {start}")
    if last <= start:
        raise RangeNotSatisfiedError(f"{path!r}: the range [{start}, {last}) is empty", path=path)
    return start, last


def _spans(
    path: str, starts: Sequence[int], ends: Sequence[int] | None, lengths: Sequence[int] | None
) -> list[tuple[int, int]]:
    if (ends is None) == (lengths is None):
        raise ValueError("pass either ends or lengths")
    others = ends if ends is not None else lengths or []
    if len(others) != len(starts):
        name = "lengths" if ends is None else "ends"
        raise ValueError(f"{len(starts)} starts and {len(others)} {name}: there must be one each")
    if ends is not None:
        return [_span(path, start, end, None) for start, end in zip(starts, ends, strict=True)]
    return [_span(path, start, None, length) for start, length in zip(starts, others, strict=True)]


def _not_empty(path: str, start: int, stop: int, buffer: "Buffer") -> "Buffer":
    if len(buffer) == 0:
        raise _past_the_end(path, start, stop)
    return buffer


def _past_the_end(path: str, start: int, stop: int) -> RangeNotSatisfiedError:
    limit = None if stop == OPEN else stop - start
    what = f"{path!r} from byte {start:,} on" if limit is None else asked(path, start, limit)
    return RangeNotSatisfiedError(f"{what}: it begins past the end", path=path, offset=start, limit=limit)


def _folder(prefix: str | None) -> str:
    """A prefix of whole segments: "a" is none of "ab/c"."""
    return "" if not prefix or prefix == "/" else prefix.rstrip("/") + "/"


def _if_after(stat: Stat, offset: str | None) -> list[dict[str, Any]]:
    return [_meta(stat.path, stat)] if offset is None or stat.path > offset else []


def _level(found: Any) -> dict[str, Any]:
    prefixes, objects = [], []
    for stat in found:
        if stat.is_prefix:
            prefixes.append(stat.path.rstrip("/"))
        else:
            objects.append(_meta(stat.path, stat))
    return {"common_prefixes": prefixes, "objects": objects}


def _meta(path: str, stat: Stat) -> dict[str, Any]:
    modified = datetime.fromtimestamp((stat.mtime_ns or 0) / 1e9, tz=timezone.utc)
    return {
        "path": path,
        "last_modified": modified,
        "size": stat.size,
        "e_tag": stat.etag,
        "version": stat.version,
    }
