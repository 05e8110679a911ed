"""Files over a range: what CPython's tests of buffered reading hold against files, and what libraries do with them."""

import array
import asyncio
import contextlib
import csv
import errno
import gc
import gzip
import io
import itertools
import json
import os
import pickle
import random
import struct
import tarfile
import threading
import wave
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop
from faults.data import pattern, write_pattern
from faults.machine import need_module

import _uring
import rangeio
from rangeio import Suffix

NBYTES = 700_001
START, STOP = 1003, 500_777


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("files") / "data", NBYTES)


@pytest.fixture
def reader(reactor: _uring.Reactor, path: Path) -> Iterator[rangeio.Reader]:
    with rangeio.open(path, reactor=reactor) as reader:
        yield reader


@pytest.fixture
def file_of(reactor: _uring.Reactor, tmp_path: Path) -> Iterator[Callable[[bytes], Any]]:
    """A file over bytes in the middle of a file."""
    with contextlib.ExitStack() as stack:

        def make(data: bytes) -> Any:
            (tmp_path / "object").write_bytes(b"<<<" + data + b">>>")
            reader = stack.enter_context(rangeio.open(tmp_path / "object", reactor=reactor))
            return reader.as_file((3, 3 + len(data)))

        yield make


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


# --- the same as a file in memory ----------------------------------------------------------------------------


def do_the_same(ours: Any, theirs: Any, seed: int) -> None:
    """A random script of everything that reads or moves."""
    chance = random.Random(seed)
    size = STOP - START
    for _ in range(300):
        place, count = chance.randrange(size + 100), chance.choice([0, 1, 10, 4096, 9000, 140_000])
        action = chance.randrange(9)
        if action == 0:
            assert ours.seek(place) == theirs.seek(place)
        elif action == 1:
            assert ours.seek(-min(place, size), os.SEEK_END) == theirs.seek(-min(place, size), os.SEEK_END)
        elif action == 2:
            assert ours.seek(count, os.SEEK_CUR) == theirs.seek(count, os.SEEK_CUR)
        elif action == 3:
            mine, other = bytearray(count), bytearray(count)
            assert ours.readinto(mine) == theirs.readinto(other)
            assert mine == other
        elif action == 4:
            assert ours.readline() == theirs.readline()
        elif action == 5:
            assert ours.readline(count) == theirs.readline(count)
        elif action == 6:
            assert ours.peek(1)[:1] == theirs.getbuffer()[theirs.tell() : theirs.tell() + 1]
        else:
            assert ours.read(count) == theirs.read(count)
        assert ours.tell() == theirs.tell()


@pytest.mark.parametrize("buffer_size", [1, 100, 8192, 128 << 10, 1 << 20])
def test_as_a_file_in_memory(reader: rangeio.Reader, buffer_size: int) -> None:
    data = pattern(START, STOP)
    for seed in range(3):
        with reader.as_file((START, STOP), buffer_size=buffer_size) as file:
            do_the_same(file, io.BytesIO(data), seed)


def test_ranges(reader: rangeio.Reader) -> None:
    for wanted, expected in (
        (None, pattern(0, NBYTES)),
        (Suffix(10), pattern(NBYTES - 10, NBYTES)),
        ((5, None), pattern(5, NBYTES)),
        ((NBYTES, None), b""),
        ((NBYTES + 5, NBYTES + 9), b""),
        ((7, 7), b""),
    ):
        assert reader.as_file(wanted).read() == expected
        assert reader.as_file(wanted).raw.readall() == expected
        assert reader.as_file(wanted).seek(0, os.SEEK_END) == len(expected)


def test_what_it_is(reader: rangeio.Reader) -> None:
    file = reader.as_file((5, 100))
    assert isinstance(file, io.BufferedReader)
    assert isinstance(file.raw, io.RawIOBase)
    assert (file.readable(), file.seekable(), file.writable(), file.isatty()) == (True, True, False, False)
    assert (file.name, file.mode) == (reader.path, "rb")
    assert reader.path in repr(file)
    for call in (file.fileno, file.truncate, lambda: file.write(b"x"), lambda: file.raw.write(b"x")):
        with pytest.raises(io.UnsupportedOperation):
            call()
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="buffer size"):
            reader.as_file(buffer_size=wrong)


