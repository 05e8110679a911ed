"""Who leaves a read into memory of his own, cancelled or interrupted, has it for himself: nobody writes there later."""

import asyncio
import gc
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, cancel_when, run_on
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import need, need_module
from faults.stalling import Server
from servers.scripted import Answer, Asked, honest, scripted

import _uring
import rangeio
from _uring.event_loops import AsyncioBinding, TrioBinding
from rangeio.awaitables import pause

LOOPED = pytest.mark.parametrize("loop", LOOPS)
NBYTES = 8 << 20

STALLED = code("""
    import asyncio, os, select, sys, threading, rangeio
    from awaited import run_on
    from rangeio.awaitables import pause

    space, said = bytearray(2000), []

    def held():
        try:
            space.append(0)
        except BufferError:
            return True
        space.pop()
        return False

    async def until_told():
        while not select.select([sys.stdin], [], [], 0)[0]:
            await pause(0.001)
        sys.stdin.readline()
""")

CANCELLED = code("""
    loop = sys.argv[2]

    def reading(reader):
        if sys.argv[3] == "read_ranges_into":
            halves = memoryview(space)
            return reader.read_ranges_into([(halves[1000:], 299_500), (halves[:1000], 299_100)])
        if sys.argv[3] == "read_batch":
            return reader.read_batch([299_100, 299_500], 1000, out=space)
        return reader.read_into(space, 299_000)

    async def read(reader):
        try:
            await reading(reader)
            said.append("read")
        except BaseException as error:
            said.append(type(error).__name__)
            space[:] = b"-" * 2000  # ours again
            raise

    async def leave(cancel):
        await until_told()
        cancel()
        for _ in range(20):
            await pause(0.001)
        cancel()
        say(ended=bool(said), held=held())

    async def main():
        async with rangeio.open_async(sys.argv[1], direct=True) as reader:
            await reader.read_at(0, 1)
            if loop == "trio":
                import trio
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, reader)
                    with trio.CancelScope(shield=True):
                        await leave(nursery.cancel_scope.cancel)
            else:
                task = asyncio.ensure_future(read(reader))
                await leave(task.cancel)
                await asyncio.wait([task])
                said.append(task.cancelled())
            said.append(held())
            say(said=said, same=bytes(await reader.read_at(299_000, 2000)) == pattern(299_000, 301_000))

    run_on(loop, main)
    say(mine=space == b"-" * 2000, leaks=leaks())
""")


@LOOPED
@pytest.mark.parametrize("read", ["read_into", "read_ranges_into", "read_batch"])
def test_a_cancelled_read_ends_when_its_memory_is_let_go(
    lab: Lab, stalling: Server, stalling_device: Path, loop: str, read: str
) -> None:
    """While the disk stalls, and however often it is cancelled; then at once, and nothing holds the memory any more."""
    need_module(loop)
    child = lab.start(code(STALLED, CANCELLED), stalling_device, loop, read)
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"ended": False, "held": True}
    stalling.release()
    cancelled = ["Cancelled"] if loop == "trio" else ["CancelledError", True]
    expected = {"said": [*cancelled, False], "same": True, "mine": True, "leaks": {}}
    assert child.finish().facts() == expected


GROUPED = code("""
    spaces = [bytearray(2000) for _ in range(8)]

    def are_held():
        found = 0
        for space in spaces:
            try:
                space.append(0)
            except BufferError:
                found += 1
        return found

    async def read_all(reader):
        async with asyncio.TaskGroup() as group:
            for space in spaces:
                group.create_task(read(reader, space))

    async def read(reader, space):
        await reader.read_into(space, 299_000)

    async def main():
        async with rangeio.open_async(sys.argv[1], direct=True) as reader:
            await reader.read_at(0, 1)
            task = asyncio.ensure_future(read_all(reader))
            await until_told()
            task.cancel()
            for _ in range(20):
                await pause(0.001)
            say(ended=task.done())
            await asyncio.wait([task])
            say(cancelled=task.cancelled(), held=are_held())

    run_on(sys.argv[2], main)
    say(leaks=leaks())
""")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_cancelled_group_ends_when_all_memory_is_let_go(
    lab: Lab, stalling: Server, stalling_device: Path, loop: str
) -> None:
    """As the description of `read_into` says, which warns of gather()."""
    need_module(loop)
    need(hasattr(asyncio, "TaskGroup"), "task groups are there since Python 3.11")
    assert "TaskGroup" in rangeio.AsyncReader.__slots__["read_into"]
    child = lab.start(code(STALLED, GROUPED), stalling_device, loop)
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"ended": False}
    stalling.release()
    assert child.finish().facts() == {"cancelled": True, "held": 0, "leaks": {}}


