"""The coroutines of our fsspec file systems, over AsyncReader: on the loop that awaits them, without a thread."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.local import trailing_sep

from rangeio.errors import Error, IsDirectoryError
from rangeio.fsspec.entries import Entry
from rangeio.fsspec.filesystem import (
    FILES_AT_ONCE,
    ReadingFileSystem,
    Triple,
    by_name,
    cut_all,
    judged,
    reading_options,
    sizes_of,
)
from rangeio.fsspec.wanted import by_path, spread, wanted
from rangeio.operator import Operator


class AwaitedFileSystem(ReadingFileSystem):
    """The contents and facts of files, awaited. A subclass has `_info` and `_ls`."""

    async def info_if_there_awaited(self, path: str) -> Entry | None:
        """Like `info_if_there`."""
        try:
            return await self._info(path)  # type: ignore[no-any-return]
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        return await self._has_type(path, "file", "directory", "other")

    async def _isfile(self, path: str) -> bool:
        return await self._has_type(path, "file")

    async def _isdir(self, path: str) -> bool:
        return await self._has_type(path, "directory")

    async def _has_type(self, path: str, *types: str) -> bool:
        try:
            return (await self._info(path))["type"] in types
        except (FileNotFoundError, NotADirectoryError):
            return False

    async def _du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **kwargs: Any,
    ) -> Any:
        found = await self._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        return sizes_of(found, total)

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        within, cut = wanted(start, end)
        name = self._strip_protocol(path)
        async with self.operator.open_async(name, **reading_options(kwargs)) as reader:
            options: Any = self.spread_options(start, end)
            if options:
                (data,) = await reader.read_ranges([within], **options)
            else:
                data = await reader.read_range(within)
            return cut(data, lambda: reader.size or 0)

    async def _cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        jobs = spread([self._strip_protocol(path) for path in paths], starts, ends)
        operator = self.operator_of_many(max_gap, kwargs)
        groups = by_path(jobs)
        limit = asyncio.Semaphore(batch_size or FILES_AT_ONCE)

        async def one(path: str, indices: list[int]) -> list[Any]:
            async with limit:
                return await self._cat_one_awaited(path, indices, jobs, operator)

        parts = await asyncio.gather(*(one(path, indices) for path, indices in groups.items()))
        found: list[Any] = [None] * len(jobs)
        for indices, results in zip(groups.values(), parts, strict=True):
            for index, result in zip(indices, results, strict=True):
                found[index] = result
        return judged(found, on_error)

    async def _cat_one_awaited(
        self, path: str, indices: list[int], jobs: list[Triple], operator: Operator
    ) -> list[Any]:
        try:
            async with operator.open_async(path) as reader:
                asked = [wanted(*jobs[index][1:]) for index in indices]
                if len(asked) == 1:
                    results: Any = [await reader.read_range(asked[0][0])]
                else:
                    ranges = [one for one, _ in asked]
                    results = await reader.read_ranges(ranges, on_error="return")
                return cut_all(asked, results, lambda: reader.size or 0)
        except Error as error:
            return [error for _ in indices]

    async def _cat(
        self,
        path: Any,
        recursive: bool = False,
        on_error: str = "raise",
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        paths = await self._expand_path(path, recursive=recursive)
        if self.is_one(path, paths, recursive):
            return await self._cat_file(paths[0], **kwargs)
        limit = asyncio.Semaphore(batch_size or FILES_AT_ONCE)
        if recursive:
            paths = await self._files_among_awaited(paths, limit)

        async def one(path: str) -> bytes | Error:
            async with limit:
                try:
                    return await self._cat_file(path, **kwargs)
                except Error as error:
                    return error

        return by_name(paths, await asyncio.gather(*map(one, paths)), on_error)

    async def _files_among_awaited(self, paths: list[str], limit: asyncio.Semaphore) -> list[str]:
        async def is_folder(path: str) -> bool:
            async with limit:
                return await self._isdir(path)

        folders = await asyncio.gather(*map(is_folder, paths))
        return [path for path, folder in zip(paths, folders, strict=True) if not folder]

    async def _get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        path = self._strip_protocol(rpath)
        try:
            async with self.operator.open_async(path, **reading_options(kwargs)) as reader:
                await _save(reader, lpath, callback)
        except (FileNotFoundError, IsDirectoryError):
            if not await self._isdir(path):
                raise
            os.makedirs(lpath, exist_ok=True)

    async def _get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        limit = asyncio.Semaphore(batch_size or FILES_AT_ONCE)
        if isinstance(lpath, list) and isinstance(rpath, list):
            paths = list(map(self._strip_protocol, rpath))
        else:
            paths = await self._expand_path(rpath, recursive=recursive, maxdepth=maxdepth)
            if isinstance(rpath, (str, os.PathLike)) and (not recursive or maxdepth is not None):
                paths = [path for path in paths if not trailing_sep(path)]
                paths = await self._files_among_awaited(paths, limit)
        pairs = self.placed(paths, rpath, lpath)
        callback.set_size(len(pairs))

        async def one(pair: tuple[str, str]) -> None:
            async with limit:
                with callback.branched(*pair) as child:
                    await self._get_file(*pair, callback=child, **kwargs)
                callback.relative_update(1)

        await asyncio.gather(*map(one, pairs))


async def _save(reader: Any, lpath: Any, callback: Any) -> None:
    """Write an object to a file, which is made when its first bytes have come."""
    stream = reader.stream()
    piece = await anext(stream, b"")
    callback.set_size(reader.size if len(piece) else 0)
    os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
    with open(lpath, "wb") as file:
        try:
            while piece:
                file.write(piece)
                callback.relative_update(len(piece))
                piece = await anext(stream, b"")
        except BaseException:
            os.unlink(lpath)
            raise