def test_reading(reader: rangeio.Reader) -> None:
    """The cases of CPython's BufferedReaderTest."""
    with reader.as_file((0, 10), buffer_size=4) as file:
        data = pattern(0, 10)
        assert file.read(0) == b""
        assert file.read(6) == data[:6]
        assert file.read1(1) == data[6:7]
        assert file.peek()[:1] == data[7:8]
        assert file.read(None) == data[7:]
        assert file.read(1) == file.read() == file.read1(5) == file.read1() == b""
        with pytest.raises(ValueError, match="read length"):
            file.read(-2)
        for bad in ("1", 1.5):
            with pytest.raises(TypeError):
                file.read(bad)  # type: ignore[arg-type]
    with reader.as_file((0, 10)) as file:
        space = bytearray(5)
        assert file.readinto(space) == file.readinto1(space) == 5
        assert space == data[5:]
        assert file.readinto(space) == 0
        assert file.readlines() == list(file) == []
        with pytest.raises(TypeError):
            file.readinto(bytes(5))  # type: ignore[arg-type]


def test_raw(reader: rangeio.Reader) -> None:
    """Without a buffer: fills what it is given, in place."""
    raw: Any = reader.as_file((START, STOP)).detach()
    space = bytearray(NBYTES)
    assert raw.readinto(memoryview(space)[:100]) == 100
    assert space[:100] == pattern(START, START + 100)
    assert raw.read(10) == pattern(START + 100, START + 110)
    assert raw.seek(STOP - START - 3) == raw.tell() == STOP - START - 3
    assert raw.readinto(space) == 3
    assert raw.readinto(space) == 0
    for offset, whence in ((-1, 0), (-(STOP - START) - 1, 2), (-(STOP - START) - 1, 1)):
        with pytest.raises(OSError, match="before the start") as caught:
            raw.seek(offset, whence)
        assert caught.value.errno == errno.EINVAL
        assert raw.tell() == STOP - START
    with pytest.raises(ValueError, match="whence"):
        raw.seek(0, 7)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError):
            raw.seek(wrong)


def test_nothing_is_read_again(reader: rangeio.Reader) -> None:
    """CPython's test_no_extraneous_read: what the buffer holds is not fetched again, nor more than was asked for."""
    for want in (100, 4096, 8192, 10_000):
        file = reader.as_file((0, 50_000), buffer_size=8192)
        first = file.read(want)
        held = file.raw.tell() - want
        assert first == pattern(0, want)
        assert held >= 0
        assert file.read(held) == pattern(want, want + held)
        assert file.raw.tell() == want + held