INTERRUPTED = code("""
    import signal
    reader = rangeio.open(sys.argv[1], direct=True)
    heard, ended = threading.Event(), threading.Event()

    def interrupted(*_):
        heard.set()
        raise KeyboardInterrupt

    def listen():
        heard.wait()
        say(ended=ended.wait(0.3))
        sys.stdin.readline()
        say(mine=space == b"-" * 2000, held=held())

    signal.signal(signal.SIGINT, interrupted)
    listener = threading.Thread(target=listen)
    listener.start()
    try:
        if sys.argv[2] == "read_into":
            reader.read_into(space, 299_000)
        elif sys.argv[2] == "read_ranges_into":
            reader.read_ranges_into([(memoryview(space)[1000:], 299_500), (memoryview(space)[:1000], 299_100)])
        else:
            reader.as_file((299_000, None)).read(2000)  # its buffer is freed with it
        said.append("read")
    except KeyboardInterrupt:
        said.append("interrupted")
        space[:] = b"-" * 2000
    ended.set()
    say(said=said)
    listener.join()
    say(same=bytes(reader.read_at(299_000, 2000)) == pattern(299_000, 301_000), leaks=leaks())
""")


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("read", ["read_into", "read_ranges_into", "as_file"])
def test_an_interrupted_read_ends_when_its_memory_is_let_go(
    lab: Lab, stalling: Server, stalling_device: Path, read: str
) -> None:
    """Ctrl-C comes through when the kernel is done with it, as of any file object."""
    child = lab.start(code(STALLED, INTERRUPTED), stalling_device, read)
    stalling.wait_for("stalled")
    child.interrupt()
    assert child.line() == {"ended": False}
    stalling.release()
    stalling.wait_for("answered")
    assert child.line() == {"said": ["interrupted"]}
    child.tell()
    assert child.finish().facts() == {"mine": True, "held": False, "same": True, "leaks": {}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = write_pattern(tmp_path / "data", NBYTES)
    with path.open() as file:
        os.fsync(file.fileno())
    return path


def forget(path: Path) -> None:
    """Leave nothing of it in the page cache."""
    with path.open() as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@LOOPED
@pytest.mark.parametrize("direct", [True, False])
def test_cancelled_at_any_point(reactor: _uring.Reactor, path: Path, loop: str, direct: bool) -> None:
    need_module(loop)
    space, left = bytearray(NBYTES - 4096), 0
    rng = random.Random(18)

    async def cancelled(reader: rangeio.AsyncReader, turns: int) -> bool:
        """Whether it was, and not read to its end before."""
        if loop == "trio":
            import trio

            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel() -> None:
                        for _ in range(turns):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel)
                    await reader.read_into(space, 4096)
                    return False
            return True
        task: Any = asyncio.ensure_future(reader.read_into(space, 4096))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        return bool((await asyncio.gather(task, return_exceptions=True))[0] != len(space))

    async def main() -> None:
        nonlocal left
        async with rangeio.open_async(path, reactor=reactor, direct=direct) as reader:
            await reader.read_at(0, 1)
            for _ in range(10):
                forget(path)
                if not await cancelled(reader, rng.randrange(6)):
                    continue
                left += 1
                space[:] = bytes(len(space))  # ours again
                gc.collect()  # the frames of a cancelled task may be a circle, and they hold it
                if reactor.backend.name != "python":  # whose threads let go of it a moment later
                    space.append(0)  # BufferError, if somebody held it
                    space.pop()
                until = time.monotonic() + 10
                while reactor.stats()["in_flight"] and time.monotonic() < until:
                    await pause(0.001)
                assert not any(space)
            assert await reader.read_into(space, 4096) == len(space)
            assert space == pattern(4096, NBYTES)

    run_on(loop, main)
    assert left


