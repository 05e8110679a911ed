"""Other libraries, each with the call that its documentation recommends.

A peer that is not installed is skipped, and the report says so. `__init__` imports the library: some of these
imports take half a second and start threads.
"""

import asyncio
import os
from collections.abc import Coroutine
from importlib import import_module
from typing import Any, ClassVar

from rangeio_bench.baselines import Slots
from rangeio_bench.contender import Contender, FileContender, Role, Setting
from rangeio_bench.work import Work

_DEPTH = 32


class Obstore(Contender):
    """Rust object_store; it has its own threads and copies into fresh memory."""

    name = "obstore"
    module = "obstore"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "get_range",
        "batch": "get_ranges, coalesce=0",
        "whole": "get",
        "ranges": "get_ranges",
        "files": "get",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.obstore = import_module("obstore")
        local = import_module("obstore.store").LocalStore
        self.store = local(setting.path.resolve().parent)
        self.local = local
        self.key = setting.path.name

    def _each(self, work: Work) -> Any:
        get_range, store, key, length = self.obstore.get_range, self.store, self.key, work.length
        result: Any = None
        for offset in work.offsets:
            result = get_range(store, key, start=offset, length=length)
        return result

    def _batch(self, work: Work) -> Any:
        # Its default gap of 1 MiB would turn random records into a read of most of the file.
        return self.obstore.get_ranges(
            self.store, self.key, starts=work.offsets, lengths=work.lengths, coalesce=0
        )

    def _ranges(self, work: Work) -> Any:
        return self.obstore.get_ranges(self.store, self.key, starts=work.offsets, lengths=work.lengths)

    def _whole(self, work: Work) -> Any:
        if work.nbytes == self.setting.path.stat().st_size:
            return self.obstore.get(self.store, self.key).bytes()
        return self.obstore.get_range(self.store, self.key, start=0, length=work.nbytes)

    def _files(self, work: Work) -> list[Any]:
        get, store = self.obstore.get, self.local(work.path.resolve())
        return [get(store, name).bytes() for name in work.names]


class OpenDAL(Contender):
    """Apache OpenDAL's Python binding."""

    name = "opendal"
    module = "opendal"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "File.seek+read",
        "whole": "read, 8 x 8 MiB",
        "ranges": "read",
        "files": "read",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.make = import_module("opendal").Operator
        self.key = setting.path.name
        self.operator = self.make("fs", root=str(setting.path.resolve().parent))
        self.file = self.operator.open(self.key, "rb")

    def _each(self, work: Work) -> Any:
        file, length = self.file, work.length
        result: Any = None
        for offset in work.offsets:
            file.seek(offset)
            result = file.read(length)
        return result

    def _ranges(self, work: Work) -> list[Any]:
        # File.read may return fewer bytes than requested; this does not.
        read, key = self.operator.read, self.key
        return [
            read(key, offset=offset, size=length)
            for offset, length in zip(work.offsets, work.lengths, strict=True)
        ]

    def _whole(self, work: Work) -> Any:
        return self.operator.read(self.key, size=work.nbytes, chunk=8 << 20, concurrent=8)

    def _files(self, work: Work) -> list[Any]:
        read = self.make("fs", root=str(work.path.resolve())).read
        return [read(name) for name in work.names]

    def _close(self) -> None:
        self.file.close()


class Arrow(Contender):
    """Arrow's file objects: pread into memory of Arrow's allocator."""

    name = "pyarrow"
    module = "pyarrow"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "read_at",
        "batch": "read_at",
        "whole": "read_buffer",
        "ranges": "read_at",
        "files": "OSFile",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.open = import_module("pyarrow").OSFile
        self.file = self.open(str(setting.path))

    def _each(self, work: Work) -> Any:
        read_at, length = self.file.read_at, work.length
        result: Any = None
        for offset in work.offsets:
            result = read_at(length, offset)
        return result

    def _batch(self, work: Work) -> list[Any]:
        read_at = self.file.read_at
        return [read_at(length, offset) for offset, length in zip(work.offsets, work.lengths, strict=True)]

    _ranges = _batch

    def _whole(self, work: Work) -> Any:
        self.file.seek(0)
        return self.file.read_buffer(work.nbytes)

    def _files(self, work: Work) -> list[Any]:
        folder, result = str(work.path), []
        for name in work.names:
            with self.open(f"{folder}/{name}") as file:
                result.append(file.read_buffer())
        return result

    def _close(self) -> None:
        self.file.close()


