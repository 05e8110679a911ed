"""Files over a range do what real files do: random sequences of calls, each made of `as_file` and of `open()`."""

import array
import importlib.util
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from awaited import LOOPS, Loop
from faults.data import pattern
from faults.machine import BACKENDS, need_backend, need_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.scripted import honest, scripted

import _uring.cursor
import rangeio
from rangeio.adapters import files

START, SIZE = 1003, 300_000
DATA = bytes(pattern(0, START + SIZE + 77))
PLACES = [*BACKENDS, "memory", "slice", "http"]

Call = tuple[Any, ...]  # the name of a method, and what it is given

# --- what is called ------------------------------------------------------------------------------------------

COUNTS = st.sampled_from([0, 0, 1, 2, 100, 4096, 8191, 8192, 8193, 131_072, 140_000, SIZE, SIZE + 9])
WISHES = st.one_of(COUNTS, st.sampled_from([-1, None]), st.integers(0, 20_000))
MEMORY = st.sampled_from(["bytearray", "view", "words", "view of words", "mmap"])
SEEKS = st.one_of(
    st.tuples(st.just("seek"), st.integers(-SIZE // 2, SIZE + 9000), st.just(0)),
    st.tuples(st.just("seek"), st.integers(-9000, 9000), st.just(1)),
    st.tuples(st.just("seek"), st.integers(-SIZE - 9000, 9000), st.just(2)),
    st.tuples(st.just("seek"), st.just(0), st.sampled_from([0, 1, 2])),
)
RAW = st.one_of(
    SEEKS,
    st.tuples(st.just("read"), WISHES),
    st.tuples(st.just("readinto"), COUNTS, MEMORY),
    st.sampled_from([("tell",), ("readall",)]),
)
BUFFERED = st.one_of(
    SEEKS,
    st.tuples(st.just("read"), WISHES),
    st.tuples(st.just("readinto"), COUNTS, MEMORY),
    st.tuples(st.just("readline"), WISHES),
    st.tuples(st.just("readlines"), st.sampled_from([1, 300, 1000])),
    st.tuples(st.just("read1"), COUNTS),
    st.tuples(st.just("readinto1"), COUNTS, MEMORY),
    st.tuples(st.just("peek"), st.sampled_from([0, 1, 5])),
    st.just(("tell",)),
)
# Of how much these return a file is free to decide.
AS_MUCH_AS_IT_LIKES = ("read1", "readinto1", "peek")


def memory_of(kind: str, nbytes: int) -> Any:
    """Writable memory, all of it set; of words there may be a few bytes more."""
    if kind == "mmap":
        made = mmap.mmap(-1, max(1, nbytes))
        made.write(b"#" * len(made))
        return made
    if "words" in kind:
        words = array.array("I", b"####" * (nbytes // 4 + 1))
        return memoryview(words) if "view" in kind else words
    return memoryview(bytearray(b"#" * nbytes)) if kind == "view" else bytearray(b"#" * nbytes)


def outcome(file: Any, name: str, *given: Any) -> Any:
    """What a call returned and wrote, or which error it raised."""
    memory = [memory_of(given[1], given[0])] if name.startswith("readinto") else []
    try:
        found = getattr(file, name)(*(memory or given))
    except Exception as error:
        return type(error), getattr(error, "errno", None)
    return (found, bytes(memory[0])) if memory else found


# --- and compared --------------------------------------------------------------------------------------------


def same(call: Call, mine: Any, other: Any) -> None:
    """`mine`, of a file of ours, says what `other` says of the real one."""
    if call[0] not in AS_MUCH_AS_IT_LIKES:
        assert mine == other, call
        return
    (count, got), (most, there) = (
        (found[0], found[1][: found[0]]) if isinstance(found, tuple) else (len(found), bytes(found))
        for found in (mine, other)
    )
    common = min(count, most)
    assert got[:common] == there[:common], call
    assert bool(count) == bool(most), call
    assert call[0] != "read1" or count <= call[1], call


def play(calls: list[Call], ours: Any, theirs: Any) -> None:
    for call in calls:
        same(call, outcome(ours, *call), outcome(theirs, *call))
        if call[0] in AS_MUCH_AS_IT_LIKES:
            theirs.seek(ours.tell())
        assert ours.tell() == theirs.tell(), call


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The range as a file of its own."""
    path = tmp_path_factory.mktemp("real") / "file"
    path.write_bytes(DATA[START : START + SIZE])
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture(params=PLACES)
def reader(request: pytest.FixtureRequest, whole: Path) -> Iterator[rangeio.Reader]:
    """Of all backends and services."""
    if request.param == "memory":
        yield rangeio.from_bytes(DATA)
    elif request.param == "http":
        need_module("urllib3")
        with scripted(lambda asked: honest(DATA, asked)) as server, rangeio.open(server.url) as reader:
            yield reader
    elif request.param == "slice":
        with rangeio.open(whole) as reader:
            yield reader.slice(0)
    else:
        reactor = request.getfixturevalue("reactor_named")(request.param)
        with rangeio.open(whole, reactor=reactor) as reader:
            yield reader


@pytest.fixture(scope="module")
def reactor_named() -> Callable[[str], "_uring.Reactor"]:
    made: dict[str, _uring.Reactor] = {}

    def give(backend: Any) -> _uring.Reactor:
        need_backend(backend)
        return made.setdefault(backend, _uring.Reactor(backend=backend))

    return give


@pytest.fixture(params=["compiled", "interpreted"])
def cursor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms of the cursor."""
    if request.param == "interpreted":
        source = Path(_uring.__file__).with_name("cursor.py")
        found = importlib.util.spec_from_file_location("interpreted_cursor", source)
        assert found is not None
        assert found.loader is not None
        module: ModuleType = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        monkeypatch.setattr(files, "Cursor", module.Cursor)


OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# A line is read by as many requests as the buffer has to be filled for it.
SIZES: dict[bool, list[int | None]] = {True: [1, 7, 8192, None], False: [8192, None]}


@OFTEN
@given(data=st.data())
@pytest.mark.usefixtures("cursor")
def test_as_file(reader: rangeio.Reader, real: Path, data: st.DataObject) -> None:
    calls = data.draw(st.lists(BUFFERED, max_size=25))
    size = data.draw(st.sampled_from(SIZES[reader.capability.positioned]))
    with reader.as_file((START, START + SIZE), buffer_size=size) as ours, open(real, "rb") as theirs:
        play(calls, ours, theirs)


@OFTEN
@given(calls=st.lists(RAW, max_size=25))
@pytest.mark.usefixtures("cursor")
def test_raw(reader: rangeio.Reader, real: Path, calls: list[Call]) -> None:
    """`.raw` against a file without a buffer: it reads what it is asked for."""
    with reader.as_file((START, START + SIZE)) as ours, open(real, "rb", buffering=0) as theirs:
        play(calls, ours.raw, theirs)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("place", ["file", "http"])
def test_as_async_file(loop: str, place: str, whole: Path, real: Path) -> None:
    need_module(loop)
    runner = Loop(loop)
    names = ("seek", "read", "readinto", "readline", "readlines", "read1", "peek", "tell")

    async def called(file: Any, name: str, *given: Any) -> Any:
        """As `outcome`."""
        memory = [memory_of(given[1], given[0])] if name == "readinto" else []
        try:
            found = await getattr(file, name)(*(memory or given))
        except Exception as error:
            return type(error), getattr(error, "errno", None)
        return (found, bytes(memory[0])) if memory else found

    def compare(url: Any, sizes: list[int | None]) -> None:
        @OFTEN
        @given(
            calls=st.lists(BUFFERED.filter(lambda call: call[0] in names), max_size=25),
            buffer_size=st.sampled_from(sizes),
        )
        def check(calls: list[Call], buffer_size: int | None) -> None:
            async def main() -> None:
                reader = rangeio.open_async(url)
                async with (
                    reader,
                    reader.as_async_file((START, START + SIZE), buffer_size=buffer_size) as ours,
                ):
                    with open(real, "rb") as theirs:
                        for call in calls:
                            same(call, await called(ours, *call), outcome(theirs, *call))
                            if call[0] in AS_MUCH_AS_IT_LIKES:
                                theirs.seek(await ours.tell())
                            assert await ours.tell() == theirs.tell(), call

            runner.run(main)

        check()

    try:
        if place == "file":
            compare(whole, [0, *SIZES[True]])
        else:
            need_module("urllib3")
            with scripted(lambda asked: honest(DATA, asked)) as server:
                compare(server.url, SIZES[False])
    finally:
        runner.close()
