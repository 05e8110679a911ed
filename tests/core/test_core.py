"""What only the native core can get wrong: who holds which memory when, and what other threads and forks see of it.

Most run in a process of their own, because what they guard against ends one.
"""

import ctypes
import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from awaited import LOOPS
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import FREE_THREADED, need, need_backend
from faults.stalling import Server

import _uring

RING = pytest.mark.parametrize("lab", ["uring"], indirect=True)
POOL = pytest.mark.parametrize("lab", ["pool"], indirect=True)
NATIVE = pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
NATIVE_HERE = pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)

START = code("""
    import asyncio, gc, os, signal, sys, threading, time
    import _uring

    path = sys.argv[1]
    nbytes = os.stat(path).st_size
    starts = [start for start, _ in scattered(500, 4096, nbytes)]
    reactor = _uring.default_reactor()

    def cold():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    def right(buffers, starts, length=4096):
        return wrong(buffers, [(start, start + length) for start in starts]) == 0

    def wait_until(condition):
        "Look again and again, for ten seconds at most."
        until = time.monotonic() + 10
        while not condition() and time.monotonic() < until:
            threading.Event().wait(0.001)

    def rings():
        "Descriptors of the rings of this process."
        links = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                pass
        return [fd for fd, link in links.items() if "io_uring" in link]

    def break_rings(theirs=()):
        "io_uring_enter refuses them from now on; not those of others, such as libuv."
        nothing = os.open("/dev/null", os.O_RDONLY)
        for ring in set(rings()) - set(theirs):
            os.dup2(nothing, ring)
""")


# --- iterations -----------------------------------------------------------------------------------------


@RING
def test_an_iteration_left_when_reads_have_completed_unseen(lab: Lab, pattern_file: Path) -> None:
    """The ring has taken completions that nobody was given yet: they are let go of once, not twice."""
    program = code(
        START,
        """
        file = reactor.open(path)
        descriptor = os.open(path, os.O_RDONLY)
        for _ in range(20):
            cold()
            os.pread(descriptor, 4096, nbytes - 4096)
            for index, buffer in (iterator := file.iter_many([*starts[:30], nbytes - 4096], [4096] * 31, 32)):
                break
            iterator.close()
            del iterator, buffer
        wait_until(lambda: not reactor.stats()["in_flight"])
        say(stats={name: reactor.stats()[name] for name in ("in_flight", "buffers_live")})
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"stats": {"in_flight": 0, "buffers_live": 0}}


@RING
def test_an_iteration_of_which_one_read_fails(lab: Lab, tmp_path: Path) -> None:
    """The error comes out while others that completed beside it wait to be handed out."""
    program = code(
        START,
        """
        failed = 0
        for turn in range(20):
            os.truncate(path, nbytes)
            cold()
            file = reactor.open(path)
            iterator = file.iter_many(starts, [4096] * len(starts), 64)
            try:
                next(iterator)
                os.truncate(path, 8192)
                for _ in iterator:
                    pass
            except (EOFError, OSError):
                failed += 1
            del iterator
        _ = file = None
        wait_until(lambda: not reactor.stats()["in_flight"])
        gc.collect()
        say(failed=failed > 0, stats={name: reactor.stats()[name] for name in ("in_flight", "buffers_live")})
        """,
    )
    facts = lab.run(program, write_pattern(tmp_path / "data", 4 << 20)).facts()
    assert facts == {"failed": True, "stats": {"in_flight": 0, "buffers_live": 0}}


@NATIVE
def test_an_iteration_closed_by_another_thread(lab: Lab, pattern_file: Path) -> None:
    """It is refused while the ring is in use, as of a generator; and never takes the ring from under the other."""
    program = code(
        START,
        """
        def close(iterator, said):
            begun.wait()
            while not said:
                try:
                    iterator.close()
                except ValueError:
                    continue
                said.append("closed")

        sys.setswitchinterval(1e-5)
        file = reactor.open(path, direct=True)
        for turn in range(25):
            iterator, said, begun = file.iter_many(starts, [4096] * len(starts), 8), [], threading.Event()
            closer = threading.Thread(target=close, args=(iterator, said))
            closer.start()
            for index, buffer in iterator:
                assert bytes(buffer) == pattern(starts[index], starts[index] + 4096)
                begun.set()
            closer.join()
        say(said=said)
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"said": ["closed"]}


