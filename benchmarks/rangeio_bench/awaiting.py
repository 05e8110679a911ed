"""Reads by many tasks of one asyncio loop: `depth` tasks take the next offset from one list until it is empty.

Each contender awaits the call that its documentation recommends. Results are dropped at once.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, ClassVar

import rangeio
from rangeio_bench.contender import Contender, FileContender, Role, Setting
from rangeio_bench.work import Work

Read = Callable[[int], Awaitable[Any]]
"""Reads from an offset; the number of bytes is fixed."""


class Tasks(Contender):
    """Base class of async contenders; keeps one loop."""

    has_latency = False  # the cost of entering the loop would count for every read

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.loop = asyncio.new_event_loop()

    def _tasks(self, work: Work) -> Any:
        return self.loop.run_until_complete(self._all(work))

    async def _all(self, work: Work) -> Any:
        offsets = iter(work.offsets)
        last: Any = None

        async def take(read: Read) -> None:
            nonlocal last
            for offset in offsets:
                last = await read(offset)

        await asyncio.gather(*[take(await self._reader(work.length)) for _ in range(self.setting.depth or 1)])
        return last

    async def _reader(self, length: int) -> Read:
        """The function that reads `length` bytes from an offset, for one task."""
        raise NotImplementedError

    def _close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class RangeioTasks(Tasks):
    """The call that the targets refer to. The loop of tasks is inlined: a call in between would cost as much."""

    name = "rangeio"
    role: ClassVar[Role] = "ours"
    calls = {"tasks": "AsyncReader.read_at"}
    reads_direct = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.reader = rangeio.open_async(setting.path, direct=setting.direct or "auto")

    @classmethod
    def version(cls) -> str:
        """The version of the imported package."""
        return rangeio.__version__

    async def _all(self, work: Work) -> Any:
        await self.reader.read_at(0, 1)
        read_at, length, offsets = self.reader.read_at, work.length, iter(work.offsets)
        last: Any = None

        async def take() -> None:
            nonlocal last
            for offset in offsets:
                last = await read_at(offset, length)

        await asyncio.gather(*[take() for _ in range(self.setting.depth or 1)])
        return last

    def _close(self) -> None:
        self.reader.close()
        super()._close()


class RangeioBatch(Contender):
    """The same reads without a loop, as one sync batch of the same depth: the bound for O_DIRECT."""

    name = "rangeio batch"
    role: ClassVar[Role] = "bound"
    calls = {"tasks": "Reader.read_ranges"}
    reads_direct = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.reader = rangeio.open(
            setting.path, direct=setting.direct or "auto", concurrent=setting.depth or 1
        )

    def _tasks(self, work: Work) -> Any:
        return self.reader.read_ranges(work.pairs, gap=None)[-1]

    def _close(self) -> None:
        self.reader.close()


class PreadTasks(Tasks, FileContender):
    """Blocking reads in coroutines: the fastest way while everything is cached, and the worst when it is not."""

    name = "os.pread"
    calls = {"tasks": "in a coroutine"}

    async def _reader(self, length: int) -> Read:
        fd = self.fd

        async def read(offset: int) -> bytes:
            return os.pread(fd, length, offset)

        return read

    def _close(self) -> None:
        super()._close()
        os.close(self.fd)


class ExecutorTasks(PreadTasks):
    """The usual way."""

    name = "thread pool"
    calls = {"tasks": "run_in_executor(os.pread)"}

    async def _reader(self, length: int) -> Read:
        run, fd = self.loop.run_in_executor, self.fd
        return lambda offset: run(None, os.pread, fd, length, offset)


class CaioTasks(PreadTasks):
    """Linux AIO or io_uring behind asyncio; used by aiofile."""

    name = "caio"
    module = "caio"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "AsyncioContext.read"}
    context: Any = None

    async def _reader(self, length: int) -> Read:
        if self.context is None:
            caio = import_module("caio")
            options = {"sqpoll": False} if "uring" in caio.AsyncioContext.__module__ else {}
            self.context = caio.AsyncioContext(max_requests=512, loop=self.loop, **options)
        read, fd = self.context.read, self.fd
        return lambda offset: read(length, fd, offset)

    def _close(self) -> None:
        if self.context is not None:
            self.context.close()
        super()._close()


class AiofileTasks(Tasks):
    """One file for all tasks, because its reads have offsets."""

    name = "aiofile"
    module = "aiofile"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "AIOFile.read"}
    file: Any = None

    async def _reader(self, length: int) -> Read:
        if self.file is None:
            self.file = await import_module("aiofile").AIOFile(str(self.setting.path), "rb")
        read = self.file.read_bytes
        return lambda offset: read(length, offset)

    def _close(self) -> None:
        if self.file is not None:
            self.loop.run_until_complete(self.file.close())
        super()._close()


class AiofilesTasks(Tasks):
    """One file per task, because it has a cursor. Every call goes through a thread."""

    name = "aiofiles"
    module = "aiofiles"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "seek+read"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.files: list[Any] = []

    async def _open(self) -> Any:
        return await import_module("aiofiles").open(self.setting.path, "rb")

    async def _reader(self, length: int) -> Read:
        file = await self._open()
        self.files.append(file)

        async def read(offset: int) -> Any:
            await file.seek(offset)
            return await file.read(length)

        return read

    async def _all(self, work: Work) -> Any:
        try:
            return await super()._all(work)
        finally:
            while self.files:
                await self._close_file(self.files.pop())

    async def _close_file(self, file: Any) -> None:
        await file.close()


class AnyioTasks(AiofilesTasks):
    """The same with anyio."""

    name = "anyio"
    module = "anyio"

    async def _open(self) -> Any:
        return await import_module("anyio").open_file(self.setting.path, "rb")

    async def _close_file(self, file: Any) -> None:
        await file.aclose()


class ObstoreTasks(Tasks):
    """Rust's object_store behind asyncio."""

    name = "obstore"
    module = "obstore"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "get_range_async"}

    async def _reader(self, length: int) -> Read:
        store = import_module("obstore.store").LocalStore(self.setting.path.resolve().parent)
        get, key = import_module("obstore").get_range_async, self.setting.path.name
        return lambda offset: get(store, key, start=offset, length=length)


