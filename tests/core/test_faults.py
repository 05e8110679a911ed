"""What the kernel may refuse, fail, or never answer, and what a reader sees: right bytes or a clear error.

Every fault is a real one (see `faults/`); each program runs in a child, where the fault cannot hurt other tests.
"""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from faults import disk
from faults.child import Lab, code
from faults.machine import backend_missing, need, need_backend
from faults.notify import Supervisor
from faults.stalling import FILE_BYTES, Server

BATCH = code("""
    import os, sys
    import rangeio

    path = sys.argv[1]
    nbytes = os.stat(path).st_size
    ranges = scattered(200, 3000, nbytes)

    def forget():
        "Leave nothing of the file in the page cache, so that the next batch really goes to the device."
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    def batch(reader, **options):
        forget()
        return wrong(reader.read_ranges(ranges, **options), ranges)
""")

# What the reason must say of a refusal: its cause, and what a user can look at.
ADVICE = {
    errno.EPERM: ("not permitted", "seccomp", "io_uring_disabled"),
    errno.ENOSYS: ("kernel", "5."),
    errno.ENOMEM: ("memory", "memlock", "ulimit"),
}


# --- the ring is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
def test_refused_setup_reads_by_the_pool(auto_lab: Lab, pattern_file: Path, number: int) -> None:
    need_backend("pool")
    refusal = f"refuse({number}, 'io_uring_setup')\n"
    program = code(
        refusal,
        BATCH,
        """
        with rangeio.open(path) as reader:
            say(wrong=batch(reader), one=bytes(reader.read_at(5, 9)) == pattern(5, 14))
        found = rangeio.backend()
        say(name=found.name, text=str(found), reason=found.reason, leaks=leaks())
    """,
    )
    facts = auto_lab.run(program, pattern_file).facts()
    assert (facts["wrong"], facts["one"], facts["leaks"]) == (0, True, {})
    assert facts["name"] == facts["text"] == "pool"
    assert [word for word in ADVICE[number] if word not in facts["reason"].lower()] == []


@pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
def test_refused_setup_fails_a_forced_ring(auto_lab: Lab, pattern_file: Path, number: int) -> None:
    need_backend("pool")
    program = code(f"""
        refuse({number}, "io_uring_setup")
        import sys, rangeio
        try:
            rangeio.open(sys.argv[1]).read_at(0, 10)
        except rangeio.Error as error:
            say(**describe(error))
        """)
    facts = auto_lab.run(program, pattern_file, RANGEIO_BACKEND="uring").facts()
    assert "uring" in facts["text"]
    assert [word for word in ADVICE[number] if word not in facts["text"].lower()] == []


def test_refused_setup_does_not_touch_other_backends(lab: Lab, pattern_file: Path) -> None:
    need(lab.backend != "uring", "about the others")
    refusal = "refuse(errno.EPERM, 'io_uring_setup', 'io_uring_enter', 'io_uring_register')\n"
    program = code(refusal, BATCH, "say(wrong=batch(rangeio.open(path)), name=str(rangeio.backend()))")
    assert lab.run(program, pattern_file).facts() == {"wrong": 0, "name": lab.backend}


# --- the ring is refused late ---------------------------------------------------------------------------

LATE = code("""
    import threading
    reader = rangeio.open(path)
    say(before=batch(reader))
    refuse(getattr(errno, sys.argv[2]), sys.argv[3])

    def attempt():
        try:
            return batch(reader)
        except rangeio.Error as error:
            return describe(error)

    say(after=attempt(), again=attempt())
    results = []
    thread = threading.Thread(target=lambda: results.append(attempt()))  # a thread without a ring yet
    thread.start()
    thread.join()
    say(thread=results[0], leaks=leaks())
    reader.close()
""")


@pytest.mark.parametrize("call", ["io_uring_enter", "io_uring_register", "io_uring_setup"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.ENOSYS], ids=errno.errorcode.get)
def test_late_refusal_loses_nothing(auto_lab: Lab, pattern_file: Path, call: str, number: int) -> None:
    """The ring worked, then the kernel says no: the workers take over."""
    need_backend("uring")
    facts = auto_lab.run(
        code(BATCH, LATE), pattern_file, errno.errorcode[number], call, RANGEIO_BACKEND=""
    ).facts()
    assert facts == {"before": 0, "after": 0, "again": 0, "thread": 0, "leaks": {}}