# --- rings ----------------------------------------------------------------------------------------------


@RING
def test_a_ring_that_is_refused_under_direct_reads(lab: Lab, pattern_file: Path) -> None:
    """The workers read what the ring was not let: with O_DIRECT nothing else would have read it first."""
    program = code(
        START,
        """
        file = reactor.open(path, direct=True)
        before = right(file.read_many(starts, [4096] * len(starts)), starts)
        break_rings()
        after = right(file.read_many(starts, [4096] * len(starts)), starts)
        say(before=before, after=after, name=reactor.backend.name, in_flight=reactor.stats()["in_flight"])
        """,
    )
    facts = lab.run(program, pattern_file).facts()
    assert facts == {"before": True, "after": True, "name": "pool", "in_flight": 0}


REFUSED = code("""
    from awaited import run_on

    file = reactor.open(path, direct=True)
    loop, results = sys.argv[2], []

    async def read(first):
        part = starts[first:first + 50]
        results.append(right(await file.read_many_async(part, [4096] * 50), part))

    async def gather(*reads):
        if loop == "trio":
            import trio
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for one, *arguments in reads:
                        nursery.start_soon(one, *arguments)
        else:
            await asyncio.wait_for(asyncio.gather(*(one(*arguments) for one, *arguments in reads)), 20)

    async def turns(count):
        for _ in range(count):
            if loop == "trio":
                import trio
                await trio.lowlevel.checkpoint()
            else:
                await asyncio.sleep(0)
""")
LOOPED = pytest.mark.parametrize("loop", LOOPS)


@RING
@LOOPED
def test_a_loops_ring_that_is_refused_again_and_again(lab: Lab, pattern_file: Path, loop: str) -> None:
    """What was taken back from the ring is not taken back, nor submitted, once more when its batch is gone."""
    pytest.importorskip(loop)
    program = code(
        START,
        REFUSED,
        """
        async def break_soon(turn):
            await turns(turn)
            break_rings(theirs)

        async def main():
            theirs.extend(rings())
            for turn in range(5):
                await read(0)
                await gather(*((read, first) for first in range(0, 450, 10)), (break_soon, turn), *[(read, 3)] * 10)
                await read(5)

        theirs = []
        run_on(loop, main)
        say(right=all(results), count=len(results), in_flight=reactor.stats()["in_flight"])
        os._exit(0)  # the ring's number is /dev/null now
        """,
    )
    facts = lab.run(program, pattern_file, loop).facts()
    assert facts == {"right": True, "count": 5 * 57, "in_flight": 0}


@RING
@LOOPED
def test_a_loops_ring_closed_by_somebody_else_over_reads_that_stall(
    lab: Lab, pattern_file: Path, stalling: Server, stalling_device: Path, loop: str
) -> None:
    """More than the ring has room for completions of: none is lost, though the kernel cannot be asked for any."""
    pytest.importorskip(loop)
    program = code(
        START,
        REFUSED,
        """
        file = reactor.open(sys.argv[3], direct=True)

        async def stalled(offset):
            results.append(right([await file.read_at_async(offset, 4096)], [offset]))

        async def close_soon():
            await turns(10)
            for ring in set(rings()) - set(theirs):
                os.close(ring)
            say(under_way=reactor.stats()["in_flight"] > 500)
            input()
            await turns(3)

        async def main():
            theirs.extend(rings())
            await read_elsewhere()
            await gather(*[(stalled, 299_008)] * 3000, (close_soon,))
            await read_elsewhere()

        async def read_elsewhere():
            results.append(right([await file.read_at_async(0, 4096)], [0]))

        theirs = []
        run_on(loop, main)
        say(right=all(results), count=len(results), in_flight=reactor.stats()["in_flight"], name=reactor.backend.name)
        """,
    )
    child = lab.start(program, pattern_file, loop, stalling_device)
    stalling.wait_for("stalled")
    assert child.line() == {"under_way": True}
    stalling.release()
    child.tell()
    assert child.finish().facts() == {"right": True, "count": 3002, "in_flight": 0, "name": "pool"}