def test_what_the_kernel_has_nothing_of_ends_at_once(reactor: _uring.Reactor, path: Path) -> None:
    """Cancelled before the loop had a turn; and by the usual ways of asyncio."""

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            await reader.read_at(0, 1)
            space = bytearray(1 << 20)
            forget(path)
            reading: Any = reader.read_into(space)
            assert reading.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await reading
            assert reading.cancelled()
            assert not reading.cancel()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read_into(space), 0)
            shielded = asyncio.shield(reader.read_into(space))
            shielded.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shielded
            assert await asyncio.gather(reader.read_into(space), reader.read_at(0, 10)) == [
                len(space),
                pattern(0, 10),
            ]
            os.truncate(path, 4096)
            with pytest.raises(rangeio.ObjectChangedError):
                await reader.read_into(space)

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["uring"], indirect=True)
def test_what_ends_at_once_under_trio_is_held_by_no_cycle(reactor: _uring.Reactor, path: Path) -> None:
    """The owner of the memory may do with it what he likes, without waiting for the collector."""
    trio = need_module("trio")
    space = bytearray(1 << 20)

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            await reader.read_at(0, 1)
            forget(path)
            with trio.CancelScope() as scope:
                scope.cancel()
                await reader.read_into(space)
            assert scope.cancelled_caught
            space.append(0)  # BufferError, if somebody held it

    gc.disable()
    try:
        trio.run(main)
    finally:
        gc.enable()


