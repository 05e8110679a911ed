"""The memory that reads land in: what is kept for the next read, what is not, and that it never runs dry."""

import gc
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import need, sanitized

import _uring
from _uring.poison import ALLOCATED, FREED
from _uring.pure import buffer as array_buffer

MIB = 1 << 20
HUGE_PAGE = 2 * MIB
NBYTES = 24 * MIB
CLASSES_KIB = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048)
NATIVE = pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("memory") / "data", NBYTES)


@pytest.fixture
def small(backend: str) -> Iterator[_uring.Reactor]:
    """A reactor that keeps 8 MiB free at most."""
    with_little = _uring.Reactor(backend=backend, pool_bytes=8 * MIB)  # type: ignore[arg-type]
    yield with_little
    with_little.close()


def address(buffer: _uring.Buffer) -> int:
    return int(np.frombuffer(buffer, "u1").ctypes.data)


def settle(reactor: _uring.Reactor, live: int) -> None:
    """Until so many Buffers are live: a worker may hold a batch for a moment after it was handed over."""
    gc.collect()
    until = time.monotonic() + 10
    while reactor.stats()["buffers_live"] != live and time.monotonic() < until:
        threading.Event().wait(0.001)
    assert reactor.stats()["buffers_live"] == live


def test_nothing_is_kept_beyond_the_cap(small: _uring.Reactor, path: Path) -> None:
    """What is handed out has no bound; what is given back is kept up to `pool_bytes`, and the rest unmapped."""
    file = small.open(str(path))
    for nbytes in (4096, 65_536, MIB, 3 * MIB, 5 * MIB):
        held = [file.read_at(at, nbytes) for at in range(0, 20 * MIB, max(nbytes, 40_960))]
        assert small.stats()["bytes_live"] >= sum(buffer.nbytes for buffer in held)
        assert [buffer[:8] for buffer in held] == [
            pattern(at, at + 8) for at in range(0, 20 * MIB, max(nbytes, 40_960))
        ]
        held.clear()
        settle(small, 0)
        now = small.stats()
        assert now["bytes_live"] == 0
        assert now["bytes_pooled"] <= 8 * MIB
    file.close()


def test_no_dead_end_above_the_cap(small: _uring.Reactor, path: Path) -> None:
    """Three times what is kept is held, and a read larger than all of it is made beside."""
    file = small.open(str(path))
    held = [file.read_at(at, MIB) for at in range(0, NBYTES, MIB)]
    whole = file.read_at(0, NBYTES)
    assert whole == b"".join(held) == pattern(0, NBYTES)
    held.clear()
    del whole
    settle(small, 0)
    assert small.stats()["bytes_pooled"] <= 8 * MIB
    file.close()


def test_nothing_is_kept_if_nothing_may_be(backend: str, path: Path) -> None:
    reactor = _uring.Reactor(backend=backend, pool_bytes=0)  # type: ignore[arg-type]
    file = reactor.open(str(path))
    for _ in range(3):
        assert file.read_at(5, 3 * MIB) == pattern(5, 5 + 3 * MIB)
        assert file.read_at(5, 100) == pattern(5, 105)
    settle(reactor, 0)
    assert reactor.stats()["bytes_pooled"] == 0
    file.close()
    reactor.close()


@NATIVE
@pytest.mark.parametrize("nbytes", [1, 4096, 70_000, MIB, 5 * MIB])
def test_the_last_memory_given_back_is_the_first_taken(
    reactor: _uring.Reactor, path: Path, nbytes: int
) -> None:
    """It is what the caches of the CPU still have."""
    file, live = reactor.open(str(path)), reactor.stats()["buffers_live"]
    first, second = file.read_at(0, nbytes), file.read_at(0, nbytes)
    where = address(first), address(second)
    assert where[0] != where[1]
    del first
    settle(reactor, live + 1)
    del second
    settle(reactor, live)
    third = file.read_at(0, nbytes)
    fourth = file.read_at(0, nbytes)
    assert [address(third), address(fourth)] == [where[1], where[0]]
    del third, fourth
    file.close()


@NATIVE
def test_size_classes(reactor: _uring.Reactor) -> None:
    """The smallest that holds it, on a border of its page; larger ones are whole huge pages on a border of those."""
    for nbytes in (1, 4096, 4097, 12_289, 50_000, 65_537, 300_000, MIB + 1, HUGE_PAGE):
        buffer = reactor.allocate(nbytes)
        assert buffer.nbytes_pinned == next(kib << 10 for kib in CLASSES_KIB if kib << 10 >= nbytes)
        assert address(buffer) % 4096 == 0
    for nbytes in (HUGE_PAGE + 1, 5 * MIB):
        buffer = reactor.allocate(nbytes)
        assert HUGE_PAGE <= nbytes <= buffer.nbytes_pinned <= nbytes + nbytes // 4 + HUGE_PAGE
        assert address(buffer) % HUGE_PAGE == 0


