"""fsspec file systems that read with rangeio: ``fsspec.open("rangeio+s3://bucket/key")``. Needs the extra ``fsspec``.

`register` lets them serve s3://, http:// and https:// too.
"""

try:
    import fsspec as _fsspec  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "fsspec":
        raise
    raise ImportError("rangeio.fsspec needs fsspec: pip install 'rangeio[fsspec]'") from None

from rangeio.fsspec.file import ObjectFile
from rangeio.fsspec.read_only import ReadOnlyError
from rangeio.fsspec.registration import register, unregister
from rangeio.fsspec.services import HttpFileSystem, PosixFileSystem, S3FileSystem
from rangeio.fsspec.stores import (
    AzureFileSystem,
    GcsFileSystem,
    HfFileSystem,
    MemoryFileSystem,
    WebHdfsFileSystem,
)

__all__ = [
    "register",
    "unregister",
    "S3FileSystem",
    "HttpFileSystem",
    "PosixFileSystem",
    "GcsFileSystem",
    "AzureFileSystem",
    "WebHdfsFileSystem",
    "MemoryFileSystem",
    "HfFileSystem",
    "ObjectFile",
    "ReadOnlyError",
]
