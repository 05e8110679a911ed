"""What is particular to fsspec, obstore, pyarrow and Python's own files; the libraries themselves are used."""

import asyncio
import gzip
import io
import mmap
import os
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, cancel_when, run_on
from faults.child import Lab, code
from faults.machine import need_module
from scripted_store import Scripted
from servers.scripted import reply, scripted

import rangeio
from rangeio.services import store_object

DATA = random.Random(75).randbytes(1_200_003)
SIZE = len(DATA)
FAR = [(i * 70_000, i * 70_000 + 5_000) for i in range(16)]


def cut(ranges: list[tuple[int, int]], data: bytes = DATA) -> list[bytes]:
    return [data[start:stop] for start, stop in ranges]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "object"
    written.write_bytes(DATA)
    return written


class Counted:
    """Another object, whose calls are recorded by name."""

    def __init__(self, inner: Any, *hidden: str) -> None:
        self._inner, self._hidden = inner, hidden
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden or name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def counted(*args: Any, **options: Any) -> Any:
            self.calls.append((name, options))
            return found(*args, **options)

        return counted

    def names(self) -> list[str]:
        """Of the calls since the last time."""
        names = [name for name, _ in self.calls]
        self.calls.clear()
        return names


# --- fsspec --------------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Any:
    fs = need_module("fsspec").filesystem("memory")
    fs.pipe_file("/libraries/object", DATA)
    return fs


def test_calls_of_fsspec(memory: Any) -> None:
    """`info` at the opening, after several ranges, and after a large read; nothing else, and nothing is opened."""
    fs = Counted(memory)
    with rangeio.from_fsspec(fs, "/libraries/object") as reader:
        assert fs.names() == ["invalidate_cache", "info"]
        for at in range(40):
            assert reader.read_at(at, 1000) == DATA[at : at + 1000]
        assert fs.names() == ["cat_file"] * 40
        assert reader.read_ranges(FAR) == cut(FAR)
        assert fs.names() == ["cat_file"] * 16 + ["invalidate_cache", "info"]
        assert reader.read_at(0, 1 << 20) == DATA[: 1 << 20]
        assert fs.names() == ["cat_file", "invalidate_cache", "info"]
        assert reader.read_range(rangeio.Suffix(9)) == DATA[-9:]
        assert fs.names() == ["cat_file"]
        assert reader.stat().size == SIZE
        assert fs.names() == ["invalidate_cache", "info"]
        assert reader.capability.pin == "created+size"
    with rangeio.from_fsspec(fs, "/libraries/object", pin=False, size=SIZE) as reader:
        assert reader.read_ranges(FAR) == cut(FAR)
    assert fs.names() == ["cat_file"] * 16


def test_first_calls_of_an_awaited_fsspec(memory: Any) -> None:
    """Whatever reads first, `info` is asked once."""
    fs = Counted(memory)

    async def main() -> None:
        reader = rangeio.from_fsspec_async(fs, "/libraries/object")
        assert fs.names() == []
        found = await asyncio.gather(*(reader.read_at(at, 10) for at in range(50)))
        assert found == [DATA[at : at + 10] for at in range(50)]

    asyncio.run(main())
    assert sorted(fs.names()) == ["cat_file"] * 50 + ["info", "invalidate_cache"]


