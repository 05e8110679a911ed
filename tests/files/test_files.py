"""What only files can do: be of many kinds, be missing or forbidden, and change under a Reader."""

import errno
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.data import pattern, write_pattern

import _uring
import rangeio
from rangeio import Operator, Suffix

NBYTES = 300_000
HUGE = 2**63 - 1

Open = Callable[..., rangeio.Reader]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_pattern(tmp_path / "data", NBYTES)


@pytest.fixture
def open_(reactor: _uring.Reactor) -> Iterator[Open]:
    """`rangeio.open` with the reactor under test; what it opened is closed after the test."""
    readers: list[rangeio.Reader] = []

    def open_(path: Any, **options: Any) -> rangeio.Reader:
        readers.append(rangeio.open(path, reactor=reactor, **options))
        return readers[-1]

    yield open_
    for reader in readers:
        reader.close()


def test_an_absolute_path_needs_no_current_directory(tmp_path: Path) -> None:
    """open() needs none either."""
    path = write_pattern(tmp_path / "data", 100)
    gone = tmp_path / "gone"
    gone.mkdir()
    before = os.getcwd()
    os.chdir(gone)
    try:
        gone.rmdir()
        with rangeio.open(path) as reader:
            assert reader.read_at(0, 100) == path.read_bytes()
        assert Operator("fs", root=tmp_path).open("data").read_at(0, 5) == path.read_bytes()[:5]
        assert rangeio.open_async(path).path == str(path)
        with pytest.raises(FileNotFoundError):
            rangeio.open("data")
    finally:
        os.chdir(before)


# --- what cannot be opened -----------------------------------------------------------------------------------


def test_missing(open_: Open, tmp_path: Path) -> None:
    for name in ("nothing", "nothing/below", ""):
        path = os.path.join(tmp_path, name) if name else ""
        with pytest.raises(FileNotFoundError) as caught:
            open_(path)
        assert isinstance(caught.value, rangeio.NotFoundError)
        assert (caught.value.errno, caught.value.path) == (errno.ENOENT, path)
        assert repr(path) in str(caught.value) or not path


def test_directories(open_: Open, path: Path) -> None:
    for directory in (path.parent, f"{path.parent}/", "/"):
        with pytest.raises(IsADirectoryError) as caught:
            open_(directory)
        assert isinstance(caught.value, rangeio.IsDirectoryError)
    for below in (path / "x", f"{path}/"):
        with pytest.raises(NotADirectoryError) as other:
            open_(below)
        assert isinstance(other.value, rangeio.NotDirectoryError)


def test_no_permission(open_: Open, path: Path) -> None:
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read anything
    try:
        with pytest.raises(PermissionError) as caught:
            open_(path)
    finally:
        os.seteuid(user)
    assert isinstance(caught.value, rangeio.PermissionDeniedError)
    assert caught.value.errno == errno.EACCES


