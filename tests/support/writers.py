"""Our read-only file systems with a writer behind them, for tests of other libraries, which write what they read."""

from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from servers.s3 import S3Server

from rangeio.fsspec import PosixFileSystem, S3FileSystem

_local = LocalFileSystem(auto_mkdir=True)


class WritableFiles(PosixFileSystem):  # type: ignore[misc]
    """Files: read by us, written by fsspec."""

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        return super().open(path, mode, *args, **kwargs) if "r" in mode else _local.open(path, mode)

    copy = cp = AbstractFileSystem.copy
    mv = move = AbstractFileSystem.mv

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        _local.cp_file(path1, path2, **kwargs)


for _name in ("touch", "pipe", "pipe_file", "rm", "rm_file", "mkdir", "makedirs", "rmdir"):
    setattr(WritableFiles, _name, property(lambda self, name=_name: getattr(_local, name)))


class WritableObjects(S3FileSystem):  # type: ignore[misc]
    """Objects: read by us, written by boto3."""

    server: S3Server

    def touch(self, path: str, **kwargs: Any) -> None:
        self.pipe(path, b"")

    def pipe(self, path: str, value: bytes, **kwargs: Any) -> None:
        bucket, _, key = self._strip_protocol(path).partition("/")
        self.server.client.put_object(Bucket=bucket, Key=key, Body=value)

    def mkdir(self, path: str, **kwargs: Any) -> None:
        return

    makedirs = mkdir

    def rm(self, path: Any, recursive: bool = False, **kwargs: Any) -> None:
        for one in self.expand_path(path, recursive=recursive):
            bucket, _, key = one.partition("/")
            self.server.client.delete_object(Bucket=bucket, Key=key)
