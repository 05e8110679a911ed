"""The engine in a world without a network, by seeds: right bytes of one version or an error, and nothing left behind.

`make fuzz` runs it for long. A failure prints its seed, and `RANGEIO_SEED=n pytest` with this file repeats it.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from faults.machine import need_module
from simulation.server import SIZE, Faults, SimulatedServer, content
from simulation.world import Clock, SimulatedDriver, SimulatedPool, World

import _uring
import rangeio
from rangeio.http import attempt, connection, connection_pool, engine, remote_object, responses
from rangeio.http.connection import Connection
from rangeio.http.engine import Engine
from rangeio.http.range_read import Probe, RangeRead
from rangeio.http.remote_object import Access, RemoteObject
from rangeio.http.urls import parse_url
from rangeio.policy import Retry, RetryBudget, Timeout

need_module("urllib3")

SECONDS = float(os.environ.get("RANGEIO_FUZZ_S", "6"))
SEED = os.environ.get("RANGEIO_SEED")
URL = "http://simulated/object"
MOST_STEPS = 20_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (responses, attempt, connection_pool, remote_object, engine):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(connection, "_SEES_ALL", False)
    monkeypatch.setattr(Connection, "has_something", lambda one: one.sock.readable())
    return made


@dataclass
class Call:
    """One call of a Reader: its reads, and what landed of each. version: known before it began, if the pin was."""

    reads: list[RangeRead]
    ranges: list[tuple[int, int]]
    landed: dict[int, Any] = field(default_factory=dict)
    run: Any = None
    driver: Any = None
    cancelled: bool = False

    def land(self, index: int, result: Any) -> None:
        assert index not in self.landed, f"read {index} has landed twice"
        assert not self.cancelled, "a read landed after it was cancelled"
        if not isinstance(result, BaseException):
            read = self.reads[index]
            result = None if isinstance(read, Probe) else bytes(result)
        else:
            result.__traceback__ = None
        self.landed[index] = result

    @property
    def over(self) -> bool:
        return self.cancelled or len(self.landed) == len(self.reads)


class Simulation:
    """One world, with one server, one pool and one object or two, under calls that come and go."""

    def __init__(self, seed: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dice = dice = random.Random(seed)
        random.seed(seed)  # of the pauses before retries
        clock.now = 1000.0
        self.world = World(dice, clock)
        calm = dice.random() < 0.2
        rate = 0.0 if calm else dice.choice([0.02, 0.1, 0.4])
        self.faults = Faults(
            odd=rate * dice.random(),
            breaks=rate * dice.random(),
            stray=rate * dice.random(),
            changes=0.1 * rate * dice.random(),
            slow=0.3 * rate * dice.random(),
        )
        self.server = SimulatedServer(
            self.world, self.faults, dice.choice(["strong", "strong", "weak", "none"]), dice.random() < 0.9
        )
        if self.server.validator == "none":
            self.faults.changes = 0.0  # nothing could tell the versions apart
        bounds = {"per_host": dice.choice([1, 3, 64]), "in_all": dice.choice([2, 4, 256])}
        self.pool = SimulatedPool(self.world, self.server.serve, **bounds)
        self.pool.refusing = 0.3 * rate * dice.random()
        self.pool.use()
        self.driver = SimulatedDriver(self.world, self.pool.sockets)
        budget = RetryBudget(tokens=dice.choice([0, 50, 100_000]))
        for module in (responses, attempt, engine):
            monkeypatch.setattr(module, "RETRIES", budget)
        monkeypatch.setattr(attempt, "SERIAL", connection_pool._Serial())
        self.remotes = [self._remote() for _ in range(dice.choice([1, 1, 2]))]
        self.calls: list[Call] = []
        self.pinned: dict[RemoteObject, set[int]] = {}
        self.outcomes: Counter[str] = Counter()

    def _remote(self) -> RemoteObject:
        dice = self.dice
        return RemoteObject(
            Access(self.pool),
            parse_url(URL),
            timeout=Timeout(
                connect_s=dice.choice([None, 0.5, 10]),
                first_byte_s=dice.choice([0.2, 5]),
                idle_s=dice.choice([0.2, 5]),
                total_s=dice.choice([None, None, 1, 30]),
            ),
            retry=Retry(attempts=dice.choice([1, 3, 8]), backoff_s=dice.choice([0.001, 1])),
            pin=dice.random() < 0.8,
            on_no_range=dice.choice(["error", "slice", "download"]),
            cap=dice.choice([100, 10**6]),
            conditions={},
            size=SIZE if dice.random() < 0.1 else None,
            hedge_s=dice.choice([None, None, 0.05, 1]),
        )

    # --- what happens ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A call of a Reader."""
        dice, reactor = self.dice, _uring.default_reactor()
        remote = dice.choice(self.remotes)
        reads: list[RangeRead] = []
        ranges = []
        for index in range(dice.choice([1, 1, 3, 12])):
            start = dice.choice([0, dice.randrange(SIZE + 20)])
            stop = dice.choice([start, start + dice.randrange(1, 400), SIZE, 2**63 - 1])
            stop = max(start, stop)
            if dice.random() < 0.1:
                reads.append(Probe(reactor, remote))
                reads[-1].index = index
            elif dice.random() < 0.2 and stop - start < 2000:
                memory = memoryview(bytearray(b"\xee" * (stop - start)))
                reads.append(RangeRead(reactor, remote, index, start, stop, memory))
            else:
                reads.append(RangeRead(reactor, remote, index, start, stop))
            ranges.append((start, stop))
        call = Call(reads, ranges)
        into = [read.into for read in reads]
        call.driver = SimulatedDriver(self.world, self.pool.sockets)

        def landed(index: int, result: Any) -> None:
            memory = into[index]
            if isinstance(result, int) and memory is not None:
                result = bytes(memory[:result])
            call.land(index, result)

        call.run = Engine(
            call.driver,
            self.pool,
            landed,
            chunk=dice.choice([50, 333, 10**9]),
            concurrent=dice.choice([1, 3, 16]),
            wanted=lambda: not call.cancelled,
        )
        self.calls.append(call)
        for read in reads:
            call.run.add(read)
        self.world.note(f"begin {ranges}")
        if dice.random() < 0.15:
            self.world.later(dice.random() * dice.choice([0.001, 0.05, 3]), lambda: self.cancel(call))
        if dice.random() < 0.1:
            self.world.later(dice.random() * 0.1, lambda: self.pause(call))

    def cancel(self, call: Call) -> None:
        if not call.over:
            self.world.note("cancel")
            call.cancelled = True
            call.run.cancel()
            call.driver.closed = True

    def pause(self, call: Call) -> None:
        """An iteration that nobody goes on with for a while."""
        if call.over:
            return
        call.run.rest()

        def goes_on() -> None:
            if not call.over:
                call.run.touch()

        self.world.later(self.dice.random() * 2, goes_on)

    # --- what must hold --------------------------------------------------------------------------------------

    def check(self, call: Call) -> None:
        versions: set[int] | None = None
        for index, result in call.landed.items():
            if isinstance(result, BaseException):
                assert isinstance(result, rangeio.Error), f"not of the tree: {result!r}"
                assert "defect" not in str(result), f"{result!r} of {result.__cause__!r}"
                self.outcomes[type(result).__name__] += 1
                continue
            if result is None:
                continue
            start, stop = call.ranges[index]
            self.outcomes["bytes"] += 1
            if start >= min(stop, SIZE):
                assert result == b"", f"{len(result)} bytes of nothing"
                continue
            right = {v for v in range(1, self.server.version + 1) if content(v)[start:stop] == result}
            assert right, f"wrong bytes for {start}-{stop}: {result[:40]!r}..., {len(result)} of them"
            versions = right if versions is None else versions & right
            pinned = call.reads[index].remote.pinned
            assert versions or not pinned, f"bytes of two versions in one call: {right}"

    def check_pins(self) -> None:
        """All that one Reader returned is of one version."""
        for reader in self.remotes:
            if not reader.pinned:
                continue
            versions: set[int] | None = None
            for call in self.calls:
                for index, result in call.landed.items():
                    start, stop = call.ranges[index]
                    if call.reads[index].remote is reader and isinstance(result, bytes) and result:
                        right = {
                            v for v in range(1, self.server.version + 1) if content(v)[start:stop] == result
                        }
                        versions = right if versions is None else versions & right
                        assert versions, "bytes of two versions from one Reader"

    def check_nothing_is_left(self) -> None:
        for call in self.calls:
            assert not call.driver.watched, "something is still watched"
            assert call.over, f"a read never ended: {call.ranges}, {sorted(call.landed)} landed"
        stats = self.pool.stats()
        assert stats["connections_open"] == stats["connections_idle"], stats
        assert not self.pool._waiting, "somebody waits in line for ever"
        assert not attempt.SERIAL._silent
        self.pool.unuse()
        assert all(sock.closed for sock in self.pool.sockets.values()), "a connection was not closed"

    def go(self) -> int:
        """How many things happened."""
        for _ in range(self.dice.choice([1, 3, 10])):
            self.world.later(self.dice.random() * self.dice.choice([0, 0.01, 5]), self.begin)
        while self.world.step():
            assert self.world.steps < MOST_STEPS, "it goes on for ever"
        for call in self.calls:
            self.check(call)
            call.run.cancel()
        self.check_pins()
        self.check_nothing_is_left()
        return self.world.steps


def simulate(seed: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation(seed, clock, monkeypatch)
    try:
        simulation.go()
    except BaseException as error:
        trace = "\n".join(simulation.world.trace)
        raise AssertionError(
            f"RANGEIO_SEED={seed}: {error!r}\n{simulation.server.answers}\n{trace}"
        ) from error
    return simulation


def seeds() -> Iterator[int]:
    if SEED is not None:
        yield int(SEED)
        return
    end = time.monotonic() + SECONDS
    seed = 0 if SECONDS < 60 else int(time.time())
    while time.monotonic() < end:
        seed += 1
        yield seed


def test_simulated(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    steps = count = 0
    for seed in seeds():
        simulation = simulate(seed, clock, monkeypatch)
        outcomes += simulation.outcomes
        answered.update(simulation.server.answers)
        steps += simulation.world.steps
        count += 1
    print(f"\n{count} worlds, {steps} steps; {dict(outcomes)}; {dict(answered)}")
    if SEED is None:
        assert outcomes["bytes"] > 100
        assert len(answered) > 20