@LOOPED
@pytest.mark.parametrize("backend", ["python"], indirect=True)
def test_the_thread_that_tells_holds_nothing_any_more(
    reactor: _uring.Reactor, path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would hold the memory a moment longer than the task waits for it."""
    need_module(loop)
    space, told = bytearray(5000), []

    def is_held() -> bool:
        try:
            space.append(0)
        except BufferError:
            return True
        return False

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await reader.read_at(0, 1)
            for binding in (AsyncioBinding, TrioBinding):

                def tell(
                    self: Any, *args: Any, original: Any = binding.call_soon_threadsafe, **named: Any
                ) -> None:
                    told.append(is_held())
                    original(self, *args, **named)

                monkeypatch.setattr(binding, "call_soon_threadsafe", tell)
            assert await reader.read_into(space) == 5000

    run_on(loop, main)
    assert told == [False]
    assert space[:5000] == pattern(0, 5000)


@LOOPED
@pytest.mark.parametrize("known", [False, True])
def test_over_http_the_connection_is_closed(loop: str, known: bool) -> None:
    """So nothing comes from it any more; there is nothing to wait for."""
    need_module(loop)
    data = pattern(0, 1 << 20)
    space = bytearray(len(data) - 1000)

    def slow(asked: Asked) -> Answer:
        answer = honest(data, asked)
        if asked.range is not None and asked.range[0] == 1000:
            answer.piece, answer.pause_s = 8192, 0.002
        return answer

    with scripted(slow) as server:

        async def main() -> None:
            async with rangeio.open_async(server.url, chunk=None) as reader:
                for start in range(3 if known else 0):
                    await reader.read_at(start, 10)
                await cancel_when(loop, lambda: space[5000] != 0, reader.read_into(space, 1000))
                space[:] = bytes(len(space))
                for thread in threading.enumerate():
                    while "_serve" in thread.name and thread.is_alive():  # until the client is gone for it
                        await pause(0.001)
                assert not any(space)

        run_on(loop, main)


# --- left before anybody began it -------------------------------------------------------------------------

QUEUED = code(
    STALLED,
    """
    import itertools, _uring
    from awaited import at_once, cancel_when
    loop, stuck, begun, read = *sys.argv[3:4], int(sys.argv[4]), [], []

    async def stall(reader):
        begun.append(True)
        read.append(bytes(await reader.read_at(299_000, 2000)) == pattern(299_000, 301_000))

    async def cancel(begin, turns):
        "Once the workers are all at reads that stall, or will be before they come to this one."
        while len(begun) < stuck:
            await pause(0.001)
        for _ in range(10):
            await pause(0.001)
        left = itertools.count()
        await cancel_when(loop, lambda: next(left) > turns, begin())

    async def main():
        async with rangeio.open_async(sys.argv[1]) as stalled, rangeio.open_async(sys.argv[2]) as other:
            await stalled.read_at(0, 1), await other.read_at(0, 1)
            await at_once(loop, [lambda: stall(stalled)] * stuck + [lambda: leave(stalled, other)])
            await at_once(loop, [lambda: see(other)])
        say(read=read, leaks=leaks())
    """,
)


@LOOPED
@pytest.mark.parametrize("which", ["cached", "stalled", "ranges"])
def test_what_no_worker_has_begun_ends_at_once(
    lab: Lab, stalling: Server, pattern_file: Path, loop: str, which: str
) -> None:
    """However long other reads stall; and what it has held is let go, memory of ours too."""
    need_module(loop)
    program = code(
        QUEUED,
        """
        which, space = sys.argv[5], bytearray(4 << 20)

        async def leave(stalled, other):
            if which == "ranges":
                await cancel(lambda: other.read_ranges([(0, 2 << 20), (2 << 20, 4 << 20)]), 5)
            else:
                await cancel(lambda: (other if which == "cached" else stalled).read_into(space, 0), 5)
            space[:] = b"-" * len(space)  # ours again
            say(held=held(), live=_uring.default_reactor().stats()["buffers_live"] - stuck)

        async def see(other):
            mine = space == b"-" * len(space)
            say(mine=mine, read=await other.read_into(space, 0), same=space == pattern(0, len(space)))

        run_on(loop, main)
        """,
    )
    child = lab.start(program, stalling.path("stall-300000"), pattern_file, loop, 12, which)
    facts = child.line(10)
    assert not facts["held"]
    assert facts["live"] == 0 or lab.backend == "python"  # which takes memory when a worker begins
    stalling.release()
    assert child.line() == {"mine": True, "read": 4 << 20, "same": True}
    assert child.finish().facts() == {"read": [True] * 12, "leaks": {}}


@LOOPED
@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
def test_of_what_a_worker_has_begun_no_more_is_begun(
    lab: Lab, stalling: Server, pattern_file: Path, loop: str
) -> None:
    """One worker is at the first of three pieces when it is cancelled; the others have no time before."""
    need_module(loop)
    program = code(
        QUEUED,
        """
        space = bytearray(3 << 20)

        async def leave(stalled, other):
            async with rangeio.open_async(sys.argv[5]) as wide:
                await wide.read_at(0, 1)
                await cancel(lambda: watched(wide.read_into(space, 0)), 50)
            piece = 1 << 20
            say(first=space[:piece] == pattern(0, piece), rest=any(space[piece:]), held=held())

        async def watched(reading):
            threading.Timer(0.5, lambda: say(ended=bool(said), held=held())).start()
            try:
                await reading
            finally:
                said.append(True)

        async def see(other):
            say(read=await other.read_into(space, 0), same=space == pattern(0, len(space)))

        run_on(loop, main)
        """,
    )
    paths = stalling.path("stall-300000"), pattern_file, loop, 7, stalling.path("wide-300000")
    child = lab.start(program, *paths)
    assert child.line() == {"ended": False, "held": True}
    stalling.release()
    assert child.line() == {"first": True, "rest": False, "held": False}
    assert child.line() == {"read": 3 << 20, "same": True}
    assert child.finish().facts() == {"read": [True] * 7, "leaks": {}}


# --- left, and then more goes wrong ---------------------------------------------------------------------

LEFT = code("""
    import asyncio, gc, mmap, os, sys, threading, time, _uring
    from awaited import at_once, run_on
    from rangeio.awaitables import checkpoint

    path, loop, said = sys.argv[1], sys.argv[2], {}
    reactor = _uring.default_reactor()
    theirs = set()

    def rings():
        "Descriptors of our rings."
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                if "io_uring" in os.readlink(f"/proc/self/fd/{name}"):
                    found.add(int(name))
            except OSError:
                pass
        return found - theirs

    def unseen():
        "Completions that nobody has taken, of all our rings."
        found = 0
        for ring in rings():
            with open(f"/proc/self/fdinfo/{ring}") as file:
                facts = dict(line.split(":", 1) for line in file if line.startswith("Cq"))
            found += int(facts["CqTail"]) - int(facts["CqHead"])
        return found

    async def wait(name, awaitable):
        try:
            said[name] = await awaitable
        except BaseException as error:
            said[name] = type(error).__name__
            if not isinstance(error, Exception):
                raise

    async def leave(name, awaitable, left):
        "Begin to await it, leave it once some of it is with the kernel, and call `left` in the same turn."
        if loop == "trio":
            import trio
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait, name, awaitable)
                    await begun()
                    scope.cancel()
                    with trio.CancelScope(shield=True):
                        await left()
        else:
            task = asyncio.ensure_future(wait(name, awaitable))
            await begun()
            task.cancel()
            await left()
            await asyncio.wait([task])

    async def begun():
        while not reactor.stats()["in_flight"]:
            await checkpoint()
