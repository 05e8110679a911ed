"""Libraries that read files for asyncio with io_uring, each with the calls that its documentation recommends.

Some need a newer Python than rangeio does. The bench says so at its start, and runs without them.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import Any, ClassVar

from rangeio_bench.awaiting import AiofilesTasks, Read, Tasks
from rangeio_bench.contender import Contender, FileContender, Role, Setting
from rangeio_bench.work import Work

_FILES_IN_FLIGHT = 32


class _Uring(Tasks):
    """Adds whole files to the reads of many tasks."""

    role: ClassVar[Role] = "peer"

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def _files(self, work: Work) -> Any:
        return self._run(self._all_files(work))

    async def _all_files(self, work: Work) -> list[Any]:
        folder, read = str(work.path), self._whole_file()
        names, found = iter(enumerate(work.names)), [b""] * len(work.names)

        async def take() -> None:
            for index, name in names:
                found[index] = await read(f"{folder}/{name}")

        await asyncio.gather(*[take() for _ in range(_FILES_IN_FLIGHT)])
        return found

    def _whole_file(self) -> Callable[[str], Awaitable[bytes]]:
        """The function that reads a whole file."""
        raise NotImplementedError


class _Positional(_Uring):
    """Its reads have offsets, so that one file serves all tasks, and a batch is a gather."""

    def _batch(self, work: Work) -> Any:
        async def gather() -> Any:
            read = await self._reader(work.length)
            return await asyncio.gather(*[read(offset) for offset in work.offsets])

        return self._run(gather())


class Turbofile(_Positional):
    """Rust; cached reads complete on the loop's thread, others on a thread of its own."""

    name = "turbofile"
    module = "turbofile"
    needs_python = 3, 12
    calls = {"tasks": "read_at", "batch": "read_at, gather", "files": "read_bytes"}
    file: Any = None

    async def _reader(self, length: int) -> Read:
        if self.file is None:
            self.file = await import_module("turbofile").open(self.setting.path, "rb")
        read_at = self.file.read_at
        return lambda offset: read_at(offset, length)

    def _whole_file(self) -> Callable[[str], Awaitable[bytes]]:
        read: Callable[[str], Awaitable[bytes]] = import_module("turbofile").read_bytes
        return read

    def _close(self) -> None:
        if self.file is not None:
            self._run(self.file.close())
        super()._close()


class PyAio(_Positional, FileContender):
    """One ring for each loop; the requests of one loop iteration are submitted together."""

    name = "pyaio"
    module = "pyaio"
    calls = {"tasks": "UringIO.read", "batch": "UringIO.read, gather"}
    ring: Any = None

    async def _reader(self, length: int) -> Read:
        if self.ring is None:
            self.ring = import_module("pyaio.uring").UringIO()
        read, fd = self.ring.read, self.fd
        return lambda offset: read(fd, offset, length)

    def _close(self) -> None:
        if self.ring is not None:
            self._run(self.ring.aclose())
        super()._close()
        os.close(self.fd)


class Uringio(_Positional):
    """An event loop of its own, on io_uring."""

    name = "uringio"
    module = "uringio"
    needs_python = 3, 12
    calls = {"tasks": "File.read", "batch": "File.read, gather"}
    file: Any = None

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.loop.close()
        self.loop = import_module("uringio").UringioLoop()

    async def _reader(self, length: int) -> Read:
        if self.file is None:
            self.file = await import_module("uringio").open_file(path=str(self.setting.path))
        read = self.file.read
        return lambda offset: read(size=length, offset=offset)

    def _close(self) -> None:
        if self.file is not None:
            self._run(self.file.close())
        self.loop.close()


class Urio(_Uring, AiofilesTasks):
    """The interface of aiofiles: one file per task, because it has a cursor."""

    name = "urio"
    module = "urio"
    needs_python = 3, 12
    calls = {"tasks": "seek+read", "files": "Path.read_bytes"}

    async def _open(self) -> Any:
        return await import_module("urio").open(self.setting.path, "rb")

    def _whole_file(self) -> Callable[[str], Awaitable[bytes]]:
        path = import_module("urio").Path
        return lambda name: path(name).read_bytes()


class Asyncfiles(_Uring):
    """py-asyncfiles: one file per task, because it has a cursor. Its `seek` is not awaited."""

    name = "asyncfiles"
    module = "asyncfiles"
    distribution = "py-asyncfiles"
    calls = {"tasks": "seek+read", "files": "open+read"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.open = import_module("asyncfiles").open

    async def _all(self, work: Work) -> Any:
        offsets, length = iter(work.offsets), work.length
        last: Any = None

        async def take() -> None:
            nonlocal last
            async with self.open(str(self.setting.path), "rb") as file:
                for offset in offsets:
                    file.seek(offset)
                    last = await file.read(length)

        await asyncio.gather(*[take() for _ in range(self.setting.depth or 1)])
        return last

    def _whole_file(self) -> Callable[[str], Awaitable[bytes]]:
        async def read(name: str) -> bytes:
            async with self.open(name, "rb") as file:
                found: bytes = await file.read()
            return found

        return read


CONTENDERS: tuple[type[Contender], ...] = (Turbofile, PyAio, Uringio, Urio, Asyncfiles)