@pytest.mark.parametrize("passed", [0, 1, 2, 5, 9])
def test_enter_refused_with_reads_under_way(auto_lab: Lab, pattern_file: Path, passed: int) -> None:
    """The kernel has some of a batch when it refuses to be asked again: those are waited for."""
    need_backend("uring")
    program = code(
        BATCH,
        """
        reader = rangeio.open(path, direct=True)
        ask_parent("io_uring_enter")
        for name in ("first", "second"):
            try:
                say(**{name: wrong(reader.read_ranges(ranges, gap=0), ranges)})
            except rangeio.Error as error:
                say(**{name: describe(error)})
        say(hot=wrong(rangeio.open(path).read_ranges(ranges), ranges))
        """,
    )
    with Supervisor({"io_uring_enter": [0] * passed}, for_ever=errno.EPERM) as supervisor:
        facts = auto_lab.start(program, pattern_file, wire=supervisor.childs.fileno()).finish().facts()
    assert facts == {"first": 0, "second": 0, "hot": 0}
    assert supervisor.heard["io_uring_enter"] > passed


def test_what_is_done_at_once_is_not_waited_for(auto_lab: Lab, tmp_path: Path) -> None:
    """Holes read with O_DIRECT are done when they are submitted: no enter that waits (its flags are not 0) is made."""
    need_backend("uring")
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(8 << 20)
    program = """
import errno, sys
import rangeio
with rangeio.open(sys.argv[1], direct=True) as reader:
    refuse(errno.EPERM, "io_uring_enter", start=1, stop=1 << 31)
    ranges = [(at << 16, (at << 16) + 4096) for at in range(64)]
    found = [bytes(buffer) for _, buffer in reader.iter_ranges(ranges, gap=None)]
    say(right=found == [bytes(4096)] * 64, direct=reader.capability.direct, fallbacks=rangeio.stats()["fallbacks"])
"""
    facts = auto_lab.run(program, sparse).facts()
    if not facts["direct"]:
        pytest.skip("no O_DIRECT here")
    assert facts == {"right": True, "direct": True, "fallbacks": 0}


@pytest.mark.parametrize("call", ["io_uring_enter", "io_uring_register"])
def test_refused_before_the_first_read(auto_lab: Lab, pattern_file: Path, call: str) -> None:
    """Setup is allowed and the rest is not (a filter that knows half of io_uring): still only right bytes."""
    need_backend("uring")
    program = code(
        BATCH,
        f"""
    refuse(errno.EPERM, "{call}")
    with rangeio.open(path) as reader:
        say(wrong=batch(reader), name=str(rangeio.backend()), reason=rangeio.backend().reason)
    """,
    )
    facts = auto_lab.run(program, pattern_file).facts()
    assert facts["wrong"] == 0
    assert facts["name"] in (("pool",) if call == "io_uring_enter" else ("uring", "pool"))
    # Named is the call that was refused, and no other: whoever writes the filter looks for it.
    named = [name for name in ("io_uring_setup", "io_uring_enter") if name in facts["reason"]]
    assert named == (["io_uring_enter"] if call == "io_uring_enter" else [])


@pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
def test_a_late_refusal_is_explained(auto_lab: Lab, pattern_file: Path, number: int) -> None:
    """As at the beginning: the call, why, and what to do."""
    need_backend("uring")
    program = code(
        BATCH,
        f"""
        reader = rangeio.open(path, direct=True)
        say(before=batch(reader))
        refuse({number}, "io_uring_enter")
        say(after=batch(reader), reason=rangeio.backend().reason)
        """,
    )
    facts = auto_lab.run(program, pattern_file).facts()
    assert (facts["before"], facts["after"]) == (0, 0)
    assert "io_uring_enter" in facts["reason"]
    assert "io_uring_setup" not in facts["reason"]
    words = [word for word in ADVICE[number] if word != "io_uring_disabled"]  # which rules setup alone
    assert [word for word in words if word not in facts["reason"].lower()] == []


# --- system calls that fail now and then ----------------------------------------------------------------

INTERRUPTED = code("""
    reader = rangeio.open(path)
    ask_parent(*sys.argv[2].split())
    one = bytes(reader.read_at(100, 5000)) == pattern(100, 5100)
    big = bytes(reader.read_range((1, nbytes - 1))) == pattern(1, nbytes - 1)
    say(one=one, big=big, wrong=batch(reader), leaks=leaks())
""")


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN], ids=errno.errorcode.get)
def test_interrupted_reads_go_on(lab: Lab, pattern_file: Path, number: int) -> None:
    calls = ("pread64", "preadv2", "preadv")
    with Supervisor({call: [number] * 3 for call in calls}) as supervisor:
        child = lab.start(
            code(BATCH, INTERRUPTED), pattern_file, " ".join(calls), wire=supervisor.childs.fileno()
        )
        facts = child.finish().facts()
    assert facts == {"one": True, "big": True, "wrong": 0, "leaks": {}}
    assert sum(supervisor.heard.values()) > 0


