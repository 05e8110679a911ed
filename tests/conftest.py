"""Fixtures for every test."""

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

# Before the core is imported, and for every child of the tests: a byte that no read has written has a pattern of its
# own, and so has memory that was given back.
os.environ.setdefault("RANGEIO_POISON", "1")

from faults.machine import BACKENDS, need_backend

import _uring
from rangeio.policy import RETRIES

pytest_plugins = ["faults.fixtures", "servers.fixtures", "servers.line", "servers.opening"]

# What a shell without job control starts with `&` ignores Ctrl-C, and hands that on: so may a machine that runs
# the tests. Children of the tests are given what is set here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Who builds for debugging may have it set for all: the command line then prints tracebacks.
os.environ.pop("RANGEIO_DEBUG", None)

# What must be as it was before a test; the rest of the counters only ever grow.
BALANCED = ("buffers_live", "in_flight", "files_open")

# An abandoned read keeps its memory and its file until it completes, be it on a worker that had to wait for a core.
SETTLE_S = 10

_reactors: dict[str, _uring.Reactor] = {}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn. One that is forced and cannot be had fails; only where it was not built it is skipped."""
    name: str = request.param
    need_backend(name)
    return name


@pytest.fixture
def reactor(backend: str) -> _uring.Reactor:
    """The reactor of that backend, the same for all tests."""
    if backend not in _reactors:
        _reactors[backend] = _uring.Reactor(backend=backend)  # type: ignore[arg-type]
    made = _reactors[backend]
    assert str(made.backend) == backend, f"a test of {backend} ran on {made.backend}: {made.backend.reason}"
    return made


@pytest.fixture
def bench_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's own children find it, too, where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.fixture(autouse=True)
def full_budget() -> None:
    """The retries that one test takes are not missing in the next; the budget is the process's."""
    RETRIES.reset()


@pytest.fixture(autouse=True, scope="session")
def everything_is_collected_at_the_end() -> Iterator[None]:
    """Hypothesis, when it is imported only then, asks the collector who refers to what."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def short_collections() -> None:
    """Within a module the collector goes through what its own tests have made, no more.

    The modules, the tests collected and the servers are a million objects: a third of a second for each of the many
    tests that collect, most of them to see that nothing was left behind.
    """
    gc.collect()
    gc.freeze()


def balance() -> dict[str, dict[str, int]]:
    """What the reactors hold now."""
    reactors = {"default": _uring.default_reactor(), **_reactors}
    return {
        name: {counter: reactor.stats()[counter] for counter in BALANCED}
        for name, reactor in reactors.items()
    }


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test the reactors hold what they held before it: no Buffer, no file, no read under way."""
    nothing = dict.fromkeys(BALANCED, 0)
    before = balance()
    yield
    after = balance()
    end = time.monotonic() + SETTLE_S
    generation = 0
    while any(after[name] != before.get(name, nothing) for name in after) and time.monotonic() < end:
        # A failed assertion, or an exception kept by pytest.raises, may hold a frame. It is young: all objects of the
        # module are gone through, which takes 100 times as long, only for what the younger ones do not explain.
        gc.collect(min(generation, 2))
        if generation > 2:
            time.sleep(0.01)
        generation += 1
        after = balance()
    assert after == {name: before.get(name, nothing) for name in after}
