"""Exceptions in the callbacks that an event loop is given: every read that is under way ends, and the loop goes on.

Each callback of a piece of work raises in turn: in place of what it does, or when it has done that.
"""

import asyncio
import errno
import gc
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop, at_once, run_on
from faults.data import pattern, write_pattern
from faults.machine import need_module

import _uring
import rangeio
from _uring.event_loops import AsyncioBinding, TrioBinding, bind, current_key
from rangeio.awaitables import checkpoint, pause
from rangeio.budget import SHARED

NBYTES = 5 << 20
DATA = pattern(0, NBYTES)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("loop_faults") / "data", NBYTES)


class Injection:
    """Has the callback with that number raise, of all that are called from now on."""

    def __init__(self) -> None:
        self.at, self.seen, self.after = -1, 0, False
        self.error: type[BaseException] = MemoryError
        self.instead: Callable[..., None] | None = None

    def arm(self, at: int, after: bool, error: type[BaseException] = MemoryError) -> None:
        self.at, self.seen, self.after, self.error = at, 0, after, error

    @property
    def over(self) -> bool:
        """Whether there was no such callback."""
        return self.seen <= self.at

    def around(self, callback: Callable[..., None]) -> Callable[..., None]:
        def called(*args: Any) -> None:
            mine = self.seen == self.at
            self.seen += 1
            if mine and self.instead is not None:
                self.instead(callback, *args)
                return
            if mine and not self.after:
                raise self.error("injected")
            callback(*args)
            if mine:
                raise self.error("injected")

        return called


@pytest.fixture
def injection(monkeypatch: pytest.MonkeyPatch) -> Injection:
    """Into every callback that a binding hands to its loop."""
    made = Injection()

    def patch(binding: type, name: str, place: int) -> None:
        original = getattr(binding, name)

        def handed_over(self: Any, *args: Any, **options: Any) -> Any:
            given = list(args)
            if given[place] is not None:
                given[place] = made.around(given[place])
            return original(self, *given, **options)

        monkeypatch.setattr(binding, name, handed_over)

    for binding in (AsyncioBinding, TrioBinding):
        for name, place in {"call_soon": 0, "call_soon_threadsafe": 0, "watch": 1, "waiter": 0}.items():
            patch(binding, name, place)
    return made


async def hot(reader: rangeio.AsyncReader) -> None:
    """More than one turn of a loop may hold: the tasks stand in a queue."""

    async def reads() -> None:
        for place in range(65):
            assert await reader.read_at(place, 60_000) == DATA[place : place + 60_000]

    await asyncio.gather(*(reads() for _ in range(4)))


async def left(reader: rangeio.AsyncReader) -> None:
    """Of many requests, and cancelled when they are under way."""
    task = asyncio.ensure_future(waited(reader.read_at(0, 2 << 20)))
    await checkpoint()
    task.cancel()
    await asyncio.wait([task])


async def left_in_trio(reader: rangeio.AsyncReader) -> None:
    import trio

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waited, reader.read_at(0, 2 << 20))
            await checkpoint()
            scope.cancel()


async def waited(read: Any) -> Any:
    return await read