@pytest.mark.parametrize("lab", ["uring"], indirect=True)
@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.EBUSY], ids=errno.errorcode.get)
def test_interrupted_enter_loses_no_completion(lab: Lab, pattern_file: Path, number: int) -> None:
    with Supervisor({"io_uring_enter": [number] * 5}) as supervisor:
        child = lab.start(
            code(BATCH, INTERRUPTED), pattern_file, "io_uring_enter", wire=supervisor.childs.fileno()
        )
        facts = child.finish().facts()
    assert facts == {"one": True, "big": True, "wrong": 0, "leaks": {}}
    assert supervisor.heard["io_uring_enter"] > 5, "the ring was not used"
    assert not supervisor.left["io_uring_enter"]


def test_register_refused_once(auto_lab: Lab, pattern_file: Path) -> None:
    """Registering the file fails at first: done without. (Of buffers: test_ways.)"""
    need_backend("uring")
    with Supervisor({"io_uring_register": [errno.ENOMEM] * 3}) as supervisor:
        wire = supervisor.childs.fileno()
        child = auto_lab.start(code(BATCH, INTERRUPTED), pattern_file, "io_uring_register", wire=wire)
        facts = child.finish().facts()
    assert facts == {"one": True, "big": True, "wrong": 0, "leaks": {}}
    assert supervisor.heard["io_uring_register"] > 0, "nothing was to be registered"


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("after", [0, 4096, 100_000])
def test_nothing_is_not_the_end(lab: Lab, pattern_file: Path, after: int) -> None:
    """Linux 5.9 and 5.10: preadv2(RWF_NOWAIT) returns 0 away from the end of the file, where EAGAIN is meant."""
    program = code(
        BATCH,
        """
        import asyncio
        answer_nothing("preadv2", start=int(sys.argv[2]), stop=1 << 31)
        whole = pattern(0, nbytes)
        offsets = [start for start, _ in ranges]

        def into(reader, length):
            space = bytearray(length)
            return space[: reader.read_into(space, 7)]

        async def awaited():
            async with rangeio.open_async(path) as reader:
                assert bytes(await reader.read_at(5, 4000)) == whole[5:4005]
                assert bytes(await reader.read_to_end()) == whole
                assert wrong(await reader.read_ranges(ranges, gap=0), ranges) == 0
                assert bytes(await reader.read_batch(offsets, 64)) == b"".join(whole[at:at + 64] for at in offsets)
                assert b"".join([bytes(part) async for part in reader.stream()]) == whole
                assert {index: bytes(part) async for index, part in reader.iter_ranges([(9, 19)])} == {0: whole[9:19]}
                space = bytearray(nbytes)
                assert await reader.read_into(space) == nbytes and space == whole

        with rangeio.open(path) as reader:
            assert bytes(reader.read_at(5, 4000)) == whole[5:4005]
            assert bytes(reader.read_at(5, 300_000)) == whole[5:300_005]
            assert bytes(reader.read_to_end()) == whole
            assert bytes(reader.read_at(nbytes - 10, 100)) == whole[-10:]
            assert bytes(into(reader, 4096)) == whole[7:4103]
            assert bytes(into(reader, 300_000)) == whole[7:300_007]
            assert wrong(reader.read_ranges(ranges, gap=0), ranges) == 0
            assert wrong([part for _, part in sorted(reader.iter_ranges(ranges, gap=0))], ranges) == 0
            assert bytes(reader.read_batch(offsets, 64)) == b"".join(whole[at:at + 64] for at in offsets)
            assert b"".join(map(bytes, reader.stream())) == whole
            assert reader.as_file().read() == whole
        [found] = rangeio.Operator("fs").read_ranges([(path, None)])
        assert bytes(found) == whole
        asyncio.run(awaited())
        del found, reader
        say(leaks=leaks())
        """,
    )
    assert lab.run(program, pattern_file, after).facts() == {"leaks": {}}


# --- EIO ------------------------------------------------------------------------------------------------