def test_read1_reads_once(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    """CPython's test_read1: from the buffer if it has any, else one read of the raw file, no more."""
    file = reader.as_file((0, 100_000), buffer_size=8192)
    place = 0
    for want in (1, 100, 4096, 8192, 70_000, -1, 5):
        before = reactor.stats()["reads"]
        found = file.read1(want)
        assert found == pattern(place, place + len(found))
        assert 0 < len(found) <= (want if want >= 0 else 8192)
        assert reactor.stats()["reads"] - before <= 1
        place += len(found)


def test_into_arrays(reader: rangeio.Reader) -> None:
    """CPython's test_readinto_array: filled by bytes, whatever the items are."""
    for buffer_size in (4, 8192):
        file = reader.as_file((0, 1000), buffer_size=buffer_size)
        for method in (file.readinto, file.readinto1, file.raw.readinto):
            space = array.array("I", [0] * 8)
            file.seek(0)
            if method.__self__ is not file:
                file.raw.seek(0)
            assert method(space) == 32
            assert space.tobytes() == pattern(0, 32)
    for view in (memoryview(array.array("I", [0] * 8)), memoryview(bytearray(32)).cast("B", (4, 8))):
        file.raw.seek(990)
        assert file.raw.readinto(view) == 10  # bytes, of a range that ends there
        assert view.tobytes() == pattern(990, 1000) + bytes(22)
    for wrong in (bytes(4), "text", memoryview(bytearray(8))[::2]):
        with pytest.raises((TypeError, BufferError, ValueError)):
            file.raw.readinto(wrong)  # type: ignore[arg-type]


def test_large_reads_go_past_the_buffer(reader: rangeio.Reader) -> None:
    """`readinto` fills the caller's memory in place: what was there already stays around it."""
    space = bytearray(b"-" * 400_000)
    file = reader.as_file((START, STOP))
    assert file.readinto(memoryview(space)[100:300_100]) == 300_000
    assert space == b"-" * 100 + pattern(START, START + 300_000) + b"-" * 99_900


def test_threads_share_a_file(reader: rangeio.Reader) -> None:
    """CPython's test_threads: a BufferedReader has a lock, so that each byte comes to one thread, once."""
    file = reader.as_file(buffer_size=1000)
    parts: list[list[bytes]] = [[] for _ in range(8)]
    failures: list[BaseException] = []

    def work(mine: list[bytes]) -> None:
        try:
            for count in itertools.cycle([8, 64, 1000, 4096]):
                part = file.read(count)
                if not part:
                    return
                mine.append(part)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    whole = pattern(0, NBYTES)
    got = sorted(len(part) for mine in parts for part in mine)
    assert sum(got) == NBYTES
    # Every part starts on a word, and a word says where it belongs.
    words = {whole[at : at + 8]: at for at in range(0, NBYTES - 8, 8)}
    ends = 0
    for start, part in sorted((words[part[:8]], part) for mine in parts for part in mine if len(part) >= 8):
        assert start == ends
        assert part == whole[start : start + len(part)]
        ends = start + len(part)
    assert NBYTES - ends < 8


def test_detached_and_collected(reader: rangeio.Reader) -> None:
    """CPython's test_detach and test_garbage_collection; and what cannot be set or written."""
    file = reader.as_file((5, 100))
    assert file.read(10) == pattern(5, 15)
    raw = file.detach()
    with pytest.raises(ValueError, match="detached"):
        file.read(1)
    assert raw.readable()
    for name in ("raw", "closed", "name", "mode"):
        with pytest.raises(AttributeError):
            setattr(reader.as_file(), name, 5)
    file = reader.as_file()
    file.itself = file  # type: ignore[attr-defined]
    seen = weakref.ref(file)
    del file, raw
    gc.collect()
    assert seen() is None
    assert reader.read_at(0, 3) == pattern(0, 3)


def test_lines(file_of: Any) -> None:
    """CPython's test_readlines and test_readline: limits count bytes, and the last line may lack its end."""
    text = b"abc\ndefg\n\nhi"
    for buffer_size in (1, 3, 8192):
        with file_of(text).detach() as raw:
            file = io.BufferedReader(raw, buffer_size)
            assert file.readlines() == [b"abc\n", b"defg\n", b"\n", b"hi"]
            file.seek(0)
            assert file.readlines(5) == [b"abc\n", b"defg\n"]
            file.seek(0)
            assert [file.readline(2), file.readline(-1), file.readline(0), file.readline()] == [
                b"ab",
                b"c\n",
                b"",
                b"defg\n",
            ]
            assert next(file) == b"\n"
            with pytest.raises(TypeError):
                file.readline("1")  # type: ignore[arg-type]


def test_seeking_reads_nothing(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    file = reader.as_file()
    before = reactor.stats()["reads"]
    for place in range(0, NBYTES, 701):
        file.seek(place)
        file.seek(-1, os.SEEK_END)
        file.tell()
    assert reactor.stats()["reads"] == before


def test_random_access_reads_little(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    file = reader.as_file()
    before = reactor.stats()["bytes_fetched"]
    for place in range(600_000, 100_000, -50_000):
        file.seek(place)
        assert file.read(100) == pattern(place, place + 100)
    assert reactor.stats()["bytes_fetched"] - before <= 10 * 8192


@pytest.mark.parametrize(("size", "most"), [(100, 4096), (4096, 4096), (8192, 8192)])
def test_a_seek_fetches_what_the_last_ones_needed(
    reactor: _uring.Reactor, reader: rangeio.Reader, size: int, most: int
) -> None:
    file = reader.as_file()
    for place in (50_000, 80_000):  # the first of these finds out
        file.seek(place)
        assert file.read(size) == pattern(place, place + size)
    before = reactor.stats()["bytes_fetched"], reactor.stats()["reads"]
    for place in range(600_000, 100_000, -50_000):
        file.seek(place)
        assert file.read(size) == pattern(place, place + size)
    after = reactor.stats()["bytes_fetched"], reactor.stats()["reads"]
    assert (after[0] - before[0], after[1] - before[1]) == (10 * most, 10)


def test_reading_through_reads_ahead(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    before = reactor.stats()["reads"]
    file = reader.as_file()
    while file.read(1000):
        pass
    assert reactor.stats()["reads"] - before < 15


def test_closing(reader: rangeio.Reader) -> None:
    """The file leaves the Reader open; the Reader ends the file."""
    file = reader.as_file()
    raw = file.raw
    file.close()
    file.close()
    assert file.closed
    assert raw.closed
    for call in (
        file.read,
        file.tell,
        lambda: file.seek(0),
        raw.readall,
        raw.tell,
        lambda: raw.readinto(bytearray(1)),
    ):  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="closed"):
            call()
    assert reader.read_at(0, 5) == pattern(0, 5)
    other = reader.as_file()
    reader.close()
    with pytest.raises(rangeio.ClosedError):
        other.read(1)
    with reader.as_file(None) if not reader.closed else contextlib.nullcontext():
        pass


def test_slices_and_memory(reactor: _uring.Reactor, reader: rangeio.Reader) -> None:
    assert reader.slice(100, 2000).as_file((5, None)).read(10) == pattern(105, 115)
    assert rangeio.from_bytes(b"a\nb\n", reactor=reactor).as_file().readlines() == [b"a\n", b"b\n"]


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="needs /proc")
def test_unknown_size(reactor: _uring.Reactor) -> None:
    text = Path("/proc/version").read_bytes()
    with rangeio.open("/proc/version", reactor=reactor) as reader:
        file = reader.as_file()
        assert file.read() == text
        assert file.seek(-5, os.SEEK_END) == len(text) - 5
        assert file.read(100) == text[-5:]


# --- what the standard library does with it ------------------------------------------------------------------


def test_text_and_csv(file_of: Any) -> None:
    rows = [[str(number), "räksmörgås", "a,b"] for number in range(5000)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    with io.TextIOWrapper(file_of(text.getvalue().encode()), newline="") as lines:
        assert list(csv.reader(lines)) == rows


def test_json_and_pickle(file_of: Any) -> None:
    value = {"numbers": list(range(20_000)), "text": "é" * 1000}
    assert json.load(file_of(json.dumps(value).encode())) == value
    assert pickle.load(file_of(pickle.dumps(value, protocol=5))) == value


def test_gzip(file_of: Any) -> None:
    data = pattern(0, 300_000)
    with gzip.open(file_of(gzip.compress(data)), "rb") as file:
        assert file.read(1000) == data[:1000]
        file.seek(200_000)
        assert file.read() == data[200_000:]


def test_archives(file_of: Any) -> None:
    names = [f"folder/{number}" for number in range(20)]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, pattern(number, number + 30_000))
    with zipfile.ZipFile(file_of(packed.getvalue())) as archive:
        assert archive.testzip() is None
        assert archive.read("folder/13") == pattern(13, 30_013)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 30_000
            tar.addfile(info, io.BytesIO(pattern(number, number + 30_000)))
    with tarfile.open(fileobj=file_of(packed.getvalue())) as tar:
        member = tar.extractfile("folder/7")
        assert member is not None
        assert member.read() == pattern(7, 30_007)


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 100, b"PK\5\6" + bytes(18)])
def test_what_is_too_short_for_an_archive(file_of: Any, data: bytes) -> None:
    """zipfile looks for the end of an archive by a seek of -22 from the end, and expects an OSError from less."""
    assert zipfile.is_zipfile(file_of(data)) == zipfile.is_zipfile(io.BytesIO(data))
    assert tarfile.is_tarfile(file_of(data)) == tarfile.is_tarfile(io.BytesIO(data))
    if not zipfile.is_zipfile(io.BytesIO(data)):
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(file_of(data))


