"""Processes made by fork, spawn and a bare C fork: a child reads, and the parent is never disturbed (rule R5)."""

from pathlib import Path

import pytest
from faults.child import Lab, code
from faults.machine import need, need_allocator_across_fork

START = code("""
    import multiprocessing, os, sys, threading
    import rangeio

    path = sys.argv[1]
    nbytes = os.stat(path).st_size
    ranges = scattered(100, 3000, nbytes)

    def check(reader):
        "Wrong results of every kind of read."
        errors = wrong(reader.read_ranges(ranges, gap=0), ranges)
        errors += wrong([reader.read_at(start, stop - start) for start, stop in ranges[:20]], ranges[:20])
        errors += bytes(reader.read_at(3, 300_000)) != pattern(3, 300_003)
        starts = [start for start, _ in ranges]
        return errors + (bytes(reader.read_batch(starts, 3000)) != b"".join(pattern(*pair) for pair in ranges))

    def cold():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

    def wait(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
""")


def test_fork(lab: Lab, pattern_file: Path) -> None:
    """Reader, buffers and reactor from before the fork; both sides go on; what was read before stays readable."""
    program = code(
        START,
        """
        reader = rangeio.open(path)
        held = reader.read_ranges(ranges, gap=0)
        say(before=check(reader))
        child = os.fork()
        if child == 0:
            errors = check(reader) + wrong(held, ranges) + check(rangeio.open(path))
            del held
            os._exit(min(errors, 100))
        say(parent=check(reader), held=wrong(held, ranges), child=wait(child), after=check(reader))
        del held
        say(leaks=leaks(), name=str(rangeio.backend()))
        """,
    )
    facts = lab.run(program, pattern_file).facts()
    assert facts == {
        "before": 0,
        "parent": 0,
        "held": 0,
        "child": 0,
        "after": 0,
        "leaks": {},
        "name": lab.backend,
    }


def test_fork_before_the_first_read(lab: Lab, pattern_file: Path) -> None:
    """Neither side had a reactor yet, or only the parent had opened the file."""
    program = code(
        START,
        """
        opened = sys.argv[2] == "opened"
        if opened:
            reader = rangeio.open(path)
        child = os.fork()
        if not opened:
            reader = rangeio.open(path)
        errors = check(reader)
        if child == 0:
            os._exit(min(errors, 100))
        say(parent=errors, child=wait(child))
        """,
    )
    for state in ("opened", "untouched"):
        assert lab.run(program, pattern_file, state).facts() == {"parent": 0, "child": 0}


