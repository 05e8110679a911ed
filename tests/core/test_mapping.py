"""Hot batches copied out of a mapping: when they are, and what a file, a signal or the kernel may do meanwhile."""

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.child import Lab, Outcome, code
from faults.data import pattern, write_pattern
from faults.machine import need, sanitized
from faults.stalling import Server

import _uring
import rangeio

NATIVE = pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)
NATIVE_LAB = pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
LAB = pytest.mark.parametrize("lab", ["pool"], indirect=True)

NBYTES = 1 << 20
PLACES = np.arange(0, NBYTES, 4096)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = write_pattern(tmp_path / "data", NBYTES)
    with rangeio.open(path) as reader:
        need(_uring.extension_error() == "", "needs the compiled core")
        need(reader.capability.mapped, "needs a file system of which files are mapped")
    return path


def copied(reactor: _uring.Reactor) -> int:
    return reactor.stats()["mapped_reads"]


def check(reader: rangeio.Reader) -> None:
    """A batch and ranges, records that cross borders of pages and blocks included."""
    assert bytes(reader.read_batch(PLACES, 4096)) == pattern(0, NBYTES)
    places = np.arange(5, NBYTES - 9000, 7000)
    assert bytes(reader.read_batch(places, 9000)) == b"".join(
        pattern(at, at + 9000) for at in places.tolist()
    )
    pairs = [(at, at + 777) for at in range(0, NBYTES - 777, 5000)]
    assert [bytes(buffer) for buffer in reader.read_ranges(pairs)] == [pattern(*pair) for pair in pairs]


# --- when ------------------------------------------------------------------------------------------------------


@NATIVE
def test_what_was_seen_in_the_page_cache_is_copied_out_of_a_mapping(
    reactor: _uring.Reactor, path: Path
) -> None:
    with rangeio.open(path, reactor=reactor) as reader:
        assert reader.capability.mapped
        check(reader)
        before = copied(reactor)
        reader.read_batch(PLACES, 4096)
        assert copied(reactor) == before + len(PLACES)
        check(reader)
        assert copied(reactor) > before + 2 * len(PLACES)


@NATIVE
def test_only_that_is_copied_which_was_seen(reactor: _uring.Reactor, path: Path) -> None:
    with rangeio.open(path, reactor=reactor) as reader:
        reader.read_batch(PLACES[::2], 4096)
        before = copied(reactor)
        assert bytes(reader.read_batch(PLACES, 4096)) == pattern(0, NBYTES)
        assert copied(reactor) == before + len(PLACES) // 2
        assert bytes(reader.read_batch(PLACES, 4096)) == pattern(0, NBYTES)
        assert copied(reactor) == before + len(PLACES) // 2 + len(PLACES)


@NATIVE
def test_no_event_loop_waits_for_a_page_of_a_mapping(reactor: _uring.Reactor, path: Path) -> None:
    """Whose pages may have been reclaimed: what is awaited is read by calls that do not wait."""

    async def read() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            for _ in range(3):
                assert bytes(await reader.read_batch(PLACES, 4096)) == pattern(0, NBYTES)

    before = copied(reactor)
    asyncio.run(read())
    assert copied(reactor) == before


@NATIVE
@pytest.mark.parametrize("options", [{"mapped": False}, {"pin": False}, {"direct": True}])
def test_options_that_have_everything_read_by_system_calls(
    reactor: _uring.Reactor, path: Path, options: dict[str, bool]
) -> None:
    before = copied(reactor)
    with rangeio.open(path, reactor=reactor, **options) as reader:  # type: ignore[arg-type]
        if reader.capability.direct or "direct" not in options:
            assert not reader.capability.mapped
            for _ in range(3):
                check(reader)
            assert copied(reactor) == before


@NATIVE
def test_few_reads_are_not_worth_it(reactor: _uring.Reactor, path: Path) -> None:
    before = copied(reactor)
    with rangeio.open(path, reactor=reactor) as reader:
        for _ in range(3):
            reader.read_batch(PLACES[:4], 4096)
            reader.read_at(0, NBYTES)
    assert copied(reactor) == before


