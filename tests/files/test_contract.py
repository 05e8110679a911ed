"""The contract, for every service and every backend; and through slices, descriptors, O_DIRECT and without a pin."""

import fcntl
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from contract import DATA, Make, ReaderContract
from faults.child import code

import _uring
import rangeio
from rangeio import Operator
from rangeio.options import Options
from rangeio.service import Capability, Stat
from rangeio.services.immediate import ImmediateSource


@pytest.fixture
def keep() -> Iterator[Callable[[rangeio.Reader], rangeio.Reader]]:
    """Takes a Reader, hands it back, and closes it after the test."""
    readers: list[rangeio.Reader] = []

    def keep(reader: rangeio.Reader) -> rangeio.Reader:
        readers.append(reader)
        return reader

    yield keep
    for reader in readers:
        reader.close()


Keep = Callable[[rangeio.Reader], rangeio.Reader]


def file_of(data: bytes, folder: Path) -> Path:
    path = folder / f"object{len(data)}"
    path.write_bytes(data)
    return path


class TestFile(ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Keep) -> Make:
        return lambda data: keep(rangeio.open(file_of(data, tmp_path), reactor=reactor))


class Least(ImmediateSource):
    """As little as a service can write: every other member is `ImmediateSource`'s."""

    path, closed = "least", False
    capability = Capability(positioned=True, suffix=True, list=False, pin="", backend="memory")

    def __init__(self, reactor: _uring.Reactor, data: bytes) -> None:
        self._reactor, self.data, self.size = reactor, data, len(data)

    def _fetch_one(self, start: int, length: int, chunk: int | None) -> _uring.Buffer:
        part = self.data[start : start + length]
        buffer = self._reactor.allocate(len(part))
        self._reactor.writable(buffer)[:] = part
        return buffer

    def stat(self) -> Stat:
        self._check_open(None, None)
        return Stat(self.path, self.size)

    def close(self) -> None:
        self.closed = True


def least_of(data: bytes) -> rangeio.Reader:
    return rangeio.Reader(Least(_uring.default_reactor(), data), Options(), partial(least_of, data))


class TestLeastSource(ReaderContract):
    @pytest.fixture
    def make(self, keep: Keep) -> Make:
        return lambda data: keep(least_of(data))


class TestFileUnpinned(ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Keep) -> Make:
        return lambda data: keep(rangeio.open(file_of(data, tmp_path), reactor=reactor, pin=False))


class TestFileDirect(ReaderContract):
    """O_DIRECT where the file system has it, else the page cache: the bytes are the same."""

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Keep) -> Make:
        return lambda data: keep(rangeio.open(file_of(data, tmp_path), reactor=reactor, direct=True))


class TestSlice(ReaderContract):
    """A window in the middle of a file."""

    BASE = 4099

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Keep) -> Make:
        def make(data: bytes) -> rangeio.Reader:
            path = file_of(b"<" * self.BASE + data + b">" * 1234, tmp_path)
            return keep(rangeio.open(path, reactor=reactor)).slice(self.BASE, self.BASE + len(data))

        return make


class TestDescriptor(ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, tmp_path: Path, keep: Keep) -> Make:
        def make(data: bytes) -> rangeio.Reader:
            fd = os.open(file_of(data, tmp_path), os.O_RDONLY)
            return keep(rangeio.from_fd(fd, closefd=True, reactor=reactor))

        return make

    def test_pickle(self, reader: rangeio.Reader) -> None:
        """A number that means nothing in another process."""
        for original in (reader, reader.slice(5)):
            with pytest.raises(TypeError, match="open the file by path"):
                pickle.dumps(original)

    def test_pickle_methods(self, reader: rangeio.Reader) -> None:
        for original in (reader, reader.slice(5)):
            for name in ("read_at", "read_into", "read_batch", "read_ranges"):
                with pytest.raises(TypeError, match="open the file by path"):
                    pickle.dumps(getattr(original, name))


class TestMemory(ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, keep: Keep) -> Make:
        return lambda data: keep(Operator("memory", objects={"key": data}, reactor=reactor).open("key"))


class TestBytes(ReaderContract):
    @pytest.fixture
    def make(self, reactor: _uring.Reactor, keep: Keep) -> Make:
        return lambda data: keep(rangeio.from_bytes(data, reactor=reactor))


def test_bytes_are_copied_once(reactor: _uring.Reactor) -> None:
    """What the caller does to a mutable source afterwards is not seen."""
    source = bytearray(DATA[:100])
    reader = rangeio.from_bytes(source, reactor=reactor)
    source[:] = b"x" * 100
    assert reader.read_to_end() == DATA[:100]


