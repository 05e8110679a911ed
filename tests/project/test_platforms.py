"""Windows and macOS, simulated: without what CPython lacks there. Neither was available."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from faults.machine import need_module
from servers.scripted import honest, scripted

DATA = bytes(range(256)) * 16_000  # 4 MB
SYSTEMS = ("windows", "macos")
SUPPORT = Path(__file__).parents[1] / "support" / "simulated"


def run(system: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """A Python of that system."""
    own = {"SIMULATE": system, "PYTHONPATH": os.pathsep.join(map(str, (SUPPORT, SUPPORT.parent)))}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=60)


def program(system: str, code: str, *words: object) -> str:
    """What a program prints. It may use `data` for the expected bytes."""
    head = "import asyncio, sys, rangeio\ndata = bytes(range(256)) * 16_000\n"
    done = run(system, "-c", head + textwrap.dedent(code), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data.bin").write_bytes(DATA)
    return tmp_path / "data.bin"


FILES = """
assert str(rangeio.backend()) == "python", rangeio.backend()
import threading
with rangeio.open(sys.argv[1]) as r:
    assert bytes(r.read_at(5, 10)) == data[5:15] and bytes(r.read_range()) == data
    assert bytes(r.read_at(len(data) - 3, 10)) == data[-3:] and not len(r.read_at(len(data) + 9, 1))
    places = [(at, at + 777) for at in range(0, 3_000_000, 7001)]
    assert [bytes(b) for b in r.read_ranges(places)] == [data[a:b] for a, b in places]
    wrong = []
    def many(first):
        for at in range(first, 200_000, 997):
            if bytes(r.read_at(at, 100)) != data[at : at + 100]:
                wrong.append(at)
    threads = [threading.Thread(target=many, args=(first,)) for first in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong
    assert b"".join(bytes(p) for p in r.stream()) == data
    assert rangeio.Operator("fs").list(sys.argv[1] + "x") is not None

async def main():
    async with rangeio.open_async(sys.argv[1]) as r:
        parts = await asyncio.gather(*(r.read_at(at, 50) for at in range(0, 5000, 50)))
        assert b"".join(map(bytes, parts)) == data[:5000]
asyncio.run(main())
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_files(system: str, file: Path) -> None:
    program(system, FILES, file)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_command_line(system: str, file: Path) -> None:
    done = run(system, "-m", "rangeio", "cp", file, file.parent / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert (file.parent / "copy").read_bytes() == DATA
    done = run(system, "-m", "rangeio", "cp", "--continue", file, file.parent / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(system, "-m", "rangeio", "doctor", file.parent)
    assert done.returncode == 1  # degraded: no extension
    assert "backend        python" in done.stdout
    assert "AttributeError" not in done.stderr
    for command in ("stat", "ls"):
        assert run(system, "-m", "rangeio", command, file).returncode == 0


HTTP = """
url = sys.argv[1]
places = [(at, at + 500) for at in range(0, 3_000_000, 150_001)]
with rangeio.open(url) as r:
    assert bytes(r.read_range()) == data
    assert [bytes(b) for b in r.read_ranges(places, gap=None)] == [data[a:b] for a, b in places]

async def main():
    async with rangeio.open_async(url) as r:
        assert bytes(await r.read_range()) == data
        for _ in range(3):
            assert bytes(await r.read_at(5, 100)) == data[5:105]
        got = await r.read_ranges(places, gap=None)
        assert [bytes(b) for b in got] == [data[a:b] for a, b in places]
        task = asyncio.ensure_future(r.read_at(0, 1 << 20))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        assert bytes(await r.read_at(9, 9)) == data[9:18]
asyncio.run(main())
asyncio.run(main())
from faults.threads import wait_for_end
from rangeio.http.readiness import ThreadReadiness
wait_for_end(ThreadReadiness._run)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_http(system: str) -> None:
    """Under the loop that is the default there."""
    need_module("urllib3")
    with scripted(lambda asked: honest(DATA, asked)) as server:
        program(system, HTTP, server.url + "/data.bin")