@NATIVE
def test_arenas_are_of_huge_pages(reactor: _uring.Reactor) -> None:
    """Advised so before they were touched (`hg` of the VmFlags), and touched before they are handed out."""
    maps = Path("/proc/self/smaps")
    need(maps.exists(), "needs /proc")
    small, large = reactor.allocate(4096), reactor.allocate(6 * MIB)
    for buffer in (small, large):
        lines = _mapping(maps.read_text(), address(buffer))
        assert " hg" in next(line for line in lines if line.startswith("VmFlags")), lines
    resident = next(line for line in _mapping(maps.read_text(), address(small)) if line.startswith("Rss"))
    assert int(resident.split()[1]) >= HUGE_PAGE >> 10


def _mapping(text: str, place: int) -> list[str]:
    """The lines of smaps about the mapping that `place` is in."""
    for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        first, last = (int(end, 16) for end in part.split(" ", 1)[0].split("-"))
        if first <= place < last:
            return part.splitlines()
    raise AssertionError(f"{place:#x} is not mapped")


# --- poisoned ------------------------------------------------------------------------------------------------

NATIVE_LAB = pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
POISON = code("""
    import ctypes, os, sys
    import numpy as np
    import _uring

    reactor = _uring.Reactor()

    def place_of(buffer):
        return np.frombuffer(buffer, "u1").ctypes.data
""")


@pytest.mark.parametrize("nbytes", [1, 4096, 5000, 300_000, 5 * MIB])
def test_memory_that_nobody_has_written_is_seen(lab: Lab, nbytes: int) -> None:
    program = code(
        POISON,
        """
        nbytes = int(sys.argv[1])
        for _ in range(2):  # fresh memory, and memory that was used before
            buffer = reactor.allocate(nbytes)
            memory = reactor.writable(buffer)
            assert bytes(memory) == bytes([ALLOCATED]) * nbytes
            memory[:] = bytes(nbytes)
            del memory
            assert bytes(buffer) == bytes(nbytes)
            del buffer
        """.replace("ALLOCATED", str(ALLOCATED)),
    )
    assert lab.run(program, nbytes, RANGEIO_POISON="1").facts() == {}


@NATIVE_LAB
@pytest.mark.parametrize("nbytes", [100, 300_000, 5 * MIB])
def test_memory_that_was_given_back_is_nobodys(lab: Lab, nbytes: int) -> None:
    """Its content goes at once, and who writes to it is found when it is handed out again."""
    need_no_sanitizer()
    program = code(
        POISON,
        """
        nbytes = int(sys.argv[1])
        buffer = reactor.allocate(nbytes)
        reactor.writable(buffer)[:] = bytes(nbytes)
        place, part = place_of(buffer), buffer[10:20]
        buffer.release()
        assert bytes(part) == bytes(10)  # a slice is a user, too
        del part
        assert ctypes.string_at(place, nbytes) == bytes([FREED]) * nbytes
        ctypes.memset(place + nbytes - 1, 0, 1)
        try:
            reactor.allocate(nbytes)
        except SystemError as error:
            say(found=str(error))
        ctypes.memset(place + nbytes - 1, FREED, 1)
        assert place_of(reactor.allocate(nbytes)) == place
        """.replace("FREED", str(FREED)),
    )
    assert "after it was freed" in lab.run(program, nbytes, RANGEIO_POISON="1").facts()["found"]


@NATIVE_LAB
def test_memory_is_left_alone_otherwise(lab: Lab) -> None:
    """Without it what was read before is still there: to fill it would cost as much as a read."""
    need_no_sanitizer()
    program = code(
        POISON,
        """
        buffer = reactor.allocate(4096)
        reactor.writable(buffer)[:] = b"x" * 4096
        del buffer
        assert bytes(reactor.allocate(4096)) == b"x" * 4096
        """,
    )
    assert lab.run(program, RANGEIO_POISON="0").facts() == {}


def test_the_twins_memory_that_was_given_back() -> None:
    memory = array_buffer._Poisoned(b"abc")
    memory.__del__()
    assert memory == bytes([FREED]) * 3


@NATIVE_LAB
@pytest.mark.parametrize(
    "touched", ["place", "place + 104"], ids=["given back", "behind the bytes that were asked for"]
)
def test_the_sanitizer_knows_whose_memory_it_is(lab: Lab, touched: str) -> None:
    need(sanitized(), "needs AddressSanitizer (make asan)")
    program = code(
        POISON,
        f"""
        buffer = reactor.allocate(100)
        place = place_of(buffer)
        ctypes.memmove(place, place, 100)
        if {touched == "place"}:
            del buffer
        ctypes.memset({touched}, 0, 1)
        """,
    )
    outcome = lab.run(program)
    assert outcome.code != 0
    assert "use-after-poison" in outcome.stderr


def need_no_sanitizer() -> None:
    need(not sanitized(), "AddressSanitizer ends who looks there")
