"""The base of our fsspec file systems: the sync methods, on the caller's thread."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import chain
from typing import Any, ClassVar, TypeVar

from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.local import make_path_posix, trailing_sep
from fsspec.utils import other_paths

from rangeio.adapters.cached.blocks import CACHE, spread_over
from rangeio.errors import ConfigInvalidError, Error, IsDirectoryError, PermissionDeniedError
from rangeio.fsspec.columns import Layouts
from rangeio.fsspec.entries import Entry
from rangeio.fsspec.file import ObjectFile
from rangeio.fsspec.read_only import ReadOnly, refuse
from rangeio.fsspec.translation import SECRETS, translated
from rangeio.fsspec.wanted import by_path, is_plain, spread, wanted
from rangeio.operator import Operator
from rangeio.reader import Reader

_T = TypeVar("_T")
_R = TypeVar("_R")

RANGES_AT_ONCE = 64
"""How many ranges `cat_ranges` reads at once: as many as there are connections to one server."""
FILES_AT_ONCE = 32
"""How many files are read at once."""
Triple = tuple[str, int | None, int | None]


class ReadingFileSystem(ReadOnly, AsyncFileSystem):
    """Reads objects with rangeio. The sync methods run on the caller's thread, in a running event loop too, and in a
    forked child; the coroutines run on the loop that awaits them, whichever that is. Creating one starts no thread.

    A subclass says how paths are written and listed: `protocol`, `scheme`, `info`, `ls`, and the coroutines of those.
    """

    protocol: ClassVar[str | tuple[str, ...]]
    scheme: ClassVar[str]
    """The scheme of the Operator."""
    async_impl = True
    mirror_sync_methods = False
    disable_throttling = True
    cachable = True

    def __init__(
        self,
        *,
        asynchronous: bool = False,
        loop: Any = None,
        batch_size: int | None = None,
        use_listings_cache: bool = False,
        listings_expiry_time: float | None = None,
        max_paths: int | None = None,
        **storage_options: Any,
    ) -> None:
        """storage_options: those of rangeio, and the names that s3fs and HTTPFileSystem have for them."""
        super().__init__(
            asynchronous=True,  # else it would start the thread fsspecIO
            batch_size=batch_size,
            use_listings_cache=use_listings_cache,
            listings_expiry_time=listings_expiry_time,
            max_paths=max_paths,
        )
        self.asynchronous = asynchronous
        self.operator = Operator(self.scheme, **translated(self.scheme, storage_options))
        self._layouts = Layouts()
        self._may_spread = "chunk" not in storage_options and self.scheme != "fs"
        # Callers of cat_ranges expect many small ranges at once: 16 of them took three times as long as HTTPFileSystem.
        limited = "concurrent" in storage_options or self.scheme == "fs"
        self._many = self.operator if limited else self.operator.with_options(concurrent=RANGES_AT_ONCE)

    @property
    def loop(self) -> Any:
        """None: the coroutines belong to no loop."""
        return None

    async def set_session(self, refresh: bool = False) -> Any:
        """There is none: connections belong to the Operator."""
        return self.operator

    def path_of(self, uri: str) -> str:
        """The path in this file system that a URI of it means; a path stays."""
        return str(self._strip_protocol(uri))

    # --- facts ---------------------------------------------------------------------------------------------------

    def info_if_there(self, path: str) -> Entry | None:
        """Its `info`; None if there is nothing."""
        try:
            return self.info(path)  # type: ignore[no-any-return]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is a file or a directory. Errors other than that it is missing are raised."""
        return is_there(lambda: self.info(path, **kwargs))

    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        return is_there(lambda: self.info(path), "file")

    def isdir(self, path: str) -> bool:
        """Whether it is a directory."""
        return is_there(lambda: self.info(path), "directory")

    def modified(self, path: str) -> Any:
        """When it was last modified, with a time zone. 1970 if the service does not tell: duckdb needs one."""
        return self.info(path).get("LastModified") or datetime.fromtimestamp(0, tz=timezone.utc)

    def created(self, path: str) -> Any:
        """When it was created. An object is created when it is written, so this is `modified`."""
        return self.modified(path)

    def du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The bytes of all files below a path, or a dict of them. Costs what `find` costs."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        return sizes_of(found, total)

    def ukey(self, path: str) -> str:
        """What differs when the file has changed: its ETag, or its size and time."""
        info = self.info(path)
        return str(info.get("version_id") or info.get("etag") or f"{info['size']}-{info.get('mtime')}")

    def checksum(self, path: str) -> int:
        """A number that differs when the file has changed."""
        return hash_of(self.ukey(path))

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """A URL with which anybody can read the object for so many seconds; see `Operator.presign`."""
        return self.operator.presign(self._strip_protocol(path), expiration)

    def listed_before(self, path: str, refresh: bool) -> list[Entry] | None:
        """The listing in the cache, if `use_listings_cache` is on. That something is missing is never remembered."""
        if refresh:
            self.dircache.pop(path, None)
        try:
            return self.dircache[path]  # type: ignore[no-any-return]
        except KeyError:
            return None

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget all listings, or that of a path and of its parents."""
        if path is None:
            self.dircache.clear()
        else:
            path = self._strip_protocol(path)
            while path:
                self.dircache.pop(path, None)
                path = self._parent(path) if self._parent(path) != path else ""
        super().invalidate_cache(path)

    # --- contents ------------------------------------------------------------------------------------------------

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes from `start` to `end`, as a slice of `bytes` has them. One request."""
        within, cut = wanted(start, end)
        with self.operator.open(self._strip_protocol(path), **reading_options(kwargs)) as reader:
            options: Any = self.spread_options(start, end)
            found = reader.read_ranges([within], **options)[0] if options else reader.read_range(within)
            return cut(found, lambda: reader.size or 0)

    def spread_options(self, start: int | None, end: int | None) -> dict[str, int]:
        """How a range is cut, if it is known to be large."""
        known = self._may_spread and end is not None and is_plain(start, end)
        return spread_over((end or 0) - (start or 0)) if known else {}

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """One `bytes` for each path, start and end, in this order; with on_error="return" an error in its place.

        starts, ends: lists, or one for all. Ranges of one file that are at most `max_gap` bytes apart are one request;
        many files are read at once.
        """
        jobs = spread([self._strip_protocol(path) for path in paths], starts, ends)
        return judged(self._cat_many(jobs, self.operator_of_many(max_gap, kwargs)), on_error)

    def operator_of_many(self, max_gap: int | None, kwargs: dict[str, Any]) -> Operator:
        """What `cat_ranges` reads with."""
        return with_options(
            self._many, {**({} if max_gap is None else {"gap": max_gap}), **reading_options(kwargs)}
        )

    def _cat_many(self, jobs: list[Triple], operator: Operator) -> list[Any]:
        groups = by_path(jobs)
        if len(groups) == len(jobs) > 1 and all(is_plain(start, end) for _, start, end in jobs):
            pairs = [(path, wanted(start, end)[0]) for path, start, end in jobs]
            results = operator.read_ranges(pairs, on_error="return")
            return [result if isinstance(result, Error) else bytes(result) for result in results]
        found: list[Any] = [None] * len(jobs)
        parts = at_once(lambda item: self._cat_one(*item, jobs, operator), [*groups.items()])
        for indices, results in zip(groups.values(), parts, strict=True):
            for index, result in zip(indices, results, strict=True):
                found[index] = result
        return found

    def _cat_one(self, path: str, indices: list[int], jobs: list[Triple], operator: Operator) -> list[Any]:
        try:
            with operator.open(path) as reader:
                asked = [wanted(*jobs[index][1:]) for index in indices]
                if len(asked) == 1:
                    results: Any = [reader.read_range(asked[0][0])]
                else:
                    results = reader.read_ranges([one for one, _ in asked], on_error="return")
                return cut_all(asked, results, lambda: reader.size or 0)
        except Error as error:
            return [error for _ in indices]

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The content of a file, or a dict of path to content for a list, a pattern or a directory. Many files at once.

        on_error: "raise", "omit" or "return". kwargs: `start` and `end` of `cat_file`, and options of reading.
        """
        paths = self.expand_path(path, recursive=recursive)
        if self.is_one(path, paths, recursive):
            return self.cat_file(paths[0], **kwargs)
        if recursive:
            paths = self._files_among(paths)
        start, end = kwargs.pop("start", None), kwargs.pop("end", None)
        operator = with_options(self.operator, reading_options(kwargs))
        found = self._cat_many([(one, start, end) for one in paths], operator)
        return by_name(paths, found, on_error)

    def is_one(self, path: Any, paths: list[str], recursive: bool) -> bool:
        """Whether `cat` of a path, which means these paths, returns the bytes of one file and not a dict."""
        named = not isinstance(path, list) and not recursive
        return named and len(paths) == 1 and paths[0] == self._strip_protocol(path)

    def _files_among(self, paths: list[str]) -> list[str]:
        """Those that are no directory. A listing each on some services, many at once."""
        folders = at_once(self.isdir, paths)
        return [path for path, is_folder in zip(paths, folders, strict=True) if not is_folder]

    def get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Copy one file here, read ahead while it is written. A directory is made. No file is left if that fails."""
        path = self._strip_protocol(rpath)
        try:
            with self.operator.open(path, **reading_options(kwargs)) as reader:
                _save(reader, lpath if hasattr(lpath, "write") else outfile, lpath, callback)
        except (FileNotFoundError, IsDirectoryError):
            if not self.isdir(path):
                raise
            os.makedirs(lpath, exist_ok=True)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Copy files here, many at once. See fsspec's documentation for where they are put."""
        if isinstance(lpath, list) and isinstance(rpath, list):
            paths = list(map(self._strip_protocol, rpath))
        else:
            paths = self.expand_path(rpath, recursive=recursive, maxdepth=maxdepth)
            if isinstance(rpath, (str, os.PathLike)) and (not recursive or maxdepth is not None):
                paths = self._files_among([path for path in paths if not trailing_sep(path)])
        pairs = self.placed(paths, rpath, lpath)
        callback.set_size(len(pairs))

        def one(pair: tuple[str, str]) -> None:
            with callback.branched(*pair) as child:
                self.get_file(*pair, callback=child, **kwargs)
            callback.relative_update(1)

        at_once(one, pairs)

    def placed(self, paths: list[str], rpath: Any, lpath: Any) -> list[tuple[str, str]]:
        """Where each path is copied to by `get` of `rpath` to `lpath`. Makes the folders. PermissionDeniedError for a
        path whose ``..`` would lead out of `lpath`: names of a listing are not to be trusted.
        """
        if isinstance(lpath, list) and isinstance(rpath, list):
            pairs = list(zip(paths, map(os.fspath, lpath), strict=True))
        elif not paths:
            pairs = []
        else:
            one = isinstance(rpath, (str, os.PathLike))
            given = os.fspath(rpath) if one else ""
            into = make_path_posix(os.fspath(lpath))
            if trailing_sep(os.fspath(lpath)) and not trailing_sep(into):
                into += "/"
            pattern = self.has_pattern(given)
            into_folder = trailing_sep(into) or os.path.isdir(into)
            inside = one and (
                (pattern and len(paths) == 1) or (not pattern and into_folder and not trailing_sep(given))
            )
            targets = other_paths(paths, into, exists=inside, flatten=not one)
            pairs = list(zip(paths, targets, strict=True))
            top = os.path.abspath(into)
            for path, target in pairs:
                if os.path.commonpath([top, os.path.abspath(target)]) != top:
                    raise PermissionDeniedError(f"{path!r} would be copied out of {into!r}", path=path)
        for _, target in pairs:
            os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        return pairs

    @classmethod
    def has_pattern(cls, path: str) -> bool:
        """Whether a path has wildcards."""
        return any(mark in path for mark in "*?[")

    # --- files ---------------------------------------------------------------------------------------------------

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """A file object for reading, `ObjectFile`, text or decompressed as asked. Sends no request."""
        if set(mode) & set("wax+"):
            raise refuse(f"mode {mode!r}")
        return super().open(path, mode, *args, **kwargs)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        cache_type: str | None = None,
        columns: bool = True,
        **kwargs: Any,
    ) -> ObjectFile:
        options = reading_options(kwargs)
        most = 0 if cache_type == "none" else block_size if isinstance(block_size, int) else None
        again = {"block_size": block_size, "cache_type": cache_type, "columns": columns, **options}
        return ObjectFile(
            self.operator.open(path, **options),
            path,
            fs=self,
            again=(_opened, (self, path, again)),
            block_size=most,
            layouts=self._layouts if columns and cache_type != "blockcache" else None,
            spread="chunk" not in options and self._may_spread,
            cache=CACHE if cache_type == "blockcache" else 0,
        )

    async def open_async(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """A file whose `read` and `close` are awaited; see `AsyncReader.as_async_file`."""
        if "r" not in mode or "b" not in mode or "+" in mode:
            raise refuse(f"mode {mode!r}") if set(mode) & set("wax+") else ValueError("mode must be 'rb'")
        size = kwargs.pop("block_size", None)
        reader = self.operator.open_async(self._strip_protocol(path), **reading_options(kwargs))
        return reader.as_async_file(buffer_size=size)

    # --- what it looks like --------------------------------------------------------------------------------------

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """Its class and options as JSON has them; without `include_password` none that may hold a secret."""
        kind, options = type(self), self.storage_options
        return {
            "cls": f"{kind.__module__}:{kind.__name__}",
            "protocol": self.protocol[0],
            "args": [*self.storage_args],
            **{name: options[name] for name in options if include_password or name not in SECRETS},
        }

    def to_json(self, *, include_password: bool = True) -> str:
        """`to_dict` as text, which ``from_json`` accepts."""
        return json.dumps(self.to_dict(include_password=include_password))

    def __repr__(self) -> str:
        return f"<rangeio.fsspec.{type(self).__name__} {self.scheme}>"

    __str__ = __repr__


def _opened(fs: ReadingFileSystem, path: str, options: dict[str, Any]) -> ObjectFile:
    return fs._open(path, **options)


def reading_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options of one object among what callers of fsspec pass along."""
    options = {name: value for name, value in kwargs.items() if name not in _OF_CALLERS}
    version = options.pop("version_id", None)  # as s3fs and gcsfs call it
    return options if version is None else {**options, "version": version}


def with_options(operator: Operator, options: dict[str, Any]) -> Operator:
    """The operator with other defaults for its objects, if there are any."""
    return operator.with_options(**options) if options else operator


_OF_CALLERS = frozenset(["autocommit", "cache_options", "batch_size", "fill_cache", "compression", "expand"])


def cut_all(asked: Any, results: Iterable[Any], size: Callable[[], int]) -> list[Any]:
    """The bytes of each range; an Error stays."""
    return [
        result if isinstance(result, Error) else cut(result, size)
        for (_, cut), result in zip(asked, results, strict=True)
    ]


def judged(found: list[Any], on_error: str) -> list[Any]:
    """`found`; with on_error="raise" the first error in it is raised."""
    if on_error not in ("raise", "return", "omit"):
        raise ConfigInvalidError(f"on_error must be 'raise', 'return' or 'omit', not {on_error!r}")
    if on_error == "raise":
        for result in found:
            if isinstance(result, Exception):
                raise result
    return found


def by_name(paths: list[str], found: list[Any], on_error: str) -> dict[str, Any]:
    """What `cat` returns of several files; on_error as of `judged`, and "omit" leaves errors away."""
    pairs = zip(paths, judged(found, on_error), strict=True)
    return {path: one for path, one in pairs if not (on_error == "omit" and isinstance(one, Exception))}


def sizes_of(found: dict[str, Entry], total: bool) -> Any:
    """What `du` returns of what `find` returned."""
    sizes = {name: entry["size"] for name, entry in found.items()}
    return sum(sizes.values()) if total else sizes


def is_there(look: Callable[[], Entry], kind: str | None = None) -> bool:
    """Whether `look` finds something, of that type."""
    try:
        return look()["type"] == kind or kind is None
    except (FileNotFoundError, NotADirectoryError):
        return False


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    from hashlib import sha256

    return int(sha256(text.encode()).hexdigest()[:16], 16)


def at_once(work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """`work` of each item, many at once, in the given order. Raises the first error in that order."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(FILES_AT_ONCE, len(items)), "rangeio-files") as pool:
        return list(pool.map(work, items))


def _save(reader: Reader, outfile: Any, lpath: Any, callback: Any) -> None:
    """Write an object to a file, which is made when its first bytes have come."""
    stream = reader.stream()
    first = next(stream, b"")
    callback.set_size(reader.size if len(first) else 0)
    if outfile is not None:
        for piece in chain([first], stream):
            outfile.write(piece)
            callback.relative_update(len(piece))
        return
    with open(lpath, "wb") as file:
        try:
            for piece in chain([first], stream):
                file.write(piece)
                callback.relative_update(len(piece))
        except BaseException:
            os.unlink(lpath)
            raise
