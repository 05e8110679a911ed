"""Signals that arrive in the middle of reads: handlers run, Ctrl-C comes through, and no byte is lost or wrong."""

from pathlib import Path

import pytest
from faults.child import Lab, code

# The pure-Python backend reads by Python's own threads and queues, which are not made for handlers that raise anywhere.
NATIVE = pytest.mark.parametrize("lab", ["uring", "pool"], indirect=True)

START = code("""
    import os, signal, sys, threading
    import rangeio

    path = sys.argv[1]
    nbytes = os.stat(path).st_size
    ranges = scattered(300, 3000, nbytes)
    reader = rangeio.open(path, direct=sys.argv[2] == "direct")
""")


@pytest.mark.parametrize("mode", ["direct", "buffered"])
def test_a_storm_of_signals(lab: Lab, pattern_file: Path, mode: str) -> None:
    """A timer interrupts every system call it can, with a handler that Python must run in between."""
    program = code(
        START,
        """
        heard = []
        signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        errors = 0
        rounds = 0
        while len(heard) < 200 and rounds < 3000:
            errors += wrong(reader.read_ranges(ranges, gap=0), ranges)
            errors += bytes(reader.read_at(11, 2_000_000)) != pattern(11, 2_000_011)
            rounds += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(errors=errors, enough=len(heard) >= 200, leaks=leaks())
        """,
    )
    assert lab.run(program, pattern_file, mode).facts() == {"errors": 0, "enough": True, "leaks": {}}


@NATIVE
@pytest.mark.parametrize("mode", ["direct", "buffered"])
def test_interrupted_over_and_over(lab: Lab, pattern_file: Path, mode: str) -> None:
    """KeyboardInterrupt out of the middle of reads, many times; every read that does come back is right."""
    program = code(
        START,
        """
        kept, places, interrupted, errors, rounds = [], [], 0, 0, 0
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        def attempt(delay_s, place, index):
            signal.setitimer(signal.ITIMER_REAL, delay_s)
            kept.append(reader.read_ranges(ranges, gap=0)[index])
            places.append(place)
            signal.setitimer(signal.ITIMER_REAL, 0)
        while interrupted < 50 and rounds < 5000:
            rounds += 1
            try:
                attempt(0.00002 + rounds % 17 * 0.0001, ranges[rounds % len(ranges)], rounds % len(ranges))
            except KeyboardInterrupt:
                interrupted += 1
                del kept[len(places):]  # between the two appends
        errors = wrong(kept, places) + wrong(reader.read_ranges(ranges), ranges)
        kept = None
        for _ in range(1000):
            reader.read_ranges(ranges[:5])
            if not leaks():
                break
        say(errors=errors, enough=interrupted >= 50, leaks=leaks())
        """,
    )
    assert lab.run(program, pattern_file, mode).facts() == {"errors": 0, "enough": True, "leaks": {}}


@NATIVE
@pytest.mark.parametrize(
    "call", ["copy(io.BytesIO(), (0, 9000))", "sink(len, (0, 9000))", "read_ranges([(0, 9)])"]
)
def test_interrupted_calls_leave_no_coroutine(lab: Lab, pattern_file: Path, call: str) -> None:
    """A call that a handler ends leaves none that was made and never begun.

    What the handler raises may end in a destructor, where Python reports it and goes on: hence the bound of the loop.
    """
    program = code(
        START,
        f"""
        import io
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        def attempt(delay_s):
            signal.setitimer(signal.ITIMER_REAL, delay_s)
            for _ in range(100):
                reader.{call}
            signal.setitimer(signal.ITIMER_REAL, 0)
        for turn in range(1000):
            try:
                attempt(0.0001 + turn % 97 * 0.000003)
            except KeyboardInterrupt:
                pass
        """,
    )
    outcome = lab.run(program, pattern_file, "buffered")
    assert outcome.code == 0, outcome.stderr
    assert "never awaited" not in outcome.stderr