FAILING = code("""
    import sys
    import numpy as np
    import rangeio

    # Reads that touch [bad, end) fail. `lead`: how far before it a read that fails may start.
    path, direct = sys.argv[1], {"auto": "auto", "True": True}[sys.argv[2]]
    bad, end, lead, size = map(int, sys.argv[3:])
    fine, start, near = bad // 4096 * 4096 - 8192, bad - lead, bad - min(lead, 10)
    reader = rangeio.open(path, direct=direct)

    def attempt(name, read, good=None):
        "What came of it: 'right', 'wrong', or the error."
        try:
            result = read()
        except rangeio.Error as error:
            say(**{name: describe(error)})
        else:
            say(**{name: "right" if good is None or bytes(result) == good else "wrong"})

    attempt("good", lambda: reader.read_at(fine, 4096), pattern(fine, fine + 4096))
    attempt("small", lambda: reader.read_at(near, 100))
    attempt("large", lambda: reader.read_at(start, size - start))
    attempt("into", lambda: reader.read_into(np.empty(9000, "u1"), start))
    ranges = [(at, at + 512) for at in (0, fine, near, 1000)]
    attempt("ranges", lambda: reader.read_ranges(ranges, gap=0))
    attempt("batch", lambda: reader.read_batch([5, near, 7], 64))
    attempt("iter", lambda: [bytes(buffer) for _, buffer in reader.iter_ranges(ranges)])
    attempt("after", lambda: reader.read_at(fine, 4096), pattern(fine, fine + 4096))
    say(leaks=leaks())
    reader.close()
""")
FAILED = ("small", "large", "into", "ranges", "batch", "iter")


def check_eio(facts: dict[str, Any], path: Path, bad: int, end: int) -> None:
    """Each failed read named the file and an offset in what was asked, and nothing was lost or leaked by it."""
    assert (facts["good"], facts["after"], facts["leaks"]) == ("right", "right", {})
    for name in FAILED:
        error = facts[name]
        assert isinstance(error, dict), f"{name}: {error}"
        assert {"OSError", "Error"} <= set(error["bases"]), (name, error)
        assert (error["errno"], error["path"]) == (errno.EIO, str(path)), (name, error)
        assert str(path) in error["text"], (name, error)
        assert error["offset"] is not None, (name, error)
        assert str(error["offset"]) in error["text"], (name, error)
        assert bad - 5000 <= error["offset"] < end, (name, error)


@pytest.mark.parametrize("direct", ["auto", "True"])
def test_eio_of_a_damaged_disk(lab: Lab, tmp_path: Path, direct: str) -> None:
    bad = 65536 * 5
    end = bad + disk.BLOCK
    with disk.flipped_block(tmp_path, bad) as path:
        facts = lab.run(FAILING, path, direct, bad, end, 5000, end + 10_000).facts()
    check_eio(facts, path, bad, end)


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
def test_eio_among_records_that_are_one_read(lab: Lab, tmp_path: Path) -> None:
    """The error names the records that the kernel did not read; which of them is damaged it does not tell."""
    bad = 65536 * 5
    program = code("""
        import sys, rangeio
        bad = int(sys.argv[2])
        reader = rangeio.open(sys.argv[1], direct=True)
        places = [0, 8192, *range(bad - 4096, bad + 8192, 4096), 4096]
        try:
            reader.read_batch(places, 4096)
        except rangeio.Error as error:
            say(error=describe(error))
        good = [at for at in places if at != bad]
        say(good=bytes(reader.read_batch(good, 4096)) == b"".join(pattern(at, at + 4096) for at in good))
    """)
    with disk.flipped_block(tmp_path, bad) as path:
        facts = lab.run(program, path, bad).facts()
    assert (facts["error"]["errno"], facts["error"]["path"]) == (errno.EIO, str(path))
    assert (facts["error"]["offset"], facts["error"]["limit"], facts["good"]) == (bad - 4096, 3 * 4096, True)


def test_eio_of_a_device_that_ends(lab: Lab, tmp_path: Path) -> None:
    bad = disk.FILE_BYTES // 2
    with disk.cut_image(tmp_path) as path:
        facts = lab.run(FAILING, path, "auto", bad, disk.FILE_BYTES, 5000, disk.FILE_BYTES).facts()
    check_eio(facts, path, bad, disk.FILE_BYTES)


def test_eio_of_a_file_system(lab: Lab, stalling: Server) -> None:
    """EIO for any read that touches one byte: what was asked around it must fail whole."""
    path, bad = stalling.path("eio-500000"), 500_000
    facts = lab.run(FAILING, path, "auto", bad, bad + 1, 5000, FILE_BYTES).facts()
    check_eio(facts, path, bad, bad + 1)