def test_descriptor_stays_open(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """closefd=False: neither closed nor moved."""
    fd = os.open(file_of(DATA, tmp_path), os.O_RDONLY)
    os.lseek(fd, 17, os.SEEK_SET)
    with rangeio.from_fd(fd, reactor=reactor) as reader:
        assert reader.read_at(5, 5) == DATA[5:10]
        assert reader.read_ranges([(0, 5), (100, 200)]) == [DATA[:5], DATA[100:200]]
    assert os.lseek(fd, 0, os.SEEK_CUR) == 17
    os.close(fd)


LOCKED = code("""
    import fcntl, os, struct, sys
    descriptor = os.open(sys.argv[1], os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(1)
""")

HELD = code("""
    import fcntl, sys
    for name in sys.argv[1:]:
        with open(name, "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                print(False)
            except OSError:
                print(True)
""")


def is_locked(path: Path) -> bool:
    """Whether another process is refused a lock."""
    return subprocess.run([sys.executable, "-c", LOCKED, path]).returncode == 1


def test_locks_of_a_descriptor_that_is_taken_over(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """They stay until the Reader is closed."""
    path = file_of(DATA, tmp_path)
    fd = os.open(path, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    reader = rangeio.from_fd(fd, closefd=True, reactor=reactor)
    assert reader.read_at(5, 5) == DATA[5:10]
    assert reader.read_ranges([(at, at + 5) for at in range(0, 100, 10)], gap=None)[1] == DATA[10:15]
    assert is_locked(path)
    reader.close()
    assert not is_locked(path)


@pytest.mark.parametrize("closefd", [True, False])
def test_locks_stay_while_many_threads_read(reactor: _uring.Reactor, tmp_path: Path, closefd: bool) -> None:
    """Each for the first time: none of them closes a descriptor that it has opened for that."""
    names = [file_of(DATA, tmp_path).rename(tmp_path / f"data {number}") for number in range(40)]
    ranges = [(at, at + 5) for at in range(0, 100, 10)]
    descriptors, readers = [], []
    for name in names:
        descriptors.append(os.open(name, os.O_RDWR))
        fcntl.lockf(descriptors[-1], fcntl.LOCK_EX)
        readers.append(rangeio.from_fd(descriptors[-1], closefd=closefd, reactor=reactor))
    together, wrong = threading.Barrier(8), []

    def read() -> None:
        for reader in readers:
            together.wait()
            found = reader.read_ranges(ranges, gap=None)
            wrong.extend(
                pair for pair, buffer in zip(ranges, found, strict=True) if buffer != DATA[slice(*pair)]
            )

    threads = [threading.Thread(target=read) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    held = subprocess.run([sys.executable, "-c", HELD, *names], capture_output=True, text=True, check=True)
    for reader in readers:
        reader.close()
    for fd in () if closefd else descriptors:
        os.close(fd)
    assert (held.stdout.split(), wrong) == (["True"] * len(names), [])


@pytest.mark.parametrize("kind", ["flock", "of the description"])
def test_locks_of_the_description_stay(reactor: _uring.Reactor, tmp_path: Path, kind: str) -> None:
    """When a Reader is closed that has a descriptor of its own."""
    path = file_of(DATA, tmp_path)
    fd = os.open(path, os.O_RDWR)
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
    else:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    with rangeio.from_fd(fd, reactor=reactor) as reader:
        assert reader.read_at(5, 5) == DATA[5:10]
    assert is_locked(path)
    os.close(fd)
    assert not is_locked(path)


@pytest.mark.parametrize("closefd", [True, False])
def test_flags_of_a_descriptor_stay(reactor: _uring.Reactor, tmp_path: Path, closefd: bool) -> None:
    fd = os.open(file_of(DATA, tmp_path), os.O_RDONLY | os.O_NONBLOCK)
    other = os.dup(fd)
    flags = fcntl.fcntl(other, fcntl.F_GETFL)
    with rangeio.from_fd(fd, closefd=closefd, reactor=reactor) as reader:
        assert reader.read_range() == DATA
        assert fcntl.fcntl(other, fcntl.F_GETFL) == flags
    if not closefd:
        os.close(fd)
    os.close(other)


def test_descriptor_is_closed(reactor: _uring.Reactor, tmp_path: Path) -> None:
    fd = os.open(file_of(DATA, tmp_path), os.O_RDONLY)
    rangeio.from_fd(fd, closefd=True, reactor=reactor).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_descriptor_stays_open_where_no_reader_is_made(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Also with closefd=True, as io.FileIO does: whoever gets an exception still has what he gave."""
    directory = os.open(tmp_path, os.O_RDONLY)
    reading, writing = os.pipe()
    file = os.open(file_of(DATA, tmp_path), os.O_RDONLY)
    for open_ in (rangeio.from_fd, rangeio.from_fd_async):
        with pytest.raises(IsADirectoryError):
            open_(directory, closefd=True, reactor=reactor)
        with pytest.raises(rangeio.UnsupportedError):
            open_(reading, closefd=True, reactor=reactor)
        with pytest.raises(rangeio.ConfigInvalidError):
            open_(file, closefd=True, reactor=reactor, gap=-1)
    for fd in (directory, reading, writing, file):
        os.close(fd)


def test_wrong_descriptors(reactor: _uring.Reactor) -> None:
    with pytest.raises(rangeio.Error, match="EBADF"):
        rangeio.from_fd(10**6, reactor=reactor)
    reading, writing = os.pipe()
    with pytest.raises(rangeio.UnsupportedError):
        rangeio.from_fd(reading, reactor=reactor)
    os.close(reading)
    os.close(writing)
