"""`register` and `unregister`: rangeio in place of the file systems that fsspec has for well-known protocols."""

import threading
from typing import Any

from fsspec import register_implementation
from fsspec.registry import _registry as registered  # the public view of it is read-only

from rangeio.errors import closest
from rangeio.fsspec.services import HttpFileSystem, PosixFileSystem, S3FileSystem
from rangeio.fsspec.stores import AzureFileSystem, GcsFileSystem, HfFileSystem, WebHdfsFileSystem

_OURS: dict[str, Any] = {
    "s3": S3FileSystem,
    "s3a": S3FileSystem,
    "http": HttpFileSystem,
    "https": HttpFileSystem,
    "file": PosixFileSystem,
    "local": PosixFileSystem,
    **dict.fromkeys(("gs", "gcs"), GcsFileSystem),
    **dict.fromkeys(("az", "abfs", "abfss"), AzureFileSystem),
    "webhdfs": WebHdfsFileSystem,
    "hf": HfFileSystem,
}
_DEFAULT = ("s3", "s3a", "http", "https")
_changing = threading.Lock()
_before: dict[str, Any] = {}


def register(*protocols: str) -> None:
    """Let rangeio serve these protocols of fsspec, by default s3, s3a, http and https; others (gs, gcs, az,
    abfs, abfss, webhdfs, hf, file, local) only if named.

    Whatever served them before is replaced, until `unregister`. File systems that exist already stay as they are.
    ValueError for a protocol that rangeio does not have.
    """
    for protocol in _checked(protocols):
        with _changing:
            if registered.get(protocol) is not _OURS[protocol]:
                _before[protocol] = registered.get(protocol)
                register_implementation(protocol, _OURS[protocol], clobber=True)


def unregister(*protocols: str) -> None:
    """Give protocols back to what served them before `register`, by default all that rangeio serves."""
    for protocol in _checked(protocols) if protocols else list(_before):
        with _changing:
            if protocol not in _before:
                continue
            before = _before.pop(protocol)
            if before is None:
                registered.pop(protocol, None)  # fsspec imports its own at the next use
            else:
                register_implementation(protocol, before, clobber=True)


def _checked(protocols: tuple[str, ...]) -> tuple[str, ...]:
    for protocol in protocols:
        if protocol not in _OURS:
            raise ValueError(f"rangeio has no file system for {protocol!r}; {closest(protocol, [*_OURS])}")
    return protocols or _DEFAULT
