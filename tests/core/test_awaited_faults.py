"""The bad input and the faults of local files, awaited: the same errors, with the same things said."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from awaited import LOOPS, run_on
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import need_module
from faults.stalling import Server

import _uring
import rangeio
from _uring.pure import buffer as array_buffer
from rangeio import Operator

NBYTES = 300_000
LOOPED = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_pattern(tmp_path / "data", NBYTES)


async def error_of(reader: rangeio.AsyncReader) -> BaseException:
    """What reading of it raises."""
    async with reader:
        with pytest.raises(rangeio.Error) as caught:
            await reader.read_at(0, 1)
    return caught.value


@LOOPED
def test_what_cannot_be_opened(reactor: _uring.Reactor, path: Path, loop: str) -> None:
    need_module(loop)
    os.mkfifo(path.with_name("fifo"))
    refused: list[tuple[Path, type[Exception]]] = [
        (path.with_name("nothing"), FileNotFoundError),
        (path.parent, IsADirectoryError),
        (path / "below", NotADirectoryError),
        (path.with_name("fifo"), rangeio.UnsupportedError),
        (Path("/dev/zero"), rangeio.UnsupportedError),
    ]

    async def main() -> None:
        for wrong, kind in refused:
            reader = rangeio.open_async(wrong, reactor=reactor)
            with pytest.raises(kind) as caught:
                await reader.read_at(0, 1)
            assert isinstance(caught.value, rangeio.Error)
            assert caught.value.path == str(wrong)
            assert str(wrong) in str(caught.value)
        with pytest.raises(FileNotFoundError):  # and not the directory that it would be relative to
            await rangeio.open_async("", reactor=reactor).read_at(0, 1)

    run_on(loop, main)


@LOOPED
def test_no_permission_and_no_descriptor(reactor: _uring.Reactor, path: Path, loop: str) -> None:
    need_module(loop)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    user = os.geteuid()

    async def main() -> None:
        opened = rangeio.open_async(path, reactor=reactor)
        await opened.read_at(0, 1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(rangeio.UnexpectedError, match="ulimit -n") as caught:
                await rangeio.open_async(path, reactor=reactor).read_at(0, 1)
            assert await opened.read_at(7, 50) == pattern(7, 57)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE
        opened.close()
        path.chmod(0)
        if user == 0:
            os.seteuid(65534)  # root may read anything
        try:
            with pytest.raises(PermissionError) as other:
                await rangeio.open_async(path, reactor=reactor).read_at(0, 1)
        finally:
            os.seteuid(user)
        assert isinstance(other.value, rangeio.PermissionDeniedError)

    run_on(loop, main)


@LOOPED
def test_a_made_up_file(reactor: _uring.Reactor, loop: str) -> None:
    """Of size 0, and not empty."""
    need_module(loop)
    text = Path("/proc/version").read_bytes()

    async def main() -> None:
        async with rangeio.open_async("/proc/version", reactor=reactor) as reader:
            assert await reader.read_to_end() == text
            assert await reader.read_ranges([(3, 9), rangeio.Suffix(4), None]) == [text[3:9], text[-4:], text]
            assert (await reader.stat()).size is None
            with pytest.raises(rangeio.UnexpectedEofError):
                await reader.read_batch([len(text) - 2], 4)
        [found] = await Operator("fs", reactor=reactor).read_ranges_async([("/proc/version", (0, 10))])
        assert found == text[:10]

    run_on(loop, main)


CHANGES = {
    "large read_at": lambda reader: reader.read_at(0, NBYTES),
    "read_into": lambda reader: reader.read_into(bytearray(NBYTES)),
    "read_ranges": lambda reader: reader.read_ranges([(0, 10), (NBYTES - 10, NBYTES)]),
    "read_batch": lambda reader: reader.read_batch([0, NBYTES - 10], 10),
    "stat": lambda reader: reader.stat(),
    "stream": lambda reader: anext(reader.stream()),
    "a stream of small chunks": lambda reader: anext(reader.stream((0, 100), chunk=10)),
    "iter_ranges": lambda reader: anext(reader.iter_ranges([(0, 10), (5000, 5010)], gap=None)),
    "iter_ranges of one": lambda reader: anext(reader.iter_ranges([(500, 510)], chunk=5)),
    "each with its error": lambda reader: raise_first(reader.read_ranges([(0, 10)], on_error="return")),
    "as_async_file": lambda reader: reader.as_async_file().read(),
}


async def append_all(found: list[Any], results: Any) -> None:
    async for result in results:
        found.append(result)


async def raise_first(results: Any) -> None:
    for result in await results:
        if isinstance(result, BaseException):
            raise result


@LOOPED
@pytest.mark.parametrize("read", CHANGES)
@pytest.mark.parametrize("change", ["truncated", "grown", "rewritten"])
def test_a_file_that_changes(reactor: _uring.Reactor, path: Path, loop: str, read: str, change: str) -> None:
    need_module(loop)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, 10)
            if change == "rewritten":
                os.utime(path, ns=(1, 1))
            else:
                os.truncate(path, 1000 if change == "truncated" else NBYTES + 8)
            with pytest.raises(rangeio.ObjectChangedError) as caught:
                await CHANGES[read](reader)
            assert caught.value.path == str(path)

    run_on(loop, main)


@LOOPED
def test_rewritten_amid_an_iteration(reactor: _uring.Reactor, path: Path, loop: str) -> None:
    """Nothing of the new version is handed out after something of the old one."""
    need_module(loop)
    ranges = [(at, at + 100) for at in range(0, NBYTES - 100, 5000)]

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            results = reader.iter_ranges(ranges, gap=None)
            found = [await anext(results) for _ in range(3)]
            path.write_bytes(bytes(NBYTES))
            os.utime(path, ns=(1, 1))
            with pytest.raises(rangeio.ObjectChangedError):
                await append_all(found, results)
            assert all(buffer == pattern(*ranges[index]) for index, buffer in found)

    run_on(loop, main)


@LOOPED
def test_replaced_and_removed(reactor: _uring.Reactor, path: Path, loop: str) -> None:
    need_module(loop)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, 10)
            path.with_name("new").write_bytes(b"other" * 1000)
            path.with_name("new").rename(path)
            assert await reader.read_to_end() == pattern(0, NBYTES)
            path.unlink()
            assert await reader.read_ranges([(5, 10), (NBYTES - 5, None)]) == [
                pattern(5, 10),
                pattern(NBYTES - 5, NBYTES),
            ]

    run_on(loop, main)


@pytest.mark.slow
def test_many_ranges(reactor: _uring.Reactor, path: Path) -> None:
    """100,000 of them, unsorted, as one awaitable."""
    starts = np.random.default_rng(2).permutation(np.arange(100_000, dtype=np.int64) * 2 + 1)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            found = await reader.read_ranges(np.stack([starts, starts + 1], axis=1), gap=None)
            whole = pattern(0, NBYTES)
            assert b"".join(found) == bytes(whole[start] for start in starts.tolist())

    run_on("asyncio", main)


FAILING = code("""
    import sys, rangeio
    from awaited import run_on

    bad, size = 500_000, 1 << 20
    reads = {
        "small": lambda reader: reader.read_at(bad - 10, 100),
        "large": lambda reader: reader.read_at(bad - 5000, 400_000),
        "into": lambda reader: reader.read_into(bytearray(9000), bad - 5000),
        "ranges": lambda reader: reader.read_ranges([(0, 512), (bad - 10, bad + 10)], gap=0),
        "batch": lambda reader: reader.read_batch([5, bad - 10, 7], 64),
        "stream": lambda reader: collect(reader.stream((bad - 5000, None))),
        "iter": lambda reader: collect(reader.iter_ranges([(0, 512), (bad - 10, bad + 10)])),
        "file": lambda reader: reader.as_async_file((bad - 5000, None)).read(),
    }

    async def collect(items):
        async for _ in items:
            pass

    async def main():
        async with rangeio.open_async(sys.argv[1]) as reader:
            for name, read in reads.items():
                try:
                    await read(reader)
                except rangeio.Error as error:
                    say(**{name: describe(error)})
            say(after=bytes(await reader.read_at(4096, 4096)) == pattern(4096, 8192))

    run_on(sys.argv[2], main)
    say(leaks=leaks())