class Work:
    """Reads of all kinds at once. `outcomes`: what became of each; those that are missing were never told."""

    def __init__(
        self, name: str, cached: rangeio.AsyncReader, direct: rangeio.AsyncReader, *wanted: str
    ) -> None:
        """wanted: which; all of them if none is named."""
        self.name, self.cached, self.direct, self.wanted = name, cached, direct, wanted
        self.outcomes: dict[str, Any] = {}

    def jobs(self) -> dict[str, Any]:
        cached, direct = self.cached, self.direct
        ranges = [(place * 300_000, place * 300_000 + 200_000) for place in range(8)]
        found = {
            "direct": lambda: self.same(direct.read_at(5, 5000), 5, 5005),
            "direct, large": lambda: self.same(direct.read_at(0, NBYTES), 0, NBYTES),
            "shared": lambda: self.same(cached.read_at(3, 2 << 20), 3, 3 + (2 << 20)),
            "into": lambda: self.into(cached),
            "budget": lambda: self.many(direct, ranges),
            "budget too": lambda: self.many(cached, ranges),
            "iterated": lambda: self.each(direct, ranges),
            "streamed": lambda: self.streamed(direct),
            "left": lambda: (left_in_trio if self.name == "trio" else left)(cached),
        }
        # trio queues its tasks itself, and backend python has no reads that are there at once.
        if self.name != "trio" and cached.capability.backend != "python":
            found["hot"] = lambda: hot(cached)
        return {job: found[job] for job in self.wanted or found}

    async def same(self, read: Any, start: int, stop: int) -> None:
        assert await read == DATA[start:stop]

    async def into(self, reader: rangeio.AsyncReader) -> None:
        space = bytearray(2 << 20)
        assert await reader.read_into(space, 9) == len(space)
        assert space == DATA[9 : 9 + len(space)]

    async def many(self, reader: rangeio.AsyncReader, ranges: Any) -> None:
        found = await reader.read_ranges(ranges, gap=None)
        assert found == [DATA[start:stop] for start, stop in ranges]

    async def each(self, reader: rangeio.AsyncReader, ranges: Any) -> None:
        async for index, buffer in reader.iter_ranges(ranges, gap=None):
            start, stop = ranges[index]
            assert buffer == DATA[start:stop]

    async def streamed(self, reader: rangeio.AsyncReader) -> None:
        at = 0
        async for buffer in reader.stream((0, 2 << 20)):
            assert buffer == DATA[at : at + len(buffer)]
            at += len(buffer)
        assert at == 2 << 20

    async def outcome(self, name: str, job: Any) -> None:
        try:
            self.outcomes[name] = await job()
        except Exception as error:
            # A nursery has one task: what that raised is all its group holds.
            self.outcomes[name] = getattr(error, "exceptions", (error,))[0]

    async def run(self) -> None:
        jobs = self.jobs()
        begun = [lambda name=name, job=job: self.outcome(name, job) for name, job in jobs.items()]
        await within(self.name, 20, lambda: at_once(self.name, begun))
        assert set(self.outcomes) == set(jobs), f"never told: {set(jobs) - set(self.outcomes)}"


async def within(name: str, seconds: float, call: Any) -> None:
    """Give up after so long."""
    if name == "trio":
        import trio

        with trio.move_on_after(seconds):
            await call()
    else:
        try:
            await asyncio.wait_for(call(), seconds)
        except asyncio.TimeoutError:
            pass


@pytest.fixture
def small_budget() -> Iterator[None]:
    """One call of many ranges waits for the other."""
    before = SHARED.stats()["budget_bytes"]
    SHARED.resize(1 << 20)
    yield
    SHARED.resize(before)


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize("after", [False, True], ids=["instead", "after"])
def test_every_callback_raises(
    reactor: _uring.Reactor, path: Path, loop: Loop, injection: Injection, after: bool
) -> None:
    heard: list[Any] = []
    failures: list[BaseException] = []

    async def main() -> bool:
        if loop.name != "trio":
            asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        async with (
            rangeio.open_async(path, reactor=reactor) as cached,
            rangeio.open_async(path, reactor=reactor, direct=True) as direct,
        ):
            work = Work(loop.name, cached, direct)
            await work.run()
            over = injection.over
            failures.extend(error for error in work.outcomes.values() if error is not None)
            injection.arm(-1, False)
            again = Work(loop.name, cached, direct)
            await again.run()
            assert set(again.outcomes.values()) == {None}
        return over

    over, number = False, 0
    while not over:
        injection.arm(number, after)
        over = loop.run(main)
        assert not heard, f"callback {number}: {heard}"
        number += 1
    assert number > 2  # completions that arrive together share a callback
    assert failures or after
    for error in failures:
        assert isinstance(error, rangeio.UnexpectedError), repr(error)
        assert "MemoryError: injected" in str(error)
        assert error.path in ("", str(path))


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)
def test_memory_runs_out_within_a_callback(reactor: _uring.Reactor, path: Path, injection: Injection) -> None:
    """One allocation of it fails. Under trio: a future of asyncio's that cannot be told for want of memory is lost."""
    need_module("trio")
    hooks = pytest.importorskip("_testcapi", reason="this Python has no module for tests of itself")
    failures: list[BaseException] = []

    def limited(callback: Callable[..., None], *args: Any) -> None:
        hooks.set_nomemory(allocation, allocation + 1)
        try:
            callback(*args)
        finally:
            hooks.remove_mem_hooks()

    async def main() -> None:
        async with (
            rangeio.open_async(path, reactor=reactor) as cached,
            rangeio.open_async(path, reactor=reactor, direct=True) as direct,
        ):
            work = Work("trio", cached, direct, "direct", "shared", "budget", "budget too", "left")
            await work.run()
            failures.extend(error for error in work.outcomes.values() if error is not None)

    injection.instead = limited
    for number in range(7):
        for allocation in range(12):  # noqa: B007
            injection.arm(number, False)
            run_on("trio", main)
    assert failures
    assert all("MemoryError" in str(error) for error in failures)
    assert {type(error) for error in failures} == {rangeio.UnexpectedError}