@pytest.mark.parametrize("lab", ["pool", "python"], indirect=True)
def test_eio_of_a_filtered_call(lab: Lab, pattern_file: Path) -> None:
    """pread itself says EIO in a part of the file: no root, no mount."""
    bad, end = 65536, 131072
    filtered = f"refuse(errno.EIO, 'pread64', 'preadv', 'preadv2', start={bad}, stop={end})\n"
    facts = lab.run(code(filtered, FAILING), pattern_file, "auto", bad, end, 0, end).facts()
    check_eio(facts, pattern_file, bad, end)


# --- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memlock", [0, 64 << 10, 4 << 20])
def test_little_lockable_memory(auto_lab: Lab, pattern_file: Path, memlock: int) -> None:
    """A user without CAP_IPC_LOCK: no registered buffers, perhaps no ring; the bytes are the same."""
    program = code(
        f"become_nobody({memlock})\n",
        BATCH,
        """
        import threading
        reader = rangeio.open(path)
        results = []
        threads = [threading.Thread(target=lambda: results.append(batch(reader))) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        big = bytes(reader.read_at(0, nbytes)) == pattern(0, nbytes)
        say(results=results, big=big, name=str(rangeio.backend()), reason=rangeio.backend().reason, leaks=leaks())
    """,
    )
    facts = auto_lab.run(program, pattern_file).facts()
    assert (facts["results"], facts["big"], facts["leaks"]) == ([0] * 8, True, {})
    assert facts["name"] == "uring" or "memlock" in facts["reason"].lower(), facts["reason"]


def test_no_descriptor_left(lab: Lab, pattern_file: Path) -> None:
    program = code(
        BATCH,
        """
    import resource
    first = rangeio.open(path)
    say(before=batch(first))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    readers = []
    try:
        while len(readers) < 100:
            readers.append(rangeio.open(path))
    except rangeio.Error as error:
        say(**describe(error))
    say(still=wrong(first.read_ranges(ranges), ranges))
    opened = readers.pop().read_at(8, 8) == pattern(8, 16)
    for reader in readers:
        reader.close()
    with rangeio.open(path) as reader:
        say(opened=opened, again=batch(reader), leaks=leaks())
    """,
    )
    facts = lab.run(program, pattern_file).facts()
    assert (facts["before"], facts["still"], facts["again"], facts["opened"]) == (0, 0, 0, True)
    assert facts["errno"] == errno.EMFILE
    assert str(pattern_file) in facts["text"]
    assert os.strerror(errno.EMFILE) in facts["text"]
    assert facts["leaks"] == {}


def test_no_descriptor_for_the_ring(auto_lab: Lab, pattern_file: Path) -> None:
    """The last descriptor goes to the file: no ring can be made, in the first thread or a later one."""
    program = code(
        BATCH,
        """
    import resource, threading
    reader = rangeio.open(path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (reader.stat() and 64, 64))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    def attempt():
        try:
            return wrong(reader.read_ranges(ranges), ranges)
        except rangeio.Error as error:
            return describe(error)
    results = [attempt()]
    thread = threading.Thread(target=lambda: results.append(attempt()))
    thread.start()
    thread.join()
    for descriptor in taken:
        os.close(descriptor)
    say(results=results, after=attempt(), leaks=leaks())
    """,
    )
    facts = auto_lab.run(program, pattern_file).facts()
    for result in facts["results"]:
        assert result == 0 or result["errno"] == errno.EMFILE, result
    assert (facts["after"], facts["leaks"]) == (0, {})


