"""What `import rangeio` brings along: numpy, and little else. All else is imported by what first uses it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import _uring

# Of rangeio itself; its services, adapters and the HTTP engine come with the first reader that needs them.
OURS = """
    rangeio rangeio.adapters rangeio.adapters.async_files rangeio.adapters.files rangeio.async_ranges
    rangeio.async_reader rangeio.awaitables rangeio.budget rangeio.counters rangeio.destinations rangeio.errors
    rangeio.events rangeio.from_here rangeio.from_stores rangeio.in_flight rangeio.jobs rangeio.locks rangeio.logs
    rangeio.notebook rangeio.operator rangeio.options rangeio.pickled rangeio.policy rangeio.ranges
    rangeio.reader rangeio.reading rangeio.results rangeio.service rangeio.services rangeio.services.immediate
    rangeio.services.local rangeio.services.memory rangeio.services.registry rangeio.slices rangeio.streams
    rangeio.suffixes
"""
# asyncio and what comes with it takes as long as all of the above.
LATER = "asyncio concurrent http ipaddress logging random socket ssl subprocess urllib urllib3"

SEEN = """
import json, sys
import numpy
before = set(sys.modules)
import rangeio
"""
TOLD = "\nprint(json.dumps(sorted(set(sys.modules) - before)))"
READS = """
with rangeio.open(sys.argv[1]) as reader:
    assert reader.read_at(5, 10) == b"x" * 10
    assert len(reader.read_ranges([(0, 100), (1 << 20, 2 << 20)])) == 2
    assert len(list(reader.iter_ranges([(0, 100), (1 << 20, 2 << 20)]))) == 2
    assert reader.read_into(bytearray(500_000)) == 500_000
"""


def brought(program: str, *arguments: object) -> list[str]:
    """Modules that a program has imported, without those of numpy."""
    command = [sys.executable, "-c", SEEN + program + TOLD, *map(str, arguments)]
    found = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(Path(_uring.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names: list[str] = json.loads(found.stdout)
    return names


def top(name: str) -> str:
    return name.partition(".")[0]


def test_import_brings_little() -> None:
    names = brought("")
    assert {name for name in names if top(name) == "rangeio"} == {*OURS.split()}
    assert not {*LATER.split()} & {*map(top, names)}
    # What stands in where nothing was compiled, or where there is no GIL.
    if not _uring.extension_error():
        assert not [name for name in names if name.startswith("_uring.pure")]


def test_reading_a_file_brings_no_event_loop(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"x" * (3 << 20))
    assert not {*LATER.split()} & {*map(top, brought(READS, path))}
