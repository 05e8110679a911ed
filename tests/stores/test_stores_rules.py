"""What rangeio makes of any store: how many calls, how many at once, what of the answers it takes, and when it ends."""

import asyncio
import io
import pickle
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from awaited import LOOPS, beside, cancel_when, run_on
from faults.child import Lab, code
from faults.machine import need_module
from scripted_store import Scripted

import _uring
import rangeio
from rangeio.awaitables import pause
from rangeio.budget import LEAST, SHARED
from rangeio.services.store_source import DEFAULTS, StoreSource
from rangeio.stores.store import Info, Store

DATA = random.Random(74).randbytes(1_000_003)
SIZE = len(DATA)
FAR = [(i * 60_000, i * 60_000 + 5_000) for i in range(16)]
NEAR = [(i * 4_000, i * 4_000 + 1_000) for i in range(16)]


def cut(ranges: list[tuple[int, int]]) -> list[bytes]:
    return [DATA[start:stop] for start, stop in ranges]


@pytest.fixture(params=LOOPS)
def on(request: pytest.FixtureRequest) -> str:
    need_module(request.param)
    name: str = request.param
    return name


# --- how many calls ------------------------------------------------------------------------------------------


def test_one_call_for_each_planned_request() -> None:
    store = Scripted(DATA)
    with rangeio.from_object(store, SIZE) as reader:
        assert store.calls == []
        for ranges, count in ((FAR, 16), (NEAR, 1)):
            assert len(reader.plan(ranges).requests) == count
            assert reader.read_ranges(ranges) == cut(ranges)
            assert len(store.calls) == count
            store.calls.clear()
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_at(SIZE, 10) == reader.read_at(7, 0) == b""
        assert reader.read_range(rangeio.Suffix(7)) == DATA[-7:]
        assert store.calls == [(5, 10), (SIZE - 7, 7)]
        store.calls.clear()
        assert reader.read_ranges([None], chunk=300_000) == [DATA]
        assert sorted(store.calls) == [
            (0, 300_000),
            (300_000, 300_000),
            (600_000, 300_000),
            (900_000, 100_003),
        ]


def test_concurrent_calls_and_never_more() -> None:
    """Whoever reads: one call of the Reader, many, an iteration, a stream; in all of them together, too."""
    store = Scripted(DATA, hold=True)
    reader = rangeio.from_object(store, SIZE, concurrent=3, gap=0, chunk=10_000)
    found: list[Any] = []

    def several() -> None:
        found.append(reader.read_ranges(FAR))

    def iterated() -> None:
        pairs = dict(reader.iter_ranges(FAR, concurrent=2))
        found.append([pairs[index] for index in range(len(FAR))])

    def streamed() -> None:
        pieces = [bytes(piece) for piece in reader.stream((0, 200_000))]
        found.append(cut(FAR) if b"".join(pieces) == DATA[:200_000] else pieces)

    threads = [threading.Thread(target=read) for read in (several, several, iterated, streamed)]
    for thread in threads:
        thread.start()
    store.wait_for(3)
    store.release()
    for thread in threads:
        thread.join()
    assert found == [cut(FAR)] * 4
    assert store.most == 3
    reader.close()


def test_concurrent_awaited_calls(on: str) -> None:
    store = Scripted(DATA, hold=True)

    async def main() -> None:
        reader = rangeio.from_object_async(store, SIZE, concurrent=4)

        async def look() -> None:
            while store.now < 4:
                await pause(0.001)
            store.release()

        async def both() -> list[Any]:
            return await reader.read_ranges(FAR, gap=0)

        assert await beside(on, look, both()) == cut(FAR)
        assert dict([pair async for pair in reader.iter_ranges(FAR)]) == dict(enumerate(cut(FAR)))
        assert b"".join([bytes(piece) async for piece in reader.stream(chunk=70_000)]) == DATA

    run_on(on, main)
    assert store.most == 4


