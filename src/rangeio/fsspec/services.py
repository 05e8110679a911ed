"""File systems of objects by key, of which S3 is one, of URLs, and of files of this machine."""

import os
import stat as posix
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from fsspec.implementations.local import make_path_posix
from fsspec.utils import stringify_path

from rangeio.errors import IsDirectoryError, NotFoundError, UnsupportedError
from rangeio.fsspec.awaited import AwaitedFileSystem
from rangeio.fsspec.entries import Entry, directory_entry, file_entry, flat, listed
from rangeio.service import Stat


def _named(found: dict[str, Entry], detail: bool) -> Any:
    return found if detail else sorted(found)


def _if_file(path: str, info: Entry | None) -> dict[str, Entry]:
    return {path: info} if info is not None and info["type"] == "file" else {}


def _folder(path: str) -> str:
    """The prefix of what is below a path."""
    return f"{path}/" if path else ""


def _alone(info: Entry) -> list[Entry]:
    """What `ls` returns of something with nothing below it."""
    return [] if info["type"] == "directory" else [info]


def _missing(path: str) -> NotFoundError:
    return NotFoundError(f"{path!r}: there is no such object and nothing below it", path=path)


class StoreFileSystem(AwaitedFileSystem):
    """Objects by key, as ``bucket/key``; directories are common prefixes of keys. Keys are used as they are."""

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        found = super()._strip_protocol(path)
        return [one.lstrip("/") for one in found] if isinstance(found, list) else found.lstrip("/")

    @classmethod
    def _may_be_object(cls, path: str) -> bool:
        """Whether a path has more than a bucket, or what contains objects here."""
        return "/" in path

    def _check_listable(self, path: str) -> None:
        if not path:
            raise UnsupportedError("buckets are not listed: name one, as bucket/ or bucket/key")

    # --- sync ----------------------------------------------------------------------------------------------------

    def info(self, path: str, version_id: str | None = None, **kwargs: Any) -> Entry:
        """One object by one HEAD; if there is none, the directory of that name by one listing."""
        path = self._strip_protocol(path)
        inside = self._may_be_object(path)
        if inside:
            try:
                return file_entry(path, self.operator.stat(path, version=version_id))
            except IsDirectoryError:
                return directory_entry(path)
            except FileNotFoundError:
                if version_id is not None:
                    raise
        if path and next(self.operator.list(path + "/", "/"), None) is None and inside:
            raise _missing(path)
        return directory_entry(path)

    def isdir(self, path: str) -> bool:
        """Whether there is anything below it. One listing."""
        path = self._strip_protocol(path)
        try:
            found = not path or next(self.operator.list(path + "/", "/"), None) is not None
        except FileNotFoundError:
            return False
        return found or not self._may_be_object(path)

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        """The content of a directory, one listing; of an object its info."""
        path = self._strip_protocol(path)
        self._check_listable(path)
        found = self.listed_before(path, refresh)
        if found is None:
            found = listed(self.operator.list(_folder(path), "/"), _folder(path))
            if not found and self._may_be_object(path):
                found = _alone(self.info(path))
            else:
                self._keep(path, found)
        return found if detail else [entry["name"] for entry in found]

    def _keep(self, path: str, found: list[Entry]) -> None:
        if found:
            self.dircache[path] = found

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **kwargs: Any,
    ) -> Any:
        """All objects below a directory, one flat listing. prefix: only those whose name begins with it."""
        path = self._strip_protocol(path)
        place, delimiter = self._place(path, maxdepth, prefix)
        found = self._found(self.operator.list(place, delimiter), path, maxdepth, withdirs)
        if not found and not prefix:
            found = _if_file(path, self.info_if_there(path))
        return _named(found, detail)

    def _place(self, path: str, maxdepth: int | None, prefix: str) -> tuple[str, str | None]:
        self._check_listable(path)
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        return _folder(path) + prefix, "/" if maxdepth == 1 else None

    def _found(
        self, stats: Iterable[Stat], path: str, maxdepth: int | None, withdirs: bool
    ) -> dict[str, Entry]:
        return flat(stats, _folder(path), maxdepth, withdirs)

    # --- awaited -------------------------------------------------------------------------------------------------

    async def _info(self, path: str, version_id: str | None = None, **kwargs: Any) -> Entry:
        path = self._strip_protocol(path)
        inside = self._may_be_object(path)
        if inside:
            try:
                async with self.operator.open_async(path, version=version_id) as reader:
                    return file_entry(path, await reader.stat())
            except IsDirectoryError:
                return directory_entry(path)
            except FileNotFoundError:
                if version_id is not None:
                    raise
        if path and not await self._any_below(path) and inside:
            raise _missing(path)
        return directory_entry(path)

    async def _any_below(self, path: str) -> bool:
        async for _ in self.operator.list_async(path + "/", "/"):
            return True
        return False

    async def _isdir(self, path: str) -> bool:
        path = self._strip_protocol(path)
        try:
            return not path or await self._any_below(path) or not self._may_be_object(path)
        except FileNotFoundError:
            return False

    async def _ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        self._check_listable(path)
        found = self.listed_before(path, refresh)
        if found is None:
            stats = [stat async for stat in self.operator.list_async(_folder(path), "/")]
            found = listed(stats, _folder(path))
            if not found and self._may_be_object(path):
                found = _alone(await self._info(path))
            else:
                self._keep(path, found)
        return found if detail else [entry["name"] for entry in found]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **kwargs: Any,
    ) -> Any:
        path = self._strip_protocol(path)
        place, delimiter = self._place(path, maxdepth, prefix)
        stats = [stat async for stat in self.operator.list_async(place, delimiter)]
        found = self._found(stats, path, maxdepth, withdirs)
        if not found and not prefix:
            found = _if_file(path, await self.info_if_there_awaited(path))
        return _named(found, detail)