class OpenDALTasks(Tasks):
    """Apache OpenDAL's Python binding."""

    name = "opendal"
    module = "opendal"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "AsyncOperator.read"}

    async def _reader(self, length: int) -> Read:
        make = import_module("opendal").AsyncOperator
        read, key = make("fs", root=str(self.setting.path.resolve().parent)).read, self.setting.path.name
        return lambda offset: read(key, offset=offset, size=length)


class TensorStoreTasks(Tasks):
    """TensorStore's key-value store over files."""

    name = "tensorstore"
    module = "tensorstore"
    role: ClassVar[Role] = "peer"
    calls = {"tasks": "KvStore.read"}

    async def _reader(self, length: int) -> Read:
        tensorstore = import_module("tensorstore")
        folder = f"{self.setting.path.resolve().parent}/"
        store = await tensorstore.KvStore.open({"driver": "file", "path": folder})
        bounds, key = (
            tensorstore.KvStore.ByteRange if hasattr(tensorstore.KvStore, "ByteRange") else slice,
            None,
        )
        key = self.setting.path.name

        async def read(offset: int) -> Any:
            return (await store.read(key, byte_range=bounds(offset, offset + length))).value

        return read


CONTENDERS: tuple[type[Contender], ...] = (
    RangeioTasks,
    RangeioBatch,
    PreadTasks,
    ExecutorTasks,
    CaioTasks,
    AiofileTasks,
    AiofilesTasks,
    AnyioTasks,
    ObstoreTasks,
    OpenDALTasks,
    TensorStoreTasks,
)
