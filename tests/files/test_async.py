"""Everything awaited: the whole contract on every backend and loop; then what only an event loop can do wrong."""

import asyncio
import gc
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Awaited, Loop, run_on
from contract import Make, ReaderContract
from faults.data import pattern, write_pattern
from faults.machine import need_module

import _uring
import rangeio
from rangeio import Operator, Suffix
from rangeio.awaitables import pause

NBYTES = 8 << 20


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("async") / "data", NBYTES)


@pytest.fixture
def keep(loop: Loop) -> Iterator[Callable[[rangeio.AsyncReader], Any]]:
    """Takes an AsyncReader, hands it back in the shape of a Reader, and closes it after the test."""
    readers: list[rangeio.AsyncReader] = []

    def keep(reader: rangeio.AsyncReader) -> Any:
        readers.append(reader)
        return Awaited(reader, loop)

    yield keep
    for reader in readers:
        reader.close()


def file_of(data: bytes, folder: Path) -> Path:
    path = folder / f"object{len(data)}"
    path.write_bytes(data)
    return path


# --- the contract --------------------------------------------------------------------------------------------


class TestFile(ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Any) -> Make:
        return lambda data: keep(rangeio.open_async(file_of(data, tmp_path), reactor=reactor))


class OnAsyncio:
    """What does not depend on the loop is held against one."""

    @pytest.fixture
    def loop(self) -> Iterator[Loop]:
        made = Loop("asyncio")
        yield made
        made.close()


class TestFileDirect(OnAsyncio, ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Any) -> Make:
        return lambda data: keep(rangeio.open_async(file_of(data, tmp_path), reactor=reactor, direct=True))


class TestSlice(OnAsyncio, ReaderContract):
    BASE = 4099

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Any) -> Make:
        def make(data: bytes) -> Any:
            path = file_of(b"<" * self.BASE + data + b">" * 1234, tmp_path)
            return keep(rangeio.open_async(path, reactor=reactor)).slice(self.BASE, self.BASE + len(data))

        return make


class TestMemory(OnAsyncio, ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, keep: Any) -> Make:
        return lambda data: keep(Operator("memory", objects={"key": data}, reactor=reactor).open_async("key"))


# --- opening -------------------------------------------------------------------------------------------------