class S3FileSystem(StoreFileSystem):
    """Objects of S3 and of servers that speak it: ``rangeio+s3://bucket/key``.

    Options: those of `S3Service` and of reading (`Options`); and of s3fs key, secret, token, anon, client_kwargs
    (endpoint_url, region_name, verify), requester_pays, use_ssl.
    """

    protocol = ("rangeio+s3", "s3", "s3a")
    scheme = "s3"


class HttpFileSystem(AwaitedFileSystem):
    """Objects by URL: ``rangeio+https://host/path?query``. There are no directories, and nothing can be listed.

    Options: those of `HttpService` and of reading (`Options`); and client_kwargs (headers, auth).
    """

    protocol = ("rangeio+https", "rangeio+http", "https", "http")
    scheme = "http"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return stringify_path(path).removeprefix("rangeio+")

    @classmethod
    def _parent(cls, path: str) -> str:
        above = cls._strip_protocol(path).partition("?")[0].rstrip("/").rpartition("/")[0]
        return above if "://" in above and not above.endswith(":/") else ""

    @classmethod
    def has_pattern(cls, path: str) -> bool:
        """A question mark begins the query of a URL and is no wildcard."""
        return "*" in path or "[" in path.rpartition("://")[2].partition("/")[2]

    def unstrip_protocol(self, name: str) -> str:
        """The URL with the protocol that names this file system."""
        return name if name.startswith("rangeio+") else f"rangeio+{name}"

    def info(self, path: str, **kwargs: Any) -> Entry:
        """One HEAD."""
        url = self._strip_protocol(path)
        return {**file_entry(url, self.operator.stat(url)), "url": url}

    async def _info(self, path: str, **kwargs: Any) -> Entry:
        url = self._strip_protocol(path)
        async with self.operator.open_async(url) as reader:
            return {**file_entry(url, await reader.stat()), "url": url}

    def isdir(self, path: str) -> bool:
        """There are no directories."""
        return False

    async def _isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The URL itself."""
        self._check_pattern(path)
        return [self.info(path)] if detail else [self.info(path)["name"]]

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        self._check_pattern(path)
        info = await self._info(path)
        return [info] if detail else [info["name"]]

    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        """The URL itself."""
        self._check_pattern(path)
        return _named(_if_file(self._strip_protocol(path), self.info_if_there(path)), detail)

    async def _find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        self._check_pattern(path)
        info = await self.info_if_there_awaited(path)
        return _named(_if_file(self._strip_protocol(path), info), detail)

    def glob(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        """The URL itself, if it exists. UnsupportedError for a pattern."""
        return self.find(path, detail=detail)

    async def _glob(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        return await self._find(path, detail=detail)

    def expand_path(self, path: Any, **kwargs: Any) -> list[str]:
        """The URLs. Sends no request. UnsupportedError for a pattern."""
        urls = [path] if isinstance(path, (str, os.PathLike)) else list(path)
        for url in urls:
            self._check_pattern(url)
        return [self._strip_protocol(url) for url in urls]

    async def _expand_path(self, path: Any, **kwargs: Any) -> list[str]:
        return self.expand_path(path)

    def _check_pattern(self, path: Any) -> None:
        if self.has_pattern(stringify_path(path)):
            raise UnsupportedError(
                "HTTP does not list directories, so a pattern finds nothing: name each URL, or use the store's protocol"
            )


class PosixFileSystem(AwaitedFileSystem):
    """Files of this machine: ``rangeio+file:///path``. Options: those of reading (`Options`).

    Its name is not LocalFileSystem: pyarrow would replace a class of that name by its own.
    """

    protocol = ("rangeio+file", "file", "local")
    scheme = "fs"
    root_marker = "/"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        for protocol in cls.protocol:
            if text.startswith(f"{protocol}:"):
                text = text[len(protocol) + 1 :].removeprefix("//")
                break
        found = make_path_posix(text)
        return found.rstrip("/") or "/"

    @classmethod
    def _parent(cls, path: str) -> str:
        return cls._strip_protocol(path).rpartition("/")[0] or "/"

    def info(self, path: str, **kwargs: Any) -> Entry:
        """What stat(2) says."""
        path = self._strip_protocol(path)
        try:
            return _posix_entry(path, os.stat(path), os.path.islink(path))
        except OSError as error:
            raise _converted(error, path) from None

    def created(self, path: str) -> Any:
        """When its inode was last changed."""
        return self.info(path)["created"]

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        """The content of a directory; of a file its info."""
        path = self._strip_protocol(path)
        info = self.info(path)
        if info["type"] != "directory":
            return [info] if detail else [path]
        try:
            with os.scandir(path) as entries:
                names = sorted(f"{path.rstrip('/')}/{entry.name}" for entry in entries)
        except OSError as error:
            raise _converted(error, path) from None
        if not detail:
            return names
        return [entry for name in names if (entry := self._unless_gone(name)) is not None]

    def _unless_gone(self, name: str) -> Entry | None:
        try:
            return self.info(name)
        except FileNotFoundError:
            if not os.path.islink(name):
                return None
            return {"name": name, "size": 0, "type": "link", "mtime": None, "islink": True}

    async def _info(self, path: str, **kwargs: Any) -> Entry:
        return self.info(path)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        return self.ls(path, detail)


def _posix_entry(path: str, found: os.stat_result, is_link: bool) -> Entry:
    kind = (
        "directory" if posix.S_ISDIR(found.st_mode) else "file" if posix.S_ISREG(found.st_mode) else "other"
    )
    modified, created = (
        datetime.fromtimestamp(seconds, tz=timezone.utc) for seconds in (found.st_mtime, found.st_ctime)
    )
    return {
        "name": path,
        "size": found.st_size,
        "type": kind,
        "mtime": found.st_mtime,
        "LastModified": modified,
        "ETag": None,
        "etag": None,
        "version_id": None,
        "created": created,
        "islink": is_link,
        "mode": found.st_mode,
        "ino": found.st_ino,
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _converted(error: OSError, path: str) -> BaseException:
    from rangeio.errors import from_native

    return from_native("errno", error.errno or 0, path, None, None, "")
