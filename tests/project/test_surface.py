"""What users see of rangeio before they read any file of it: names, documentation, and what can be replaced."""

import ast
import asyncio
import functools
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from faults.child import Lab, code

import _uring
import rangeio
from rangeio.reading import HANDED_OUT, AwaitedReads, Reads

STUB = Path(__file__).resolve().parents[2] / "src" / "_uring" / "__init__.pyi"


def documented_in_the_stub(owner: str) -> dict[str, str]:
    """The documentation of a class of the stub, under "", and of its members."""
    tree = ast.parse(STUB.read_text())
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    functions = [node for node in found.body if isinstance(node, ast.FunctionDef)]
    documents = [
        ("", ast.get_docstring(found)),
        *((node.name, ast.get_docstring(node)) for node in functions),
    ]
    return {name: text for name, text in documents if text}


# --- the Buffer ----------------------------------------------------------------------------------------------


def test_the_buffer_is_documented(reactor: _uring.Reactor) -> None:
    """Where it runs as in the stub, in each backend; and no public member is left out."""
    made = type(reactor.allocate(1))
    told = documented_in_the_stub("Buffer")
    if not _uring.extension_error():  # else it is an array, and has the members of one
        assert {name for name in vars(_uring.Buffer) if not name.startswith("_")} <= told.keys()
    for name, text in told.items():
        assert inspect.getdoc(getattr(made, name) if name else made) == text, name


def test_the_buffer_is_where_users_find_it(reactor: _uring.Reactor) -> None:
    buffer = reactor.allocate(3)
    reactor.writable(buffer)[:] = b"abc"
    made = type(buffer)
    assert (made.__module__, made.__qualname__) == ("rangeio", "Buffer")
    assert repr(made) == "<class 'rangeio.Buffer'>"
    assert repr(buffer) == "<rangeio.Buffer of 3 bytes: b'abc'>"
    assert pickle.loads(pickle.dumps(buffer)) == buffer


def test_there_is_one_buffer(lab: Lab) -> None:
    program = code("""
        import pickle
        import _uring, rangeio
        assert _uring.Buffer is rangeio.Buffer is type(_uring.default_reactor().allocate(1))
        assert pickle.loads(pickle.dumps(rangeio.Buffer)) is rangeio.Buffer
    """)
    assert lab.run(program).facts() == {}


def shown_by(buffer: _uring.Buffer) -> Iterator[tuple[str, Any]]:
    """The value of each public attribute, or what it returns without arguments."""
    for name in dir(buffer):
        if not name.startswith("_") and name != "release":
            try:
                value = getattr(buffer, name)
                shown = value() if callable(value) else value
            except (TypeError, ValueError, BufferError):
                continue
            yield name, shown


def can_be_written(value: Any, buffer: _uring.Buffer) -> bool:
    try:
        view = memoryview(value)
    except (TypeError, ValueError, BufferError):
        return False
    return not view.readonly and np.shares_memory(np.asarray(view), np.asarray(buffer))


@pytest.mark.parametrize("shape", [10, (2, 5)])
def test_no_attribute_of_a_buffer_lets_anybody_write(reactor: _uring.Reactor, shape: Any) -> None:
    buffer = reactor.allocate(shape)
    reactor.writable(buffer).cast("B")[:] = bytes(range(10))
    assert can_be_written(np.asarray(buffer).copy(), buffer) is False
    assert [name for name, value in shown_by(buffer) if can_be_written(value, buffer)] == []
    assert buffer.tobytes() == bytes(range(10))


def test_what_was_seen_is_final(reactor: _uring.Reactor) -> None:
    for look in (bytes, np.asarray, memoryview, lambda buffer: buffer[1:], lambda buffer: buffer[0]):
        buffer = reactor.allocate(4)
        reactor.writable(buffer)[:2] = b"ab"
        reactor.writable(buffer)[2:] = b"cd"
        seen = look(buffer)
        if str(reactor.backend) != "python" or look not in (np.asarray, memoryview):
            with pytest.raises(BufferError, match="finished"):
                reactor.writable(buffer)
        assert buffer == b"abcd"
        del seen


