"""A file of pyarrow, or one of a filesystem of pyarrow. `read_at` leaves its cursor where it is."""

from typing import Any

from rangeio.errors import IsDirectoryError, NotFoundError
from rangeio.locks import begin_lock
from rangeio.stores.failures import shown
from rangeio.stores.store import Info, Store


class PyarrowFile(Store):
    """An open file of the caller, who closes it."""

    backend = "pyarrow"

    def __init__(self, file: Any) -> None:
        if not callable(getattr(file, "read_at", None)) or not callable(getattr(file, "size", None)):
            raise TypeError(
                f"from_pyarrow needs a file of pyarrow that can seek, or a filesystem and a path; not"
                f" {type(file).__name__}"
            )
        self._file = file
        self.path = f"<pyarrow {type(file).__name__}>"

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        return self._file.read_at(n, offset)

    def info(self) -> Info:
        return Info(int(self._file.size()))


class PyarrowPath(Store):
    """A path of a filesystem; opened at its first read, closed with the last reference to it."""

    backend = "pyarrow"
    _lock: Any

    def __init__(self, fs: Any, path: str) -> None:
        for name in ("get_file_info", "open_input_file"):
            if not callable(getattr(fs, name, None)):
                raise TypeError(
                    f"from_pyarrow needs a filesystem of pyarrow; {type(fs).__name__} has no {name}"
                )
        self._fs = fs
        self._path = path
        self._file: Any = None
        self.path = shown(path)
        begin_lock(self)

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        with self._lock:
            if self._file is None:
                self._file = self._fs.open_input_file(self._path)
            file = self._file
        return file.read_at(n, offset)

    def info(self) -> Info:
        found = self._fs.get_file_info(self._path)
        kind = str(getattr(found.type, "name", found.type))
        if kind == "NotFound":
            raise NotFoundError(f"{self.path!r}: it does not exist", path=self.path)
        if kind == "Directory":
            raise IsDirectoryError(f"{self.path!r}: it is a directory", path=self.path)
        size, mtime_ns = found.size, found.mtime_ns
        pin = () if mtime_ns is None else (mtime_ns,)
        return Info(None if size is None else int(size), pin, "mtime" if pin else "", mtime_ns=mtime_ns)