def test_many_files_few_descriptors(lab: Lab, tmp_path: Path) -> None:
    """Operator.read_ranges opens a bounded number of files at a time."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(300):
        (folder / f"{i}").write_bytes(b"%05d" % i * 100)
    program = code("""
        import resource, sys, rangeio
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        operator = rangeio.Operator("fs", root=sys.argv[1])
        buffers = operator.read_ranges([(str(i), (5, 15)) for i in range(300)])
        say(wrong=sum(bytes(buffer) != b"%05d" % i * 2 for i, buffer in enumerate(buffers)))
        del buffers
        say(leaks=leaks())
        """)
    assert lab.run(program, folder).facts() == {"wrong": 0, "leaks": {}}


@pytest.mark.parametrize("limit", [4096, 400, 64])
def test_many_files_larger_than_those_before(lab: Lab, tmp_path: Path, limit: int) -> None:
    """No memory was allocated for them beforehand, and not all can stay open until it is."""
    folder = tmp_path / "many"
    folder.mkdir()
    sizes = [10] * 300 + [5000] * 700 + [10, 9000] * 100
    for i, size in enumerate(sizes):
        (folder / f"{i}").write_bytes((b"%05d" % i * 2000)[:size])
    program = code("""
        import resource, sys, rangeio
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), 4096))
        operator = rangeio.Operator("fs", root=sys.argv[1])
        sizes = [10] * 300 + [5000] * 700 + [10, 9000] * 100
        buffers = operator.read_ranges([(str(i), None) for i in range(len(sizes))])
        goods = [(b"%05d" % i * 2000)[:size] for i, size in enumerate(sizes)]
        say(wrong=sum(bytes(buffer) != good for buffer, good in zip(buffers, goods, strict=True)))
        del buffers
        say(leaks=leaks())
        """)
    assert lab.run(program, folder, limit).facts() == {"wrong": 0, "leaks": {}}


class Meddler(Supervisor):
    """Lets every call pass, after writing to a file, or after cutting it to `size` bytes."""

    def __init__(self, path: Path, *calls: str, size: int | None = None) -> None:
        self.path, self.size = path, size
        super().__init__({call: [] for call in calls})

    def answer(self, listener: int) -> None:
        if self.size is None:
            with self.path.open("ab") as file:
                file.write(b"more")
        else:
            os.truncate(self.path, self.size)
        super().answer(listener)


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("size", [None, 0, 150_000], ids=["grown", "emptied", "cut"])
@pytest.mark.parametrize("pin", [True, False])
def test_a_file_that_changes_amid_the_copying(lab: Lab, tmp_path: Path, pin: bool, size: int | None) -> None:
    """Between the last look at the file and the copy out of the page cache: an error, or what there is, never more."""
    program = code(f"""
        import sys, rangeio
        path, whole = sys.argv[1], pattern(0, 200_000)
        ask_parent("preadv2")

        def attempt(name, read):
            with open(path, "wb") as file:
                file.write(whole)
            with rangeio.open(path, pin={pin}) as reader:
                try:
                    result = read(reader)
                except rangeio.Error as error:
                    say(**{{name: type(error).__name__}})
                else:
                    say(**{{name: len(result) if bytes(result) == whole[:len(result)] else "wrong"}})

        attempt("one", lambda reader: reader.read_at(0, 200_000))
        attempt("many", lambda reader: reader.read_ranges([(0, 200_000)])[0])
        """)
    path = tmp_path / "data"
    with Meddler(path, "preadv2", size=size) as meddler:
        facts = lab.start(program, path, wire=meddler.childs.fileno()).finish().facts()
        assert meddler.heard["preadv2"] > 1
    expected = "ObjectChangedError" if pin else 200_000 if size is None else size
    assert facts == {"one": expected, "many": expected}


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("pin", [True, False])
def test_a_file_of_many_that_is_written_to_while_it_is_read(lab: Lab, tmp_path: Path, pin: bool) -> None:
    """Pinned, it is said of that file and no other; not pinned, its bytes are what was there."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"1" * 5000)
    program = code(f"""
        import sys, rangeio
        operator = rangeio.Operator("fs", root=sys.argv[1], pin={pin})
        ask_parent("preadv")
        one, = operator.read_ranges([("one", None)], on_error="return")
        other = operator.read_ranges([("two", (0, 10))])
        say(one=describe(one) if isinstance(one, Exception) else bytes(one[:5000]) == b"1" * 5000)
        say(other=bytes(other[0]) == b"1" * 10)
        """)
    with Meddler(tmp_path / "one", "preadv") as meddler:
        facts = lab.start(program, tmp_path, wire=meddler.childs.fileno()).finish().facts()
        assert meddler.heard["preadv"] >= 2
    assert facts["other"] is True
    if pin:
        assert facts["one"]["bases"][0] == "ObjectChangedError"
        assert facts["one"]["path"] == str(tmp_path / "one")
    else:
        assert facts["one"] is True


# --- a file system that stops short ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["short-1000", "short-70000", "slow-20"])
def test_short_reads_are_continued(lab: Lab, stalling: Server, name: str) -> None:
    program = code("""
        import sys, numpy as np, rangeio
        reader = rangeio.open(sys.argv[1])
        ranges = scattered(8, 30_000, 1 << 20)
        table = reader.read_batch([5, 200_000, 77], 4000)
        space = np.zeros(100_001, "u1")
        filled = reader.read_into(space, 3)
        say(
            whole=bytes(reader.read_to_end()) == pattern(0, 1 << 20),
            wrong=wrong(reader.read_ranges(ranges, gap=0), ranges),
            table=bytes(table) == b"".join(pattern(at, at + 4000) for at in (5, 200_000, 77)),
            into=(filled, bytes(space) == pattern(3, 100_004)),
            tail=bytes(reader.read_at((1 << 20) - 2500, 9999)) == pattern((1 << 20) - 2500, 1 << 20),
            exact=bytes(reader.read_exact(2, 2222)) == pattern(2, 2224),
        )
        del table
        say(leaks=leaks())
        reader.close()
        """)
    facts = lab.run(program, stalling.path(name)).facts()
    expected = {
        "whole": True,
        "wrong": 0,
        "table": True,
        "into": [100_001, True],
        "tail": True,
        "exact": True,
    }
    assert facts == {**expected, "leaks": {}}