def test_what_was_read_is_final(reactor: _uring.Reactor, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(10_000))
    file = reactor.open(str(tmp_path / "data"))
    batches = file.read_many([0, 5000], [10, 10])
    for buffer in (file.read_at(0, 10), file.read_batch([0, 10], 10), *batches):
        with pytest.raises(BufferError, match="finished"):
            reactor.writable(buffer)
    file.close()


# --- the methods that a Reader takes over --------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "data").write_bytes(bytes(range(100)))
    return str(tmp_path / "data")


@pytest.mark.parametrize("name", HANDED_OUT)
def test_reading_methods_are_documented(name: str, path: str) -> None:
    """On the class, on a Reader of any service, and on the core's own File, which `help(reader.read_at)` shows."""
    said = inspect.getdoc(getattr(Reads, name))
    awaited = inspect.getdoc(getattr(AwaitedReads, name))
    assert said
    assert awaited
    assert (inspect.getdoc(getattr(rangeio.Reader, name)) or "").endswith(said)
    assert (inspect.getdoc(getattr(rangeio.AsyncReader, name)) or "").endswith(awaited)
    with rangeio.open(path) as reader, rangeio.from_bytes(b"abc") as bytes_reader:
        assert inspect.getdoc(getattr(reader, name)) == documented_in_the_stub("File")[name]
        assert inspect.getdoc(getattr(bytes_reader, name)) == said
        assert inspect.getdoc(getattr(reader.slice(1, 2), name)) == said
    with rangeio.open("http://localhost:1/nothing") as remote:
        assert inspect.getdoc(getattr(remote, name)) == said
    assert inspect.getdoc(getattr(rangeio.open_async(path), name)) == awaited


@pytest.mark.parametrize("name", [*HANDED_OUT, *(f"{name}_async" for name in HANDED_OUT)])
def test_the_core_documents_its_reads(reactor: _uring.Reactor, path: str, name: str) -> None:
    file = reactor.open(path)
    assert inspect.getdoc(getattr(type(file), name)) == documented_in_the_stub("File")[name]
    file.close()


def test_the_reading_methods_are_the_cores_own(path: str) -> None:
    """Nothing lies between the caller and the core, or a small read would cost a tenth more."""
    with rangeio.open(path) as reader:
        for name in HANDED_OUT:
            assert isinstance(getattr(reader, name).__self__, _uring.File)
            assert (
                list(inspect.signature(getattr(reader, name)).parameters)
                == list(inspect.signature(getattr(Reads, name)).parameters)[1:]
            )


def test_methods_of_a_reader_can_be_patched(path: str) -> None:
    with rangeio.open(path) as reader:
        before = reader.read_at
        with mock.patch.object(reader, "read_at", return_value=b"made up") as patched:
            assert reader.read_at(0, 7) == reader.read_exact(0, 7) == reader.read_range((0, 7)) == b"made up"
        assert patched.call_count == 3
        with mock.patch.object(reader, "read_at", autospec=True) as patched:
            reader.read_exact(0, 0)
        patched.assert_called_once_with(0, 0)
        assert reader.read_at == before
        assert reader.read_at(5, 2) == bytes([5, 6])


def test_methods_of_the_class_can_be_patched(path: str) -> None:
    """For Readers that are there, and for those that are opened meanwhile."""
    made_up = mock.Mock(return_value=b"x")
    with (
        rangeio.open(path) as early,
        mock.patch.object(rangeio.Reader, "read_at", made_up),
        rangeio.open(path) as late,
    ):
        assert early.read_at(0, 1) == late.read_at(0, 1) == b"x"
    with rangeio.open(path) as reader:
        assert reader.read_at(5, 2) == bytes([5, 6])