@RING
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("refusal", ["refuse(errno.EPERM, 'io_uring_enter')", "break_rings()"])
def test_an_iteration_whose_ring_is_refused(
    lab: Lab, pattern_file: Path, refusal: str, ordered: bool
) -> None:
    """The workers go on where it stopped."""
    program = code(
        START,
        f"""
        file = reactor.open(path, direct=True)
        many = starts * 10
        iterator = file.iter_many(many, [4096] * len(many), 64, {ordered})
        found = dict([next(iterator)])
        {refusal}
        found.update(iterator)
        say(right=right([found[index] for index in range(len(many))], many), name=reactor.backend.name)
        del found
        say(leaks=leaks())
        os._exit(0)
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"right": True, "name": "pool", "leaks": {}}


def test_a_ring_refused_to_an_iteration_is_asked_for_once(auto_lab: Lab, pattern_file: Path) -> None:
    need_backend("uring")
    program = code(
        START,
        """
        file = reactor.open(path, direct=True)
        refuse(errno.ENOMEM, "io_uring_setup")
        found = dict(file.iter_many(starts, [4096] * len(starts), 16))
        say(right=right([found[index] for index in range(len(starts))], starts))
        say(fallbacks=reactor.stats()["fallbacks"])
        """,
    )
    facts = auto_lab.run(program, pattern_file).facts()
    assert facts == {"right": True, "fallbacks": 1}


@RING
def test_an_iteration_gone_on_with_in_a_forked_child(lab: Lab, pattern_file: Path) -> None:
    """Both sides read all of it; the child makes a ring of its own."""
    program = code(
        START,
        """
        file = reactor.open(path, direct=True)
        iterator = file.iter_many(starts, [4096] * len(starts), 64)
        found = dict([next(iterator)])
        child = os.fork()
        found.update(iterator)
        good = right([found[index] for index in range(len(starts))], starts)
        if child == 0:
            del found, iterator
            os._exit(0 if good and not leaks() else 1)
        say(parent=good, child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"parent": True, "child": 0}


@RING
def test_a_reactor_that_is_dropped_leaves_no_ring(lab: Lab, pattern_file: Path) -> None:
    """Neither in the thread that drops it nor in others that live on."""
    need(not FREE_THREADED, "a free-threaded CPython frees the rings of other threads when those end")
    program = code(
        START,
        """
        def use(reactor):
            file = reactor.open(path, direct=True)
            file.read_at(0, 4096)
            next(file.iter_many(starts, [4096] * len(starts)))

        def work():
            while True:
                reactor = given.get()
                if reactor is None:
                    return
                use(reactor)
                del reactor
                given.task_done()

        import queue
        given = queue.Queue()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        counts = []
        for turn in range(5):
            own = _uring.Reactor()
            for _ in threads: given.put(own)
            use(own)
            given.join()
            counts.append(len(rings()) > 0)
            del own
            wait_until(lambda: not reactor.stats()["in_flight"] and not rings())
            counts.append(len(rings()))
        for _ in threads: given.put(None)
        say(counts=counts)
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"counts": [True, 0] * 5}


@RING
@pytest.mark.parametrize("forked", [False, True])
def test_a_ring_closes_nobody_elses_descriptor(lab: Lab, pattern_file: Path, forked: bool) -> None:
    """Its own was closed, as by a program that becomes a daemon, and the number is another file's now."""
    program = code(
        START,
        f"""
        own = _uring.Reactor()
        file = own.open(path, direct=True)
        file.read_at(0, 4096)
        child = os.fork() if {forked} else 0
        if child == 0:
            numbers = rings()
            for number in numbers:
                os.dup2(0, number)
            right = bytes(file.read_at(4096, 4096)) == pattern(4096, 8192)
            del own, file
            gc.collect()
            for number in numbers:
                os.fstat(number)
            say(right=right, count=len(numbers), new=len(rings()))
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"right": True, "count": 1, "new": 0}


@RING
def test_an_interrupted_batch_leaves_no_file_registered_under_a_number(lab: Lab, tmp_path: Path) -> None:
    """The next file that gets the same descriptor is read, not the one that the ring still has in its table."""
    program = code(
        START,
        """
        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        signal.signal(signal.SIGALRM, stop)
        lengths = [256 << 10] * 600
        interrupted = wrong_file = 0
        for turn in range(60):
            file = reactor.open(path, direct=True)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.002 + turn % 20 * 0.0007)
                file.read_many([0] * 600, lengths, 256)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                interrupted += 1
            file.close()
            wait_until(lambda: not reactor.stats()["in_flight"])
            other = reactor.open(sys.argv[2], direct=True)
            wrong_file += bytes(other.read_at(0, 4096)) != b"B" * 4096
            other.close()
        say(interrupted=interrupted > 0, wrong_file=wrong_file)
        """,
    )
    other = tmp_path / "other"
    other.write_bytes(b"B" * (4 << 20))
    facts = lab.run(program, write_pattern(tmp_path / "data", 4 << 20), other).facts()
    assert facts == {"interrupted": True, "wrong_file": 0}


@RING
def test_a_long_batch_hears_of_signals_that_do_not_interrupt_it(lab: Lab, pattern_file: Path) -> None:
    """Ctrl-C that reached another thread of the process: no system call of the reading one is interrupted."""
    program = code(
        START,
        """
        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        signal.signal(signal.SIGUSR1, stop)
        file = reactor.open(path, direct=True)
        ready, over = threading.Event(), threading.Event()

        def send():
            ready.wait()
            wait_until(lambda: reactor.stats()["in_flight"])
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            over.wait()

        sender = threading.Thread(target=send)
        sender.start()
        many = starts * 250
        lengths = [4096] * len(many)
        stopped = False
        try:
            ready.set()
            file.read_many(many, lengths)
        except Stop:
            stopped = True
        over.set()
        sender.join()
        say(stopped=stopped, early=reactor.stats()["ring_reads"] < len(many))
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"stopped": True, "early": True}


# --- files ----------------------------------------------------------------------------------------------


@NATIVE_HERE
def test_a_file_in_a_reference_cycle(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """The collector clears objects in any order; a descriptor still finds the engine that counts it."""

    class Holder:
        pass

    before = reactor.stats()["files_open"]
    file = reactor.open(str(write_pattern(tmp_path / "data", 10)))
    holder = Holder()
    holder.file, holder.itself = file, holder  # type: ignore[attr-defined]
    del file
    assert reactor.stats()["files_open"] == before + 1
    del holder
    gc.collect()
    assert reactor.stats()["files_open"] == before


@NATIVE_HERE
def test_a_record_that_ends_beyond_every_offset(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """The end of it, told in the error, is more than an offset can be."""
    file = reactor.open(str(write_pattern(tmp_path / "data", 10)))
    with pytest.raises(EOFError, match=f"ends at {2**63 + 7}, the file at 10"):
        file.read_batch([2**63 - 1], 8)
    file.close()


@NATIVE_HERE
def test_files_are_counted_once(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """However many descriptors a file is read by: one without read-ahead, one without the page cache."""
    path = str(write_pattern(tmp_path / "data", 100_000))
    before = reactor.stats()["files_open"]
    files = [reactor.open(path), reactor.open(path, direct=True)]
    for file in files:
        file.read_many([0, 20_000, 40_000, 60_000, 80_000], [4096] * 5)
    assert reactor.stats()["files_open"] == before + 2
    for file in files:
        file.close()
    assert reactor.stats()["files_open"] == before


@NATIVE
def test_a_file_closed_while_others_read(lab: Lab, pattern_file: Path) -> None:
    """At any moment: a read is right, or refused as of a closed file."""
    program = code(
        START,
        """
        sys.setswitchinterval(1e-5)
        kinds = [
            lambda: right(file.read_many(starts[:6], [4096] * 6), starts[:6]),
            lambda: right([file.read_at(0, 100_000)], [0], 100_000),
            lambda: right([file.read_at(5, 3_000_001)], [5], 3_000_001),
            lambda: right([file.read_at(5, 100)], [5], 100),
        ]
        bad, refused, until = [], [], time.monotonic() + 2

        def read(kind):
            while time.monotonic() < until:
                try:
                    if not kind():
                        bad.append(1)
                except ValueError:
                    refused.append(1)

        file = reactor.open(path)
        threads = [threading.Thread(target=read, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        turn = 0
        while time.monotonic() < until:
            turn += 1
            old, file = file, reactor.open(path, direct=turn % 2 == 0)
            old.close()
            threading.Event().wait(0.0002)
            file.close()
            file = reactor.open(path)
        for thread in threads:
            thread.join()
        say(wrong=len(bad), refused=len(refused) > 0)
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"wrong": 0, "refused": True}


@NATIVE_HERE
def test_every_read_of_a_changed_file_fails(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Not only the first, with a second of trust after it."""
    path = write_pattern(tmp_path / "data", 100_000)
    with_old = reactor.open(str(path))
    assert with_old.read_at(0, 10) == pattern(0, 10)
    os.utime(path, (0, 0))
    with pytest.raises(OSError, match="modification time"):
        with_old.stat()
    for _ in range(3):
        with pytest.raises(OSError, match="modification time"):
            with_old.read_at(0, 10)
    with_old.close()


@NATIVE_HERE
def test_what_was_asked_is_counted_within_the_file(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """To read "to the end" is not to ask for 2**63 bytes: two of those would overflow the counter."""
    file = reactor.open(str(write_pattern(tmp_path / "data", 1000)))
    before = reactor.stats()["bytes_asked"]
    for _ in range(4):
        file.read_at(10, 2**63 - 1)
    assert reactor.stats()["bytes_asked"] - before == 4 * 990
    file.close()


@NATIVE_HERE
def test_files_of_one_page_are_read_with_the_others(reactor: _uring.Reactor, tmp_path: Path) -> None:
    """Only made-up files (sysfs says 4096 bytes of each) are opened one by one, which shows as an inline read."""
    path = str(write_pattern(tmp_path / "data", 4096))
    before = reactor.stats()["inline_hits"]
    [one, made_up] = reactor.read_files(
        [(path, 0, 100), ("/sys/kernel/mm/transparent_hugepage/enabled", 0, None)]
    )
    assert one == pattern(0, 100)
    assert isinstance(made_up, _uring.Buffer | FileNotFoundError)
    assert reactor.stats()["inline_hits"] == before


class Closing:
    """Lends its bytes, and closes a file when it is asked for them, or when they are given back (PEP 688)."""

    def __init__(self, file: _uring.File, when: str) -> None:
        self.memory, self.file, self.when = bytearray(100), file, when

    def __buffer__(self, flags: int) -> memoryview:
        if self.when == "asked":
            self.file.close()
        return memoryview(self.memory)

    def __release_buffer__(self, view: memoryview) -> None:
        self.file.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes export memory since Python 3.12")
@pytest.mark.parametrize("when", ["asked", "given back"])
def test_memory_whose_owner_closes_the_file(reactor: _uring.Reactor, tmp_path: Path, when: str) -> None:
    """The read of what is cached goes on with the file that it began with, or does not begin."""
    file = reactor.open(str(write_pattern(tmp_path / "data", 1000)))
    assert file.read_at(0, 1000) == pattern(0, 1000)
    destination = Closing(file, when)
    threading.Event().wait(1.1)  # the next read looks again whether the file has changed
    if when == "asked":
        with pytest.raises(ValueError, match="closed"):
            file.read_into(destination, 5)
    else:
        assert file.read_into(destination, 5) == 100
        assert destination.memory == pattern(5, 105)
    assert file.closed


# --- buffers --------------------------------------------------------------------------------------------


@NATIVE_HERE
def test_comparing_a_released_buffer_lets_go_of_the_other(reactor: _uring.Reactor) -> None:
    buffer = reactor.allocate(3)
    buffer.release()
    other = bytearray(b"abc")
    with pytest.raises(ValueError, match="released"):
        assert buffer == other
    other.append(0)  # BufferError while it is exported


@NATIVE_HERE
def test_a_table_is_not_shown_in_fortran_order(reactor: _uring.Reactor) -> None:
    view = ctypes.create_string_buffer(256)
    api = ctypes.pythonapi
    api.PyObject_GetBuffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    strides, fortran, rows = 0x10 | 0x08, 0x40, 0x20
    table, row = reactor.allocate((3, 5)), reactor.allocate(15)
    with pytest.raises(BufferError, match="Fortran"):
        api.PyObject_GetBuffer(table, view, strides | fortran)
    for shown, order in ((table, rows), (row, fortran)):
        assert api.PyObject_GetBuffer(shown, view, strides | order) == 0
        api.PyBuffer_Release(view)


# --- event loops ----------------------------------------------------------------------------------------


@POOL
def test_no_descriptor_for_the_workers_reports(lab: Lab, pattern_file: Path) -> None:
    """The read fails, and the next one, with a descriptor to be had, is made; it once waited for ever."""
    program = code(
        START,
        """
        import resource
        file = reactor.open(path, direct=True)

        async def main():
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            errors = []
            for _ in range(2):
                try:
                    await asyncio.wait_for(asyncio.ensure_future(file.read_at_async(0, 4096)), 5)
                except OSError as error:
                    errors.append(error.errno)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            read = await asyncio.wait_for(asyncio.ensure_future(file.read_at_async(0, 4096)), 5)
            say(errors=errors, right=bytes(read) == pattern(0, 4096))

        asyncio.run(main())
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"errors": [24, 24], "right": True}


@POOL
def test_a_loop_closed_under_the_workers_keeps_nothing(lab: Lab, pattern_file: Path) -> None:
    """Neither the descriptor of the reports, nor the memory of reads that end later."""
    program = code(
        START,
        """
        file = reactor.open(path, direct=True)

        async def main():
            reads = [asyncio.ensure_future(file.read_many_async(starts, [4096] * len(starts))) for _ in range(5)]
            await asyncio.sleep(0)
            for read in reads:
                read.cancel()

        for _ in range(5):
            asyncio.run(main())
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            asyncio.run(main())

        async def last():
            await file.read_at_async(0, 4096)

        def nothing_live():
            asyncio.run(last())  # lets go of the loops before
            gc.collect()
            return not reactor.stats()["buffers_live"]

        wait_until(nothing_live)
        say(more=max(0, len(os.listdir("/proc/self/fd")) - descriptors), live=reactor.stats()["buffers_live"])
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"more": 0, "live": 0}


# --- forks ----------------------------------------------------------------------------------------------


@RING
def test_a_forked_child_looks_at_no_parked_ring(lab: Lab, pattern_file: Path) -> None:
    """Its pages are not there."""
    program = code(
        START,
        """
        file = reactor.open(path, direct=True)
        for _ in range(10):
            iterator = file.iter_many([0] * 20, [4 << 20] * 20, 20)
            next(iterator)
            iterator.close()
        child = os.fork()
        if child == 0:
            os._exit(0 if reactor.stats()["in_flight"] == 0 else 1)
        say(child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"child": 0}


@NATIVE
def test_a_forked_child_that_ends_leaves_the_parents_loop_alone(lab: Lab, pattern_file: Path) -> None:
    """They share the epoll instance: what the child unwatched, the parent would never hear of again."""
    program = code(
        START,
        """
        file = reactor.open(path, direct=True)

        async def main():
            global reactor, file
            before = right(await file.read_many_async(starts[:50], [4096] * 50), starts[:50])
            child = os.fork()
            if child == 0:
                asyncio._set_running_loop(None)

                async def inside():
                    return await file.read_many_async(starts[:50], [4096] * 50)

                code = 0 if right(asyncio.new_event_loop().run_until_complete(inside()), starts[:50]) else 1
                for reads in list(reactor_loops()):
                    reads.close()
                os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            after = await asyncio.wait_for(asyncio.ensure_future(file.read_many_async(starts[:50], [4096] * 50)), 5)
            say(before=before, child=code, after=right(after, starts[:50]))

        def reactor_loops():
            return [item for item in gc.get_objects() if type(item).__name__ == "LoopReads"]

        asyncio.run(main())
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"before": True, "child": 0, "after": True}
