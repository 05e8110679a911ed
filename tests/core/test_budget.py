"""The budget of bytes in flight: it bounds, it passes on, and it cannot lock up."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awaited import LOOPS, Loop
from faults.child import Lab, code
from faults.data import pattern, write_pattern
from faults.machine import need_module

import _uring
import rangeio
from rangeio.budget import LEAST, SHARED, Budget

MIB = 1 << 20
NBYTES = 16 * MIB


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pattern(tmp_path_factory.mktemp("budget") / "data", NBYTES)


@pytest.fixture
def small() -> Iterator[None]:
    """The process's budget at 4 MiB."""
    allowed = SHARED.stats()["budget_bytes"]
    rangeio.set_budget(4 * MIB)
    yield
    rangeio.set_budget(allowed)
    gc.collect()
    assert SHARED.stats()["budget_in_use"] == 0


class Calls:
    """Calls in threads that each hold on until told."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.inside: list[int] = []
        self.threads: list[threading.Thread] = []
        self.gates: dict[int, threading.Event] = {}

    def start(self, nbytes: int) -> None:
        gate, began = threading.Event(), threading.Event()
        self.gates[nbytes] = gate
        waits = self.budget.stats()["budget_waits"]

        def call() -> None:
            self.inside.append(nbytes)
            began.set()
            gate.wait(30)
            self.inside.remove(nbytes)

        thread = threading.Thread(target=self.budget.during, args=(nbytes, call))
        thread.start()
        self.threads.append(thread)
        while not began.is_set() and self.budget.stats()["budget_waits"] == waits:
            threading.Event().wait(0.001)

    def end(self, nbytes: int, then: list[int]) -> None:
        self.gates[nbytes].set()
        for _ in range(30_000):
            if sorted(self.inside) == sorted(then):
                return
            threading.Event().wait(0.001)
        raise AssertionError(f"inside: {self.inside}, expected: {then}")


def test_calls_wait_in_line() -> None:
    budget = Budget(10 * MIB)
    calls = Calls(budget)
    calls.start(6 * MIB)
    calls.start(4 * MIB)
    assert sorted(calls.inside) == [4 * MIB, 6 * MIB]
    calls.start(9 * MIB)  # does not fit
    calls.start(1 * MIB)  # would fit once one is done, but is not to overtake
    assert sorted(calls.inside) == [4 * MIB, 6 * MIB]
    assert budget.stats() == {"budget_bytes": 10 * MIB, "budget_in_use": 10 * MIB, "budget_waits": 2}
    calls.end(6 * MIB, [4 * MIB])
    calls.end(4 * MIB, [9 * MIB, 1 * MIB])
    calls.end(9 * MIB, [1 * MIB])
    calls.end(1 * MIB, [])
    assert budget.stats()["budget_in_use"] == 0


def test_one_larger_than_all_goes_alone() -> None:
    budget = Budget(2 * MIB)
    assert budget.during(10 * MIB, lambda: budget.stats()["budget_in_use"]) == 10 * MIB
    calls = Calls(budget)
    calls.start(10 * MIB)
    calls.start(11 * MIB)
    assert calls.inside == [10 * MIB]
    calls.end(10 * MIB, [11 * MIB])
    calls.end(11 * MIB, [])
    assert Budget(0).during(MIB, lambda: "read") == "read"


def test_loans_never_wait() -> None:
    budget = Budget(10 * MIB)
    first, second, third = budget.grant(8 * MIB), budget.grant(8 * MIB), budget.grant(8 * MIB)
    assert [first.nbytes, second.nbytes, third.nbytes] == [8 * MIB, 2 * MIB, 0]
    assert budget.during(5 * MIB, lambda: "through") == "through"  # whatever is lent, one call goes
    first.close()
    first.close()
    del second
    assert budget.stats()["budget_in_use"] == 0


def test_small_calls_take_nothing() -> None:
    budget = Budget(0)
    assert budget.during(LEAST - 1, lambda: budget.stats()["budget_in_use"]) == 0


def test_errors_give_back() -> None:
    budget = Budget(MIB)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        budget.during(5 * MIB, fail)
    assert budget.stats()["budget_in_use"] == 0
    with pytest.raises(ValueError, match="negative"):
        budget.resize(-1)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    need_module(request.param)
    made = Loop(request.param)
    yield made
    made.close()


def test_awaited_calls_wait() -> None:
    """Cancelled while they wait, they leave the line; cancelled while they read, they give back."""
    budget = Budget(2 * MIB)

    async def main() -> None:
        gate = asyncio.Event()
        inside: list[int] = []

        async def call(nbytes: int) -> None:
            inside.append(nbytes)
            await gate.wait()

        tasks = [
            asyncio.ensure_future(budget.while_awaiting(size * MIB, lambda size=size: call(size)))  # type: ignore[misc]
            for size in (2, 3, 1)
        ]
        await asyncio.sleep(0)
        assert inside == [2]
        tasks[1].cancel()
        tasks[0].cancel()
        await asyncio.gather(*tasks[:2], return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        assert inside == [2, 1]
        gate.set()
        await tasks[2]

    asyncio.run(main())
    assert budget.stats()["budget_in_use"] == 0


def test_a_loop_is_not_held_up() -> None:
    """A sync call on a loop's thread goes through: what it would wait for may be this loop's own."""
    budget = Budget(2 * MIB)

    async def main() -> str:
        async def call() -> str:
            return budget.during(2 * MIB, lambda: "through")

        return await budget.while_awaiting(2 * MIB, call)

    assert asyncio.run(main()) == "through"


# --- readers -------------------------------------------------------------------------------------------------

LARGE = [(0, 6 * MIB), (6 * MIB, 12 * MIB)]


@pytest.mark.usefixtures("small")
def test_many_threads_with_large_reads(reactor: _uring.Reactor, path: Path) -> None:
    with rangeio.open(path, reactor=reactor) as reader:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(5):
                    found = reader.read_ranges(LARGE)
                    assert [buffer[:8] for buffer in found] == [pattern(0, 8), pattern(6 * MIB, 6 * MIB + 8)]
                    assert sum(len(buffer) for buffer in reader.stream((0, 2 * MIB))) == 2 * MIB
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.usefixtures("small")
def test_many_tasks_with_large_reads(reactor: _uring.Reactor, path: Path, loop: Loop) -> None:
    async def work(reader: rangeio.AsyncReader) -> None:
        found = await reader.read_ranges(LARGE)
        assert [len(buffer) for buffer in found] == [6 * MIB, 6 * MIB]
        total = 0
        async for buffer in reader.stream((0, 2 * MIB)):
            total += len(buffer)
        assert total == 2 * MIB

    async def on_asyncio() -> None:
        async with rangeio.open_async(path, reactor=reactor) as reader:
            await asyncio.gather(*(work(reader) for _ in range(10)))

    async def on_trio() -> None:
        import trio

        async with rangeio.open_async(path, reactor=reactor) as reader, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(work, reader)

    loop.run(on_trio if loop.name == "trio" else on_asyncio)


@pytest.mark.usefixtures("small")
def test_streams_that_wait_for_each_other(reactor: _uring.Reactor, path: Path) -> None:
    """Ten half-read streams and a large read, on one thread: all of them come to an end."""
    with rangeio.open(path, reactor=reactor) as reader:
        streams = [reader.stream((index * MIB, None), chunk=65_536) for index in range(10)]
        for stream in streams:
            next(stream)
        assert rangeio.stats()["budget_in_use"] == 4 * MIB
        assert [len(buffer) for buffer in reader.read_ranges(LARGE)] == [6 * MIB, 6 * MIB]
        for index, stream in enumerate(streams):
            assert sum(map(len, stream)) == NBYTES - index * MIB - 65_536


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_anew(reactor: _uring.Reactor, path: Path) -> None:
    with rangeio.open(path, reactor=reactor) as reader:
        stream: Any = reader.stream(chunk=65_536)
        next(stream)
        child = os.fork()
        if child == 0:
            used = SHARED.stats()["budget_in_use"]
            stream.close()
            os._exit(0 if used == SHARED.stats()["budget_in_use"] == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        stream.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_call_of_the_parent_gives_nothing_back_in_a_child() -> None:
    """One that held its bytes when it forked, and one that stood in line for them, end in the child as well."""

    async def main() -> int:
        rangeio.set_budget(4 * MIB)
        calls = [SHARED.while_awaiting(4 * MIB, lambda: asyncio.sleep(60)) for _ in range(2)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        child = os.fork()
        if child == 0:
            for call in calls:
                call.close()
            os._exit(0 if SHARED.stats()["budget_in_use"] == 0 == SHARED._calls else 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return os.waitpid(child, 0)[1]

    allowed = SHARED.stats()["budget_bytes"]
    try:
        assert asyncio.run(main()) == 0
    finally:
        rangeio.set_budget(allowed)
    assert SHARED.stats()["budget_in_use"] == 0


def test_interrupted_calls_give_back(auto_lab: Lab) -> None:
    """Ctrl-C at any point of a call: what it took is free again."""
    program = code(
        """
        import gc, signal
        from rangeio.budget import Budget
        budget = Budget(8 << 20)
        def call():
            for _ in range(2000):
                budget.during(2 << 20, int)
                budget.grant(1 << 20).close()
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupted = 0
        for turn in range(4000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00003 + turn % 97 * 0.000003)
                call()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
        gc.collect()
        say(enough=interrupted > 1000, in_use=budget.stats()["budget_in_use"], calls=budget._calls)
        """
    )
    outcome = auto_lab.run(program)
    assert outcome.code == 0, outcome.stderr
    assert outcome.said == [{"enough": True, "in_use": 0, "calls": 0}]