@NATIVE
def test_files_of_unknown_systems_are_not_mapped(reactor: _uring.Reactor, stalling: Server) -> None:
    for file in (stalling.folder / "plain", Path("/proc/self/status")):
        with rangeio.open(file, reactor=reactor) as reader:
            assert not reader.capability.mapped


def maps_of(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@NATIVE
def test_it_is_unmapped_with_the_last_read(reactor: _uring.Reactor, path: Path) -> None:
    before = reactor.stats()["file_bytes_mapped"]
    reader = rangeio.open(path, reactor=reactor)
    reader.read_batch(PLACES, 4096)
    table = reader.read_batch(PLACES, 4096)
    assert maps_of(path) == 1
    assert reactor.stats()["file_bytes_mapped"] == before + NBYTES
    reader.close()
    assert maps_of(path) == 0
    assert reactor.stats()["file_bytes_mapped"] == before
    assert bytes(table) == pattern(0, NBYTES)


@NATIVE
def test_a_descriptor_that_may_write_leaves_the_file_sealable(reactor: _uring.Reactor) -> None:
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.write(fd, pattern(0, NBYTES))
    with rangeio.from_fd(fd, reactor=reactor, closefd=True) as reader:
        for _ in range(3):
            check(reader)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        check(reader)


@NATIVE
def test_holes_of_a_file_in_memory_take_none(reactor: _uring.Reactor) -> None:
    """A page that is touched there is made (shmem_fault in mm/shmem.c), where a read makes none."""
    fd = os.memfd_create("holes")
    os.truncate(fd, NBYTES)
    with rangeio.from_fd(fd, reactor=reactor, closefd=True) as reader:
        for _ in range(3):
            assert bytes(reader.read_batch(PLACES, 4096)) == bytes(NBYTES)
        assert os.fstat(fd).st_blocks == 0


# --- children --------------------------------------------------------------------------------------------------

START = code("""
    import ctypes, faulthandler, mmap, os, random, signal, sys, threading, time
    import numpy as np
    import rangeio

    path, nbytes = sys.argv[1], 1 << 20
    old = 5 * 10**17  # ns, long ago
    with open(path, "wb") as file:
        file.write(pattern(0, nbytes))
    os.utime(path, ns=(old, old))
    places = np.arange(0, nbytes, 4096)

    def copied():
        return rangeio.stats()["mapped_reads"]

    def drops():
        return rangeio.stats()["mapped_drops"]

    def is_copied(reader):
        "Whether the next batch is, which must be right."
        before = copied()
        assert bytes(reader.read_batch(places, 4096)) == pattern(0, nbytes)
        return copied() - before == len(places)

    def bus_error():
        "A fault that is nobody's but the program's."
        with open(path + ".own", "wb+") as file:
            file.truncate(4096)
            memory = mmap.mmap(file.fileno(), 4096)
            file.truncate(0)
        return memory[0]
""")


def run(lab: Lab, tmp_path: Path, program: str, *arguments: object, **environ: str) -> Outcome:
    path = tmp_path / "data"
    path.write_bytes(bytes(4096))
    with rangeio.open(path) as reader:
        need(reader.capability.mapped, "needs a file system of which files are mapped")
    return lab.run(code(START, program), path, *arguments, **environ)


@NATIVE_LAB
def test_the_environment_turns_it_off(lab: Lab, tmp_path: Path) -> None:
    program = """
    reader = rangeio.open(path)
    is_copied(reader)
    say(copied=is_copied(reader), mapped=reader.capability.mapped)
    """
    assert run(lab, tmp_path, program).facts() == {"copied": True, "mapped": True}
    assert run(lab, tmp_path, program, RANGEIO_MAPPED="0").facts() == {"copied": False, "mapped": False}


@LAB
def test_where_no_more_may_be_mapped_it_is_swept(lab: Lab, tmp_path: Path) -> None:
    need(not sanitized(), "AddressSanitizer maps memory of its own, and ends where it gets none")
    program = """
    import resource
    os.truncate(path, 1 << 40)
    reader = rangeio.open(path)
    reader.read_batch(places, 4096)
    reader.read_at(0, 10)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 35, 1 << 35))
    say(copied=[is_copied(reader) for _ in range(3)])
    """
    assert run(lab, tmp_path, program).facts() == {"copied": [False] * 3}


@NATIVE_LAB
def test_a_file_cut_short_under_the_copy(lab: Lab, tmp_path: Path) -> None:
    """By a thread that waits for the copy to begin: until it was met there some times. Also where SIGBUS is blocked."""
    program = """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS] if sys.argv[2] == "blocked" else [])
    whole, go, results = pattern(0, nbytes), threading.Semaphore(0), {}
    chance = np.random.default_rng(1)
    descriptor = os.open(path, os.O_RDWR)

    def cut():
        while go.acquire():
            os.ftruncate(descriptor, 100)
            done.release()

    done = threading.Semaphore(0)
    threading.Thread(target=cut, daemon=True).start()
    table = np.frombuffer(whole, "u1").reshape(-1, 4096)
    for _ in range(3000):
        reader = rangeio.open(path)
        reader.read_batch(places, 4096)
        picked = chance.integers(0, len(places), 2000)
        go.release()
        try:
            result = str(bool((reader.read_batch(picked * 4096, 4096).numpy() == table[picked]).all()))
        except rangeio.Error as error:
            result = type(error).__name__
        done.acquire()
        results[result] = results.get(result, 0) + 1
        reader.close()
        os.pwrite(descriptor, whole, 0)
        os.utime(path, ns=(old, old))
        if drops() >= 5:
            break
    say(results=sorted(set(results) - {"True"}), met=drops() >= 5)
    """
    for mask in ("open", "blocked"):
        facts = run(lab, tmp_path, program, mask).facts()
        assert facts == {"results": ["ObjectChangedError"], "met": True}


@LAB
def test_a_hole_is_read_as_zeros_or_not_at_all(lab: Lab, tmp_path: Path) -> None:
    """With the time put back, so that the pin does not see it: the copy finds what the kernel would have read."""
    program = """
    libc = ctypes.CDLL(None, use_errno=True)
    reader = rangeio.open(path)
    is_copied(reader)
    say(before=is_copied(reader))
    descriptor = os.open(path, os.O_RDWR)
    offset, length = ctypes.c_long(1 << 19), ctypes.c_long(1 << 16)
    say(punched=libc.fallocate(descriptor, 3, offset, length))
    try:
        reader.read_batch(places, 4096)
    except rangeio.ObjectChangedError:
        say(changed=True)
    os.utime(path, ns=(old, old))
    good = bytearray(pattern(0, nbytes))
    good[1 << 19 : (1 << 19) + (1 << 16)] = bytes(1 << 16)
    say(right=[bytes(reader.read_batch(places, 4096)) == good for _ in range(40)])
    """
    facts = run(lab, tmp_path, program).facts()
    assert facts == {"before": True, "punched": 0, "changed": True, "right": [True] * 40}


@LAB
def test_a_file_in_the_place_of_another(lab: Lab, tmp_path: Path) -> None:
    """The Reader goes on with the file that it has opened."""
    program = """
    reader = rangeio.open(path)
    is_copied(reader)
    with open(path + ".new", "wb") as file:
        file.write(bytes(nbytes))
    os.replace(path + ".new", path)
    say(copied=is_copied(reader), new=bytes(rangeio.open(path).read_batch(places, 4096)) == bytes(nbytes))
    """
    assert run(lab, tmp_path, program).facts() == {"copied": True, "new": True}


@LAB
def test_a_process_that_locks_its_memory_reads_no_more_of_a_file(lab: Lab, tmp_path: Path) -> None:
    """mlockall(MCL_FUTURE) has all of a mapping read when it is made, and kept."""
    need(not sanitized(), "AddressSanitizer makes mlockall(2) do nothing")
    program = """
    from rangeio.cli.machine import resident_share
    descriptor = os.open(path, os.O_RDWR)
    os.ftruncate(descriptor, 64 << 20)
    os.utime(path, ns=(old, old))
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    libc = ctypes.CDLL(None)
    say(dropped=resident_share(descriptor) == 0, locks=libc.mlockall(2) == 0)
    reader = rangeio.open(path)
    for _ in range(3):  # from the device, from the page cache, out of the mapping
        copies = is_copied(reader)
    locked = [line for line in open("/proc/self/smaps").read().split(path)[1].splitlines() if "Locked:" in line]
    libc.munlockall()  # or to look would read all of it
    say(copied=copies, share=resident_share(descriptor) < 0.1, locked=int(locked[0].split()[1]))
    """
    facts = run(lab, tmp_path, program).facts()
    need(facts.pop("dropped") and facts.pop("locks"), "needs mlockall(2), and a cache that can be emptied")
    assert facts == {"copied": True, "share": True, "locked": 0}


# --- signals ---------------------------------------------------------------------------------------------------


@LAB
@pytest.mark.parametrize("kind", ["python", "ignored", "faulthandler"])
def test_a_handler_from_before_is_called_as_before(lab: Lab, tmp_path: Path, kind: str) -> None:
    need(kind != "faulthandler" or not sanitized(), "AddressSanitizer has a handler of its own")
    program = """
    kind, heard = sys.argv[2], []
    faulthandler.disable()
    if kind == "python":
        signal.signal(signal.SIGBUS, lambda *_: heard.append(1))
    elif kind == "ignored":
        signal.signal(signal.SIGBUS, signal.SIG_IGN)
    else:
        faulthandler.enable()
    reader = rangeio.open(path)
    is_copied(reader)
    say(copied=is_copied(reader))
    if kind != "faulthandler":
        os.kill(os.getpid(), signal.SIGBUS)
        threading.Event().wait(0.01)
        say(heard=heard, after=is_copied(reader))
    else:
        bus_error()
    """
    outcome = run(lab, tmp_path, program, kind)
    if kind == "faulthandler":
        assert outcome.code == -signal.SIGBUS
        assert outcome.said == [{"copied": True}]
        assert "Fatal Python error: Bus error" in outcome.stderr
        assert "bus_error" in outcome.stderr
    else:
        assert outcome.facts() == {"copied": True, "heard": [1] if kind == "python" else [], "after": True}


@LAB
@pytest.mark.parametrize("sent", [True, False])
def test_without_a_handler_it_ends_the_process_as_before(lab: Lab, tmp_path: Path, sent: bool) -> None:
    need(not sanitized(), "AddressSanitizer has a handler of its own")
    program = """
    faulthandler.disable()
    reader = rangeio.open(path)
    is_copied(reader)
    say(copied=is_copied(reader))
    os.kill(os.getpid(), signal.SIGBUS) if sys.argv[2] == "True" else bus_error()
    """
    outcome = run(lab, tmp_path, program, sent)
    assert (outcome.code, outcome.said, outcome.stderr) == (-signal.SIGBUS, [{"copied": True}], "")


@LAB
@pytest.mark.parametrize("kind", ["python", "faulthandler"])
def test_a_handler_from_after_is_left_alone_and_nothing_is_mapped(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    program = """
    kind, heard = sys.argv[2], []
    faulthandler.disable()
    reader = rangeio.open(path)
    is_copied(reader)
    say(before=is_copied(reader))
    if kind == "python":
        signal.signal(signal.SIGBUS, lambda *_: heard.append(1))
        say(copied=is_copied(reader))
        os.kill(os.getpid(), signal.SIGBUS)
        threading.Event().wait(0.01)
        say(heard=heard, after=False)
    else:
        faulthandler.enable()
        say(copied=is_copied(reader))
        faulthandler.disable()
        say(heard=[1], after=is_copied(reader))
    """
    facts = run(lab, tmp_path, program, kind).facts()
    assert facts == {"before": True, "copied": False, "heard": [1], "after": kind == "faulthandler"}


# --- forks, memory ---------------------------------------------------------------------------------------------


@NATIVE_LAB
def test_forked_children_and_their_parent_go_on(lab: Lab, tmp_path: Path) -> None:
    """Children forked while other threads copy; each meets a file cut short, too."""
    program = """
    reader = rangeio.open(path)
    is_copied(reader)
    over, wrongs, codes = threading.Event(), [], []

    def work():
        while not over.is_set():
            wrongs.append(bytes(reader.read_batch(places, 4096)) != pattern(0, nbytes))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        child = os.fork()
        if child == 0:
            before = copied()
            is_copied(reader)
            other = rangeio.open(path)
            is_copied(other)
            is_copied(other)
            os._exit(0 if copied() - before >= 2 * len(places) else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    over.set()
    for thread in threads:
        thread.join()
    say(wrong=any(wrongs), codes=codes, copied=is_copied(reader))
    """
    assert run(lab, tmp_path, program).facts() == {"wrong": False, "codes": [0] * 20, "copied": True}


RECLAIMERS = (
    ("/sys/fs/cgroup/memory", "memory.force_empty", "0"),
    ("/sys/fs/cgroup", "memory.reclaim", "64M"),
)


def memory_cgroup() -> Any:
    """(folder, file, word): it gives its pages back when the word is written to the file. None if it cannot be made."""
    for root, name, word in RECLAIMERS:
        group = Path(root) / f"rangeio-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / name).exists():
                return group, name, word
            group.rmdir()
    return None


@LAB
def test_reclaimed_pages_end_the_copies_for_some_time(lab: Lab, tmp_path: Path) -> None:
    """By a memory cgroup that is told to give its pages back."""
    made = memory_cgroup()
    need(made, "needs the right to make a memory cgroup")
    group, name, word = made
    program = """
    group, name, word = sys.argv[2:]
    open(group + "/cgroup.procs", "w").write(str(os.getpid()))
    with open(path, "r+b") as file:  # its pages are this group's from now on
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    reader = rangeio.open(path)
    is_copied(reader), is_copied(reader)
    say(before=is_copied(reader), drops=drops())
    try:
        for _ in range(4):
            open(group + "/" + name, "w").write(word)
    except OSError:
        pass  # less could be had than was asked for
    later = [is_copied(reader) for _ in range(50)]
    say(after=later[1:3], dropped=drops(), again=later[-1])
    """
    try:
        facts = run(lab, tmp_path, program, group, name, word).facts()
    finally:
        group.rmdir()
    assert facts == {"before": True, "drops": 0, "after": [False, False], "dropped": 1, "again": True}


# --- long ------------------------------------------------------------------------------------------------------


AMID_CHANGES = """
    whole, chance = pattern(0, nbytes), random.Random(1)
    table = np.frombuffer(whole, "u1").reshape(-1, 4096)
    libc = ctypes.CDLL(None, use_errno=True)
    over, results = threading.Event(), {}

    def trouble():
        version = old
        while not over.wait(chance.random() / 200):
            kind = chance.randrange(3)
            version += 1
            if kind == 2:
                with open(path + ".new", "wb") as file:
                    file.write(whole)
                os.utime(path + ".new", ns=(version, version))
                os.replace(path + ".new", path)
                continue
            descriptor = os.open(path, os.O_RDWR)
            place = chance.randrange(nbytes)
            if kind == 0:
                os.ftruncate(descriptor, place)
            else:
                libc.fallocate(descriptor, 3, ctypes.c_long(place), ctypes.c_long(1 << 18))
            os.pwrite(descriptor, whole[place:], place)
            os.utime(path, ns=(version, version))
            os.close(descriptor)

    def is_whole(reader):
        "Not opened amid a change, whose state is a version, too."
        try:
            return reader.stat().mtime_ns < 2 * old
        except rangeio.ObjectChangedError:
            return False

    def work(number):
        picks = np.random.default_rng(number)
        done = 0
        while done < 500_000:
            with rangeio.open(path) as reader:
                if not is_whole(reader):
                    continue
                for _ in range(20):
                    picked = picks.integers(0, len(places), 500)
                    try:
                        good = bool((reader.read_batch(picked * 4096, 4096).numpy() == table[picked]).all())
                        result = "right" if good else "wrong"
                        done += 500
                    except rangeio.Error as error:
                        result = type(error).__name__
                    results[result] = results.get(result, 0) + 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    maker = threading.Thread(target=trouble)
    for thread in [*threads, maker]:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    maker.join()
    say(results=results, drops=drops(), copied=copied())
"""


@pytest.mark.soak
@NATIVE_LAB
def test_a_million_reads_of_a_file_that_is_cut_punched_and_replaced(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(4096))
    child = lab.start(code(START, AMID_CHANGES), path)
    said = child.finish(300).facts()
    assert "right" in said["results"]
    assert said["copied"] > 0
    assert set(said["results"]) <= {"right", "ObjectChangedError", "UnexpectedEofError"}
