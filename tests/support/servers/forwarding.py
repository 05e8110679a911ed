"""proxy.py, a forwarding proxy: requests with a whole URL, and tunnels by CONNECT; itself over TLS if asked to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.program import Identity, Program, free_port, program, running


@dataclass(frozen=True)
class Forwarding:
    """A running one. url: with login, if it wants one."""

    program: Program
    url: str


@contextmanager
def forwarding(folder: Path, login: str = "", identity: Identity | None = None) -> Iterator[Forwarding]:
    """Start it, and stop it. login: ``user:password`` that it asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [program("proxy", wheel="proxy.py"), "--hostname", "127.0.0.1", "--port", str(port)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--data-dir", str(folder / "data")]
    command += ["--basic-auth", login] if login else []
    if identity is not None:
        command += ["--cert-file", str(identity.certificate), "--key-file", str(identity.key)]
    started = Program(command, port, folder / "log", {"HOME": str(folder)})
    with running(started):
        host = f"127.0.0.1:{port}" if identity is None else f"localhost:{port}"
        yield Forwarding(
            started, f"{'http' if identity is None else 'https'}://{login + '@' if login else ''}{host}"
        )
