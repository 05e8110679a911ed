"""The tree of exceptions: what each also is, what each carries, and that it survives a pickle."""

import copy
import errno
import io
import os
import pickle
from typing import Any

import pytest

import _uring
import rangeio
from rangeio import errors

TREE: dict[str, tuple[type, ...]] = {
    "NotFoundError": (FileNotFoundError,),
    "PermissionDeniedError": (PermissionError,),
    "UnauthenticatedError": (PermissionError,),
    "IsDirectoryError": (IsADirectoryError,),
    "NotDirectoryError": (NotADirectoryError,),
    "ConditionNotMatchError": (),
    "NotModifiedError": (rangeio.ConditionNotMatchError,),
    "ObjectChangedError": (rangeio.ConditionNotMatchError,),
    "RangeNotSatisfiedError": (ValueError,),
    "UnexpectedEofError": (EOFError,),
    "RangeNotSupportedError": (io.UnsupportedOperation,),
    "ContentEncodedError": (rangeio.RangeNotSupportedError,),
    "UnsupportedError": (io.UnsupportedOperation,),
    "ConfigInvalidError": (ValueError,),
    "RateLimitedError": (),
    "TimedOutError": (TimeoutError,),
    "ConnectionFailedError": (ConnectionError,),
    "ServerError": (),
    "ClosedError": (ValueError,),
    "UnexpectedError": (),
}
CLASSES: list[type[rangeio.Error]] = [rangeio.Error, *(getattr(rangeio, name) for name in TREE)]
TEMPORARY = {"RateLimitedError", "TimedOutError", "ConnectionFailedError", "ServerError"}


def test_the_tree_is_whole() -> None:
    found = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, rangeio.Error) and kind is not rangeio.Error
    }
    assert found == set(TREE)
    assert found <= set(rangeio.__all__)


@pytest.mark.parametrize("name", TREE)
def test_what_each_also_is(name: str) -> None:
    kind = getattr(rangeio, name)
    for parent in (rangeio.Error, OSError, *TREE[name]):
        assert issubclass(kind, parent)
    assert kind("said").status == ("temporary" if name in TEMPORARY else "permanent")
    assert isinstance(kind.kind, str)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_travel(kind: type[rangeio.Error], again: Any) -> None:
    """With everything they carry; also between processes."""
    error = kind(
        "what was asked: what came",
        path="a/b",
        offset=5,
        limit=6,
        errno=errno.EIO,
        status="persistent",
        attempts=3,
        http_status=503,
        request_id="r1",
        index=7,
        context={"host": "h"},
    )
    twin = again(error)
    assert type(twin) is kind
    assert str(twin) == str(error) == "what was asked: what came"
    assert (twin.errno, twin.filename, twin.args) == (errno.EIO, "a/b", error.args)
    for name in vars(error):
        assert getattr(twin, name) == getattr(error, name), name


def test_defaults() -> None:
    error = rangeio.Error("said")
    assert (error.path, error.offset, error.limit, error.index, error.errno) == ("", None, None, None, None)
    assert (error.attempts, error.context, error.filename, error.http_status) == (1, {}, None, None)
    assert error.context is not rangeio.Error("said").context
    assert repr(error) == "Error('said')"


ERRNO = [
    (errno.ENOENT, rangeio.NotFoundError),
    (errno.EACCES, rangeio.PermissionDeniedError),
    (errno.EPERM, rangeio.PermissionDeniedError),
    (errno.EISDIR, rangeio.IsDirectoryError),
    (errno.ENOTDIR, rangeio.NotDirectoryError),
    (errno.ESPIPE, rangeio.UnsupportedError),
    (errno.EOPNOTSUPP, rangeio.UnsupportedError),
    (errno.ETIMEDOUT, rangeio.TimedOutError),
    (errno.ECONNRESET, rangeio.ConnectionFailedError),
    (errno.ESTALE, rangeio.ObjectChangedError),
    (errno.EIO, rangeio.UnexpectedError),
    (errno.EMFILE, rangeio.UnexpectedError),
    (9999, rangeio.UnexpectedError),
]


@pytest.mark.parametrize(("number", "kind"), ERRNO)
def test_from_errno(number: int, kind: type[rangeio.Error]) -> None:
    """Says what was asked, what came with its name, and carries the number."""
    error = errors.from_native("errno", number, "data.bin", 4096, 100, "more")
    assert type(error) is kind
    assert isinstance(error, rangeio.Error)
    assert (error.errno, error.path, error.offset, error.limit) == (number, "data.bin", 4096, 100)
    assert error.strerror == os.strerror(number)
    for part in (
        "bytes [4096, 4196) of 'data.bin'",
        os.strerror(number),
        errno.errorcode.get(number, "9999"),
        "more",
    ):
        assert part in str(error)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EMFILE, "ulimit -n"), (errno.EIO, "dmesg"), (errno.EISDIR, "list")]
)
def test_advice(number: int, advice: str) -> None:
    assert advice in str(errors.from_native("errno", number, "x", None, None, ""))


def test_temporary() -> None:
    error = errors.from_native("errno", errno.EMFILE, "x", None, None, "")
    assert isinstance(error, rangeio.Error)
    assert error.status == "temporary"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("changed", rangeio.ObjectChangedError),
        ("eof", rangeio.UnexpectedEofError),
        ("closed", rangeio.ClosedError),
        ("unsupported", rangeio.UnsupportedError),
    ],
)
def test_from_other_kinds(kind: Any, expected: type[rangeio.Error]) -> None:
    error = errors.from_native(kind, 0, "x", 0, 10, "truncated from 5 to 3 bytes")
    assert type(error) is expected
    assert error.errno is None
    assert "bytes [0, 10) of 'x'" in str(error)
    assert "truncated from 5 to 3 bytes" in str(error)


def test_the_core_raises_them(reactor: _uring.Reactor) -> None:
    """The factory is installed by importing rangeio, for every backend."""
    with pytest.raises(rangeio.NotFoundError) as caught:
        reactor.open("there is no such file")
    assert caught.value.filename == caught.value.path == "there is no such file"
    assert caught.value.errno == errno.ENOENT


def test_closest() -> None:
    assert errors.closest("chnk", ["chunk", "gap"]) == "did you mean 'chunk'?"
    assert errors.closest("zzz", ["chunk", "gap"]) == "known: chunk, gap"
