"""`load`: what torch.save wrote, from any service."""

import io
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch

from rangeio.errors import UnsupportedError
from rangeio.operator import open as open_reader
from rangeio.ranges import Suffix
from rangeio.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Buffer as Writable

    from _uring import Buffer

_OF_TORCH = ("map_location", "pickle_module", "weights_only", "encoding", "errors", "fix_imports")
_TAIL = 65_536
_NEAR = 32 << 20
_BUFFERED = 256 << 10


def load(
    uri: str | os.PathLike[str], map_location: Any = None, *, weights_only: bool = True, **options: Any
) -> Any:
    """`torch.load` of an object of any service; its arguments are those of torch.load, others those of `rangeio.open`.

    Tensors are read into their own memory: besides them, at most 96 MiB are in use over a network. Cost there: a
    request for the last 64 KiB, then one for each 8 MiB, several in flight. ``mmap=`` is not supported: for a local
    path, torch.load has it.

    weights_only=False runs whatever code the object contains.
    """
    if options.pop("mmap", None):
        raise UnsupportedError("load() has no mmap=; pass a local path to torch.load")
    arguments = {name: options.pop(name) for name in _OF_TORCH if name in options}
    with open_reader(uri, **options) as reader:
        raw = _Direct(reader) if reader.capability.positioned else _Streamed(reader)
        with closing(io.BufferedReader(raw, _BUFFERED)) as file:
            return torch.load(file, map_location=map_location, weights_only=weights_only, **arguments)


class _Positioned(io.RawIOBase):
    """A file of known size with a cursor; `fill` reads."""

    size: int

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "Writable") -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self.size - self._position))
        count = self.fill(view[:wanted], self._position) if wanted else 0
        self._position += count
        return count

    def fill(self, view: memoryview, start: int) -> int:
        """Read bytes from `start` into `view`; not all of them need to come, but one."""
        raise NotImplementedError


class _Direct(_Positioned):
    """A local object: each read is a read, into the memory of the tensor."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader
        size = reader.size
        self.size = len(reader.read_range()) if size is None else size

    def fill(self, view: memoryview, start: int) -> int:
        return self._reader.read_into(view, start)


class _Streamed(_Positioned):
    """An object over a network: its end, where the table of contents is, then from the front, read ahead.

    torch reads an archive in the order in which it was written, but for the table. What is elsewhere is a request.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader
        self._tail = reader.read_range(Suffix(_TAIL))
        self.size = reader.size or len(self._tail)
        self._start_of_tail = self.size - len(self._tail)
        self._pieces: Generator[Buffer] | None = None
        self._piece, self._first = memoryview(b""), 0

    def fill(self, view: memoryview, start: int) -> int:
        if start >= self._start_of_tail:
            return _copied(memoryview(self._tail), start - self._start_of_tail, view)
        ahead = self._first + len(self._piece)
        if start < self._first or start > ahead + _NEAR:
            return self._reader.read_into(view[: self._start_of_tail - start], start)
        if self._pieces is None:
            self._pieces = self._reader.stream((0, self._start_of_tail))
        while start >= self._first + len(self._piece):
            self._first += len(self._piece)
            self._piece = memoryview(next(self._pieces))
        return _copied(self._piece, start - self._first, view)

    def close(self) -> None:
        self._piece = memoryview(b"")
        if self._pieces is not None:
            self._pieces.close()
        super().close()


def _copied(data: memoryview, start: int, view: memoryview) -> int:
    count = min(len(view), len(data) - start)
    view[:count] = data[start : start + count]
    return count
