"""Files of which st_size does not tell the truth: they are what read(2) gives, by every call, on every backend."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, run_on
from faults.child import Lab, code
from faults.data import pattern
from faults.machine import need, need_module
from faults.stalling import FILE_BYTES, SIZES, Server

import _uring
import rangeio
from rangeio import Operator, Suffix

END = FILE_BYTES
TOO_SMALL = [size for size in SIZES if size < FILE_BYTES]
TOO_LARGE = [size for size in SIZES if size > FILE_BYTES]
LOOPED = pytest.mark.parametrize("loop", LOOPS)


def filled(reader: Any, nbytes: int, offset: int) -> bytes:
    space = bytearray(nbytes)
    return bytes(space[: reader.read_into(space, offset)])


async def filled_async(reader: Any, nbytes: int, offset: int) -> bytes:
    space = bytearray(nbytes)
    return bytes(space[: await reader.read_into(space, offset)])


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


# What is read, and which bytes of the file that is; the same for both kinds of Reader.
BOTH: dict[str, tuple[Callable[[Any], Any], tuple[int, int]]] = {
    "the start": (lambda reader: reader.read_at(0, 100), (0, 100)),
    "beyond the size": (lambda reader: reader.read_at(4900, 500), (4900, 5400)),
    "across the end": (lambda reader: reader.read_at(END - 50, 100), (END - 50, END)),
    "past the end": (lambda reader: reader.read_at(END + 9, 100), (END, END)),
    "nothing": (lambda reader: reader.read_at(7, 0), (7, 7)),
    "a large one": (lambda reader: reader.read_at(10, 700_000), (10, 700_010)),
    "more than there is": (lambda reader: reader.read_at(3, 1 << 40), (3, END)),
    "exactly": (lambda reader: reader.read_exact(2000, 300_000), (2000, 302_000)),
    "read_range": (lambda reader: reader.read_range(), (0, END)),
    "read_range to the end": (lambda reader: reader.read_range((1500, None)), (1500, END)),
    "the tail": (lambda reader: reader.read_range(Suffix(70_000)), (END - 70_000, END)),
    "read_to_end": (lambda reader: reader.read_to_end(5), (5, END)),
    "a slice": (lambda reader: reader.slice(900, 5000).read_range(), (900, 5000)),
    "the end of a slice": (lambda reader: reader.slice(900, 5000).read_range(Suffix(10)), (4990, 5000)),
}
READS = {
    **BOTH,
    "read_into": (lambda reader: filled(reader, 6000, 500), (500, 6500)),
    "read_into across the end": (lambda reader: filled(reader, 300_000, END - 9), (END - 9, END)),
    "read_batch": (lambda reader: reader.read_batch([900, 1100, 1300], 200), (900, 1500)),
    "read_ranges": (lambda r: b"".join(r.read_ranges([(0, 1200), (1200, None)], gap=None)), (0, END)),
    "merged": (lambda reader: b"".join(reader.read_ranges([(0, 1200), (1200, 1 << 50)])), (0, END)),
    "in pieces": (lambda r: b"".join(r.read_ranges([(900, 9000), (9000, 1 << 50)], chunk=500)), (900, END)),
    "iter_ranges": (lambda reader: dict(reader.iter_ranges([(900, 300_000)]))[0], (900, 300_000)),
    "stream": (lambda reader: b"".join(reader.stream((3, None), chunk=65_536)), (3, END)),
    "as_file": (lambda reader: reader.as_file().read(), (0, END)),
    "as_file of a range": (lambda reader: reader.as_file((900, 5000)).read(), (900, 5000)),
    "the end of a file": (lambda reader: end_of(reader.as_file()), (END - 6, END)),
}
AWAITED = {
    **BOTH,
    "read_into": (lambda reader: filled_async(reader, 6000, 500), (500, 6500)),
    "read_into across the end": (lambda reader: filled_async(reader, 300_000, END - 9), (END - 9, END)),
    "read_batch": (lambda reader: reader.read_batch([900, 1100, 1300], 200), (900, 1500)),
    "read_ranges": (lambda reader: reader.read_ranges([(0, 1200), (1200, None)], gap=None), (0, END)),
    "merged": (lambda reader: reader.read_ranges([(0, 1200), (1200, 1 << 50)]), (0, END)),
    "iter_ranges": (lambda reader: collected(reader.iter_ranges([(900, 300_000)])), (900, 300_000)),
    "stream": (lambda reader: collected(reader.stream((3, None), chunk=65_536)), (3, END)),
    "as_async_file": (lambda reader: reader.as_async_file().read(), (0, END)),
}


def end_of(file: Any) -> bytes:
    file.seek(-6, os.SEEK_END)
    return bytes(file.read())


def bytes_of(result: Any) -> bytes:
    """Of a Buffer, or of a list of them, with or without their indices."""
    if isinstance(result, list):
        return b"".join(bytes(item[1] if isinstance(item, tuple) else item) for item in result)
    return bytes(result)


@pytest.mark.parametrize("size", TOO_SMALL)
def test_more_than_it_says(reactor: _uring.Reactor, stalling: Server, size: int) -> None:
    path = stalling.path(f"size-{size}")
    assert path.stat().st_size == size
    whole = pattern(0, END)
    for direct in (False, True):
        with rangeio.open(path, reactor=reactor, direct=direct) as reader:
            for name, (read, (start, stop)) in READS.items():
                assert bytes_of(read(reader)) == whole[start:stop], name
            with pytest.raises(rangeio.UnexpectedEofError):
                reader.read_exact(END - 5, 6)
            with pytest.raises(rangeio.UnexpectedEofError):
                reader.read_batch([0, END - 5], 6)
            assert reader.size is None
            assert reader.stat().size is None
            assert reader.capability.pin == ""
    jobs: Any = [
        ("", None),
        ("", (900, 1100)),
        ("", (4000, 5000)),
        ("", (END - 5, 1 << 50)),
        ("", (END + 5, None)),
    ]
    files = Operator("fs", reactor=reactor)
    for wanted in (jobs, jobs[:1], jobs[1:2], jobs[2:3], jobs[3:4], jobs[4:]):
        found = files.read_ranges([(path, part) for _, part in wanted])
        assert found == [whole[slice(*(part or (0, None)))] for _, part in wanted]
        again = asyncio.run(files_read(files, [(path, part) for _, part in wanted]))
        assert again == found


async def files_read(files: Operator, jobs: Any) -> Any:
    return await files.read_ranges_async(jobs)


@LOOPED
@pytest.mark.parametrize("size", TOO_SMALL)
def test_more_than_it_says_awaited(reactor: _uring.Reactor, stalling: Server, loop: str, size: int) -> None:
    need_module(loop)
    whole = pattern(0, END)

    async def main() -> None:
        async with rangeio.open_async(stalling.path(f"size-{size}"), reactor=reactor) as reader:
            for name, (read, (start, stop)) in AWAITED.items():
                assert bytes_of(await read(reader)) == whole[start:stop], name
            assert (await reader.stat()).size is None
            under_way = reader.read_to_end()
            reader.close()
            assert await under_way == whole  # also what is read after the close
            with pytest.raises(rangeio.ClosedError):
                await reader.read_at(0, 1)

    run_on(loop, main)


@pytest.mark.parametrize("size", TOO_LARGE)
def test_less_than_it_says(reactor: _uring.Reactor, stalling: Server, size: int) -> None:
    """What is not there is an error, not a short result: whether the end was reached cannot be told."""
    path = stalling.path(f"size-{size}")
    files = Operator("fs", reactor=reactor)
    for pin in (True, False):
        with rangeio.open(path, reactor=reactor, pin=pin) as reader:
            assert reader.read_at(END - 100, 100) == pattern(END - 100, END)
            reads: list[Callable[[], object]] = [
                lambda: reader.read_at(END - 100, 200),
                lambda: reader.read_range(),
                lambda: reader.read_range(Suffix(10)),
                lambda: filled(reader, 200, END - 100),
                lambda: reader.read_ranges([(END - 100, END + 100), (0, 5)]),
                lambda: list(reader.iter_ranges([(END - 100, END + 100)])),
                lambda: reader.read_batch([0, END - 100], 200),
                lambda: list(reader.stream()),
                lambda: reader.as_file().read(),
            ]
            for read in reads:
                with pytest.raises(rangeio.UnexpectedEofError):
                    read()
        unpinned = Operator("fs", reactor=reactor, pin=pin)
        for part in (None, (END - 100, END + 100)):
            with pytest.raises(rangeio.UnexpectedEofError):
                unpinned.read_ranges([(path, part)])
    assert files.read_ranges([(path, (0, 50))]) == [pattern(0, 50)]


STALLS = code("""
    import select, sys, rangeio
    from awaited import at_once, run_on
    from rangeio.awaitables import pause

    reads = {
        "read_at": lambda reader: reader.read_at(5, 500_000),
        "read_ranges": lambda reader: reader.read_ranges([(5, 500_000), (10, None)], gap=None),
        "iter_ranges": lambda reader: anext(reader.iter_ranges([(5, 500_000)])),
    }

    async def main():
        async with rangeio.open_async(sys.argv[1]) as reader:
            async def read():
                await reads[sys.argv[2]](reader)
                said.append("read")

            async def checkpoint():
                while not select.select([sys.stdin], [], [], 0)[0]:
                    await pause(0.001)
                said.append("turned")
                say(turned=True)

            await at_once(sys.argv[3], [read, checkpoint])

    said = []
    run_on(sys.argv[3], main)
    say(said=said)
