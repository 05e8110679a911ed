"""The file object of our fsspec file systems, for pandas, pyarrow, duckdb and others."""

from collections.abc import Callable
from typing import Any

from rangeio.adapters.cached.file import CachedFile
from rangeio.fsspec.columns import Columns, Layouts
from rangeio.fsspec.read_only import refuse
from rangeio.reader import Reader


class ObjectFile(CachedFile):
    """One object as a file for reading. `read_buffer` returns memory without a copy. See `CachedFile`."""

    def __init__(
        self,
        reader: Reader,
        path: str,
        *,
        fs: Any = None,
        again: tuple[Callable[..., "ObjectFile"], tuple[Any, ...]] | None = None,
        block_size: int | None = None,
        layouts: Layouts | None = None,
        spread: bool = True,
        cache: int = 0,
    ) -> None:
        """block_size: maximum read-ahead, 0 for none. again: a function and its arguments, which recreate the file in
        another process. layouts: what is known of Parquet files; None if the file is not to learn. spread, cache: see
        `Blocks`.
        """
        super().__init__(reader, block_size, spread=spread, cache=cache)
        self.path, self.fs = path, fs
        self._again = again
        self._columns = (
            Columns(self._blocks, path, layouts) if layouts is not None and self._blocks.far else None
        )
        self.blocksize = block_size or self.blocksize

    def read_buffer(self, size: int | None = -1, /) -> Any:
        """Like `read`, without a copy: pyarrow calls it."""
        read = self._blocks.read if self._columns is None else self._columns.read
        return self._take(self._limit(size), read)

    @property
    def details(self) -> dict[str, Any]:
        """What the file system's `info` returns; without a file system the name, size and type."""
        if self.fs is not None:
            return dict(self.fs.info(self.path))
        return {"name": self.path, "size": self.size, "type": "file"}

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    def write(self, data: Any, /) -> int:
        """Not supported: rangeio only reads."""
        raise refuse("write")

    def close(self) -> None:
        """Close the file and its connections. Buffers that it has returned stay valid."""
        super().close()
        if self._columns is not None:
            self._columns.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._again is None:
            return _reopened, (ObjectFile, (self._reader, self.path), self.tell())
        return _reopened, (*self._again, self.tell())


def _reopened(make: Callable[..., ObjectFile], arguments: tuple[Any, ...], at: int) -> ObjectFile:
    file = make(*arguments)
    file.seek(at)
    return file