def test_strange_paths(open_: Open, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for wrong, number in ((loop, errno.ELOOP), (tmp_path / ("x" * 300), errno.ENAMETOOLONG)):
        with pytest.raises(rangeio.UnexpectedError) as caught:
            open_(wrong)
        assert caught.value.errno == number
    with pytest.raises(ValueError, match="null"):
        open_("a\0b")
    with pytest.raises(TypeError):
        open_(5)


def test_paths_of_any_bytes(open_: Open, tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9 \xff%20#?")
    with open(name, "wb") as file:
        file.write(b"content")
    assert open_(name).read_to_end() == b"content"
    assert open_(os.fsdecode(name)).read_to_end() == b"content"
    assert open_(Path(os.fsdecode(name))).read_to_end() == b"content"


def test_no_stream_is_opened(open_: Open, tmp_path: Path) -> None:
    """A FIFO nobody writes to would hold a plain open(2) for ever."""
    os.mkfifo(tmp_path / "fifo")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.fspath(tmp_path / "socket"))
    for path in (tmp_path / "fifo", tmp_path / "socket", "/dev/null", "/dev/zero"):
        with pytest.raises(rangeio.UnsupportedError) as caught:
            open_(path)
        assert str(path) in str(caught.value)
    listening.close()


def test_wrong_options(open_: Open, path: Path) -> None:
    for options in ({"direct": "yes"}, {"gap": "1"}, {"chunks": 5}, {"size": -1}):
        with pytest.raises(rangeio.ConfigInvalidError):
            open_(path, **options)


# --- files that the file system makes up ---------------------------------------------------------------------

MADE_UP = [
    "/proc/self/stat",
    "/proc/self/mountinfo",
    "/proc/version",
    "/sys/kernel/mm/transparent_hugepage/enabled",
]


@pytest.mark.parametrize("path", MADE_UP)
def test_made_up_files(open_: Open, path: str) -> None:
    """st_size says 0 or 4096 there; the content ends where a read returns nothing."""
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    reader = open_(path)
    whole = bytes(reader.read_at(0, HUGE))
    assert len(whole) > 10
    assert reader.size is None
    assert reader.stat().size is None
    assert bytes(reader.read_to_end())[:9] == whole[:9]
    assert reader.read_at(2, 5) == whole[2:7]
    assert len(reader.read_at(len(whole) + 10_000, 5)) == 0
    assert reader.capability.pin == ""


def test_ranges_of_a_made_up_file(open_: Open) -> None:
    reader = open_("/proc/version")
    whole = Path("/proc/version").read_bytes()
    ranges: list[Any] = [(0, 5), (3, None), Suffix(4), None, (10, 10), (len(whole), 10**9), (1, 3)]
    expected = [whole[:5], whole[3:], whole[-4:], whole, b"", b"", whole[1:3]]
    for gap in (None, 0, 100):
        assert reader.read_ranges(ranges, gap=gap) == expected
        assert dict(reader.iter_ranges(ranges, gap=gap)) == dict(enumerate(expected))
    assert [reader.read_range(wanted) for wanted in ranges] == expected
    space = bytearray(len(whole) + 5)
    assert reader.read_into(space, 2) == len(whole) - 2
    assert space == whole[2:] + bytes(7)
    assert bytes(reader.read_batch([0, 4], 4)) == whole[:8]
    with pytest.raises(rangeio.UnexpectedEofError):
        reader.read_batch([len(whole) - 2], 4)
    assert reader.slice(3, 9).read_to_end() == whole[3:9]
    plan = reader.plan([(0, 5), (10, None)])
    assert [request[1:] for request in plan.requests] == [(0, 5), (10, None)]


def test_nothing_holds_the_memory_that_was_read_into(open_: Open, tmp_path: Path) -> None:
    """Nor that of a kind that is looked at twice, or refused."""
    reader = open_(write_pattern(tmp_path / "data", 4096))
    for kind in ("u1", "f8", "M8[s]", [("a", "i8"), ("b", "c16")]):
        array = np.zeros(8, kind)
        assert reader.read_into(array) == array.nbytes
        array.resize(16)  # ValueError while it is exported
    objects = np.array([None] * 8, object)
    with pytest.raises(TypeError):
        reader.read_into(objects)
    objects.resize(16)


def test_empty_files_are_not_made_up(open_: Open, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    reader = open_(tmp_path / "empty")
    assert (reader.size, reader.stat().size) == (0, 0)
    assert reader.read_at(0, HUGE) == b""


def test_holes(open_: Open, tmp_path: Path) -> None:
    """A file of nothing but a hole has no blocks either, and is none of those."""
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 40)
    reader = open_(tmp_path / "hole")
    assert reader.size == 1 << 40
    assert reader.read_at((1 << 40) - 10, HUGE) == bytes(10)
    assert reader.read_ranges([(5, 10), (1 << 39, (1 << 39) + 3)]) == [bytes(5), bytes(3)]


# --- sizes ---------------------------------------------------------------------------------------------------


def test_there_is_nothing_beyond_the_last_offset(reactor: _uring.Reactor, open_: Open, path: Path) -> None:
    """No byte more can be asked for there, to see whether the file goes on: that is no error."""
    many = Operator("fs", reactor=reactor)
    ranges = [(HUGE, None), (HUGE, HUGE), (HUGE - 1, HUGE), (HUGE - 1, None)]
    for job in ranges:  # one of a file: more of them are a Reader's
        assert many.read_ranges([(path, job)]) == [b""]
    assert open_(path).read_ranges(ranges) == [b""] * 4


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a tmpfs, whose files may be so large")
def test_the_end_of_the_largest_file(reactor: _uring.Reactor, open_: Open) -> None:
    many = Operator("fs", reactor=reactor)
    ranges = [(HUGE - 10, None), (HUGE - 10, HUGE), (HUGE - 10, HUGE - 5), (HUGE, None)]
    expected = [bytes(10), bytes(10), bytes(5), b""]
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        try:
            os.truncate(file.name, HUGE)
        except OSError as error:
            pytest.skip(f"no file of that size: {error}")
        assert [many.read_ranges([(file.name, job)])[0] for job in ranges] == expected
        assert open_(file.name).read_ranges(ranges) == expected


def test_a_huge_limit_takes_little_memory(reactor: _uring.Reactor, open_: Open, path: Path) -> None:
    reader = open_(path)
    for buffer in (
        reader.read_at(NBYTES - 10, HUGE),
        reader.read_at(0, HUGE)[:10].compact(),
        reader.read_ranges([(NBYTES - 10, HUGE)])[0],
        reader.read_at(2**62, 2**62),
    ):
        assert buffer.nbytes <= 10
        assert reactor.stats()["bytes_live"] <= 4 << 20


@pytest.mark.slow
def test_reads_above_two_gigabytes(open_: Open) -> None:
    """The kernel cuts one read at 0x7ffff000 bytes."""
    nbytes = 0x7FFFF000 + 12_345
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 2 * nbytes or not os.path.isdir("/dev/shm"):
        pytest.skip(f"needs /dev/shm and {2 * nbytes >> 20} MiB of free memory, {free >> 20} are")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:  # reading a hole of tmpfs takes no memory
        file.truncate(nbytes + 100)
        os.pwrite(file.fileno(), b"before and after", 0x7FFFF000 - 8)
        os.pwrite(file.fileno(), b"end", nbytes - 3)
        buffer = open_(file.name).read_at(0, nbytes)
    assert len(buffer) == nbytes
    assert buffer[0x7FFFF000 - 8 : 0x7FFFF000 + 8] == b"before and after"
    assert buffer[-5:] == b"\0\0end"


@pytest.mark.slow
def test_many_ranges(open_: Open, path: Path) -> None:
    """100,000 that do not touch: the replies are the results, as the core gave them."""
    starts = np.arange(100_000, dtype=np.int64) * 2 + 1
    reader = open_(path)
    found = reader.read_ranges(np.stack([starts, starts + 1], axis=1))
    assert b"".join(found) == pattern(0, NBYTES)[1:200_001:2]
    assert reader.stats == {
        "ranges": 100_000,
        "requests": 100_000,
        "bytes_requested": 100_000,
        "bytes_fetched": 100_000,
    }


def test_nothing_stands_between(open_: Open, path: Path) -> None:
    """The Reader's hot methods are those of the core's File, not functions that call them."""
    reader = open_(path)
    for method in (reader.read_at, reader.read_into, reader.read_batch):
        assert isinstance(method.__self__, type(reader.read_at.__self__))  # type: ignore[attr-defined]
        assert method.__self__.path == str(path)  # type: ignore[attr-defined]
        assert not isinstance(method.__self__, rangeio.Reader)  # type: ignore[attr-defined]


def test_direct_says_what_it_does(open_: Open, path: Path) -> None:
    for direct in (True, False, "auto"):
        reader = open_(path, direct=direct)
        capability = reader.capability
        assert capability.direct_reason
        assert not (direct is False and capability.direct)
        for start, stop in ((0, 10), (511, 513), (4095, 8193), (NBYTES - 1, NBYTES + 5), (1, NBYTES)):
            assert reader.read_at(start, stop - start) == pattern(start, min(stop, NBYTES))


# --- files that change ---------------------------------------------------------------------------------------

READS: dict[str, Callable[[rangeio.Reader], object]] = {
    "large read_at": lambda reader: reader.read_at(0, NBYTES),
    "read_at of the end": lambda reader: reader.read_at(NBYTES - 10, 10),
    "read_into": lambda reader: reader.read_into(bytearray(NBYTES)),
    "read_ranges": lambda reader: reader.read_ranges([(0, 10), (NBYTES - 10, NBYTES)]),
    "read_ranges of the start": lambda reader: reader.read_ranges([(0, 10)]),
    "iter_ranges": lambda reader: list(reader.iter_ranges([(0, 10), (NBYTES - 10, NBYTES)])),
    "read_batch": lambda reader: reader.read_batch([0, NBYTES - 10], 10),
    "stat": lambda reader: reader.stat(),
    "in pieces": lambda reader: reader.read_ranges([(0, NBYTES)], chunk=10_000),
    "iter_ranges of the start": lambda reader: list(reader.iter_ranges([(0, 10), (5000, 5010)], gap=None)),
    "iter_ranges of one": lambda reader: next(reader.iter_ranges([(5000, 5010)])),
    "iter_ranges in pieces": lambda reader: list(reader.iter_ranges([(0, 10), (50, 90)], gap=None, chunk=20)),
    "iter_ranges in a short piece": lambda reader: list(reader.iter_ranges([(0, 10), (50, 90)], chunk=40)),
    "each with its error": lambda reader: raise_first(reader.read_ranges([(0, 10)], on_error="return")),
    "a stream of small chunks": lambda reader: next(reader.stream((0, 100), chunk=10)),
    "a slice": lambda reader: reader.slice(NBYTES - 10).read_to_end(),
}


def raise_first(results: list[Any]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


@pytest.mark.parametrize("read", READS)
def test_truncated(open_: Open, path: Path, read: str) -> None:
    """Never short without a word, never bytes that are not there."""
    reader = open_(path)
    reader.read_at(0, 10)
    os.truncate(path, 1000)
    with pytest.raises(rangeio.ObjectChangedError) as caught:
        READS[read](reader)
    assert caught.value.path == str(path)
    assert f"from {NBYTES} to 1000" in str(caught.value)


@pytest.mark.parametrize("read", [read for read in READS if read not in ("read_at of the end", "a slice")])
def test_rewritten(open_: Open, path: Path, read: str) -> None:
    """As long as before, but not the same. Only a small read by itself trusts what was seen a moment ago."""
    reader = open_(path)
    reader.read_at(0, 10)
    path.write_bytes(bytes(NBYTES))
    os.utime(path, ns=(1, 1))  # writes within one tick of the clock may leave the time as it was
    with pytest.raises(rangeio.ObjectChangedError):
        READS[read](reader)


@pytest.mark.parametrize("options", [{}, {"chunk": 50}, {"concurrent": 1}, {"on_error": "return"}], ids=str)
def test_rewritten_amid_an_iteration(open_: Open, path: Path, options: Any) -> None:
    """Nothing of the new version is handed out after something of the old one."""
    reader = open_(path)
    ranges = [(at, at + 100) for at in range(0, NBYTES - 100, 5000)]
    results = reader.iter_ranges(ranges, gap=None, **options)
    found = [next(results) for _ in range(3)]
    path.write_bytes(bytes(NBYTES))
    os.utime(path, ns=(1, 1))
    try:
        found += results
    except rangeio.ObjectChangedError:
        failed = 1
    else:
        failed = len([result for _, result in found if isinstance(result, rangeio.ObjectChangedError)])
    assert failed
    for index, result in found:
        assert isinstance(result, rangeio.Error) or result == pattern(*ranges[index])


def test_grown(open_: Open, path: Path) -> None:
    """What was appended belongs to another version: it is not served."""
    reader = open_(path)
    with path.open("ab") as file:
        file.write(b"appended")
    for offset, limit in ((NBYTES - 5, 20), (NBYTES, 8), (NBYTES - 100_000, 200_000)):
        with pytest.raises(rangeio.ObjectChangedError, match=f"from {NBYTES} to {NBYTES + 8}"):
            reader.read_at(offset, limit)
    with pytest.raises(rangeio.ObjectChangedError):
        reader.read_into(bytearray(20), NBYTES - 5)


@pytest.mark.slow
def test_small_reads_notice_within_a_second(open_: Open, path: Path) -> None:
    """The small hot read does not look every time, but it does look."""
    reader = open_(path)
    path.write_bytes(bytes(NBYTES))
    os.utime(path, ns=(1, 1))
    deadline = time.monotonic() + 3
    with pytest.raises(rangeio.ObjectChangedError):
        read_until(reader, deadline)


def read_until(reader: rangeio.Reader, deadline: float) -> None:
    while time.monotonic() < deadline:
        reader.read_at(0, 10)


def test_unpinned(open_: Open, path: Path) -> None:
    """pin=False: whatever is there now, and its size of now."""
    reader = open_(path, pin=False)
    with path.open("ab") as file:
        file.write(b"appended")
    assert reader.size == NBYTES + 8
    assert reader.read_at(NBYTES, 100) == b"appended"
    assert reader.read_ranges([Suffix(8), (NBYTES + 5, None)]) == [b"appended", b"ded"]
    os.truncate(path, 1000)
    assert reader.size == reader.stat().size == 1000
    assert reader.read_at(990, 100_000) == pattern(990, 1000)
    assert reader.read_at(NBYTES, 10) == b""
    with pytest.raises(rangeio.UnexpectedEofError):
        reader.read_batch([0, 990], 20)


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_replaced_or_removed(open_: Open, path: Path, how: str) -> None:
    """The file that was opened is still the one that is read."""
    reader = open_(path)
    if how == "removed":
        path.unlink()
    else:
        path.with_name("new").write_bytes(b"other" * 1000)
        path.with_name("new").rename(path)
    assert reader.read_at(5, 100) == pattern(5, 105)
    assert reader.read_to_end() == pattern(0, NBYTES)
    assert reader.read_ranges([(0, 10), (NBYTES - 5, NBYTES)]) == [
        pattern(0, 10),
        pattern(NBYTES - 5, NBYTES),
    ]
    assert reader.stat().size == NBYTES
    if how == "replaced":
        assert open_(path).read_at(0, 5) == b"other"


def test_stat_identifies_the_version(open_: Open, path: Path) -> None:
    reader = open_(path)
    first = reader.stat()
    assert first.pin
    assert first == reader.stat() == open_(path).stat()
    assert first.mtime_ns == path.stat().st_mtime_ns
    os.utime(path, ns=(1, 1))
    assert open_(path).stat().pin != first.pin


@pytest.mark.parametrize("flags", [os.O_WRONLY, getattr(os, "O_PATH", os.O_WRONLY)], ids=["writes", "names"])
def test_a_descriptor_that_may_not_read_reads_nothing(
    reactor: _uring.Reactor, path: Path, flags: int
) -> None:
    """Few ranges or many: none is read by a descriptor that has more rights than the one passed."""
    ranges = [(at, at + 100) for at in range(0, NBYTES, 4096)]
    with rangeio.from_fd(os.open(path, flags), reactor=reactor, closefd=True) as reader:
        for _ in range(3):
            for count in (1, 3, len(ranges)):
                with pytest.raises(rangeio.Error, match="EBADF"):
                    reader.read_ranges(ranges[:count], gap=None)
            with pytest.raises(rangeio.Error, match="EBADF"):
                reader.read_batch([start for start, _ in ranges], 100)