""")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of more pieces than are under way at once."""
    path = write_pattern(tmp_path_factory.mktemp("large") / "data", 48 << 20)
    with path.open() as file:
        os.fsync(file.fileno())
    opened = _uring.default_reactor().open(path, direct=True)
    need(opened.direct, "needs a file system with O_DIRECT")
    opened.close()
    return path


@pytest.mark.parametrize("lab", ["uring"], indirect=True)
@LOOPED
def test_the_ring_of_a_read_that_was_left_is_refused(lab: Lab, large: Path, loop: str) -> None:
    """When what it had is done, unseen, and the rest was never begun: nobody reads that, and the task ends."""
    need_module(loop)
    program = code(
        LEFT,
        """
        space = mmap.mmap(-1, 48 << 20)

        async def refused():
            nothing = os.open("/dev/null", os.O_RDONLY)
            for ring in rings():
                os.dup2(nothing, ring)
            await wait("other", other.read_at_async(4096, 4096))

        async def main():
            theirs.update(rings())
            await leave("left", file.read_into_async(space, 0), refused)

        file, other = reactor.open(path, direct=True), reactor.open(path, direct=True)
        run_on(loop, main)
        said["other"] = bytes(said["other"]) == pattern(4096, 8192)
        say(**said, name=reactor.backend.name, leaks=leaks())
        os._exit(0)  # the ring's number is /dev/null now
        """,
    )
    cancelled = "Cancelled" if loop == "trio" else "CancelledError"
    facts = lab.run(program, large, loop).facts()
    assert facts == {"other": True, "left": cancelled, "name": "pool", "leaks": {}}


@pytest.mark.parametrize("lab", ["uring"], indirect=True)
def test_a_callback_raises_in_the_turn_in_which_a_read_that_was_left_ends(lab: Lab, large: Path) -> None:
    """It is let go of once, not twice."""
    program = code(
        LEFT,
        """
        from _uring.event_loops import AsyncioBinding

        space, calls, held = mmap.mmap(-1, 48 << 20), [], []
        holes = path + ".holes"
        with open(holes, "wb") as made:
            made.truncate(1 << 20)  # holes are read at once, and the next turn is asked for

        def call_soon(self, *arguments, original=AsyncioBinding.call_soon):
            if calls:
                raise MemoryError(calls.pop())
            original(self, *arguments)

        async def failing():
            until, left = time.monotonic() + 10, reactor.stats()["in_flight"]
            while unseen() < left and time.monotonic() < until:
                threading.Event().wait(0.001)
            say(seen=left - unseen())
            held.extend(item for item in gc.get_objects() if type(item).__name__ == "ReadInto")
            starts = list(range(0, 1 << 20, 4096))
            begun = other.read_many_async(starts, [4096] * len(starts), 4)
            calls.append("injected")  # into the turn to come, which asks for another one
            await wait("other", begun)

        async def main():
            theirs.update(rings())
            await leave("left", file.read_into_async(space, 0), failing)

        file, other = reactor.open(path, direct=True), reactor.open(holes, direct=True)
        AsyncioBinding.call_soon = call_soon
        run_on(loop, main)
        gc.collect()
        [read] = held
        say(**said, calls=calls, references=sys.getrefcount(read) - 3)  # of `held`, of `read` and of the call
        """,
    )
    facts = lab.run(program, large, "asyncio").facts()
    outcomes = {"left": "CancelledError", "other": "UnexpectedError"}
    assert facts == {**outcomes, "seen": 0, "calls": [], "references": 0}


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
def test_left_in_a_forked_child(lab: Lab, stalling: Server, stalling_device: Path) -> None:
    """What is under way there is under way for the parent: the child waits for nobody."""
    program = code(
        LEFT,
        """
        space = bytearray(2000)

        async def main():
            task = asyncio.ensure_future(wait("left", reactor.open(path, direct=True).read_into_async(space, 299_000)))
            for _ in range(10):
                await asyncio.sleep(0)
            input()
            child = os.fork()
            if child == 0:
                task.cancel()
                for _ in range(10):
                    await asyncio.sleep(0)
                os._exit(task.cancelled())
            say(cancelled=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            await task
            say(**said, same=space == pattern(299_000, 301_000))

        asyncio.run(main())
        """,
    )
    child = lab.start(program, stalling_device, "asyncio")
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"cancelled": 1}
    stalling.release()
    assert child.finish().facts() == {"left": 2000, "same": True}


