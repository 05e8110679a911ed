"""Each script under examples/ runs as its first lines say, and reads what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.data import pattern, write_pattern
from faults.machine import need_module

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NBYTES = 3 << 20
SAID = {
    "async_read.py": f"{NBYTES} bytes streamed",
    "trio_read.py": f"{NBYTES} bytes came through the channel",
    "data_loader.py": "40 batches of 32 records from 4 workers",
    "copy_progress.py": "1000 bytes copied",
}


def test_all_are_tried() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_example(tmp_path: Path, name: str) -> None:
    if name == "trio_read.py":
        need_module("trio")
    source, target = write_pattern(tmp_path / "data", NBYTES), tmp_path / "copy"
    arguments = [source, target, 5, 1005] if name == "copy_progress.py" else [source]
    done = subprocess.run(
        [sys.executable, FOLDER / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert SAID[name] in done.stdout + done.stderr
    if name == "copy_progress.py":
        assert target.read_bytes() == pattern(5, 1005)
        assert "100 %" in done.stderr