def test_an_interruption_is_not_lost(
    reactor: _uring.Reactor, path: Path, loop: Loop, injection: Injection
) -> None:
    """KeyboardInterrupt in a callback ends the program, by way of a task that waits; no other waits for ever."""
    reader = rangeio.open_async(path, reactor=reactor, direct=True)
    outcomes: list[BaseException | None] = []
    tasks: list[Any] = []

    async def read(place: int) -> None:
        try:
            await reader.read_at(place, 300_000)
        except BaseException as error:
            outcomes.append(error)
            if not isinstance(error, Exception):
                raise
        else:
            outcomes.append(None)

    async def main() -> None:
        await reader.read_at(0, 1)
        injection.arm(0, False, KeyboardInterrupt)
        if loop.name == "trio":
            await at_once("trio", [partial(read, place) for place in range(5)])
        else:
            tasks.extend(asyncio.ensure_future(read(place)) for place in range(5))
            await asyncio.wait(tasks)

    with pytest.raises(BaseException) as caught:  # trio's is a group
        loop.run(main)
    assert "KeyboardInterrupt" in repr(caught.value)
    if tasks:  # asyncio's go on with the loop
        loop.run(lambda: asyncio.wait(tasks, timeout=20))
        assert [task.exception() for task in tasks].count(None) == 4
    reader.close()
    assert len(outcomes) == 5
    assert sum(isinstance(outcome, KeyboardInterrupt) for outcome in outcomes) == 1
    outcomes.clear()