FAILED = code("""
    import gc
    loop, outcome, tasks = *sys.argv[2:], []

    async def read(name, awaitable):
        try:
            await awaitable
            said.append((name, "read"))
        except BaseException as error:
            said.append((name, type(error).__name__, "injected" in str(error)))
            if name == "into":
                space[:] = b"-" * 2000  # ours again
            if not isinstance(error, Exception):
                raise

    async def fail(begin, cancel):
        "As a callback that raises does; and see who is told of it."
        await until_told()
        begin()
        for _ in range(20):
            await pause(0.001)
        [reads] = [item for item in gc.get_objects() if type(item).__name__ == "LoopReads"]
        reads.failed(KeyboardInterrupt() if outcome == "interrupted" else ZeroDivisionError("injected"))
        if outcome != "failed":
            cancel()
        for _ in range(20):
            await pause(0.001)
        say(told=said[:], held=held())
        said.clear()

    async def main():
        async with rangeio.open_async(sys.argv[1], direct=True) as reader:
            into = lambda: read("into", reader.read_into(space, 299_000))
            other = lambda: read("other", reader.read_at(299_008, 4096))
            if loop == "trio":
                import trio
                async with trio.open_nursery() as nursery:
                    begin = lambda job: nursery.start_soon(job)
                    begin(into)
                    with trio.CancelScope(shield=True):
                        await fail(lambda: begin(other) if outcome == "failed" else None, nursery.cancel_scope.cancel)
            else:
                begin = lambda job: tasks.append(asyncio.ensure_future(job()))
                begin(into)
                await fail(lambda: begin(other) if outcome == "failed" else None, tasks[0].cancel)
                await asyncio.wait(tasks)
            say(same=bytes(await reader.read_at(299_000, 2000)) == pattern(299_000, 301_000))

    try:
        run_on(loop, main)
    except BaseException as error:
        say(ended="KeyboardInterrupt" in repr(error))
        for task in tasks:
            task.exception()
    say(said=said, held=held(), mine=space == b"-" * 2000, leaks=leaks())
""")


@LOOPED
@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("outcome", ["failed", "cancelled too", "interrupted"])
def test_a_callback_raises_while_somebody_writes(
    lab: Lab, stalling: Server, stalling_device: Path, loop: str, outcome: str
) -> None:
    """That ends a read into memory of the caller's as well: when nobody writes there any more."""
    need_module(loop)
    child = lab.start(code(STALLED, FAILED), stalling_device, loop, outcome)
    stalling.wait_for("stalled")
    child.tell()
    told = [["other", "UnexpectedError", True]] if outcome == "failed" else []
    assert child.line() == {"told": told, "held": True}
    stalling.release()
    ends = {
        "failed": ["UnexpectedError", True],
        "cancelled too": ["Cancelled" if loop == "trio" else "CancelledError", False],
        "interrupted": ["KeyboardInterrupt", False],
    }
    expected = {"said": [["into", *ends[outcome]]], "held": False, "mine": True, "leaks": {}}
    facts = child.finish().facts()
    assert facts.pop("same", True)
    assert facts.pop("ended", False) == (outcome == "interrupted")
    assert facts == expected