""")


@LOOPED
def test_eio(lab: Lab, stalling: Server, loop: str) -> None:
    """Of a file system, for any read that touches one byte."""
    need_module(loop)
    path = stalling.path("eio-500000")
    facts = lab.run(FAILING, path, loop).facts()
    assert (facts.pop("after"), facts.pop("leaks")) == (True, {})
    assert set(facts) == {"small", "large", "into", "ranges", "batch", "stream", "iter", "file"}
    for name, error in facts.items():
        assert (error["errno"], error["path"]) == (errno.EIO, str(path)), (name, error)
        assert str(path) in error["text"], (name, error)


@LOOPED
def test_short_reads_are_continued(lab: Lab, stalling: Server, loop: str) -> None:
    need_module(loop)
    program = code("""
        import sys, rangeio
        from awaited import run_on

        async def main():
            async with rangeio.open_async(sys.argv[1]) as reader:
                ranges = scattered(8, 30_000, 1 << 20)
                say(whole=bytes(await reader.read_to_end()) == pattern(0, 1 << 20))
                say(wrong=wrong(await reader.read_ranges(ranges, gap=0), ranges))
                say(exact=bytes(await reader.read_exact(2, 2222)) == pattern(2, 2224))
                say(stream=b"".join([piece async for piece in reader.stream((5, None))]) == pattern(5, 1 << 20))

        run_on(sys.argv[2], main)
        say(leaks=leaks())
    """)
    facts = lab.run(program, stalling.path("short-1000"), loop).facts()
    assert facts == {"whole": True, "wrong": 0, "exact": True, "stream": True, "leaks": {}}


def test_arguments_are_refused_before_the_await(path: Path) -> None:
    """By the call, in the caller's frame, though no loop runs and the file has not been opened."""
    reader = rangeio.open_async(path.with_name("nothing"))
    calls: list[Any] = [
        lambda: reader.read_at(-1, 5),
        lambda: reader.read_exact(0, 1.5),  # type: ignore[arg-type]
        lambda: reader.read_into(bytes(5)),
        lambda: reader.read_range((5, 3)),
        lambda: reader.read_to_end(-1),
        lambda: reader.read_ranges([(0, 1), (5, 3)]),
        lambda: reader.iter_ranges([(0, 1), (5, 3)]),
        lambda: reader.read_batch([0.5], 4),
        lambda: reader.stream((5, 3)),
        lambda: reader.read_ranges([(0, 1)], gap=-1),
        lambda: reader.copy(object()),
        lambda: reader.sink({}),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert not isinstance(caught.value, FileNotFoundError)


async def listed(iteration: Any) -> list[Any]:
    return [item async for item in iteration]


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of the pure-Python backend, of which less than 50 kB are to be had at once."""
    allocate = array_buffer.Memory.allocate

    def allocated(self: array_buffer.Memory, *shape: int) -> Any:
        if shape[0] * (shape[1] if len(shape) > 1 else 1) > 50_000:
            raise MemoryError("there is none")
        return allocate(self, *shape)

    monkeypatch.setattr(array_buffer.Memory, "allocate", allocated)


ONE_TOO_LARGE = [(0, 10), (100_000, 200_000), (20, 30)]
WITHOUT_MEMORY: dict[str, Callable[[Any], Any]] = {
    "read_at": lambda reader: reader.read_at(0, 200_000),
    "read_ranges": lambda reader: reader.read_ranges(ONE_TOO_LARGE, gap=0),
    "read_ranges, errors returned": lambda reader: reader.read_ranges(ONE_TOO_LARGE, on_error="return"),
    "iter_ranges": lambda reader: listed(reader.iter_ranges(ONE_TOO_LARGE, gap=0)),
    "iter_ranges, errors returned": lambda reader: listed(
        reader.iter_ranges(ONE_TOO_LARGE, on_error="return")
    ),
    "stream": lambda reader: listed(reader.stream(chunk=200_000)),
    "read_batch": lambda reader: reader.read_batch(range(0, 100_000, 1000), 1000),
}


@pytest.mark.usefixtures("scarce")
@pytest.mark.parametrize("backend", ["python"], indirect=True)
@LOOPED
@pytest.mark.parametrize("read", WITHOUT_MEMORY)
def test_no_memory_awaited(reactor: _uring.Reactor, path: Path, read: str, loop: str) -> None:
    """Memory that is missing is a MemoryError, whichever thread missed it; not a defect of rangeio's."""
    need_module(loop)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            with pytest.raises(MemoryError, match="there is none"):
                await WITHOUT_MEMORY[read](reader)
            assert len(await reader.read_at(0, 10)) == 10

    run_on(loop, main)


@pytest.mark.usefixtures("scarce")
@pytest.mark.parametrize("backend", ["python"], indirect=True)
def test_no_memory_for_one_file_of_many(reactor: _uring.Reactor, path: Path) -> None:
    operator = rangeio.Operator("fs", root=path.parent, reactor=reactor)
    jobs: list[Any] = [("data", (0, 100_000))]
    with pytest.raises(MemoryError):
        operator.read_ranges(jobs, on_error="return")
    with pytest.raises(MemoryError):
        run_on("asyncio", lambda: operator.read_ranges_async(jobs, on_error="return"))