def test_wave(file_of: Any) -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(struct.pack("<1000h", *range(1000)))
    with wave.open(file_of(sound.getvalue())) as frames:
        frames.setpos(990)
        assert struct.unpack("<10h", frames.readframes(10)) == tuple(range(990, 1000))


def test_pyarrow(file_of: Any) -> None:
    pyarrow = need_module("pyarrow")
    parquet = need_module("pyarrow.parquet")
    table = pyarrow.table(
        {"a": list(range(50_000)), "b": [f"text {number % 100}" for number in range(50_000)]}
    )
    packed = io.BytesIO()
    parquet.write_table(table, packed, row_group_size=5000)
    assert parquet.read_table(file_of(packed.getvalue())).equals(table)
    lone = parquet.ParquetFile(file_of(packed.getvalue())).read_row_group(3, columns=["a"])
    assert lone["a"].to_pylist() == list(range(15_000, 20_000))
    assert parquet.read_table(file_of(packed.getvalue()).detach()).equals(table)
    with pyarrow.PythonFile(file_of(packed.getvalue()).detach(), mode="r") as raw:
        assert raw.read(0) == b""
        assert raw.read(len(packed.getvalue()) + 10) == packed.getvalue()
    pyarrow_csv = need_module("pyarrow.csv")
    assert pyarrow_csv.read_csv(file_of(b"a,b\n1,2\n3,4\n")).to_pydict() == {"a": [1, 3], "b": [2, 4]}


