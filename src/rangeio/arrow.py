"""pyarrow reads with rangeio: `filesystem` and `open_input_file`. Needs the extra ``arrow``.

dataset = pyarrow.dataset.dataset("bucket/folder", filesystem=rangeio.arrow.filesystem("s3"))
"""

import os
import re
from typing import Any, NoReturn

try:
    import fsspec as _fsspec  # noqa: F401
    import pyarrow
    from pyarrow import fs as arrow_fs
except ModuleNotFoundError as _error:
    if _error.name not in ("fsspec", "pyarrow"):
        raise
    raise ImportError(f"rangeio.arrow needs {_error.name}: pip install 'rangeio[arrow]'") from None

from rangeio.errors import ConfigInvalidError, closest
from rangeio.fsspec.columns import Layouts
from rangeio.fsspec.file import ObjectFile
from rangeio.fsspec.filesystem import ReadingFileSystem
from rangeio.fsspec.read_only import refuse
from rangeio.fsspec.services import HttpFileSystem, PosixFileSystem, S3FileSystem
from rangeio.fsspec.stores import (
    AzureFileSystem,
    GcsFileSystem,
    HfFileSystem,
    MemoryFileSystem,
    WebHdfsFileSystem,
)
from rangeio.operator import open as open_reader
from rangeio.reader import Reader

_KINDS: dict[str, type[ReadingFileSystem]] = {
    "s3": S3FileSystem,
    "s3a": S3FileSystem,
    "http": HttpFileSystem,
    "https": HttpFileSystem,
    "file": PosixFileSystem,
    "fs": PosixFileSystem,
    **dict.fromkeys(("gs", "gcs"), GcsFileSystem),
    **dict.fromkeys(("az", "abfs", "abfss"), AzureFileSystem),
    "webhdfs": WebHdfsFileSystem,
    "hf": HfFileSystem,
    "memory": MemoryFileSystem,
}
_TYPES = {"file": arrow_fs.FileType.File, "directory": arrow_fs.FileType.Directory}


def filesystem(protocol_or_uri: str, **options: Any) -> Any:
    """A pyarrow.fs.PyFileSystem that reads with rangeio. Pickles with its options.

    protocol_or_uri: s3, http, https, file, gs, az, webhdfs, hf or memory; or a URI, of which only the scheme counts:
    paths are given whole, as ``bucket/key``, as a URL or as a path, or as a URI of the same scheme. options: as of
    `rangeio.fsspec`.
    """
    protocol = re.split("://", protocol_or_uri, maxsplit=1)[0].removeprefix("rangeio+")
    if protocol not in _KINDS:
        raise ConfigInvalidError(f"no file system for {protocol!r}; {closest(protocol, [*_KINDS])}")
    return arrow_fs.PyFileSystem(Handler(_KINDS[protocol](**options)))


def open_input_file(source: str | os.PathLike[str] | Reader, **options: Any) -> Any:
    """A pyarrow.PythonFile over an object: a URI, a path, or a Reader, which closing the file closes.

    options: those of `rangeio.open`.
    """
    reader = source if isinstance(source, Reader) else open_reader(source, **options)
    return pyarrow.PythonFile(ObjectFile(reader, reader.path, layouts=Layouts()), mode="r")


class Handler(arrow_fs.FileSystemHandler):
    """What a PyFileSystem calls. Opening a file sends no request before its first read."""

    def __init__(self, fs: ReadingFileSystem) -> None:
        self.fs = fs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handler) and bool(self.fs == other.fs)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.fs)

    def get_type_name(self) -> str:
        """The name that pyarrow shows."""
        return f"rangeio+{self.fs.scheme}"

    def normalize_path(self, path: str) -> str:
        """The path without a scheme."""
        return self.fs.path_of(path)

    def get_file_info(self, paths: list[str]) -> list[Any]:
        """Facts of files and directories; NotFound for what is missing."""
        return [self._told(path) for path in paths]

    def _told(self, path: str) -> Any:
        try:
            return _file_info(path, self.fs.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return arrow_fs.FileInfo(path, arrow_fs.FileType.NotFound)

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        """Facts of what is in a directory; one listing of a store."""
        base = selector.base_dir
        depth = None if selector.recursive else 1
        found = self.fs.find(base, maxdepth=depth, withdirs=True, detail=True)
        own = self.normalize_path(base)
        inside = [_file_info(name, info) for name, info in found.items() if name != own]
        if inside or self.fs.isdir(base):
            return inside
        if self.fs.exists(base):
            raise NotADirectoryError(f"{base!r} is not a directory")
        if selector.allow_not_found:
            return []
        raise FileNotFoundError(f"{base!r}: there is no such directory")

    def open_input_file(self, path: str) -> Any:
        """A file with random access."""
        return pyarrow.PythonFile(self.fs.open(path), mode="r")

    def open_input_stream(self, path: str) -> Any:
        """A file to be read in order."""
        return pyarrow.PythonFile(self.fs.open(path), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("open_output_stream")

    def open_append_stream(self, path: str, metadata: Any) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("open_append_stream")

    def create_dir(self, path: str, recursive: bool) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("create_dir")

    def delete_dir(self, path: str) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("delete_dir")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("delete_dir_contents")

    def delete_root_dir_contents(self) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("delete_root_dir_contents")

    def delete_file(self, path: str) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("delete_file")

    def move(self, src: str, dest: str) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("move")

    def copy_file(self, src: str, dest: str) -> NoReturn:
        """Not supported: rangeio only reads."""
        raise refuse("copy_file")


def _file_info(path: str, info: dict[str, Any]) -> Any:
    kind = _TYPES.get(info["type"], arrow_fs.FileType.Unknown)
    size = info["size"] if info["type"] == "file" else None
    return arrow_fs.FileInfo(path, kind, size=size, mtime=info.get("mtime"))