class TensorStore(Contender):
    """TensorStore's key-value store over files: futures on a pool of threads."""

    name = "tensorstore"
    module = "tensorstore"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "KvStore.read",
        "batch": "futures",
        "whole": "KvStore.read",
        "ranges": "Batch",
        "files": "futures",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.tensorstore = import_module("tensorstore")
        self.key = setting.path.name
        self.store = self._open(setting.path.resolve().parent)

    def _open(self, folder: os.PathLike[str]) -> Any:
        spec = {"driver": "file", "path": f"{os.fspath(folder)}/"}
        return self.tensorstore.KvStore.open(spec).result()

    def _each(self, work: Work) -> Any:
        read, key, length = self.store.read, self.key, work.length
        result: Any = None
        for offset in work.offsets:
            result = read(key, byte_range=slice(offset, offset + length)).result().value
        return result

    def _batch(self, work: Work) -> list[Any]:
        read, key = self.store.read, self.key
        futures = [read(key, byte_range=slice(start, stop)) for start, stop in work.pairs]
        return [future.result().value for future in futures]

    def _ranges(self, work: Work) -> list[Any]:
        read, key, batch = self.store.read, self.key, self.tensorstore.Batch()
        futures = [read(key, byte_range=slice(start, stop), batch=batch) for start, stop in work.pairs]
        batch.submit()
        return [future.result().value for future in futures]

    def _whole(self, work: Work) -> Any:
        return self.store.read(self.key, byte_range=slice(0, work.nbytes)).result().value

    def _files(self, work: Work) -> list[Any]:
        read = self._open(work.path.resolve()).read
        futures = [read(name) for name in work.names]
        return [future.result().value for future in futures]


class PyUring(FileContender):
    """pyuring's own Python API (rangeio uses only its liburing)."""

    name = "pyuring"
    module = "pyuring"
    role: ClassVar[Role] = "peer"
    calls = {
        "each": "read",
        "batch": "read_offsets",
        "deep": "read_async, refilled",
        "blocks": "read_async, refilled",
        "ranges": "read_async, refilled",
    }
    reads_direct = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.depth = setting.depth or _DEPTH
        try:
            self.ring = import_module("pyuring").UringCtx(entries=1024)
        except BaseException:
            super()._close()
            raise
        self._slots: dict[int, tuple[Slots, list[tuple[int, int, int]]]] = {}

    def _each(self, work: Work) -> Any:
        read, fd, length = self.ring.read, self.fd, work.length
        result: Any = None
        for offset in work.offsets:
            result = read(fd, length, offset)
        return result

    def _batch(self, work: Work) -> Any:
        return self.ring.read_offsets(self.fd, work.length, work.offsets)

    def _deep(self, work: Work) -> list[memoryview]:
        """Keep `depth` reads in flight: when one completes, the next is sent."""
        slots, jobs = self._jobs(work)
        ring, fd = self.ring, self.fd
        sent = min(self.depth, len(jobs))
        for address, length, offset in jobs[:sent]:
            ring.read_async_ptr(fd, address, length, offset)
        ring.submit()
        for address, length, offset in jobs[sent:]:
            self._reap()
            ring.read_async_ptr(fd, address, length, offset)
            ring.submit()
        for _ in range(sent):
            self._reap()
        return slots.results

    _blocks = _ranges = _deep

    def _reap(self) -> None:
        _, result = self.ring.wait_completion()
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def _jobs(self, work: Work) -> tuple[Slots, list[tuple[int, int, int]]]:
        key = id(work)
        if key not in self._slots:
            slots = Slots(self.setting, work)
            address, jobs = slots.table.ctypes.data, []
            for (view,), offset in slots.jobs:
                jobs.append((address, view.nbytes, offset))
                address += view.nbytes
            self._slots[key] = slots, jobs
        return self._slots[key]

    def _close(self) -> None:
        self.ring.close()
        super()._close()


class Caio(FileContender):
    """asyncio reads; its buffers are `bytes`, so it cannot use O_DIRECT."""

    name = "caio"
    module = "caio"
    role: ClassVar[Role] = "peer"
    calls = {"each": "asyncio", "batch": "asyncio gather", "ranges": "asyncio gather"}
    has_latency = False  # the cost of entering the loop would count for every read

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        caio = import_module("caio")
        self.loop = asyncio.new_event_loop()
        # SQPOLL, its default if allowed, keeps a kernel thread busy while others are measured.
        options = {"sqpoll": False} if "uring" in caio.AsyncioContext.__module__ else {}
        self.context = self._run(self._open(caio, options))

    async def _open(self, caio: Any, options: dict[str, Any]) -> Any:
        return caio.AsyncioContext(max_requests=512, loop=self.loop, **options)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def _each(self, work: Work) -> Any:
        async def loop() -> Any:
            read, fd, length = self.context.read, self.fd, work.length
            result: Any = None
            for offset in work.offsets:
                result = await read(length, fd, offset)
            return result

        return self._run(loop())

    def _batch(self, work: Work) -> Any:
        async def gather() -> Any:
            read, fd = self.context.read, self.fd
            return await asyncio.gather(
                *(read(length, fd, offset) for offset, length in zip(work.offsets, work.lengths, strict=True))
            )

        return self._run(gather())

    _ranges = _batch

    def _close(self) -> None:
        self.context.close()
        self.loop.close()
        super()._close()