def test_pandas(file_of: Any) -> None:
    pandas = need_module("pandas")
    frame = pandas.DataFrame({"a": range(1000), "b": "x"})
    assert pandas.read_csv(file_of(frame.to_csv(index=False).encode())).equals(frame)
    need_module("pyarrow")
    packed = io.BytesIO()
    frame.to_parquet(packed)
    assert pandas.read_parquet(file_of(packed.getvalue()), columns=["a"]).equals(frame[["a"]])


def test_h5py(file_of: Any) -> None:
    h5py = need_module("h5py")
    packed = io.BytesIO()
    with h5py.File(packed, "w") as out:
        out["values"] = list(range(100_000))
    for file in (file_of(packed.getvalue()), file_of(packed.getvalue()).detach()):
        with h5py.File(file) as found:
            assert found["values"][99_990:].tolist() == list(range(99_990, 100_000))


# --- the async file ------------------------------------------------------------------------------------------


async def do_the_same_async(ours: Any, theirs: io.BytesIO, seed: int) -> None:
    chance = random.Random(seed)
    size = STOP - START
    for _ in range(200):
        place, count = chance.randrange(size + 100), chance.choice([0, 1, 10, 4096, 9000, 140_000])
        action = chance.randrange(8)
        if action == 0:
            assert await ours.seek(place) == theirs.seek(place)
        elif action == 1:
            assert await ours.seek(-min(place, size), 2) == theirs.seek(-min(place, size), 2)
        elif action == 2:
            assert await ours.seek(count, 1) == theirs.seek(count, 1)
        elif action == 3:
            mine, other = bytearray(count), bytearray(count)
            assert await ours.readinto(mine) == theirs.readinto(other)
            assert mine == other
        elif action == 4:
            assert await ours.readline() == theirs.readline()
        elif action == 5:
            assert await ours.readline(count) == theirs.readline(count)
        elif action == 6:
            assert (await ours.peek())[:1] == bytes(theirs.getbuffer()[theirs.tell() : theirs.tell() + 1])
        else:
            assert await ours.read(count) == theirs.read(count)
        assert await ours.tell() == theirs.tell()