class Counting:
    """Wraps a callable, or a slot as the class has it, as instrumentation does it."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped, self.calls = wrapped, 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.calls += 1
        return self.wrapped(*args, **named)

    def __get__(self, reader: Any, owner: type) -> Any:
        bound = self.wrapped.__get__(reader, owner)

        @functools.wraps(bound)
        def counted(*args: Any, **named: Any) -> Any:
            self.calls += 1
            return bound(*args, **named)

        return counted


def test_methods_of_a_reader_can_be_wrapped(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with rangeio.open(path) as reader:
        one = Counting(reader.read_at)
        monkeypatch.setattr(reader, "read_at", one)
        assert reader.read_at(5, 2) == reader.read_range((5, 7)) == bytes([5, 6])
        assert one.calls == 2
    every = Counting(vars(rangeio.Reader)["read_at"])
    monkeypatch.setattr(rangeio.Reader, "read_at", every)
    with rangeio.open(path) as reader:
        assert reader.read_at(5, 2) == bytes([5, 6])
    assert every.calls == 1


def test_a_subclass_can_override_a_method(path: str) -> None:
    class Louder(rangeio.Reader):
        def read_at(self, offset: Any, limit: Any) -> Any:
            return bytes(super().read_at(offset, limit)) + b"!"

    with rangeio.open(path) as reader:
        louder = Louder(reader._source, reader._options)
        assert louder.read_at(5, 1) == louder.read_range((5, 6)) == b"\x05!"


def test_methods_of_an_async_reader_can_be_patched(path: str) -> None:
    """Before it is opened and after; what opens it meanwhile does not undo that."""

    async def patched(reader: rangeio.AsyncReader) -> None:
        made_up = mock.AsyncMock(return_value=b"made up")
        with mock.patch.object(reader, "read_at", made_up):
            assert await reader.read_ranges([(5, 7)]) == [bytes([5, 6])]  # goes to the service
            assert await reader.read_at(0, 7) == await reader.read_range((0, 7)) == b"made up"
        assert await reader.read_at(5, 2) == bytes([5, 6])
        assert isinstance(reader.read_at.__self__, _uring.File)  # type: ignore[attr-defined]

    async def use() -> None:
        reader = rangeio.open_async(path)
        await patched(reader)
        await patched(reader)
        reader.close()

    asyncio.run(use())


def test_methods_of_an_async_reader_can_be_wrapped(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        async with rangeio.open_async(path) as reader:
            one = Counting(reader.read_at)
            monkeypatch.setattr(reader, "read_at", one)
            assert await reader.read_at(5, 2) == await reader.read_range((5, 7)) == bytes([5, 6])
            assert one.calls == 2

    asyncio.run(use())


# --- names ---------------------------------------------------------------------------------------------------

NAMES = """
    AsyncReader Backend Buffer Capability ClosedError ConditionNotMatchError ConfigInvalidError ConnectionFailedError
    ContentEncodedError Error Event IsDirectoryError NotDirectoryError NotFoundError NotModifiedError ObjectChangedError
    Operator Options PermissionDeniedError Plan RangeNotSatisfiedError RangeNotSupportedError RateLimitedError Reactor
    Reader Retry ServerError Stat Suffix TimedOutError Timeout UnauthenticatedError UnexpectedEofError UnexpectedError
    UnsupportedError __version__ backend from_bytes from_bytes_async from_fd from_fd_async from_fsspec
    from_fsspec_async from_object from_object_async from_obstore from_obstore_async from_pyarrow from_pyarrow_async
    on_event open open_async set_budget stats
"""


def test_the_package_shows_its_public_names() -> None:
    """A name that is added or taken away is a decision: it is written down here, and in the changelog."""
    assert dir(rangeio) == sorted(rangeio.__all__) == NAMES.split()
    star: dict[str, Any] = {}
    exec("from rangeio import *", star)
    assert star.keys() - {"__builtins__"} == set(NAMES.split())


def test_public_modules_can_be_imported(lab: Lab) -> None:
    program = code("""
        import rangeio
        assert rangeio.errors.Error is rangeio.Error
        import rangeio.errors, rangeio.policy
        from rangeio import errors
        assert errors is rangeio.errors
    """)
    assert lab.run(program).facts() == {}
