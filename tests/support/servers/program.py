"""Starting a real server on loopback: where its program is, when it listens, how it ends, who vouches for it."""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults.machine import must_be_whole, need_module

# Files that a server sends were not changed within this second: Apache's ETag is weak for those that were.
LONG_AGO = 1_700_000_000


def program(name: str, *places: str, wheel: str = "") -> str:
    """Where it is: among what pip has brought, else on the machine. The test is skipped where it is nowhere.

    wheel: the package on PyPI that brings it. In CI it must be there then, so its absence fails the test.
    """
    brought = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    for place in (*places, *(os.path.join(folder, name) for folder in brought), name, f"/usr/sbin/{name}"):
        found = shutil.which(place)
        if found is not None:
            return found
    if wheel and must_be_whole():
        pytest.fail(f"{name} must be there (pip install {wheel})")
    pytest.skip(f"{name} is not installed" + (f" (pip install {wheel})" if wheel else ""))


def free_port() -> int:
    """One that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def public_folder() -> Iterator[Path]:
    """Which servers that give up root can read; pytest's own folders are for one user."""
    with tempfile.TemporaryDirectory(prefix="rangeio-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@dataclass
class Program:
    """One server process that listens on `port` of loopback when it is up; it can be started again.

    at_once: end it without asking; for what takes its time over that, and has no processes of its own.
    """

    command: list[str]
    port: int
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    at_once: bool = False
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Return once it listens. What it prints goes to the log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
            )
        pause = threading.Event()
        while self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            pause.wait(0.01)
        pytest.fail(f"{self.command[0]} did not start: {self.log.read_text(errors='replace')}")

    def stop(self) -> None:
        """End it, and its connections with it. A second call does nothing."""
        if self.process is not None:
            (self.process.kill if self.at_once else self.process.terminate)()
            self.process.wait()
            self.process = None


@contextmanager
def running(server: Program) -> Iterator[Program]:
    """Started on entry, ended on exit."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Identity:
    """Files with which a server proves over TLS that it is localhost. authority: what a client has to trust."""

    authority: Path
    certificate: Path
    key: Path


def make_identity(folder: Path) -> Identity:
    """Certificates for a test run, from an authority of its own."""
    trustme = need_module("trustme")
    folder.mkdir(parents=True, exist_ok=True)
    found = Identity(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(found.authority))
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(found.key))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(found.certificate), append=True)
    return found


@dataclass(frozen=True)
class Site:
    """A running web server; what is put into `www` it serves. options: what opening its URLs takes."""

    program: Program
    url: str
    www: Path
    options: dict[str, Any]

    @classmethod
    def of(cls, program: Program, www: Path, identity: Identity | None) -> "Site":
        """The names by which clients reach it."""
        if identity is None:
            return cls(program, f"http://127.0.0.1:{program.port}", www, {})
        url, options = f"https://localhost:{program.port}", {"ca_file": str(identity.authority)}
        return cls(program, url, www, options)

    def put(self, name: str, data: bytes, changed_s: int = LONG_AGO) -> str:
        """The URL of a file with this content, changed at that time."""
        path = self.www / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        os.utime(path, (changed_s, changed_s))
        return f"{self.url}/{name}"
