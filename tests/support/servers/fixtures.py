"""Fixtures of real servers, one of each for the whole run; `conftest.py` names this module in `pytest_plugins`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from servers import s3
from servers.apache import apache
from servers.azurite import Azurite
from servers.azurite import azurite as azurite_server
from servers.caddy import caddy
from servers.nginx import nginx
from servers.ours import ours
from servers.program import Identity, Site, make_identity, public_folder
from servers.s3 import S3Server

_START: dict[str, Any] = {"nginx": nginx, "apache": apache, "caddy": caddy, "ours": ours}
SITES = [
    f"{name}-{scheme}"
    for name in _START
    for scheme in ("http", "https")
    if (name, scheme) != ("ours", "https")
]
"""What `sites` knows: each server, plain and over TLS."""

Sites = Callable[[str], Site]


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    """A function from one of SITES to that server, which is started when it is first asked for."""
    started: dict[str, Site] = {}
    identities: list[Identity] = []
    with ExitStack() as stack:

        def site(name: str) -> Site:
            if name not in started:
                program, _, scheme = name.partition("-")
                folder = stack.enter_context(public_folder())
                if scheme == "https" and not identities:
                    identities.append(make_identity(stack.enter_context(public_folder())))
                secure = identities[0] if scheme == "https" else None
                started[name] = stack.enter_context(_START[program](folder / program, secure))
            return started[name]

        yield site


@pytest.fixture
def keep() -> Iterator[Callable[[Any], Any]]:
    """Takes a reader, hands it back, and closes it after the test."""
    readers: list[Any] = []

    def keep(reader: Any) -> Any:
        readers.append(reader)
        return reader

    yield keep
    for reader in readers:
        reader.close()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """In a region of its own, which it insists on."""
    with s3.juicefs(tmp_path_factory.mktemp("juicefs"), region="eu-test-1") as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def s3rver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3.s3rver(tmp_path_factory.mktemp("s3rver")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite_server(tmp_path_factory.mktemp("azurite")) as server:
        yield server