@pytest.mark.parametrize("buffer_size", [0, 1, 8192, None])
def test_async_as_a_file_in_memory(
    reactor: _uring.Reactor, path: Path, loop: Loop, buffer_size: int | None
) -> None:
    async def main() -> None:
        reader = rangeio.open_async(path, reactor=reactor)
        async with reader, reader.as_async_file((START, STOP), buffer_size=buffer_size) as file:
            await do_the_same_async(file, io.BytesIO(pattern(START, STOP)), 1)

    loop.run(main)


def test_async_lines_and_ends(reactor: _uring.Reactor, tmp_path: Path, loop: Loop) -> None:
    text = b"".join(b"line %d\n" % number for number in range(20_000)) + b"no newline"
    (tmp_path / "lines").write_bytes(text)
    lines = text.splitlines(keepends=True)

    async def main() -> None:
        async with rangeio.open_async(tmp_path / "lines", reactor=reactor) as reader:
            assert [line async for line in reader.as_async_file()] == lines
            file = reader.as_async_file((lines[0].__len__(), None))
            assert await file.readlines(30) == lines[1:6]
            await file.seek(0)
            assert await file.readlines(None) == lines[1:]
            await file.seek(sum(map(len, lines[1:6])))
            assert await file.read1(4) == lines[6][:4]
            assert await file.read() == text[len(b"".join(lines[:6])) + 4 :]
            assert (
                await file.read() == await file.read(5) == await file.readline() == await file.peek() == b""
            )
            assert (await file.readable(), await file.seekable(), await file.writable()) == (
                True,
                True,
                False,
            )
            with pytest.raises(TypeError):
                file.readinto(bytes(5))
            with pytest.raises(TypeError):
                file.read(1.5)  # type: ignore[arg-type]
            with pytest.raises(OSError, match="before the start"):
                await file.seek(-1)
            await file.close()
            assert file.closed
            for call in (file.read, file.readline, file.tell, lambda: file.seek(0)):
                with pytest.raises(ValueError, match="closed"):
                    await call()
            assert await reader.read_at(0, 4) == b"line"

    loop.run(main)


# --- workers -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers(reactor: _uring.Reactor, path: Path) -> None:
    """As torch's DataLoader does: four workers, forked, read one Reader that the parent made and has used."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with rangeio.open(path, reactor=reactor) as reader:
        assert reader.read_at(0, 100_000) == pattern(0, 100_000)
        asyncio.run(_touch(reactor, path))

        def work(worker: int, results: Any) -> None:
            mine = range(worker * 1000, NBYTES - 200_000, 4000)
            single = all(reader.read_at(at, 500) == pattern(at, at + 500) for at in mine)
            batch = reader.read_batch(list(mine), 500)
            many = all(bytes(row) == pattern(at, at + 500) for row, at in zip(batch, mine, strict=True))
            streamed = b"".join(reader.stream(chunk=65_536)) == pattern(0, NBYTES)
            results.put((worker, single, many, streamed, reader.as_file().read(10) == pattern(0, 10)))

        results: Any = context.SimpleQueue()
        workers = [context.Process(target=work, args=(worker, results)) for worker in range(4)]
        for process in workers:
            process.start()
        for process in workers:
            process.join(60)
        assert sorted(results.get() for _ in workers) == [
            (worker, True, True, True, True) for worker in range(4)
        ]
        assert reader.read_at(5, 5) == pattern(5, 10)


async def _touch(reactor: _uring.Reactor, path: Path) -> None:
    async with rangeio.open_async(path, reactor=reactor) as reader:
        await reader.read_at(0, 300_000)