def test_opens_at_first_use(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    reader = rangeio.open_async(path, reactor=reactor)
    files = reactor.stats()["files_open"]
    assert "not opened" in repr(reader)

    async def main() -> None:
        assert reactor.stats()["files_open"] == files
        assert await reader.read_at(5, 5) == pattern(5, 10)
        assert reactor.stats()["files_open"] == files + 1
        await reader.aclose()

    loop.run(main)


def test_hot_path_is_native(reactor: _uring.Reactor, path: Path) -> None:
    """After the first call nothing of Python is between the caller and the core."""

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            assert isinstance(reader.read_at.__self__, type(reactor.open(path)))  # type: ignore[attr-defined]

    asyncio.run(main())


def test_what_is_not_there(tmp_path: Path, loop: Loop) -> None:
    """Is missed when it is opened, by the await."""
    reader = rangeio.open_async(tmp_path / "missing")

    async def main() -> None:
        awaitable = reader.read_at(0, 1)
        with pytest.raises(FileNotFoundError):
            await awaitable
        with pytest.raises(FileNotFoundError):
            async with reader:
                pass

    loop.run(main)


def test_closed_before_it_was_opened(path: Path, loop: Loop) -> None:
    reader = rangeio.open_async(path)
    reader.close()

    async def main() -> None:
        with pytest.raises(rangeio.ClosedError):
            await reader.read_at(0, 1)

    loop.run(main)
    assert reader.closed
    assert "closed" in repr(reader)


def test_wrong_options(path: Path) -> None:
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.open_async(path, chunkk=5)
    with pytest.raises(rangeio.ConfigInvalidError):
        rangeio.open_async(path, prefetch=-1)
    with pytest.raises(AttributeError):
        rangeio.open_async(path).read_somehow  # noqa: B018


def test_the_path_means_what_it_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is of the directory where the reader was made, whatever the directory is when it opens."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_bytes(b"right")
    reader = rangeio.open_async("here")
    copy = pickle.dumps(reader)
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")

    async def main() -> None:
        for one in (reader, pickle.loads(copy)):
            async with one:
                assert await one.read_to_end() == b"right"

    asyncio.run(main())


def test_from_what_is_open_already(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """As from_bytes and from_fd: the bytes are kept, the descriptor is a duplicate; a slice and a pickle work."""
    data = bytearray(b"0123456789")
    of_bytes = rangeio.from_bytes_async(data, reactor=reactor)
    data[:] = b"x" * 10
    fd = os.open(path, os.O_RDONLY)
    of_fd = rangeio.from_fd_async(fd, reactor=reactor, chunk=1 << 20)
    os.close(fd)
    copies = [of_bytes, pickle.loads(pickle.dumps(rangeio.from_bytes_async(b"0123456789")))]

    async def main() -> None:
        for reader in copies:
            async with reader:
                assert await reader.read_at(2, 3) == b"234"
                assert await reader.slice(5).read_to_end() == b"56789"
        async with of_fd:
            assert await of_fd.read_at(5, 100_000) == pattern(5, 100_005)
            assert await of_fd.read_ranges([(0, 10), Suffix(3)]) == [
                pattern(0, 10),
                pattern(NBYTES - 3, NBYTES),
            ]
        with pytest.raises(rangeio.ClosedError):
            await of_fd.read_at(0, 1)

    loop.run(main)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(of_fd)
    with pytest.raises(OSError):
        rangeio.from_fd_async(fd)
    with open(path, "rb") as file:
        files = reactor.stats()["files_open"]
        rangeio.from_fd_async(file.fileno(), reactor=reactor).close()
        assert reactor.stats()["files_open"] == files


# --- loops ---------------------------------------------------------------------------------------------------


async def read_all(reader: rangeio.AsyncReader) -> None:
    """Hot and cold, one and many."""
    assert await reader.read_at(5, 4096) == pattern(5, 4101)
    assert await reader.read_at(4096, 1 << 20) == pattern(4096, 4096 + (1 << 20))
    found = await reader.read_ranges([(0, 100), (500_000, 1_000_000), Suffix(9)], gap=None)
    assert found == [pattern(0, 100), pattern(500_000, 1_000_000), pattern(NBYTES - 9, NBYTES)]


@pytest.mark.parametrize("direct", [False, True])
def test_loops_one_after_the_other(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    reader = rangeio.open_async(path, reactor=reactor, direct=direct)
    for name in [*LOOPS, *LOOPS]:
        need_module(name)
        run_on(name, lambda: read_all(reader))
    reader.close()


@pytest.mark.parametrize("direct", [False, True])
def test_loops_in_threads(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    need_module("trio")
    reader = rangeio.open_async(path, reactor=reactor, direct=direct)
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work(name: str) -> None:
        try:
            start.wait(30)
            for _ in range(5):
                run_on(name, lambda: read_all(reader))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("asyncio", "trio", "asyncio", "trio")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    reader.close()


def test_sync_reads_inside_a_loop(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """They block it, as open().read() would, and that is all."""

    async def main() -> None:
        with rangeio.open(path, reactor=reactor) as reader:
            assert reader.read_at(0, 2 << 20) == pattern(0, 2 << 20)
            assert b"".join(reader.stream()) == pattern(0, NBYTES)
            big = reader.read_ranges([(0, 4 << 20), (4 << 20, NBYTES)])
            assert [len(buffer) for buffer in big] == [4 << 20, 4 << 20]

    loop.run(main)


def test_outside_of_a_loop(reactor: _uring.Reactor, path: Path) -> None:
    with pytest.raises(RuntimeError, match="event loop"):
        rangeio.open_async(path, reactor=reactor, direct=True).slice(5).read_at(0, 8).__await__().__next__()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_in_a_forked_child(reactor: _uring.Reactor, path: Path, name: str) -> None:
    """One reader, used before the fork and after it, here and there."""
    need_module(name)
    reader = rangeio.open_async(path, reactor=reactor)
    run_on(name, lambda: read_all(reader))
    child = os.fork()
    if child == 0:
        try:
            run_on(name, lambda: read_all(reader))
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
        os._exit(1)
    run_on(name, lambda: read_all(reader))
    assert os.waitpid(child, 0)[1] == 0
    reader.close()


# --- fairness ------------------------------------------------------------------------------------------------


def test_hot_reads_do_not_starve_others(reactor: _uring.Reactor, path: Path) -> None:
    """A heartbeat beside 64 tasks that read cached bytes as fast as they can.

    By the CPU time of the loop's thread from one beat to the next, which other processes do not count in; the bound is
    some ten turns of the loop. (bench/heartbeat.py measures how late the beats are.)
    """
    held: list[float] = []
    stop = False

    async def read(reader: rangeio.AsyncReader, task: int) -> None:
        while not stop:
            await reader.read_at(task * 4096, 4096)

    async def stream(reader: rangeio.AsyncReader) -> None:
        while not stop:
            async for _ in reader.stream(chunk=65_536):
                pass

    async def beat() -> None:
        nonlocal stop
        for _ in range(100):
            before = time.thread_time()
            await asyncio.sleep(0.001)
            held.append(time.thread_time() - before)
        stop = True

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await asyncio.gather(
                beat(), *(read(reader, task) for task in range(64)), *(stream(reader) for _ in range(4))
            )

    asyncio.run(main())
    assert sorted(held)[90] < 0.02


def test_hot_readers_take_turns(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """None starves, nor does a task that reads nothing. Cancelled ones leave the queue to others."""
    counts, turns = [0] * 100, 0

    async def read(reader: rangeio.AsyncReader, task: int) -> None:
        for number in range(400):
            start = task * 100 + number
            assert await reader.read_at(start, 3000) == pattern(start, start + 3000)
            counts[task] += 1

    async def main() -> None:
        nonlocal turns
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await read(reader, 0)
            counts[0] = 0
            tasks = [asyncio.ensure_future(read(reader, task)) for task in range(len(counts))]
            while not any(task.done() and not task.cancelled() for task in tasks):
                turns += 1
                await asyncio.sleep(0)
                if turns == 3:
                    for task in tasks[1::7]:
                        task.cancel()
            slowest = min(counts[index] for index, task in enumerate(tasks) if not task.cancelled())
            await asyncio.gather(*tasks, return_exceptions=True)
            assert slowest >= 60  # nobody is done before everybody has had a good part
            kept = [counts[index] for index in range(len(counts)) if index % 7 != 1]
            assert kept == [400] * len(kept)

    if loop.name == "trio":
        pytest.skip("trio's own order of tasks is random, and each checkpoint of ours is one of its own")
    loop.run(main)
    assert turns > 20


def test_a_loop_left_with_readers_in_the_queue(reactor: _uring.Reactor, path: Path) -> None:
    """The next loop starts with a clean slate."""
    for _ in range(3):
        loop = asyncio.new_event_loop()
        reader = rangeio.open_async(path, reactor=reactor)

        async def read(reader: rangeio.AsyncReader = reader) -> None:
            while True:
                await reader.read_at(0, 4096)

        tasks = [loop.create_task(read()) for _ in range(100)]
        loop.run_until_complete(asyncio.sleep(0.01))
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
        reader.close()


def test_a_single_direct_read_on_an_idle_loop(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """Nothing else wakes the loop: a lost completion would hang, one that waits for a timeout be late each time."""

    async def main() -> list[float]:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            await reader.read_at(0, 4096)
            took: list[float] = []
            for place in range(1, 50):
                before = time.perf_counter()
                await reader.read_at(place * 4096, 4096)
                took.append(time.perf_counter() - before)
            return took

    assert min(loop.run(main)) < 0.1


# --- cancellation and ends -----------------------------------------------------------------------------------


def settled(reactor: _uring.Reactor, loop: Loop | None = None) -> bool:
    """Whether nothing is under way any more, and no memory held for it; waits for that, with `loop` running."""
    gc.collect()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = reactor.stats()
        if now["in_flight"] == now["buffers_live"] == 0:
            return True
        if loop is None:
            threading.Event().wait(0.001)
        else:
            loop.run(lambda: pause(0.001))
    return False


@pytest.mark.slow
@pytest.mark.parametrize("direct", [False, True])
def test_ten_thousand_cancelled_reads(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    """No leak, no warning, and no byte written into memory that has been given to somebody else."""

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            await reader.read_at(0, 1)
            space = [bytearray(512 << 10) for _ in range(4)]
            for batch in range(100):
                reads: list[Any] = [
                    asyncio.ensure_future(awaited(reader.read_at(index * 4096, 300_000)))
                    for index in range(99)
                ]
                reads.append(asyncio.ensure_future(awaited(reader.read_into(space[batch % 4]))))
                await asyncio.sleep(0)
                kept = await reader.read_at(batch * 4096, 4096)
                for read in reads:
                    read.cancel()
                await asyncio.gather(*reads, return_exceptions=True)
                assert kept == pattern(batch * 4096, batch * 4096 + 4096)
            assert await reader.read_at(7, 300_000) == pattern(7, 300_007)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()
    assert settled(reactor)


async def awaited(awaitable: Any) -> Any:
    return await awaitable


def test_timeouts(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """Of asyncio and of trio's scopes, with the read under way; when it completes, it wakes nobody else."""
    given_up: list[int] = []

    async def on_asyncio() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            for place in range(200):
                try:
                    await timed(awaited(reader.read_at(place * 4096, 65_536)))
                except asyncio.TimeoutError:
                    given_up.append(place)
                assert await reader.read_at(place * 4096, 4096) == pattern(place * 4096, place * 4096 + 4096)

    async def on_trio() -> None:
        import trio

        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            for place in range(200):
                with trio.move_on_after(0) as scope:
                    await reader.read_at(place * 4096, 65_536)
                given_up.extend([place] * scope.cancelled_caught)
                assert await reader.read_at(place * 4096, 4096) == pattern(place * 4096, place * 4096 + 4096)

    loop.run(on_trio if loop.name == "trio" else on_asyncio)
    assert given_up
    assert settled(reactor, loop)


async def timed(read: Any) -> Any:
    """asyncio.timeout(0), which lets the read begin; before Python 3.11 the next best."""
    if hasattr(asyncio, "timeout"):
        async with asyncio.timeout(0):
            return await read
    return await asyncio.wait_for(read, 1e-6)


@pytest.mark.parametrize("direct", [False, True])
def test_loop_closed_with_reads_under_way(reactor: _uring.Reactor, path: Path, direct: bool) -> None:
    reader = rangeio.open_async(path, reactor=reactor, direct=direct)
    tasks: list[Any] = []

    async def main() -> None:
        async with reader.slice(0):
            pass
        await reader.read_at(0, 1)
        tasks.extend(
            asyncio.ensure_future(awaited(reader.read_at(index * 300_000, 300_000))) for index in range(20)
        )
        await asyncio.sleep(0)

    asyncio.run(main())
    tasks.clear()
    assert settled(reactor)

    async def again() -> None:
        assert await reader.read_at(5, 300_000) == pattern(5, 300_005)

    asyncio.run(again())
    reader.close()


def test_loop_left_with_reads_under_way(reactor: _uring.Reactor, path: Path) -> None:
    """Closed without cancelling anything: tasks and futures simply go."""
    reader = rangeio.open_async(path, reactor=reactor, direct=True)
    loop = asyncio.new_event_loop()

    async def begin() -> list[Any]:
        await reader.read_at(0, 1)
        return [reader.read_at(index * 4096, 65_536) for index in range(20)]

    futures = loop.run_until_complete(begin())
    loop.close()
    del futures
    assert settled(reactor)
    asyncio.run(read_all(reader))
    reader.close()


@pytest.mark.parametrize("direct", [False, True])
def test_reader_closed_with_reads_under_way(
    reactor: _uring.Reactor, path: Path, loop: Loop, direct: bool
) -> None:
    """They complete; what comes after is refused."""

    async def main() -> None:
        reader = rangeio.open_async(path, reactor=reactor, direct=direct)
        await reader.read_at(0, 1)
        under_way = reader.read_at(5, 300_000)
        reader.close()
        assert await under_way == pattern(5, 300_005)
        with pytest.raises(rangeio.ClosedError):
            await reader.read_at(0, 1)

    loop.run(main)


# --- many ranges ---------------------------------------------------------------------------------------------


async def fail(iteration: Any) -> None:
    async for _ in iteration:
        raise ZeroDivisionError


def test_iteration_left_half_way(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    """By break, by aclose, and by an error in the consumer: no warning, nothing left."""

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            ranges = [(index * 4096, index * 4096 + 4096) for index in range(1000)]
            async for index, buffer in reader.iter_ranges(ranges, gap=None):
                assert buffer == pattern(index * 4096, index * 4096 + 4096)
                break
            iteration = reader.iter_ranges(ranges, gap=None, concurrent=3)
            await anext(iteration)
            await iteration.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(iteration)
            with pytest.raises(ZeroDivisionError):
                await fail(reader.iter_ranges(ranges, gap=None))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.run(main)
        gc.collect()
    assert settled(reactor, loop)


def test_iteration_for_two_tasks(reactor: _uring.Reactor, path: Path) -> None:
    """Is refused, as of an async generator."""

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            iteration = reader.iter_ranges(
                [(index * 4096, index * 4096 + 10) for index in range(100)], gap=None
            )
            await anext(iteration)
            outcomes = await asyncio.gather(
                *(awaited(anext(iteration)) for _ in range(40)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} <= {tuple, RuntimeError}

    asyncio.run(main())


def test_errors_in_their_places(reactor: _uring.Reactor, tmp_path: Path, loop: Loop) -> None:
    """A file that shrinks: the ranges that are still there are read."""
    path = write_pattern(tmp_path / "shrinks", 1 << 20)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, 1)
            os.truncate(path, 1000)
            with pytest.raises(rangeio.ObjectChangedError):
                await reader.read_ranges([(0, 100), (500_000, 600_000)], gap=None)
            found = await reader.read_ranges([(0, 100), (500_000, 600_000)], gap=None, on_error="return")
            assert isinstance(found[1], rangeio.ObjectChangedError)
            assert found[1].index == 1
            with pytest.raises(rangeio.ObjectChangedError):
                async for _ in reader.iter_ranges([(500_000, 600_000)]):
                    pass

    loop.run(main)


def test_many_files(reactor: _uring.Reactor, tmp_path: Path, loop: Loop) -> None:
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(pattern(number, number + 10_000))
    operator = Operator("fs", root=tmp_path, reactor=reactor)
    jobs: list[Any] = [(f"{number}", (5, 9000)) for number in range(100)]
    jobs += [("7", Suffix(10)), ("8", None), ("8", (3, 9))]
    expected = operator.read_ranges(jobs)

    async def main() -> None:
        assert await operator.read_ranges_async(jobs) == expected
        with pytest.raises(FileNotFoundError) as caught:
            await operator.read_ranges_async([*jobs, ("missing", None)])
        assert caught.value.index == len(jobs)  # type: ignore[attr-defined]
        found = await operator.read_ranges_async([("missing", None), ("7", (0, 5))], on_error="return")
        assert isinstance(found[0], rangeio.NotFoundError)
        assert found[1] == pattern(7, 12)
        with pytest.raises(ValueError, match=r"jobs\[0\]"):
            operator.read_ranges_async([("7", (5, 3))])

    loop.run(main)


def test_pickled(path: Path) -> None:
    async def main() -> None:
        for reader in (rangeio.open_async(path), rangeio.open_async(path).slice(5, 500).slice(1, 10)):
            copy = pickle.loads(pickle.dumps(reader))
            assert await copy.read_to_end() == await reader.read_to_end()
            reader.close()
            copy.close()

    asyncio.run(main())


def test_pickled_methods(reactor: _uring.Reactor, path: Path) -> None:
    """Before and after it was opened, of a slice and of what is in memory."""

    async def main() -> None:
        made = [lambda: rangeio.open_async(path, reactor=reactor), lambda: rangeio.from_bytes_async(whole)]
        for make in (*made, lambda: rangeio.open_async(path).slice(100, 9000)):
            for opened in (False, True):
                reader = make()
                if opened:
                    await reader.read_at(0, 1)
                methods = [
                    getattr(reader, name) for name in ("read_at", "read_into", "read_batch", "read_exact")
                ]
                read_at, read_into, read_batch, read_exact = (
                    pickle.loads(pickle.dumps(method)) for method in methods
                )
                first, space = await reader.read_at(0, 500), bytearray(10)
                reader.close()
                assert await read_at(5, 100) == await read_exact(5, 100) == first[5:105]
                assert await read_into(space, 7) == 10
                assert space == first[7:17]
                assert bytes(await read_batch([9, 3], 4)) == bytes(first[9:13]) + bytes(first[3:7])

    whole = pattern(0, 100_000)
    asyncio.run(main())
    fd = os.open(path, os.O_RDONLY)
    reader = rangeio.from_fd_async(fd, reactor=reactor)
    for name in ("read_at", "read_into", "read_batch"):
        with pytest.raises(TypeError, match="open the file by path"):
            pickle.dumps(getattr(reader, name))
    reader.close()
    os.close(fd)


def test_what_cannot_be_pickled_says_the_same(path: Path, reactor: _uring.Reactor) -> None:
    """By whichever of the things that are made of one descriptor it was asked for."""
    fd = os.open(path, os.O_RDONLY)
    said = set()
    with rangeio.from_fd(fd, reactor=reactor) as reader:
        awaited = rangeio.from_fd_async(fd, reactor=reactor)
        for thing in (
            reader,
            reader.slice(5),
            reader._source,
            reader.read_at,
            reader.plan,
            awaited,
            awaited.plan,
        ):
            with pytest.raises(TypeError) as caught:
                pickle.dumps(thing)
            said.add(str(caught.value))
        awaited.close()
    os.close(fd)
    assert len(said) == 1, said


def test_stats(path: Path) -> None:
    async def main() -> None:
        async with rangeio.open_async(path) as reader:
            await reader.read_ranges([(0, 10), (5, 20)])
            assert reader.stats == {"ranges": 2, "requests": 1, "bytes_requested": 25, "bytes_fetched": 20}
            assert reader.capability.positioned
            assert reader.size == NBYTES
            assert (await reader.plan([(0, 10), (5, 20)])).bytes_fetched == 20

    asyncio.run(main())
