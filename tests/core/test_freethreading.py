"""CPython without the GIL: importing the extension turns it on; where it has to stay off, backend ``python`` reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.child import Lab, code
from faults.machine import FREE_THREADED, need

import _uring

MESSAGE = "The global interpreter lock (GIL) has been enabled to load module '_uring."

IMPORTED = code("""
    import io, sys
    import _uring, rangeio

    with rangeio.open(sys.argv[1]) as reader:
        first = bytes(reader.read_at(3, 5000)) == pattern(3, 5003)
        file = io.BufferedReader(reader.as_file())
        second = file.read(5000) == pattern(0, 5000)
    backend = rangeio.backend()
    say(gil=sys._is_gil_enabled(), backend=backend.name, reason=backend.reason, right=first and second)
""")


@pytest.fixture
def free() -> None:
    need(FREE_THREADED, "needs a free-threaded CPython")
    need("RANGEIO_BACKEND" not in os.environ, "RANGEIO_BACKEND is set")


@pytest.mark.usefixtures("free")
def test_the_import_turns_the_gil_on_and_python_says_so_once(pattern_file: Path) -> None:
    program = "import sys, rangeio; print(sys._is_gil_enabled(), rangeio.backend().name)"
    folders = str(Path(_uring.__file__).parent.parent)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        env={**environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split()[0] == "True"
    assert done.stdout.split()[1] in ("uring", "pool")
    assert done.stderr.count("global interpreter lock") == done.stderr.count(MESSAGE) == 1, done.stderr


@pytest.mark.usefixtures("free")
def test_where_the_gil_stays_off_no_compiled_code_reads(auto_lab: Lab, pattern_file: Path) -> None:
    facts = auto_lab.run(IMPORTED, pattern_file, PYTHON_GIL="0").facts()
    assert "PYTHON_GIL=0" in facts.pop("reason")
    assert facts == {"gil": False, "backend": "python", "right": True}


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("gil", ["1", "0", ""])
def test_backend_python_does_not_turn_the_gil_on(auto_lab: Lab, pattern_file: Path, gil: str) -> None:
    """Without a setting, too: neither the core nor any other compiled module of ours is imported that would."""
    facts = auto_lab.run(IMPORTED, pattern_file, RANGEIO_BACKEND="python", PYTHON_GIL=gil).facts()
    assert facts.pop("reason") == "the pure-Python backend was requested"
    assert facts == {"gil": gil == "1", "backend": "python", "right": True}


def test_readers_and_a_closer(lab: Lab, pattern_file: Path) -> None:
    """Every result is right, or the error of a closed reader; also where threads really run at once."""
    program = code("""
        import sys, threading
        import rangeio

        path, readers, rounds = sys.argv[1], 3, 150
        ranges = scattered(16, 3000, 1 << 20)
        begin, end = threading.Barrier(readers + 1), threading.Barrier(readers + 1)
        failures = []

        def read(reader):
            place = bytearray(3000)
            while True:
                failures.extend(["wrong"] * wrong(reader.read_ranges(ranges, gap=0), ranges))
                failures.extend(["wrong"] * wrong([reader.read_at(a, b - a) for a, b in ranges], ranges))
                reader.read_into(place, 7)
                failures.extend(["wrong"] * (place != pattern(7, 3007)))

        def work():
            for _ in range(rounds):
                begin.wait()
                try:
                    read(opened[0])
                except rangeio.ClosedError:
                    pass
                except BaseException as error:
                    failures.append(repr(error))
                end.wait()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(readers)]
        for thread in threads:
            thread.start()
        opened = [None]
        for _ in range(rounds):
            opened[0] = rangeio.open(path)
            begin.wait()
            for start, stop in ranges:
                failures.extend(["wrong"] * (opened[0].read_at(start, stop - start) != pattern(start, stop)))
            opened[0].close()
            end.wait()
        for thread in threads:
            thread.join()
        say(failures=failures[:5], leaks=leaks(), files=rangeio.stats()["files_open"])
    """)
    facts = lab.run(program, pattern_file).facts()
    assert facts == {"failures": [], "leaks": {}, "files": 0}