""")


@LOOPED
@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("read", ["read_at", "read_ranges", "iter_ranges"])
def test_the_loop_goes_on_while_one_is_read(lab: Lab, stalling: Server, read: str, loop: str) -> None:
    """Its pieces are awaited, too."""
    need_module(loop)
    child = lab.start(STALLS, stalling.path("unsized-300000"), read, loop)
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"turned": True}
    stalling.release()
    assert child.finish().facts() == {"said": ["turned", "read"]}


@pytest.fixture
def binfmt(tmp_path: Path) -> Iterator[Path]:
    """A file system of the kernel's own, beside /proc and /sys: st_size is 0, and so are the blocks."""
    need(os.geteuid() == 0, "needs root, to mount")
    folder = tmp_path / "binfmt"
    folder.mkdir()
    need(os.system(f"mount -t binfmt_misc none '{folder}' 2>/dev/null") == 0, "needs binfmt_misc")
    yield folder / "status"
    os.system(f"umount '{folder}'")


def test_a_file_of_the_kernels(reactor: _uring.Reactor, binfmt: Path) -> None:
    whole = binfmt.read_bytes()
    assert whole
    with rangeio.open(binfmt, reactor=reactor) as reader:
        assert reader.read_at(0, 100) == reader.read_range() == reader.as_file().read() == whole
        assert reader.size is None
    assert Operator("fs", reactor=reactor).read_ranges([(binfmt, None)]) == [whole]


def test_a_file_that_grows_is_not_one_that_lies(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Empty files and files in memory are looked at for more than they say; that changes nothing of them."""
    for folder in (tmp_path, Path("/dev/shm")):
        need(os.access(folder, os.W_OK), f"needs {folder}")
        path = folder / f"rangeio-{os.getpid()}"
        try:
            for data in (b"", b"x" * 5000):
                path.write_bytes(data)
                with rangeio.open(path, reactor=reactor) as reader:
                    assert reader.size == len(data)
                    assert reader.capability.pin
                    assert reader.read_range() == data
                    with path.open("ab") as file:
                        file.write(b"more")
                    with pytest.raises(rangeio.ObjectChangedError):
                        reader.read_at(0, 6000)
                assert Operator("fs", reactor=reactor).read_ranges([(path, None)]) == [data + b"more"]
        finally:
            path.unlink(missing_ok=True)
