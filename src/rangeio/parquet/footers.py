"""One Parquet file: its footer, where its column chunks are, and a file object that serves chunks from memory."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from rangeio.errors import Error
from rangeio.ranges import Suffix
from rangeio.reader import Reader

if TYPE_CHECKING:
    from _uring import Buffer

_TAIL = 64 << 10
"""Bytes of the first request; pyarrow reads the footer in pieces of the same size."""
_END = 8
"""Bytes after the footer: its length and the magic number."""


class ChunkFile:
    """What pyarrow reads as the file: bytes that were fetched before, without a copy.

    Anything else is read from the object when pyarrow asks for it; only files by very old writers need that (their
    chunks are longer than the footer says).
    """

    closed = False
    mode = "rb"

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader, self._size = reader, size
        self._at = 0
        self._starts: list[int] = []
        self._held: list[Any] = []

    def hold(self, parts: "Sequence[tuple[int, Buffer | bytes]]") -> None:
        """Serve these (start, bytes), sorted, instead of those before."""
        self._starts = [start for start, _ in parts]
        self._held = [pa.py_buffer(part) for _, part in parts]

    def read_buffer(self, count: int) -> Any:
        """The next `count` bytes as a pyarrow.Buffer."""
        start = self._at
        self._at += count
        index = bisect_right(self._starts, start) - 1
        if index >= 0:
            within = start - self._starts[index]
            if within + count <= self._held[index].size:
                return self._held[index].slice(within, count)
        return pa.py_buffer(self._reader.read_at(start, count))

    def read(self, count: int = -1) -> bytes:
        """The same as bytes; the rest of the file if `count` is negative."""
        found: bytes = self.read_buffer(self._size - self._at if count < 0 else count).to_pybytes()
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position; reads nothing."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def readable(self) -> bool:
        """Always."""
        return True

    seekable = readable

    def writable(self) -> bool:
        """Never."""
        return False

    def flush(self) -> None:
        """Nothing: this file is only read."""

    def close(self) -> None:
        """Release what is held; the Reader stays open."""
        self.hold([])


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Put the name of the file into errors of pyarrow, whose class stays."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, Error):
            raise  # names it already
        raise type(error)(f"{path!r}: {error}") from error


class ParquetObject:
    """One open Parquet file. It owns the Reader it is given."""

    def __init__(self, reader: Reader, partition: Any) -> None:
        """partition: a pyarrow expression of the values in its path, or None. Requests the footer."""
        self.reader, self.path = reader, reader.path
        tail, self._size = _read_tail(reader)
        file = ChunkFile(reader, self._size)
        file.hold([(self._size - len(tail), tail)])
        with naming(self.path):
            format = pyarrow.dataset.ParquetFileFormat()
            self._fragment = format.make_fragment(file, partition_expression=partition)
            self.metadata = self._fragment.metadata
            self.schema = self.decoder([]).schema_arrow
        file.hold([])
        schema = self.metadata.schema
        self._leaves = [schema.column(index).path for index in range(self.metadata.num_columns)]
        self._roots = _roots(self.schema, self._leaves)

    def decoder(self, held: "Sequence[tuple[int, Buffer | bytes]]") -> Any:
        """A pyarrow.parquet.ParquetFile that has these parts of the file, (start, bytes), sorted. Cheap."""
        file = ChunkFile(self.reader, self._size)
        file.hold(held)
        return pyarrow.parquet.ParquetFile(file, metadata=self.metadata, pre_buffer=False)

    def leaves(self, name: str) -> list[int]:
        """The leaf columns of a column, or of a field in it (``"column.field"``); empty if there is none. A dot may
        also be part of a column's name: nothing of a column "a.b" is in "a", and a field of that name is not "a.b".
        """
        if name in self._roots:
            return [leaf for leaf, root in enumerate(self._roots) if root == name]
        return [
            leaf
            for leaf, (root, path) in enumerate(zip(self._roots, self._leaves, strict=True))
            if name.startswith(root + ".") and _begins(path, name)
        ]

    def root(self, name: str) -> str:
        """The column that contains `name`."""
        return self._roots[self.leaves(name)[0]]

    def row_groups(self, condition: Any, schema: Any) -> list[int]:
        """The row groups that may contain rows for which `condition` (None: all) is true, by their statistics."""
        found: Sequence[int] = range(self.metadata.num_row_groups)
        if condition is not None:
            with naming(self.path):
                found = [group.id for group in self._fragment.subset(condition, schema=schema).row_groups]
        return [number for number in found if self.metadata.row_group(number).num_rows]

    def chunk(self, row_group: int, leaf: int) -> tuple[int, int]:
        """Where a column chunk is, as (start, stop)."""
        column = self.metadata.row_group(row_group).column(leaf)
        start, dictionary = column.data_page_offset, column.dictionary_page_offset
        if dictionary is not None and 0 < dictionary < start:
            start = dictionary
        return start, start + column.total_compressed_size

    def close(self) -> None:
        """Close the Reader."""
        self.reader.close()


def _read_tail(reader: Reader) -> "tuple[Buffer | bytes, int]":
    """The last bytes of the object, with all of its footer, and its size."""
    tail = reader.read_range(Suffix(_TAIL))
    size = reader.size
    if size is None:
        size = len(reader.read_range())
    end = bytes(memoryview(tail)[-_END:])
    missing = int.from_bytes(end[:4], "little") + _END - len(tail)
    if end[4:] != b"PAR1" or missing <= 0 or missing > size - len(tail):
        return tail, size  # complete, or not a Parquet file: pyarrow tells
    start = size - len(tail) - missing
    return b"".join([reader.read_exact(start, missing), tail]), size


def _roots(schema: Any, paths: list[str]) -> list[str]:
    """The column of each leaf. Their order tells it: names may contain dots, so a path alone does not."""
    found = [field.name for field in schema for _ in range(_leaves_of(field.type))]
    if len(found) == len(paths):
        return found
    names = {*schema.names}  # a type that is not known here
    return [max((name for name in names if _begins(path, name)), key=len, default=path) for path in paths]


def _leaves_of(type: Any) -> int:
    if isinstance(type, pa.BaseExtensionType):
        return _leaves_of(type.storage_type)
    return sum(_leaves_of(type.field(place).type) for place in range(type.num_fields)) or 1


def _begins(path: str, name: str) -> bool:
    return path == name or path.startswith(name + ".")