# --- a read that is never answered ----------------------------------------------------------------------


def test_a_stalled_read_stops_no_other(lab: Lab, stalling: Server, pattern_file: Path) -> None:
    program = code("""
        import sys, threading, rangeio
        slow, plain, local = (rangeio.open(path) for path in sys.argv[1:])
        results = []
        read = lambda: results.append(wrong(slow.read_ranges([(299_000, 301_000)]), [(299_000, 301_000)]))
        thread = threading.Thread(target=read)
        thread.start()
        input()
        ranges = scattered(50, 2000, 1 << 20)
        same = bytes(slow.read_at(0, 4096)) == pattern(0, 4096)
        counts = [wrong(reader.read_ranges(ranges, gap=0), ranges) for reader in (plain, local)]
        say(counts=counts, same=same)
        thread.join()
        say(late=results)
        """)
    child = lab.start(program, stalling.path("stall-300000"), stalling.path("plain"), pattern_file)
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"counts": [0, 0], "same": True}
    stalling.release()
    assert child.finish().facts() == {"late": [0]}


STALLED = code("""
    import sys, threading, rangeio
    slow, plain = rangeio.open(sys.argv[1]), rangeio.open(sys.argv[2])
    ranges = [(299_000, 301_000), (0, 1000), (500_000, 600_000)]
""")


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("read", ["list(slow.iter_ranges(ranges, gap=0))", "slow.read_ranges(ranges, gap=0)"])
def test_interrupt_of_a_stalled_read(lab: Lab, stalling: Server, stalling_device: Path, read: str) -> None:
    """Ctrl-C comes through at once; the answer that arrives later falls on nobody's bytes. The disk is what stalls."""
    program = code(
        STALLED,
        f"""
        places = [(i * 2000, i * 2000 + 2000) for i in range(500)]
        def watch():
            while rangeio.backend().name == "uring" and not rangeio.stats()["in_flight"]:
                pass
            say(under_way=True)
        threading.Thread(target=watch).start()
        try:
            say(result=len({read}))
        except KeyboardInterrupt:
            say(interrupted=True)
        held = [plain.read_at(start, 2000) for start, _ in places]
        large = plain.read_at(0, 1 << 20)
        input()  # by now the stalled read is answered
        for _ in range(1000):
            if not rangeio.stats()["in_flight"]:
                break
            plain.read_ranges(places[:3], gap=0)
        say(held=wrong(held, places), large=bytes(large) == pattern(0, 1 << 20))
        del held, large
        say(again=wrong(slow.read_ranges(ranges), ranges), leaks=leaks())
        """,
    )
    child = lab.start(program, stalling_device, stalling.path("plain"))
    stalling.wait_for("stalled")
    assert child.line() == {"under_way": True}
    begun = time.monotonic()
    child.interrupt()
    assert child.line() == {"interrupted": True}
    assert time.monotonic() - begun < 1.0
    stalling.release()
    stalling.wait_for("answered")
    child.tell()
    assert child.finish().facts() == {"held": 0, "large": True, "again": 0, "leaks": {}}


def test_close_with_a_stalled_read(lab: Lab, stalling: Server) -> None:
    """close() does not wait, refuses new reads, and the read in flight still gets its bytes."""
    program = code(
        STALLED,
        """
    results = []
    thread = threading.Thread(target=lambda: results.append(wrong(slow.read_ranges(ranges[:1]), ranges[:1])))
    thread.start()
    input()
    slow.close()
    try:
        slow.read_at(0, 10)
    except rangeio.ClosedError as error:
        say(closed=describe(error))
    thread.join()
    say(late=results, leaks=leaks(), files=rangeio.stats()["files_open"])
    """,
    )
    child = lab.start(program, stalling.path("stall-300000"), stalling.path("plain"))
    stalling.wait_for("stalled")
    child.tell()
    assert child.line()["closed"]["bases"][0] == "ClosedError"
    stalling.release()
    facts = child.finish().facts()
    assert (facts["late"], facts["leaks"]) == ([0], {})
    assert facts["files"] == 1