def test_what_a_result_is_made_of_raises(
    reactor: _uring.Reactor, path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the error of that read alone."""
    native = str(reactor.backend) != "python"
    copy = path.with_name("changes")
    copy.write_bytes(path.read_bytes())

    def wrong(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError("wrong")

    async def main() -> None:
        async with (
            rangeio.open_async(copy, reactor=reactor, direct=True) as changing,
            rangeio.open_async(path, reactor=reactor, direct=True) as other,
        ):
            await changing.read_at(0, 1)
            outcomes: dict[str, Any] = {}

            async def outcome(name: str, read: Any) -> None:
                try:
                    outcomes[name] = await read
                except Exception as error:
                    outcomes[name] = error

            def begin() -> dict[str, Any]:
                return {"changing": changing.read_at(0, 100_000), "other": other.read_at(0, 100_000)}

            # As by a writer in between. The thread of backend python looks for it, others when they tell.
            reads = begin() if native else {}
            os.utime(copy, ns=(1, 1))
            with monkeypatch.context() as patch:
                patch.setattr(f"_uring.{'open_file' if native else 'pure.open_file'}.make_error", wrong)
                await at_once(
                    loop.name,
                    [partial(outcome, name, read) for name, read in (reads or begin()).items()],
                )
            assert outcomes["other"] == pattern(0, 100_000)
            error = outcomes["changing"]
            assert isinstance(error, rangeio.UnexpectedError)
            assert "ZeroDivisionError: wrong" in str(error)
            assert error.path == str(copy)
            assert isinstance(error.__cause__, ZeroDivisionError)

    loop.run(main)


# --- descriptors that are watched no longer ------------------------------------------------------------------


AWAITED: dict[str, Callable[[rangeio.AsyncReader], Any]] = {
    "read_at": lambda reader: reader.read_at(5, 300_000),
    "read_into": lambda reader: reader.read_into(bytearray(2 << 20)),
    "read_ranges": lambda reader: reader.read_ranges([(0, 5), (1 << 20, 2 << 20)], gap=0),
    "read_batch": lambda reader: reader.read_batch([0, 1 << 20], 4096),
    "iter_ranges": lambda reader: anext(reader.iter_ranges([(0, 5), (1 << 20, 2 << 20)], gap=0)),
    "stream": lambda reader: anext(reader.stream()),
}


@pytest.mark.parametrize("backend", ["uring", "pool"], indirect=True)
@pytest.mark.parametrize("read", AWAITED)
def test_a_loop_that_cannot_watch(
    reactor: _uring.Reactor, path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """No more descriptors: it is an error of the tree, leaves nothing behind, and the next read asks again."""

    def watch(*args: Any) -> None:
        raise OSError(errno.EMFILE, "injected")

    async def main() -> None:
        async with rangeio.open_async(path, reactor=reactor, direct=True) as reader:
            with monkeypatch.context() as patch:
                for binding in (AsyncioBinding, TrioBinding):
                    patch.setattr(binding, "watch", watch)
                for _ in range(3):
                    with pytest.raises(rangeio.UnexpectedError) as caught:
                        await AWAITED[read](reader)
                    assert (caught.value.errno, caught.value.path) == (errno.EMFILE, str(path))
            assert await reader.read_at(5, 300_000) == DATA[5:300_005]

    before = len(os.listdir("/proc/self/fd"))
    loop.run(main)
    gc.collect()
    assert (
        len(os.listdir("/proc/self/fd")) - before <= 2
    )  # of the loop's own: the last read's ring and eventfd


def test_a_descriptor_given_up_amid_its_call(loop: Loop) -> None:
    """Both are readable, and whoever is called first gives the other up, closes it, and opens another of its number."""
    called: list[str] = []

    async def main() -> None:
        binding: Any = bind(current_key())
        ends = {name: os.pipe() for name in ("one", "two")}

        def first(name: str, other: str) -> None:
            called.append(name)
            binding.unwatch(ends[name][0])
            binding.unwatch(ends[other][0])
            for end in ends[other]:
                os.close(end)
            ends[other] = os.pipe()  # the same numbers
            os.write(ends[other][1], b"x")
            binding.watch(ends[other][0], lambda: second(other))

        def second(name: str) -> None:
            called.append(f"another {name}")
            os.read(ends[name][0], 1)

        numbers = {name: pair[0] for name, pair in ends.items()}
        for name, other in (("one", "two"), ("two", "one")):
            os.write(ends[name][1], b"x")
            binding.watch(ends[name][0], lambda name=name, other=other: first(name, other))
        while len(called) < 2:
            await pause(0.001)
        for _ in range(10):
            await checkpoint()
        other = "two" if called[0] == "one" else "one"
        assert ends[other][0] == numbers[other]
        assert called == [called[0], f"another {other}"]
        binding.unwatch(ends[other][0])
        for pair in ends.values():
            for end in pair:
                os.close(end)

    loop.run(main)


@pytest.mark.parametrize("fault", ["closing", "busy"])
def test_trio_goes_on_when_a_descriptor_cannot_be_watched(fault: str) -> None:
    """Somebody closed it, or waits for another one under its number: that is told, and the run lives on."""
    need_module("trio.testing")
    trio = need_module("trio")
    told: list[str] = []
    bindings: list[Any] = []

    async def main() -> None:
        binding: Any = bind(current_key())
        read_end, write_end = os.pipe()
        async with trio.open_nursery() as nursery:
            if fault == "busy":
                nursery.start_soon(trio.lowlevel.wait_readable, read_end)
                await trio.testing.wait_all_tasks_blocked()
            binding.watch(read_end, lambda: told.append("called"), lambda: told.append("lost"))
            await trio.testing.wait_all_tasks_blocked()
            if fault == "closing":
                trio.lowlevel.notify_closing(read_end)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        os.close(read_end)
        os.close(write_end)
        bindings.append(binding)
        assert not binding.is_closed()

    trio.run(main)
    assert told == ["lost"]
    assert bindings[0].is_closed()
