"""`rangeio serve`, as users start it. No TLS."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.program import Identity, Program, Site, free_port, running


@contextmanager
def ours(folder: Path, identity: Identity | None = None) -> Iterator[Site]:
    """Start it, and stop it."""
    assert identity is None
    (folder / "www").mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "rangeio", "serve", str(folder / "www"), "--port", str(port)]
    started = Program(command, port, folder / "log")
    with running(started):
        yield Site.of(started, folder / "www", None)