@pytest.mark.parametrize("lab", ["uring"], indirect=True)
def test_an_iterator_closed_over_a_stalled_read(lab: Lab, stalling: Server, stalling_device: Path) -> None:
    """What is complete is handed out past the read that stalls; leaving the iterator does not wait for that one."""
    program = code(
        STALLED,
        """
        import time
        cached = slow.read_ranges(ranges[1:2])
        results = slow.iter_ranges(ranges[:2], gap=0)
        index, buffer = next(results)
        begun = time.monotonic()
        results.close()
        del results
        quick = time.monotonic() - begun < 1.0
        say(right=wrong([buffer, *cached], [ranges[1]] * 2) == 0, index=index, quick=quick)
        say(other=bytes(plain.read_at(0, 70_000)) == pattern(0, 70_000))
        """,
    )
    child = lab.start(program, stalling_device, stalling.path("plain"))
    stalling.wait_for("stalled")
    assert child.finish().facts() == {"right": True, "index": 1, "quick": True, "other": True}


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("how", ["daemon", "interrupt", "os._exit", "sys.exit"])
def test_exit_with_a_stalled_read(lab: Lab, stalling: Server, stalling_device: Path, how: str) -> None:
    """A process ends while the kernel still owes it an answer: at once, quietly."""
    program = code(
        STALLED,
        f"""
    import os
    def read():
        slow.read_ranges(ranges[:1])
    if {how!r} == "interrupt":
        try:
            read()
        except KeyboardInterrupt:
            say(interrupted=True)
    else:
        threading.Thread(target=read, daemon=True).start()
        input()
    if {how!r} in ("os._exit", "sys.exit"):
        {how if "exit" in how else "exit"}(0)
    """,
    )
    child = lab.start(program, stalling_device, stalling.path("plain"))
    stalling.wait_for("stalled")
    if how == "interrupt":
        child.interrupt()
        assert child.line() == {"interrupted": True}
    else:
        child.tell()
    assert child.finish(timeout_s=10).facts() == {}


def test_fork_with_a_stalled_read(lab: Lab, stalling: Server) -> None:
    """The parent forks while a read is in flight: the child reads, ends, and the parent's answer is still right."""
    program = code(
        STALLED,
        """
    import os
    results = []
    thread = threading.Thread(target=lambda: results.append(wrong(slow.read_ranges(ranges[:1]), ranges[:1])))
    thread.start()
    input()
    child = os.fork()
    if child == 0:
        right = bytes(plain.read_at(7, 70_000)) == pattern(7, 70_007)
        right = right and not wrong(plain.read_ranges(ranges), ranges)
        right = right and bytes(slow.read_at(0, 1000)) == pattern(0, 1000)
        os._exit(0 if right else 3)
    say(child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    thread.join()
    say(late=results, after=wrong(plain.read_ranges(ranges), ranges), leaks=leaks())
    """,
    )
    child = lab.start(program, stalling.path("stall-300000"), stalling.path("plain"))
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"child": 0}
    stalling.release()
    assert child.finish().facts() == {"late": [0], "after": 0, "leaks": {}}


# --- the tools themselves -------------------------------------------------------------------------------


def test_no_thread_to_be_had(lab: Lab, pattern_file: Path) -> None:
    """Awaited reads come all the same, on the loop's own thread; and from workers as soon as there can be some."""
    program = code(
        """
        import asyncio, os, sys, threading, rangeio
        path = sys.argv[1]
        ranges = scattered(20, 3000, os.stat(path).st_size)
        async def read():
            async with rangeio.open_async(path) as reader:
                errors = bytes(await reader.read_at(3, 300_000)) != pattern(3, 300_003)
                return errors + wrong(await reader.read_ranges(ranges, gap=0), ranges)
        threading.stack_size(1 << 48)  # more than there are addresses: to start a thread of Python fails
        say(without=asyncio.run(asyncio.wait_for(read(), 10)))
        threading.stack_size(0)
        say(after=asyncio.run(asyncio.wait_for(read(), 10)))
        """
    )
    assert lab.run(program, pattern_file).facts() == {"without": 0, "after": 0}


def test_the_machine_is_asked_right() -> None:
    """A ring that the kernel grants and liburing can drive is the one that rangeio chooses."""
    import rangeio

    if not backend_missing("uring") and not os.environ.get("RANGEIO_BACKEND"):
        assert str(rangeio.backend()) == "uring", rangeio.backend().reason
