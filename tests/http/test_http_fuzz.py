"""Responses of arbitrary bytes: the corpus, and for a while what coverage makes of it. `make fuzz` goes on for long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.machine import SUPPORT, need_module

need_module("urllib3")

from fuzz.response import check, corpus  # noqa: E402

SECONDS = max(1, int(float(os.environ.get("RANGEIO_FUZZ_S", "6"))))


def test_there_is_a_corpus() -> None:
    """Of none, the next test would be skipped and not missed."""
    assert corpus()


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """Each input whole, and each beginning of it."""
    data = path.read_bytes()
    for length in range(len(data) + 1):
        check(data[:length])


def test_what_coverage_leads_to(tmp_path: Path) -> None:
    """A failure prints the input in base64."""
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    command = [sys.executable, "-m", "fuzz", str(tmp_path), "--seconds", str(SECONDS)]
    done = subprocess.run(command, cwd=SUPPORT, capture_output=True, text=True, timeout=SECONDS + 120)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "stat::number_of_executed_units" in done.stderr
    assert list(tmp_path.iterdir()), "nothing new was reached: is the code instrumented?"
