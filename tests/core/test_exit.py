"""The end of the interpreter, in every order of things: code 0, nothing on stderr, no crash, no hang."""

from pathlib import Path

import pytest
from faults.child import Lab, code

START = code("""
    import sys
    import numpy as np
    import rangeio

    path = sys.argv[1]
    nbytes = 4 << 20
    ranges = scattered(100, 3000, nbytes)
""")

ENDINGS = {
    "nothing was ever read": "",
    "a reader is open": "reader = rangeio.open(path)",
    "buffers are alive": """
        reader = rangeio.open(path)
        buffers = [reader.read_at(i, 5000) for i in range(50)] + reader.read_ranges(ranges)
    """,
    "numpy views are alive": """
        reader = rangeio.open(path)
        arrays = [np.frombuffer(buffer, "u1") for buffer in reader.read_ranges(ranges)]
        writable = reader.read_at(0, 100_000).numpy("<u4", writable=True)
        writable[:] = 1
        table = reader.read_batch([5, 9], 64).numpy()
    """,
    "views outlive their modules": """
        import builtins
        reader = rangeio.open(path)
        builtins.kept = [memoryview(reader.read_at(0, 70_000)), reader, reader.read_at]
        del reader
        for name in [name for name in sys.modules if name.startswith(("rangeio", "_uring", "numpy"))]:
            del sys.modules[name]
        del rangeio, np
    """,
    "a cycle holds a buffer": """
        class Node:
            pass
        node = Node()
        node.self, node.reader = node, rangeio.open(path)
        node.buffers = node.reader.read_ranges(ranges)
        import gc
        gc.disable()
        del node
    """,
    "an iterator is half way": """
        reader = rangeio.open(path)
        results = reader.iter_ranges(ranges, gap=0)
        first = next(results)
    """,
    "an object reads as it dies": """
        reader = rangeio.open(path)
        class Last:
            def __init__(self, reader):
                self.reader = reader
            def __del__(self):
                try:
                    assert len(self.reader.read_at(0, 5000)) == 5000
                except (rangeio.Error, TypeError, AttributeError, RuntimeError):
                    pass  # a module may be torn down by now: an error is allowed, a crash is not
        import builtins
        builtins.last = Last(reader)
        held = reader.read_ranges(ranges)
    """,
    "atexit reads": """
        import atexit
        reader = rangeio.open(path)
        reader.read_ranges(ranges)
        atexit.register(lambda: say(errors=wrong(reader.read_ranges(ranges, gap=0), ranges)))
    """,
    "threads have read and ended": """
        import threading
        reader = rangeio.open(path)
        kept = []
        threads = [threading.Thread(target=lambda: kept.append(reader.read_ranges(ranges))) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """,
    "the reactor is closed first": """
        import _uring
        reactor = _uring.Reactor()
        file = reactor.open(path)
        buffers = file.read_many([0, 9, 5000], [100, 5, 70_000])
        view = memoryview(buffers[2])
        reactor.close()
    """,
    "an exception ends it": """
        reader = rangeio.open(path)
        def deep():
            buffers = reader.read_ranges(ranges)
            sys.exit(0)
        deep()
    """,
    "os._exit": """
        import os
        reader = rangeio.open(path)
        buffers = reader.read_ranges(ranges)
        os._exit(0)
    """,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_ending(lab: Lab, pattern_file: Path, ending: str) -> None:
    facts = lab.run(code(START, ENDINGS[ending]), pattern_file).facts()
    assert facts.get("errors", 0) == 0


@pytest.mark.parametrize("how", ["end", "sys.exit(0)", "os._exit(0)"])
def test_daemon_threads_read_at_exit(lab: Lab, pattern_file: Path, how: str) -> None:
    """Threads that never stop reading: the interpreter takes the GIL from them for ever in the middle of a read."""
    program = code(
        START,
        f"""
        import os, threading
        reader = rangeio.open(path)
        started = threading.Barrier(9)
        def work(kind):
            reader.read_ranges(ranges)
            started.wait()
            while True:
                if kind % 3 == 0:
                    reader.read_at(kind * 1000, 5000)
                elif kind % 3 == 1:
                    reader.read_ranges(ranges, gap=0)
                else:
                    for index, buffer in reader.iter_ranges(ranges, gap=0):
                        del buffer
        for kind in range(8):
            threading.Thread(target=work, args=(kind,), daemon=True).start()
        started.wait()
        {"pass" if how == "end" else how}
        """,
    )
    for _ in range(3):
        assert lab.run(program, pattern_file).facts() == {}


def test_imported_again(lab: Lab, pattern_file: Path) -> None:
    """The module can be imported, dropped and imported again."""
    program = code(
        START,
        """
        import importlib
        reader = rangeio.open(path)
        held = reader.read_ranges(ranges)
        for name in [name for name in sys.modules if name.startswith("rangeio")]:
            del sys.modules[name]
        again = importlib.import_module("rangeio")
        with again.open(path) as second:
            say(errors=wrong(second.read_ranges(ranges), ranges) + wrong(held, ranges))
        """,
    )
    assert lab.run(program, pattern_file).facts() == {"errors": 0}