def test_fork_of_forks(lab: Lab, pattern_file: Path) -> None:
    """Each generation reads before and after the next one is made."""
    program = code(
        START,
        """
        reader = rangeio.open(path)
        def generation(left):
            errors = check(reader)
            if left:
                child = os.fork()
                if child == 0:
                    os._exit(generation(left - 1))
                errors += wait(child)
            return min(errors + check(reader), 100)
        say(errors=generation(4))
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"errors": 0}


def test_fork_by_c(lab: Lab, pattern_file: Path) -> None:
    """A fork that Python's hooks do not hear of. With threads of Python's it is never safe: one that waits for the GIL
    may hold the lock inside of it, which only those hooks make anew (CPython's PyOS_AfterFork_Child).
    """
    need(lab.backend != "python", "the python backend reads in threads of Python's")
    program = code(
        START,
        """
        import ctypes
        reader = rangeio.open(path)
        held = reader.read_ranges(ranges)
        say(before=check(reader))
        child = ctypes.PyDLL(None).fork()  # PyDLL keeps the GIL
        if child == 0:
            errors = check(reader) + wrong(held, ranges)
            os._exit(min(errors, 100))
        say(child=wait(child), after=check(reader), held=wrong(held, ranges))
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"before": 0, "child": 0, "after": 0, "held": 0}


def test_fork_in_an_iteration(lab: Lab, pattern_file: Path) -> None:
    """Reads were under way when it forked: one child goes on to the end, another stops at once; so does the parent."""
    program = code(
        START,
        """
        reader = rangeio.open(path)
        say(before=check(reader))
        wrong_iterations = 0
        for how in range(40):
            cold()
            ahead = reader.iter_ranges(ranges, gap=None, concurrent=8)
            stream = reader.stream(chunk=65_536)
            seen = dict([next(ahead) for _ in range(how % 5)])
            first = next(stream)
            child = os.fork()
            if how % 2 == (child == 0):
                ahead.close()
                stream.close()
                errors = 0
            else:
                seen.update(ahead)
                errors = wrong([seen[index] for index in range(len(ranges))], ranges)
                errors += bytes(first) + b"".join(stream) != pattern(0, nbytes)
            if child == 0:
                os._exit(min(errors, 100))
            wrong_iterations += errors + wait(child)
        del ahead, stream, seen, first
        say(wrong=wrong_iterations, leaks=leaks())
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"before": 0, "wrong": 0, "leaks": {}}


def test_fork_inside_a_loop(lab: Lab, pattern_file: Path) -> None:
    """Reads of the loop were queued or under way: a child that goes on with the loop takes nothing of them."""
    program = code(
        START,
        """
        import asyncio

        async def main():
            errors = children = 0
            async with rangeio.open_async(path, direct=True) as reader:
                await reader.read_at(0, 1)
                for turns in (1, 1, 2, 3):
                    cold()
                    reads = [asyncio.ensure_future(reader.read_at(at << 16, 65_536)) for at in range(8)]
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    child = os.fork()
                    if child == 0:
                        for _ in range(10):
                            threading.Event().wait(0.01)
                            await asyncio.sleep(0)
                        os._exit(0)
                    children += wait(child) != 0
                    results = await asyncio.gather(*reads)
                    errors += wrong(results, [(at << 16, (at + 1) << 16) for at in range(8)])
            return children, errors

        children, errors = asyncio.run(main())
        say(children=children, wrong=errors, leaks=leaks())
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"children": 0, "wrong": 0, "leaks": {}}


def test_both_sides_read_at_once(lab: Lab, pattern_file: Path) -> None:
    """Four threads read cold in the parent while children fork, read much and end: not one wrong byte anywhere."""
    need_allocator_across_fork()
    program = code(
        START,
        """
        reader = rangeio.open(path)
        stop = threading.Event()
        counts, failures = [0] * 4, []
        def work(slot):
            try:
                while not stop.is_set():
                    cold()
                    counts[slot] += check(reader)
            except BaseException as error:
                failures.append(describe(error))
        threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
        for thread in threads: thread.start()
        codes = []
        for _ in range(3):
            children = []
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    errors = sum(cold() or check(reader) for _ in range(5))
                    os._exit(min(errors, 100))
                children.append(child)
            codes += map(wait, children)
        stop.set()
        for thread in threads: thread.join()
        say(children=codes, parent=counts, failures=failures, after=check(reader), leaks=leaks())
        """,
    )
    facts = lab.run(program, pattern_file).facts()
    expected = {"children": [0] * 6, "parent": [0] * 4, "failures": [], "after": 0, "leaks": {}}
    assert facts == expected


POOL = """
    reader = None

    def task(place):
        return bytes(reader.read_at(place, 1000)) == pattern(place, place + 1000)

    def begin(given):
        global reader
        reader = given

    if __name__ == "__main__":
        reader = rangeio.open(path)
        say(before=check(reader))
        context = multiprocessing.get_context(sys.argv[2])
        with context.Pool(4, begin, (reader,)) as pool:
            results = pool.map(task, range(0, 2_000_000, 9973))
        say(right=all(results), after=check(reader))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pool(lab: Lab, pattern_file: Path, method: str) -> None:
    """Four workers share a Reader made by the parent: inherited, or pickled as URI and options."""
    outcome = lab.run(code(START, POOL), pattern_file, method)
    assert outcome.facts() == {"before": 0, "right": True, "after": 0}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_process(lab: Lab, pattern_file: Path, method: str) -> None:
    """A process's own first read, of a file it opens itself."""
    program = code(
        START,
        """
        def main(path, results):
            results.put((check(rangeio.open(path)), str(rangeio.backend())))

        if __name__ == "__main__":
            check(rangeio.open(path))
            context = multiprocessing.get_context(sys.argv[2])
            results = context.SimpleQueue()
            process = context.Process(target=main, args=(path, results))
            process.start()
            errors, name = results.get()
            process.join()
            say(errors=errors, name=name, code=process.exitcode)
        """,
    )
    facts = lab.run(program, pattern_file, method).facts()
    assert facts == {"errors": 0, "name": lab.backend, "code": 0}


def test_file_changed_before_the_child_reads(lab: Lab, tmp_path: Path) -> None:
    """Parent and child go on with the file that was opened, whatever is under its path by now."""
    path = tmp_path / "changing"
    path.write_bytes(b"old" * 10_000)
    program = code(
        """
        import os, sys, rangeio
        path = sys.argv[1]
        reader = rangeio.open(path)
        say(before=bytes(reader.read_at(0, 3)).decode())
        with open(path + ".new", "wb") as file:
            file.write(b"new" * 10_000)
        os.replace(path + ".new", path)
        child = os.fork()
        if child == 0:
            say(child=bytes(reader.read_at(0, 3)).decode())
            say(batch=bytes(reader.read_ranges([(0, 3), (6, 9)])[1]).decode())
            os._exit(0)
        os.waitpid(child, 0)
        say(parent=bytes(reader.read_at(0, 3)).decode())
        """
    )
    facts = lab.run(program, path).facts()
    assert facts == {"before": "old", "child": "old", "batch": "old", "parent": "old"}


def test_descriptors_of_a_child(lab: Lab, pattern_file: Path) -> None:
    """A child that closes what it opened holds no more descriptors than it was born with, nor does exec inherit any."""
    program = code(
        START,
        """
        import subprocess
        reader = rangeio.open(path)
        check(reader)
        listing = "import os; print(len(os.listdir('/proc/self/fd')))"
        bare = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, close_fds=True)
        inherited = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, close_fds=False)
        child = os.fork()
        if child == 0:
            born = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                with rangeio.open(path) as again:
                    check(again)
            os._exit(max(len(os.listdir("/proc/self/fd")) - born, 0))
        say(bare=int(bare.stdout), inherited=int(inherited.stdout), grown=wait(child))
        """,
    )
    facts = lab.run(program, pattern_file).facts()
    assert facts["inherited"] == facts["bare"]
    assert facts["grown"] <= 2, "a ring of its own, and the file of the parent's reader, no more"
