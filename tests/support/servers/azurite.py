"""Azurite, Microsoft's emulator of Azure Storage, of npm. It checks signatures; filled by azure-storage-blob."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults.machine import must_be_whole, need_module

from servers.program import Program, free_port, make_identity, program, running

CONTAINER = "container"
ACCOUNT = "devstoreaccount1"
# Published by Microsoft: the same on every machine.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "3.35.0"


@dataclass
class Azurite:
    """A running one. url: of its account. secure: what the options become over TLS, if it has that."""

    url: str
    secure: dict[str, Any] = field(default_factory=dict)
    client: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """With which a reader finds it; without credentials."""
        return {"account": ACCOUNT, "endpoint_url": self.url, **self.secure}

    @property
    def key_options(self) -> dict[str, Any]:
        """With the account key."""
        return {**self.options, "account_key": KEY}

    def connect(self) -> None:
        """Make the client that writes, which knows nothing of us, and the container."""
        blob = need_module("azure.storage.blob")
        trusted = {"connection_verify": self.secure["ca_file"]} if self.secure else {}
        login = {"account_name": ACCOUNT, "account_key": KEY}
        self.client = blob.BlobServiceClient(self.url, credential=login, **trusted)
        self.client.create_container(CONTAINER)

    def put(self, name: str, data: bytes) -> str:
        """The URI of a blob with this content."""
        self.client.get_blob_client(CONTAINER, name).upload_blob(data, overwrite=True)
        return f"az://{CONTAINER}/{name}"

    def snapshot(self, name: str) -> str:
        """The name of a snapshot of its present state."""
        made: str = self.client.get_blob_client(CONTAINER, name).create_snapshot()["snapshot"]
        return made

    def close(self) -> None:
        """Let go of the client."""
        if self.client is not None:
            self.client.close()


@contextmanager
def azurite(folder: Path, *, secure: bool = False) -> Iterator[Azurite]:
    """Start it, and stop it. secure: over TLS, as localhost, and with tokens."""
    need_module("azure.storage.blob")
    brought = Path(sys.prefix) / "node_modules" / ".bin" / "azurite-blob"
    if not brought.exists() and must_be_whole() and shutil.which("npm"):
        pytest.fail(f"Azurite must be there (npm install --prefix {sys.prefix} azurite@{VERSION})")
    port = free_port()
    command = [program("azurite-blob", str(brought)), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    made = Azurite(f"http://127.0.0.1:{port}/{ACCOUNT}")
    if secure:
        identity = make_identity(folder)
        command += ["--oauth", "basic", "--cert", str(identity.certificate), "--key", str(identity.key)]
        made = Azurite(f"https://localhost:{port}/{ACCOUNT}", {"ca_file": str(identity.authority)})
    started = Program(command, port, folder / "log", {"HOME": str(folder)}, at_once=True)
    with running(started), closing(made):
        made.connect()
        yield made
