"""Readers of objects of other libraries: fsspec, obstore and obspec, pyarrow, and plain Python objects.

None of these libraries is imported; the caller has one if it passes an object of it.
"""

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import _uring
from rangeio.async_reader import AsyncReader
from rangeio.options import Options, check_names
from rangeio.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from _uring import Reactor
    from rangeio.services.store_source import StoreSource
    from rangeio.stores.store import Store

# The others are for a transport of our own, and would have no effect: a store has its own settings.
_NAMES = ["gap", "max_merged", "chunk", "concurrent", "prefetch", "size", "pin", "timeout"]


def from_fsspec(
    fs: Any, path: "str | os.PathLike[str]", *, reactor: "Reactor | None" = None, **options: Any
) -> Reader:
    """A Reader of a file of an fsspec filesystem: ``from_fsspec(fsspec.filesystem("sftp", host="h"), "/data/x")``.

    Each request is one `cat_file`; nothing is opened. `info` is asked now (NotFoundError), and again after a large read
    or several ranges, and for small ones at most once a second: ObjectChangedError if the file has changed. Its cached
    listing is dropped. options: gap, max_merged, chunk, concurrent, prefetch, size, pin, timeout (see `Options`); of
    timeout only `total_s` has an effect. Retries are those of the filesystem. Errors have its exception as their cause.
    Pickles if `fs` does. `fs` is not closed.
    """
    again = partial(from_fsspec, fs, path, **options)
    return _reader(_of_fsspec(fs, path), _chosen(options), reactor, again, ask=True)


def from_fsspec_async(
    fs: Any, path: "str | os.PathLike[str]", *, reactor: "Reactor | None" = None, **options: Any
) -> AsyncReader:
    """Like `from_fsspec`, for await. The first read asks `info`.

    Under asyncio an async filesystem reads with its coroutine, on its own loop, or, made with ``asynchronous=True``, on
    the running one. Under trio, and for other filesystems, threads read.
    """
    again = partial(from_fsspec_async, fs, path, **options)
    return _async_reader(_of_fsspec(fs, path), _chosen(options), reactor, again)


def _of_fsspec(fs: Any, path: "str | os.PathLike[str]") -> "Store":
    from rangeio.stores.fsspec_file import FsspecFile

    return FsspecFile(fs, os.fspath(path))


def from_obstore(store: Any, path: str, *, reactor: "Reactor | None" = None, **options: Any) -> Reader:
    """A Reader of an object of a store of obstore, or of any object with `get`, or `get_range` and `head`, of obspec.

    Each request is one `get`, the first of them included: it tells size and version, and the others are made under its
    ETag (ObjectChangedError). options: as of `from_fsspec`, and version. Pickles if `store` does.
    """
    chosen = _chosen(options, "version")
    again = partial(from_obstore, store, path, **options)
    return _reader(_of_obstore(store, path, chosen), chosen, reactor, again)


def from_obstore_async(
    store: Any, path: str, *, reactor: "Reactor | None" = None, **options: Any
) -> AsyncReader:
    """Like `from_obstore`, for await. Under asyncio with `get_async` on the running loop, under trio with threads."""
    chosen = _chosen(options, "version")
    again = partial(from_obstore_async, store, path, **options)
    return _async_reader(_of_obstore(store, path, chosen), chosen, reactor, again)


def _of_obstore(store: Any, path: str, options: Options) -> "Store":
    from rangeio.stores.obstore_object import ObstoreObject

    return ObstoreObject(store, path, options.version)


def from_pyarrow(
    source: Any,
    path: "str | os.PathLike[str] | None" = None,
    *,
    reactor: "Reactor | None" = None,
    **options: Any,
) -> Reader:
    """A Reader of an open file of pyarrow, or of a path of a filesystem of pyarrow: ``from_pyarrow(fs, "bucket/key")``.

    Each request is one `read_at`, so the cursor of the file stays. The caller's file is not closed, and must stay
    open. A filesystem is asked what the path is as `from_fsspec` asks. options: as of `from_fsspec`. Pickles if
    `source` does: filesystems do, files do not.
    """
    again = partial(from_pyarrow, source, path, **options)
    return _reader(_of_pyarrow(source, path), _chosen(options), reactor, again, ask=path is not None)


def from_pyarrow_async(
    source: Any,
    path: "str | os.PathLike[str] | None" = None,
    *,
    reactor: "Reactor | None" = None,
    **options: Any,
) -> AsyncReader:
    """Like `from_pyarrow`, for await. Threads read."""
    again = partial(from_pyarrow_async, source, path, **options)
    return _async_reader(_of_pyarrow(source, path), _chosen(options), reactor, again)


def _of_pyarrow(source: Any, path: "str | os.PathLike[str] | None") -> "Store":
    from rangeio.stores.pyarrow_file import PyarrowFile, PyarrowPath

    return PyarrowFile(source) if path is None else PyarrowPath(source, os.fspath(path))


def from_object(
    obj: Any, size: int | None = None, *, reactor: "Reactor | None" = None, **options: Any
) -> Reader:
    """A Reader of a Python object with ``pread(n, offset)``, in the order of pread(2), or with `seek` and `read`.

    `pread` is called by several threads at once. `seek` and `read` are called under a lock, one pair at a time, and
    move the cursor of the object. size: of the object; None: `seek` to the end tells, and if there is no `seek`, the
    object ends where `pread` returns nothing. options: as of `from_fsspec`. TypeError for other objects. Pickles if
    `obj` does. `obj` is not closed.
    """
    again = partial(from_object, obj, size, **options)
    return _reader(_of_object(obj, size), _chosen({**options, "size": size}), reactor, again)


def from_object_async(
    obj: Any, size: int | None = None, *, reactor: "Reactor | None" = None, **options: Any
) -> AsyncReader:
    """Like `from_object`, for await. Threads read."""
    again = partial(from_object_async, obj, size, **options)
    return _async_reader(_of_object(obj, size), _chosen({**options, "size": size}), reactor, again)


def _of_object(obj: Any, size: int | None) -> "Store":
    from rangeio.stores.python_object import PythonObject

    return PythonObject(obj, size)


def _chosen(options: dict[str, Any], *more: str) -> Options:
    """The options of a store. ConfigInvalidError for one that would have no effect."""
    from rangeio.services.store_source import DEFAULTS

    check_names(options, [*_NAMES, *more], "option of a store")
    return DEFAULTS.updated(options)


def _source(store: "Store", options: Options, reactor: "Reactor | None") -> "StoreSource":
    from rangeio.services.store_source import StoreSource

    return StoreSource(_uring.default_reactor() if reactor is None else reactor, store, options)


def _reader(
    store: "Store",
    options: Options,
    reactor: "Reactor | None",
    again: "Callable[[], Reader]",
    *,
    ask: bool = False,
) -> Reader:
    """ask: whether the object must exist now."""
    source = _source(store, options, reactor)
    if ask:
        source.open_now()
    return Reader(source, options, again)


def _async_reader(
    store: "Store", options: Options, reactor: "Reactor | None", again: "Callable[[], AsyncReader]"
) -> AsyncReader:
    return AsyncReader(partial(_source, store, options, reactor), options, store.path, again)