@pytest.mark.parametrize("lab", ["pool"], indirect=True)
@pytest.mark.parametrize("most", ["3", ""], ids=["none is left", "some are left"])
def test_the_workers_reports_come_by_another_descriptor_when_theirs_is_closed(
    lab: Lab, stalling: Server, stalling_device: Path, most: str
) -> None:
    """By somebody else, and trio tells: who waits for a worker is told what that read, as if nothing had been."""
    need_module("trio")
    program = code(
        STALLED,
        """
        import resource, trio

        def eventfds():
            found = set()
            for name in os.listdir("/proc/self/fd"):
                try:
                    if "eventfd" in os.readlink("/proc/self/fd/" + name):
                        found.add(int(name))
                except OSError:
                    pass
            return found

        async def main():
            async with rangeio.open_async(sys.argv[1], direct=True) as reader, trio.open_nursery() as nursery:
                theirs = eventfds()

                async def read():
                    said.append(await reader.read_into(space, 299_000))

                nursery.start_soon(read)
                await until_told()
                [ours] = eventfds() - theirs
                before = resource.getrlimit(resource.RLIMIT_NOFILE)
                if sys.argv[2]:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), before[1]))
                trio.lowlevel.notify_closing(ours)
                os.close(ours)
                for _ in range(20):
                    await pause(0.001)
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                say(ended=said[:], held=held())
                with trio.move_on_after(10):
                    while not said:
                        await pause(0.001)
                nursery.cancel_scope.cancel()
            say(said=said, same=space == pattern(299_000, 301_000))
            async with rangeio.open_async(sys.argv[1], direct=True) as reader:
                with trio.fail_after(10):
                    say(after=bytes(await reader.read_at(5, 400_000)) == pattern(5, 400_005))

        trio.run(main)
        """,
    )
    child = lab.start(program, stalling_device, most)
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"ended": [], "held": True}
    stalling.release()
    assert child.finish().facts() == {"said": [2000], "same": True, "after": True}


@pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)
def test_what_a_loop_reads_without_a_thread_is_reported_once(lab: Lab, stalling: Server) -> None:
    """There was none to be had, so the loop's own thread reads; meanwhile others get one."""
    program = code(
        STALLED,
        """
        import resource
        import _uring.holding  # not when there is no memory for a module

        def limit(size):
            resource.setrlimit(resource.RLIMIT_AS, (size, -1))

        def others():
            input()
            limit(-1)
            say(other=len(rangeio.open(sys.argv[2]).read_at(0, 4096)))

        async def main():
            async with rangeio.open_async(sys.argv[1]) as reader:
                reader._opened()
                thread = threading.Thread(target=others)
                thread.start()
                with open("/proc/self/statm") as file:
                    limit(int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE") + (64 << 10))
                got = await reader.read_into(space, 299_000)
                thread.join()
                say(got=got, same=space == pattern(299_000, 301_000))

        run_on("asyncio", main)
        say(held=held(), leaks=leaks())
        """,
    )
    child = lab.start(program, stalling.path("stall-300000"), stalling.path("plain"))
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"other": 4096}
    stalling.release()
    assert child.line() == {"got": 2000, "same": True}
    assert child.finish().facts() == {"held": False, "leaks": {}}


@pytest.mark.parametrize("lab", ["pool"], indirect=True)
def test_a_workers_report_is_not_written_to_a_file_of_somebody_elses(lab: Lab, stalling: Server) -> None:
    """Who closed the descriptor of the reports, and whose file has its number now. asyncio does not tell of it."""
    program = code(
        STALLED,
        """
        import tempfile, time

        async def main():
            async with rangeio.open_async(sys.argv[1]) as reader:
                await reader.read_at(0, 1)
                task = asyncio.ensure_future(reader.read_into(space, 299_000))
                await until_told()
                [ours] = [number for number in range(3, 100) if of(number) == "anon_inode:[eventfd]"]
                with tempfile.TemporaryFile() as file:
                    os.dup2(file.fileno(), ours)
                    say(taken=True)
                    until = time.monotonic() + 10
                    while not space[-1] and time.monotonic() < until:
                        await pause(0.001)
                    threading.Event().wait(0.1)  # for the worker to report
                    say(read=space == pattern(299_000, 301_000), written=os.fstat(file.fileno()).st_size)
                    os._exit(0)

        def of(number):
            try:
                return os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                return ""

        assert pattern(300_999, 301_000) != bytes(1)
        asyncio.run(main())
        """,
    )
    child = lab.start(program, stalling.path("stall-300000"))
    stalling.wait_for("stalled")
    child.tell()
    assert child.line() == {"taken": True}
    stalling.release()
    assert child.finish().facts() == {"read": True, "written": 0}