def test_a_changed_file_of_fsspec(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = rangeio.from_fsspec(memory, "/libraries/object")
    free = rangeio.from_fsspec(memory, "/libraries/object", pin=False)
    assert pinned.read_at(0, 10) == free.read_at(0, 10) == DATA[:10]
    memory.pipe_file("/libraries/object", DATA[::-1])
    for read in (
        lambda: pinned.read_ranges(FAR),
        lambda: pinned.read_at(0, 1 << 20),
        lambda: pinned.read_into(bytearray(1 << 20)),
        lambda: pinned.read_batch([5, 9], 3),
        lambda: list(pinned.stream()),
        lambda: pinned.as_file().read(),
        pinned.stat,
    ):
        with pytest.raises(rangeio.ObjectChangedError):
            read()
    assert free.read_ranges(FAR) == cut(FAR, DATA[::-1])
    monkeypatch.setattr(store_object, "_CHECKED_S", 0.0)
    with pytest.raises(rangeio.ObjectChangedError):
        pinned.read_at(0, 10)


def test_a_file_of_fsspec_that_shrinks(memory: Any) -> None:
    with rangeio.from_fsspec(memory, "/libraries/object") as reader:
        memory.pipe_file("/libraries/object", DATA[:1000])
        for start in (500, 2000):
            with pytest.raises(rangeio.ObjectChangedError) as caught:
                reader.read_at(start, 1000)
            assert (caught.value.offset, caught.value.limit) == (start, 1000)
    reader = rangeio.from_fsspec(memory, "/libraries/object", pin=False, size=SIZE)
    with pytest.raises(rangeio.UnexpectedEofError):
        reader.read_at(500, 1000)


def test_opening_by_fsspec(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(rangeio.NotFoundError) as caught:
        rangeio.from_fsspec(memory, "/libraries/nothing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    local = need_module("fsspec").filesystem("file")
    with pytest.raises(rangeio.IsDirectoryError):
        rangeio.from_fsspec(local, tmp_path)

    async def main() -> None:
        with pytest.raises(rangeio.NotFoundError):
            await rangeio.from_fsspec_async(memory, "/libraries/nothing").read_at(0, 1)

    asyncio.run(main())


def asynchronous(fs: Any, **options: Any) -> Any:
    """An async filesystem over a sync one: it records where it runs, and can be held."""
    base = need_module("fsspec.asyn").AsyncFileSystem

    class Recorded(base):  # type: ignore[misc, valid-type]
        cachable = False

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.threads: list[str] = []
            self.held: list[str] = []
            self.hold = False
            self.asked = 0

        async def _cat_file(self, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
            self.threads.append(threading.current_thread().name)
            if self.hold:
                self.held.append("begun")
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.held.append("cancelled")
                    raise
            data: bytes = fs.cat_file(path, start=start, end=end)
            return data

        async def _info(self, path: str, **more: Any) -> Any:
            self.asked += 1
            return fs.info(path)

    return Recorded(**options)


@pytest.mark.parametrize("on", LOOPS)
def test_where_an_async_filesystem_reads(memory: Any, on: str) -> None:
    """Its coroutine, on its own loop in fsspec's thread; under trio and for sync reads by way of threads."""
    need_module(on)
    fs = asynchronous(memory, asynchronous=False)

    async def main() -> None:
        reader = rangeio.from_fsspec_async(fs, "/libraries/object")
        assert await reader.read_ranges(FAR) == cut(FAR)
        assert await reader.read_at(5, 10) == DATA[5:15]
        assert (await reader.stat()).size == SIZE

    run_on(on, main)
    with rangeio.from_fsspec(fs, "/libraries/object") as reader:
        assert reader.read_ranges(FAR) == cut(FAR)
    assert set(fs.threads) == {"fsspecIO"}


def test_an_async_filesystem_is_asked_once(memory: Any) -> None:
    """By the first of many reads that begin at the same time."""
    fs = asynchronous(memory, asynchronous=False)

    async def main() -> None:
        reader = rangeio.from_fsspec_async(fs, "/libraries/object")
        await asyncio.gather(*(reader.read_at(at, 10) for at in range(50)))

    asyncio.run(main())
    assert (fs.asked, len(fs.threads)) == (1, 50)


@pytest.mark.parametrize("on", ["asyncio", "uvloop"])
def test_a_cancelled_read_ends_the_coroutine(memory: Any, on: str) -> None:
    need_module(on)
    fs = asynchronous(memory, asynchronous=False)
    fs.hold = True

    async def main() -> None:
        reader = rangeio.from_fsspec_async(fs, "/libraries/object", gap=0, concurrent=3)
        await cancel_when(on, lambda: len(fs.held) == 3, reader.read_ranges(FAR))
        while fs.held.count("cancelled") < 3:
            await asyncio.sleep(0.001)
        fs.hold = False
        assert await reader.read_ranges(FAR) == cut(FAR)

    run_on(on, main)
    assert sorted(fs.held) == ["begun"] * 3 + ["cancelled"] * 3


@pytest.mark.parametrize("own", [False, True])
def test_cancelled_at_any_moment(memory: Any, own: bool) -> None:
    """Also before its task has begun: it then counts no longer as in progress, on this loop and on the next."""
    fs = asynchronous(memory, asynchronous=own)
    reader = rangeio.from_fsspec_async(fs, "/libraries/object", concurrent=2)

    async def main() -> None:
        for turns in range(12):
            reads = [
                reader.read_ranges(FAR),
                reader.read_at(0, 10),
                reader.read_into(bytearray(5)),
                reader.read_at(5, 5),
            ]
            tasks = [asyncio.ensure_future(read) for read in reads]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async for _ in reader.iter_ranges(FAR, gap=None):
            break
        found = await asyncio.wait_for(reader.read_ranges(FAR), 20)
        assert found == cut(FAR)
        async for _ in reader.iter_ranges(FAR, gap=None):
            break  # the loop ends with reads in flight

    for _ in range(3):
        asyncio.run(main())


def test_a_filesystem_that_cancels_its_own_call(memory: Any) -> None:
    """It is an error of the store: nobody has cancelled the reading task."""
    fs = asynchronous(memory, asynchronous=True)

    async def cancelled(*args: Any, **options: Any) -> bytes:
        raise asyncio.CancelledError

    fs._cat_file = cancelled

    async def main() -> None:
        reader = rangeio.from_fsspec_async(fs, "/libraries/object")
        for read in (lambda: reader.read_at(0, 10), lambda: reader.read_ranges(FAR)):
            with pytest.raises(rangeio.ConnectionFailedError):
                await read()

    asyncio.run(main())


def test_a_filesystem_without_a_loop(memory: Any) -> None:
    """``asynchronous=True``: it is awaited on the running loop, and nothing else can read it."""
    fs = asynchronous(memory, asynchronous=True)

    async def main() -> None:
        async with rangeio.from_fsspec_async(fs, "/libraries/object") as reader:
            assert await reader.read_ranges(FAR) == cut(FAR)
            assert (await reader.stat()).size == SIZE

    asyncio.run(main())
    assert set(fs.threads) == {threading.current_thread().name}
    with pytest.raises(rangeio.ConfigInvalidError, match="from_fsspec_async"):
        rangeio.from_fsspec(fs, "/libraries/object")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_filesystem_with_one_connection(wrapped: bool) -> None:
    """As fsspec's for SFTP: a second request takes the answer of the first. So there is never one."""
    spec = need_module("fsspec")
    scripted = Scripted(DATA, hold=True)

    class SFTPFileSystem(spec.AbstractFileSystem):  # type: ignore[misc, name-defined]
        cachable = False

        def cat_file(self, path: str, start: int, end: int) -> Any:
            return scripted.pread(end - start, start)

        def info(self, path: str, **options: Any) -> Any:
            size = len(scripted.pread(SIZE, 0))
            return {"name": path, "size": size, "mtime": 5, "time": len(scripted.calls)}

    fs = SFTPFileSystem()
    if wrapped:
        fs = need_module("fsspec.implementations.dirfs").DirFileSystem("/", fs)

    async def awaited(name: str) -> None:
        reader = rangeio.from_fsspec_async(fs, name)
        assert await asyncio.gather(*(reader.read_at(at, 10) for at in range(20))) == [
            DATA[at : at + 10] for at in range(20)
        ]
        assert await reader.read_ranges(FAR) == cut(FAR)

    threads = [threading.Thread(target=asyncio.run, args=(awaited(name),)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    scripted.wait_for(1)
    scripted.release()
    for thread in threads:
        thread.join()
    with rangeio.from_fsspec(fs, "c") as reader:
        assert reader.read_ranges(FAR) == cut(FAR)
    assert scripted.most == 1
    assert len(scripted.calls) == 20 + 16 + 20 + 16 + 16 + 6


# --- obstore and obspec --------------------------------------------------------------------------------------


def local_store(path: Path) -> Any:
    return need_module("obstore.store").LocalStore(str(path.parent))


def test_calls_of_obstore(path: Path) -> None:
    """One `get` for each request, the first included; those after it under its ETag."""
    store = Counted(local_store(path))
    with rangeio.from_obstore(store, "object") as reader:
        assert reader.read_ranges(FAR) == cut(FAR)
        options = [options["options"] for _, options in store.calls]
        assert store.names() == ["get"] * 16
        assert [sorted(given) for given in options] == [["range"]] + [["if_match", "range"]] * 15
        for at in range(40):
            assert reader.read_at(at, 1000) == DATA[at : at + 1000]
        assert store.names() == ["get"] * 40
        assert reader.read_range() == DATA
        assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
        assert store.names() == ["get"] * 2
        assert reader.stat().size == SIZE
        assert store.names() == ["head"]
        assert reader.capability.pin == "etag+size"
    for first, said in (((SIZE, 10), b""), ((SIZE + 5, 10), b""), ((0, 10), DATA[:10])):
        with rangeio.from_obstore(store, "object") as reader:
            assert reader.read_at(*first) == said
        assert store.names() == (["get"] if said else ["get", "head"])
    with rangeio.from_obstore(store, "object") as reader:
        assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
    assert store.names() == ["head", "get"]
    with rangeio.from_obstore(store, "object", size=SIZE) as reader:
        assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
    assert store.names() == ["get"]


@pytest.mark.parametrize("on", LOOPS)
def test_awaited_calls_of_obstore(path: Path, on: str) -> None:
    """Its coroutines under asyncio and uvloop, its blocking calls in threads under trio; as few as without a loop."""
    need_module(on)
    store = Counted(local_store(path))

    async def main() -> None:
        async with rangeio.from_obstore_async(store, "object") as reader:
            assert await reader.read_at(5, 10) == DATA[5:15]
            assert await reader.read_ranges(FAR) == cut(FAR)

    run_on(on, main)
    assert [sorted(options["options"]) for _, options in store.calls] == [["range"]] + [
        ["if_match", "range"]
    ] * 16
    assert set(store.names()) == {"get" if on == "trio" else "get_async"}


@pytest.mark.parametrize("pin", [True, False])
def test_a_changed_object_of_obstore(path: Path, pin: bool) -> None:
    with rangeio.from_obstore(local_store(path), "object", pin=pin) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        other = path.with_name("other")
        other.write_bytes(DATA[::-1])
        other.replace(path)
        if not pin:
            assert reader.read_ranges([(0, 10), *FAR]) == cut([(0, 10), *FAR], DATA[::-1])
            return
        for read in (lambda: reader.read_at(0, 10), lambda: reader.read_ranges(FAR), reader.stat):
            with pytest.raises(rangeio.ObjectChangedError):
                read()


def test_errors_of_obstore(path: Path) -> None:
    store = local_store(path)
    with rangeio.from_obstore(store, "nothing") as reader:
        for read in (lambda: reader.read_at(0, 1), lambda: reader.read_ranges(FAR), reader.stat):
            with pytest.raises(rangeio.NotFoundError) as caught:
                read()
            assert "Debug source" not in str(caught.value)
    with pytest.raises(rangeio.NotFoundError, match="version '7'"):
        rangeio.from_obstore(store, "object", version="7").read_at(0, 1)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(rangeio.from_obstore(need_module("obstore.store").MemoryStore(), "object"))


STATUSES = {
    416: rangeio.RangeNotSatisfiedError,
    429: rangeio.RateLimitedError,
    503: rangeio.ServerError,
    401: rangeio.UnauthenticatedError,
    403: rangeio.PermissionDeniedError,
    404: rangeio.NotFoundError,
    412: rangeio.ObjectChangedError,
    200: rangeio.UnsupportedError,
}


def test_responses_that_obstore_reports() -> None:
    store_of = need_module("obstore.store")
    options: Any = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    with scripted(lambda asked: reply(int(asked.target.strip("/")), b"body")) as server:
        store = store_of.HTTPStore.from_url(server.url, **options)
        for status, error in STATUSES.items():
            with pytest.raises(error):
                rangeio.from_obstore(store, str(status)).read_at(0, 5)
    store = store_of.HTTPStore.from_url("http://127.0.0.1:1", **options)
    with pytest.raises(rangeio.ConnectionFailedError) as caught:
        rangeio.from_obstore(store, "x").read_at(0, 5)
    assert caught.value.status == "temporary"


@pytest.mark.parametrize("hidden", [("get", "get_async"), ("get", "get_async", "head", "head_async")])
def test_obspec_without_get(path: Path, hidden: tuple[str, ...]) -> None:
    """Ranges by `get_range`, the size by `head`, or from the caller."""
    store = Counted(local_store(path), *hidden)
    size = SIZE if "head" in hidden else None

    async def main() -> None:
        async with rangeio.from_obstore_async(store, "object", size=size) as reader:
            assert await reader.read_ranges(FAR) == cut(FAR)
            assert await reader.read_range() == DATA

    with rangeio.from_obstore(store, "object", size=size) as reader:
        assert reader.read_ranges(FAR) == cut(FAR)
        assert reader.read_range() == DATA
        assert reader.read_at(SIZE, 5) == b""
    asyncio.run(main())
    assert set(store.names()) <= {"get_range", "get_range_async", "head", "head_async"}


def test_a_store_that_returns_another_range(path: Path) -> None:
    class Wrong:
        def get(self, path: str, *, options: Any) -> Any:
            return local_store_of_test.get(path, options={"range": (0, 10)})

    local_store_of_test = local_store(path)
    with pytest.raises(rangeio.UnexpectedError, match="bytes from 0 on for bytes from 5 on"):
        rangeio.from_obstore(Wrong(), "object").read_at(5, 10)


@pytest.mark.parametrize("on", ["sync", *LOOPS])
def test_obstore_on_s3(seaweedfs: Any, on: str) -> None:
    """A real server of objects: other reads than the first are under its ETag."""
    store_of = need_module("obstore.store")
    seaweedfs.put("stores/object", DATA)
    store = store_of.S3Store(
        "bucket",
        endpoint=seaweedfs.url,
        region=seaweedfs.region,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
        client_options={"allow_http": True},
    )
    if on == "sync":
        with rangeio.from_obstore(store, "stores/object") as reader:
            assert reader.read_ranges(FAR) == cut(FAR)
            assert reader.read_range() == DATA
            seaweedfs.put("stores/object", DATA[::-1])
            with pytest.raises(rangeio.ObjectChangedError):
                reader.read_at(0, 10)
        return
    need_module(on)

    async def main() -> None:
        async with rangeio.from_obstore_async(store, "stores/object") as reader:
            assert await reader.read_at(SIZE + 3, 10) == b""
            assert await reader.read_ranges(FAR) == cut(FAR)
            assert b"".join([bytes(piece) async for piece in reader.stream(chunk=100_000)]) == DATA
        with pytest.raises(rangeio.NotFoundError):
            await rangeio.from_obstore_async(store, "stores/nothing").read_at(0, 10)

    run_on(on, main)


# --- pyarrow -------------------------------------------------------------------------------------------------


def arrow_files(path: Path) -> dict[str, Any]:
    arrow = need_module("pyarrow")
    return {
        "OSFile": arrow.OSFile(str(path)),
        "memory_map": arrow.memory_map(str(path)),
        "BufferReader": arrow.BufferReader(DATA),
        "PythonFile": arrow.PythonFile(io.BytesIO(DATA), mode="r"),
        "input_stream": arrow.fs.LocalFileSystem().open_input_file(str(path)),
    }


@pytest.mark.parametrize("name", ["OSFile", "memory_map", "BufferReader", "PythonFile", "input_stream"])
def test_files_of_pyarrow(path: Path, name: str) -> None:
    need_module("pyarrow.fs")
    file = arrow_files(path)[name]
    file.seek(7)
    with rangeio.from_pyarrow(file) as reader:
        assert reader.size == SIZE
        assert reader.read_ranges(FAR) == cut(FAR)
        assert reader.read_at(SIZE - 5, 10) == DATA[-5:]
        assert reader.as_file().read() == DATA
        if name != "PythonFile":
            assert file.tell() == 7
        with pytest.raises(TypeError):
            pickle.dumps(reader)
    assert not file.closed

    async def main() -> None:
        async with rangeio.from_pyarrow_async(file) as reader:
            assert await reader.read_ranges(FAR) == cut(FAR)

    asyncio.run(main())
    file.close()
    with rangeio.from_pyarrow(file) as reader, pytest.raises(rangeio.Error):
        reader.read_at(0, 5)


def test_filesystems_of_pyarrow(path: Path, memory: Any) -> None:
    fs = need_module("pyarrow.fs")
    local = fs.LocalFileSystem()
    below = fs.SubTreeFileSystem(str(path.parent), local)
    foreign = fs.PyFileSystem(fs.FSSpecHandler(memory))
    for system, at in ((local, path), (below, "object"), (foreign, "/libraries/object")):
        with rangeio.from_pyarrow(system, at) as reader:
            assert reader.read_ranges(FAR) == cut(FAR)
            assert reader.size == SIZE
    with pytest.raises(rangeio.NotFoundError):
        rangeio.from_pyarrow(below, "nothing")
    with pytest.raises(rangeio.IsDirectoryError):
        rangeio.from_pyarrow(local, path.parent)
    descriptors = len(os.listdir("/proc/self/fd"))
    with rangeio.from_pyarrow(local, path) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        path.write_bytes(DATA[:-1])
        with pytest.raises(rangeio.ObjectChangedError):
            reader.read_ranges(FAR)
    del reader
    assert len(os.listdir("/proc/self/fd")) == descriptors


# --- Python's own files --------------------------------------------------------------------------------------


def test_files_of_python(path: Path) -> None:
    path.with_suffix(".gz").write_bytes(gzip.compress(DATA, 1))
    with (
        open(path, "rb") as buffered,
        open(path, "rb", buffering=0) as raw,
        open(path, "rb") as mapped,
        mmap.mmap(mapped.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
        gzip.open(path.with_suffix(".gz")) as packed,
    ):
        for file in (buffered, raw, mapping, packed, io.BytesIO(DATA)):
            with rangeio.from_object(file) as reader:
                assert reader.read_ranges(FAR[:3]) == cut(FAR[:3])
                assert reader.read_at(SIZE - 5, 10) == DATA[-5:]
                assert reader.size == SIZE
            assert not file.closed
    with open(path) as text, pytest.raises(TypeError, match="binary"):
        rangeio.from_object(text)


def test_two_readers_of_one_file(path: Path) -> None:
    """They share its lock, because they share its cursor."""
    with open(path, "rb") as file:
        wrong: list[int] = []

        def read(reader: rangeio.Reader, seed: int) -> None:
            places = random.Random(seed)
            for _ in range(300):
                at = places.randrange(SIZE - 100)
                if reader.read_at(at, 100) != DATA[at : at + 100]:
                    wrong.append(at)

        readers = [rangeio.from_object(file) for _ in range(4)]
        threads = [threading.Thread(target=read, args=pair) for pair in zip(readers, range(4), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_the_example_of_the_documentation(memory: Any) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "other-stores.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(example, found)
    assert (found["head"], found["tail"], found["some"]) == (bytes(range(8)), bytes(range(64, 72)), b"234")
    assert found["rows"].shape == (3, 16)


def test_a_signal_handler_that_reads_the_same_file() -> None:
    """In the thread that is between `seek` and `read`: the interrupted read is made again."""

    class Interrupted(io.BytesIO):
        def seek(self, to: int, whence: int = 0) -> int:
            found = super().seek(to, whence)
            if to == 5:
                inner.append(bytes(rangeio.from_object(self, SIZE).read_at(100, 10)) if not inner else b"")
            return found

    inner: list[bytes] = []
    with rangeio.from_object(Interrupted(DATA), SIZE) as reader:
        assert reader.read_at(5, 10) == DATA[5:15]
    assert inner == [DATA[100:110], b""]


# --- processes -----------------------------------------------------------------------------------------------

PROCESSES = ["fsspec_sync", "fsspec_async", "obstore_local", "obstore_http", "pyarrow_path"]
LIBRARIES = """
    import os, signal, sys, rangeio
    DATA = open(sys.argv[1], "rb").read()
    FAR = [(i * 70_000, i * 70_000 + 5_000) for i in range(16)]
    folder, name = os.path.split(sys.argv[1])

    def fsspec_sync():
        import fsspec
        return rangeio.from_fsspec(fsspec.filesystem("file"), sys.argv[1])

    def fsspec_async():
        import fsspec
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
        return rangeio.from_fsspec(AsyncFileSystemWrapper(fsspec.filesystem("file"), asynchronous=False), sys.argv[1])

    def obstore_local():
        from obstore.store import LocalStore
        return rangeio.from_obstore(LocalStore(folder), name)

    def obstore_http():
        import threading
        from functools import partial
        from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
        from obstore.store import HTTPStore

        class Ranges(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                first, last = self.headers["Range"].partition("=")[2].split("-")
                body = DATA[int(first) : int(last) + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{len(DATA)}")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Last-Modified", "Mon, 30 Nov 2026 18:00:00 GMT")
                self.end_headers()
                self.wfile.write(body)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = HTTPStore.from_url(f"http://127.0.0.1:{server.server_port}", client_options={"allow_http": True})
        return rangeio.from_obstore(store, "x")

    def pyarrow_path():
        from pyarrow.fs import LocalFileSystem
        return rangeio.from_pyarrow(LocalFileSystem(), sys.argv[1])

    def good(reader):
        return reader.read_ranges(FAR) == [DATA[a:b] for a, b in FAR]

    reader = globals()[sys.argv[2]]()
    assert good(reader)
"""


@pytest.mark.parametrize("name", PROCESSES)
def test_forked_children_of_libraries(path: Path, tmp_path: Path, name: str) -> None:
    """They read, or raise an error; none hangs."""
    need_module(name.partition("_")[0])
    program = code(
        LIBRARIES,
        """
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(0 if good(reader) else 2)
        except rangeio.Error as error:
            os._exit(1)
    say(child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), parent=good(reader))
    """,
    )
    lab = Lab(tmp_path, None)
    try:
        found = lab.run(program, path, name).facts()
    finally:
        lab.close()
    assert found == {"child": int(name in ("fsspec_async", "obstore_http")), "parent": True}


@pytest.mark.parametrize("name", PROCESSES)
def test_exit_while_threads_read(path: Path, tmp_path: Path, name: str) -> None:
    """A library in native code is not stopped in the middle of a call."""
    need_module(name.partition("_")[0])
    program = code(
        LIBRARIES,
        """
    started = [reader.iter_ranges([(at, at + 100_000) for at in range(0, 1_100_000, 1000)], gap=None) for _ in range(4)]
    for iteration in started:
        next(iteration)
    say(left=True)
    """,
    )
    lab = Lab(tmp_path, None)
    try:
        assert lab.run(program, path, name).facts() == {"left": True}
    finally:
        lab.close()
