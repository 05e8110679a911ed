"""What users see of rangeio before they read any file of it: names, documentation, and what can be replaced."""

import ast
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import _uring
from faults.child import Lab, code

STUB = Path(__file__).resolve().parent.parent / "src" / "_uring" / "__init__.pyi"


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
    public = {name for name in vars(_uring.Buffer) if not name.startswith("_")}
    assert public <= told.keys()
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