def test_a_read_of_one_piece_is_made_by_the_caller() -> None:
    """No thread is started, so none has to be switched to."""
    seen: list[threading.Thread] = []

    def answer(offset: int, n: int) -> bytes:
        seen.append(threading.current_thread())
        return DATA[offset : offset + n]

    with rangeio.from_object(Scripted(DATA, answer), SIZE) as reader:
        assert reader.read_at(3, 4) == DATA[3:7]
        assert reader.read_ranges(NEAR) == cut(NEAR)
        assert reader.read_ranges(FAR, concurrent=1) == cut(FAR)
    assert set(seen) == {threading.current_thread()}


def test_reads_count_in_the_budget_of_the_process() -> None:
    size, seen = 4 * LEAST, []

    def answer(offset: int, n: int) -> bytes:
        seen.append(SHARED.stats()["budget_in_use"])
        return bytes(n)

    with rangeio.from_object(Scripted(b"", answer), size) as reader:
        assert reader.read_ranges([None]) == [bytes(size)]
    assert min(seen) >= size


# --- what is taken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 7, 999])
def test_short_answers_are_continued(most: int) -> None:
    store = Scripted(DATA, lambda offset, n: DATA[offset : offset + min(n, most)])
    with rangeio.from_object(store, SIZE) as reader:
        assert reader.read_at(SIZE - 1000, 2000) == DATA[-1000:]
        assert len(store.calls) == -(-1000 // most)
        assert reader.read_ranges(FAR[:2], gap=0) == cut(FAR[:2])
        space = bytearray(100)
        assert reader.read_into(space, 50) == 100
        assert space == DATA[50:150]


ANSWERS: list[tuple[Callable[[int, int], Any], type[rangeio.Error], str]] = [
    (lambda offset, n: b"", rangeio.UnexpectedEofError, "nothing from 5 on"),
    (lambda offset, n: DATA[offset : offset + n + 1], rangeio.UnexpectedError, "1001 bytes for 1000"),
    (lambda offset, n: DATA[offset:], rangeio.UnexpectedError, "bytes for 1000"),
    (lambda offset, n: None, rangeio.UnexpectedError, "NoneType, not bytes"),
    (lambda offset, n: "x" * n, rangeio.UnexpectedError, "binary mode"),
    (lambda offset, n: n, rangeio.UnexpectedError, "int, not bytes"),
    (lambda offset, n: list(DATA[offset : offset + n]), rangeio.UnexpectedError, "list, not bytes"),
    (lambda offset, n: np.zeros((n, 2), "u1")[:, 0], rangeio.UnexpectedError, "not bytes"),
]


@pytest.mark.parametrize(("answer", "error", "said"), ANSWERS)
def test_wrong_answers_are_refused(answer: Any, error: type[rangeio.Error], said: str) -> None:
    store = Scripted(DATA, answer)

    async def main() -> None:
        with pytest.raises(error, match=said):
            await rangeio.from_object_async(store, SIZE).read_at(5, 1000)

    with rangeio.from_object(store, SIZE) as reader:
        space = bytearray(1000)
        for read in (lambda: reader.read_at(5, 1000), lambda: reader.read_into(space, 5)):
            with pytest.raises(error, match=said) as caught:
                read()
            assert (caught.value.path, caught.value.offset, caught.value.limit) == ("<Scripted>", 5, 1000)
        with pytest.raises(error) as caught:
            reader.read_ranges([(5, 1005), *FAR[1:]])
        assert caught.value.index is not None
        assert space == bytes(1000)
    asyncio.run(main())


def test_any_buffer_is_taken() -> None:
    kinds: list[Callable[[bytes], Any]] = [
        bytes,
        bytearray,
        memoryview,
        lambda data: np.frombuffer(data, "u1"),
        lambda data: np.frombuffer(data, "<u4"),
        lambda data: np.frombuffer(data, "<u2").reshape(-1, 2),
    ]
    for kind in kinds:
        with rangeio.from_object(
            Scripted(DATA, lambda at, n, kind=kind: kind(DATA[at : at + n])), SIZE
        ) as reader:
            assert reader.read_at(8, 400) == DATA[8:408]


class Gone(FileNotFoundError):
    """One of a library's own."""


class ClientConnectionError(Exception):
    """Named as aiohttp's is."""


FAILURES: list[tuple[BaseException, type[rangeio.Error], type[BaseException]]] = [
    (Gone("no such key"), rangeio.NotFoundError, FileNotFoundError),
    (PermissionError(13, "no"), rangeio.PermissionDeniedError, PermissionError),
    (ConnectionResetError(104, "reset"), rangeio.ConnectionFailedError, ConnectionError),
    (BrokenPipeError(), rangeio.ConnectionFailedError, ConnectionError),
    (ClientConnectionError("gone"), rangeio.ConnectionFailedError, ConnectionError),
    (TimeoutError(), rangeio.TimedOutError, TimeoutError),
    (IsADirectoryError(), rangeio.IsDirectoryError, IsADirectoryError),
    (OSError(5, "a disk"), rangeio.UnexpectedError, OSError),
    (OSError(24, "files"), rangeio.UnexpectedError, OSError),
    (NotImplementedError(), rangeio.UnsupportedError, io.UnsupportedOperation),
    (ValueError("what?"), rangeio.UnexpectedError, OSError),
    (StopIteration(), rangeio.UnexpectedError, OSError),
    (asyncio.CancelledError(), rangeio.ConnectionFailedError, ConnectionError),
]


@pytest.mark.parametrize(
    ("raised", "error", "builtin"), FAILURES, ids=lambda value: getattr(value, "__name__", None)
)
def test_exceptions_are_mapped(
    raised: BaseException, error: type[rangeio.Error], builtin: type[BaseException]
) -> None:
    def answer(offset: int, n: int) -> bytes:
        raise raised

    async def main() -> BaseException:
        with pytest.raises(error) as caught:
            await rangeio.from_object_async(Scripted(DATA, answer), SIZE).read_at(5, 10)
        return caught.value

    with rangeio.from_object(Scripted(DATA, answer), SIZE) as reader:
        with pytest.raises(builtin) as caught:
            reader.read_at(5, 10)
        with pytest.raises(error) as in_thread:
            reader.read_ranges(FAR)
    assert in_thread.value.__cause__ is raised
    assert isinstance(caught.value, error)
    for found in (caught.value, asyncio.run(main())):
        assert found.__cause__ is raised
        assert isinstance(found, rangeio.Error)
        assert (found.path, found.offset, found.limit) == ("<Scripted>", 5, 10)
        assert type(raised).__name__ in str(found) or isinstance(raised, OSError)
        assert pickle.loads(pickle.dumps(found)).offset == 5


def test_other_failures_are_raised_as_they_are() -> None:
    for raised in (MemoryError(), KeyboardInterrupt(), SystemExit(3)):

        def answer(offset: int, n: int, raised: BaseException = raised) -> bytes:
            raise raised

        with rangeio.from_object(Scripted(DATA, answer), SIZE) as reader:
            for read in (lambda: reader.read_at(0, 5), lambda: reader.read_ranges(FAR)):
                with pytest.raises(type(raised)):
                    read()


def test_messages_show_no_secrets() -> None:
    url = "sftp://me:hunter2@host/x?X-Amz-Signature=abcdef123&a=b"

    class Named(Scripted):
        name = url

    def answer(offset: int, n: int) -> bytes:
        raise OSError(f"cannot read {url}, said the server\nAuthorization: Bearer tokentoken")

    with rangeio.from_object(Named(DATA, answer), SIZE) as reader:
        with pytest.raises(rangeio.UnexpectedError) as caught:
            reader.read_at(0, 5)
        shown = [str(caught.value), repr(caught.value), caught.value.path, repr(reader), reader.path]
        shown += [str(caught.value.context), str(reader.stat()), repr(reader.plan([(0, 5)]).requests)]
    for secret in ("hunter2", "abcdef123", "tokentoken"):
        assert not [text for text in shown if secret in text]
    assert "sftp://host/x" in str(caught.value)


# --- objects without a size ----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [10**9, 400_000])
def test_without_a_size(most: int) -> None:
    """They end where nothing is returned."""
    store = Scripted(DATA, lambda offset, n: DATA[offset : offset + min(n, most)])
    with rangeio.from_object(store) as reader:
        assert reader.size is None
        assert reader.stat().size is None
        assert reader.read_at(5, 10) == DATA[5:15]
        assert reader.read_to_end(7) == DATA[7:]
        assert reader.read_at(SIZE - 3, 10) == DATA[-3:]
        assert reader.read_at(SIZE + 3, 10) == b""
        assert reader.read_range(rangeio.Suffix(5)) == DATA[-5:]
        assert reader.read_ranges([*FAR, None, (SIZE - 5, None)]) == [*cut(FAR), DATA, DATA[-5:]]
        assert bytes(reader.read_batch([5, 9], 3)) == DATA[5:8] + DATA[9:12]
        assert b"".join(map(bytes, reader.stream(chunk=30_000))) == DATA
        assert reader.as_file().read() == DATA
        space = bytearray(20)
        assert reader.read_into(space, SIZE - 9) == 9
        assert space == DATA[-9:] + bytes(11)
        with pytest.raises(rangeio.UnexpectedEofError):
            reader.read_batch([SIZE - 2], 3)


# --- waiting -------------------------------------------------------------------------------------------------


def test_a_loop_is_never_blocked(on: str) -> None:
    """While a store is silent, other tasks run: one of them makes it speak."""
    store = Scripted(DATA, hold=True)

    async def main() -> None:
        async def speak() -> None:
            while not store.now:
                await pause(0.001)
            store.release()

        async with rangeio.from_object_async(store, SIZE) as reader:
            assert await beside(on, speak, reader.read_at(5, 10)) == DATA[5:15]

    run_on(on, main)


@pytest.mark.parametrize("read", ["read_at", "read_into", "read_ranges", "stat", "stream"])
def test_cancellation_returns_at_once(on: str, read: str) -> None:
    """Although the store still has the call; it does not write to the caller's memory afterwards."""

    class Sized(Scripted):
        def seek(self, to: int, whence: int = 0) -> int:
            self.pread(1, 0)
            return SIZE

        def read(self, n: int) -> bytes:
            raise AssertionError

    store, space = Sized(DATA, hold=True), bytearray(100)

    async def main() -> None:
        reader = rangeio.from_object_async(store, None if read == "stat" else SIZE)

        async def streamed() -> None:
            async for _ in reader.stream():
                pass

        calls: dict[str, Callable[[], Any]] = {
            "read_at": lambda: reader.read_at(0, 100),
            "read_into": lambda: reader.read_into(space),
            "read_ranges": lambda: reader.read_ranges(FAR),
            "stat": reader.stat,
            "stream": streamed,
        }

        async def awaited() -> None:
            await calls[read]()

        await cancel_when(on, lambda: store.now > 0, awaited())
        assert store.now > 0

    run_on(on, main)
    store.release()
    store.wait_for(0)
    assert space == bytes(100)


@pytest.mark.parametrize("way", ["option", "within"])
def test_time_limit(way: str, on: str) -> None:
    store, space = Scripted(DATA, hold=True), bytearray(10)
    limit = {"timeout": 0.05} if way == "option" else {}
    reader = rangeio.from_object(store, SIZE, **limit)
    awaiting = rangeio.from_object_async(store, SIZE, **limit)
    if way == "within":
        reader, awaiting = reader.within(0.05), awaiting.within(0.05)
    calls: list[Callable[[], Any]] = [
        lambda: reader.read_at(0, 10),
        lambda: reader.read_into(space),
        lambda: reader.read_ranges(FAR),
        lambda: list(reader.iter_ranges(FAR)),
        lambda: run_on(on, lambda: awaiting.read_at(0, 10)),
        lambda: run_on(on, lambda: awaiting.read_ranges(FAR)),
    ]
    for call in calls:
        with pytest.raises(rangeio.TimedOutError, match=r"within 0\.05 s") as caught:
            call()
        assert caught.value.status == "temporary"
    assert store.now > 0
    store.release()
    store.wait_for(0)
    assert space == bytes(10)
    assert reader.read_at(3, 4) == DATA[3:7]


class Slow(Store):
    """As a service writes one: a call may take so long, and a forked child cannot use it."""

    path, backend = "slow", "slow"
    call_s = 0.05
    forked = "use spawn"

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        return self._scripted.pread(n, offset)

    def info(self) -> Info:
        return Info(SIZE, (1,), "mtime")


def slow_source(scripted: Scripted) -> StoreSource:
    return StoreSource(_uring.default_reactor(), Slow(scripted), DEFAULTS.updated({"concurrent": 2}))


def test_time_limit_of_one_call(on: str) -> None:
    """Also of one that waits for others which are late."""
    scripted = Scripted(DATA, hold=True)
    reader = rangeio.Reader(slow_source(scripted), DEFAULTS)
    awaiting = rangeio.AsyncReader(lambda: slow_source(scripted), DEFAULTS, "slow")
    for call in (
        lambda: reader.read_at(0, 10),
        lambda: reader.read_ranges(FAR),
        lambda: reader.read_at(0, 10),
        lambda: run_on(on, lambda: awaiting.read_at(0, 10)),
        lambda: run_on(on, lambda: awaiting.read_ranges(FAR)),
    ):
        with pytest.raises(rangeio.TimedOutError, match=r"within 0\.05 s"):
            call()
    assert scripted.now == scripted.most == 4
    scripted.release()
    scripted.wait_for(0)
    assert reader.read_ranges(FAR) == cut(FAR)


def test_a_store_that_no_forked_child_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with rangeio.Reader(slow_source(Scripted(DATA)), DEFAULTS) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        monkeypatch.setattr("os.getpid", lambda: -1)
        with pytest.raises(rangeio.UnsupportedError, match="use spawn"):
            reader.read_at(0, 10)


def test_after_a_failure_nothing_more_is_asked() -> None:
    """Of sixteen requests, two at once, the first fails: no third is made. The failure of the first range is raised."""
    store = Scripted(DATA)

    def answer(offset: int, n: int) -> bytes:
        if offset == 0:
            raise OSError("first")
        store.release()
        raise OSError("second")

    store = Scripted(DATA, answer)
    with rangeio.from_object(store, SIZE, concurrent=2) as reader:
        with pytest.raises(rangeio.UnexpectedError, match="first") as caught:
            reader.read_ranges(FAR)
        assert caught.value.index == 0
        assert len(store.calls) <= 2
        results = reader.read_ranges(FAR, on_error="return")
        assert [getattr(result, "index", None) for result in results] == list(range(16))


def test_closing(on: str) -> None:
    """Reads in progress complete."""
    store = Scripted(DATA, hold=True)

    async def main() -> None:
        reader = rangeio.from_object_async(store, SIZE)

        async def close() -> None:
            while not store.now:
                await pause(0.001)
            reader.close()
            store.release()

        assert await beside(on, close, reader.read_at(5, 10)) == DATA[5:15]
        with pytest.raises(rangeio.ClosedError):
            await reader.read_at(5, 10)

    run_on(on, main)


# --- processes -----------------------------------------------------------------------------------------------

PREPARED = """
    import io, os, signal, threading, rangeio
    from scripted_store import Scripted
    DATA = bytes(range(256)) * 4000
    FAR = [(i * 60_000, i * 60_000 + 500) for i in range(16)]
    store = Scripted(DATA)
    reader = rangeio.from_object(store, len(DATA), gap=0)
    good = lambda: reader.read_ranges(FAR) == [DATA[a:b] for a, b in FAR]
"""


def test_forked_child(tmp_path: Any) -> None:
    """It starts threads of its own, although those of the parent are in the middle of a read."""
    lab = Lab(tmp_path, None)
    program = code(
        PREPARED,
        """
    assert good()
    held = Scripted(DATA, hold=True)
    other = rangeio.from_object(held, len(DATA), gap=0, concurrent=4)
    thread = threading.Thread(target=lambda: other.read_ranges(FAR))
    thread.start()
    held.wait_for(4)
    child = os.fork()
    if child == 0:
        held.release()
        held._changed = threading.Condition()
        os._exit(0 if good() and other.read_ranges(FAR[:2]) == [DATA[a:b] for a, b in FAR[:2]] else 1)
    say(child=os.waitpid(child, 0)[1], parent=good())
    held.release()
    thread.join()
    """,
    )
    try:
        assert lab.run(program).facts() == {"child": 0, "parent": True}
    finally:
        lab.close()


def test_exit_while_a_store_is_silent(tmp_path: Any) -> None:
    lab = Lab(tmp_path, None)
    program = code(
        PREPARED,
        """
    held = Scripted(DATA, hold=True)
    reader = rangeio.from_object(held, len(DATA)).within(0.02)
    try:
        reader.read_ranges(FAR)
    except rangeio.TimedOutError:
        say(now=held.now)
    """,
    )
    try:
        assert lab.run(program).facts()["now"] > 0
    finally:
        lab.close()


def test_ctrl_c_returns_at_once(tmp_path: Any) -> None:
    lab = Lab(tmp_path, None)
    program = code(
        PREPARED,
        """
    held = Scripted(DATA, hold=True)
    reader = rangeio.from_object(held, len(DATA), gap=0)
    threading.Thread(target=lambda: (held.wait_for(16), say(ready=True)), daemon=True).start()
    try:
        reader.read_ranges(FAR)
    except KeyboardInterrupt:
        say(interrupted=held.now)
    """,
    )
    try:
        child = lab.start(program)
        assert child.line() == {"ready": True}
        child.interrupt()
        assert child.line() == {"interrupted": 16}
        assert child.finish().code == 0
    finally:
        lab.close()


def test_no_library_is_imported(tmp_path: Any) -> None:
    lab = Lab(tmp_path, None)
    program = code(
        PREPARED,
        """
    import sys
    heavy = {"fsspec", "obstore", "obspec", "pyarrow", "urllib3", "ssl", "asyncio.base_events"}
    assert good()
    say(found=sorted(heavy & set(sys.modules) - {"ssl", "asyncio.base_events"}))
    """,
    )
    try:
        assert lab.run(program).facts() == {"found": []}
    finally:
        lab.close()


# --- arguments -----------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_refused() -> None:
    class Half:
        def read(self, n: int) -> bytes:
            return b""

    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: rangeio.from_object(5), "no seek and no read"),
        (lambda: rangeio.from_object(Half()), "Half has no pread and no seek"),
        (lambda: rangeio.from_object_async(Half()), "Half has no pread and no seek"),
        (lambda: rangeio.from_object(io.StringIO("text")), "binary"),
        (lambda: rangeio.from_fsspec(Half(), "x"), "no cat_file"),
        (lambda: rangeio.from_obstore(Half(), "x"), "neither"),
        (lambda: rangeio.from_pyarrow(Half()), "Half"),
        (lambda: rangeio.from_pyarrow(Half(), "x"), "get_file_info"),
    ]
    for call, said in refused:
        with pytest.raises(TypeError, match=said):
            call()


@pytest.mark.parametrize("name", ["retry", "hedge", "direct", "on_no_range", "if_match", "version", "mapped"])
def test_options_without_effect_are_refused(name: str) -> None:
    """A store has its own."""
    option: Any = {name: None}
    for make in (rangeio.from_object, rangeio.from_object_async):
        with pytest.raises(rangeio.ConfigInvalidError, match=name):
            make(io.BytesIO(), **option)


@pytest.mark.parametrize("size", [-1, 1.5, "5", 2**63])
def test_wrong_sizes(size: Any) -> None:
    with pytest.raises(rangeio.ConfigInvalidError, match="size"):
        rangeio.from_object(io.BytesIO(), size)