@NATIVE
def test_a_handler_that_reads(lab: Lab, pattern_file: Path) -> None:
    """The handler uses the very reader, and so the very ring, that its signal interrupted."""
    program = code(
        START,
        """
        inner = []
        def handler(*_):
            inner.append(wrong(reader.read_ranges(ranges[:50], gap=0), ranges[:50]))
        signal.signal(signal.SIGALRM, handler)
        errors, rounds = 0, 0
        while len(inner) < 50 and rounds < 3000:
            signal.setitimer(signal.ITIMER_REAL, 0.0003 + rounds % 13 * 0.0003)  # one shot: no handler in a handler
            errors += wrong(reader.read_ranges(ranges, gap=0), ranges)
            rounds += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        say(errors=errors, inner=sum(inner), enough=len(inner) >= 50, leaks=leaks())
        """,
    )
    facts = lab.run(program, pattern_file, "direct").facts()
    assert facts == {"errors": 0, "inner": 0, "enough": True, "leaks": {}}


@pytest.mark.parametrize("call", ["read", "iterate", "files"])
def test_a_handler_that_forks(lab: Lab, pattern_file: Path, call: str) -> None:
    """Parent and child both go on with the read that the signal interrupted, each with all of its bytes."""
    program = code(
        START,
        """
        def read():
            return reader.read_ranges(ranges, gap=0)
        def iterate():
            found = dict(reader.iter_ranges(ranges, gap=None))
            return [found[index] for index in range(len(ranges))]
        def files():
            return rangeio.Operator("fs").read_ranges([(path, pair) for pair in ranges])
        call = globals()[sys.argv[3]]
        children, reading, parent = [], False, os.getpid()
        def handler(*_):
            if not reading:
                return
            child = os.fork()
            if child:
                children.append(child)
            else:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # one that hangs ends by it
                signal.alarm(10)
        signal.signal(signal.SIGALRM, handler)
        errors = rounds = 0
        while len(children) < 60 and rounds < 3000:
            rounds += 1
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + rounds % 17 * 0.0002)
            reading = True
            results = call()
            reading = False
            if os.getpid() != parent:
                os._exit(min(wrong(results, ranges), 100))
            signal.setitimer(signal.ITIMER_REAL, 0)
            errors += wrong(results, ranges)
        codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        say(errors=errors, enough=len(children) >= 60, codes=sorted(codes))
        """,
    )
    facts = lab.run(program, pattern_file, "direct", call).facts()
    assert facts == {"errors": 0, "enough": True, "codes": [0]}


@NATIVE
def test_a_handler_that_raises(lab: Lab, pattern_file: Path) -> None:
    """Any exception of a handler comes out of the read, and iterators left by it hold nothing back."""
    program = code(
        START,
        """
        class Enough(Exception):
            pass
        def handler(*_):
            raise Enough
        signal.signal(signal.SIGALRM, handler)
        def attempt(delay_s):
            signal.setitimer(signal.ITIMER_REAL, delay_s)
            for index, buffer in reader.iter_ranges(ranges, gap=0):
                assert bytes(buffer) == pattern(*ranges[index])
            signal.setitimer(signal.ITIMER_REAL, 0)
        caught, rounds = 0, 0
        while caught < 20 and rounds < 3000:
            rounds += 1
            try:
                attempt(0.001 + rounds % 7 * 0.0007)
            except Enough:
                caught += 1
        errors = wrong(reader.read_ranges(ranges), ranges)
        for _ in range(1000):
            reader.read_ranges(ranges[:5])
            if not leaks():
                break
        say(errors=errors, enough=caught >= 20, leaks=leaks())
        """,
    )
    assert lab.run(program, pattern_file, "direct").facts() == {"errors": 0, "enough": True, "leaks": {}}


def test_signals_while_other_threads_read(lab: Lab, pattern_file: Path) -> None:
    """The handler runs in the main thread, whose wait must not depend on the threads that read."""
    program = code(
        START,
        """
        stop = threading.Event()
        counts = [0] * 4
        def work(slot):
            while not stop.is_set():
                counts[slot] += wrong(reader.read_ranges(ranges, gap=0), ranges)
        threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
        for thread in threads: thread.start()
        try:
            say(ready=True)
            while True:
                reader.read_ranges(ranges)
        except KeyboardInterrupt:
            say(interrupted=True)
        stop.set()
        for thread in threads: thread.join()
        say(counts=counts, leaks=leaks())
        """,
    )
    child = lab.start(program, pattern_file, "buffered")
    assert child.line() == {"ready": True}
    child.interrupt()
    assert child.line(timeout_s=10) == {"interrupted": True}
    facts = child.finish().facts()
    assert facts["counts"] == [0] * 4
    assert lab.backend == "python" or facts["leaks"] == {}
