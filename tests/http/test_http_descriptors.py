"""Reads over HTTP by a process that has no descriptor left, or a few: an error that says so, or the bytes."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from awaited import LOOPS
from faults import descriptors
from faults.machine import need, need_module
from servers.scripted import honest, identity_of, scripted

need_module("urllib3")

DATA = bytes(range(256)) * 400


@pytest.mark.parametrize("way", ["sync", *LOOPS])
def test_few_descriptors(way: str, tmp_path: Path) -> None:
    """For waiting, for a thread's answer, for the connection, its name and its certificates: whichever lacks one. What
    was begun is given back, and the next read is as if nothing had been.
    """
    need(sys.platform.startswith("linux"), "counts descriptors in /proc")
    if way != "sync":
        need_module(way)
    identity = identity_of(["localhost"], tmp_path)
    with (
        scripted(lambda asked: honest(DATA, asked)) as plain,
        scripted(lambda asked: honest(DATA, asked), identity) as secure,
    ):
        urls = [f"{server.url}/object".replace("127.0.0.1", "localhost") for server in (plain, secure)]
        found = subprocess.run(
            [sys.executable, descriptors.__file__, way, str(tmp_path / "ca.pem"), *urls],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    *results, grown = [json.loads(line) for line in found.stdout.splitlines()]
    tried = sum(len(descriptors.shapes_of(url)) for url in urls)
    assert len(results) == tried * (len(descriptors.SPARE) + 1)
    assert grown["more"] <= 1  # what a thread waits with is kept for its next call
    for result in results:
        ended = result["found"]
        if "read" not in ended:
            assert (ended["ours"], ended["errno"]) == (True, errno.EMFILE), result
            assert "ulimit -n" in ended["said"], result
            assert "localhost" in ended["said"], result
        assert result["after"] == {"read": True}, result
        assert result["places"] == 0, result
    assert all("read" not in result["found"] for result in results if result["what"].endswith(", 0 left"))
