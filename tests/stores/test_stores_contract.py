"""The contract of every Reader, over objects of other libraries; sync and async."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract

import _uring
import rangeio

Opened = Callable[..., Any]


class Bytes:
    """The least that `from_object` takes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def pread(self, n: int, offset: int) -> bytes:
        return self.data[offset : offset + n]


def bytes_object(data: bytes, folder: Path) -> tuple[str, Any]:
    return "object", (Bytes(data), len(data))


def file_object(data: bytes, folder: Path) -> tuple[str, Any]:
    return "object", (io.BytesIO(data),)


def fsspec_memory(data: bytes, folder: Path) -> tuple[str, Any]:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/contract/{len(data)}", data)
    return "fsspec", (fs, f"/contract/{len(data)}")


def fsspec_local(data: bytes, folder: Path) -> tuple[str, Any]:
    import fsspec

    (folder / str(len(data))).write_bytes(data)
    return "fsspec", (fsspec.filesystem("file"), str(folder / str(len(data))))


def fsspec_async(data: bytes, folder: Path) -> tuple[str, Any]:
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    _, (fs, path) = fsspec_local(data, folder)
    return "fsspec", (AsyncFileSystemWrapper(fs, asynchronous=False), path)


def obstore_local(data: bytes, folder: Path) -> tuple[str, Any]:
    from obstore.store import LocalStore

    (folder / str(len(data))).write_bytes(data)
    return "obstore", (LocalStore(str(folder)), str(len(data)))


def pyarrow_path(data: bytes, folder: Path) -> tuple[str, Any]:
    from pyarrow.fs import LocalFileSystem

    (folder / str(len(data))).write_bytes(data)
    return "pyarrow", (LocalFileSystem(), str(folder / str(len(data))))


STORES = {
    made.__name__: made
    for made in (
        bytes_object,
        file_object,
        fsspec_memory,
        fsspec_local,
        fsspec_async,
        obstore_local,
        pyarrow_path,
    )
}
NEEDS = {"fsspec": "fsspec", "obstore": "obstore", "pyarrow": "pyarrow"}


class StoreContract(HttpContract):
    @pytest.fixture(params=STORES)
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], tuple[str, Any]]:
        name: str = request.param
        if (library := NEEDS.get(name.partition("_")[0])) is not None:
            need_module(library)
        return lambda data: STORES[name](data, tmp_path)


class TestStores(StoreContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, store: Any) -> Make:
        def make(data: bytes) -> rangeio.Reader:
            name, args = store(data)
            reader: rangeio.Reader = getattr(rangeio, f"from_{name}")(*args, reactor=reactor)
            return reader

        return make


@pytest.fixture
def loop(on: str) -> Iterator[Loop]:
    need_module(on)
    made = Loop(on)
    yield made
    made.close()


# Threads serve every loop alike; coroutines run under asyncio and uvloop.
WAYS = [*(("bytes_object", on) for on in LOOPS), ("fsspec_async", "asyncio"), ("obstore_local", "uvloop")]


@pytest.mark.parametrize(("store", "on"), WAYS, indirect=["store"])
class TestStoresAsync(StoreContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, store: Any, loop: Loop) -> Make:
        def make(data: bytes) -> Any:
            name, args = store(data)
            return Asking(getattr(rangeio, f"from_{name}_async")(*args, reactor=reactor), loop)

        return make


def test_threads_end_with_the_program() -> None:
    """They are daemons, and reused."""
    before = threading.active_count()
    reader = rangeio.from_object(Bytes(bytes(1_000_000)), 1_000_000, gap=0, chunk=1000)
    reader.read_range()
    assert threading.active_count() <= before + 16
