"""Readers of a scripted Cloud Storage, with a token."""

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import by_each
from faults.machine import need_module
from servers.gcs_server import TOKEN, GcsServer
from servers.scripted import Scripted, scripted

import rangeio

need_module("urllib3")

FAST: Any = {"retry": rangeio.Retry(attempts=4, backoff_s=0.001)}
NAMES = (
    "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST", "CLOUDSDK_CONFIG", "GCE_METADATA_HOST",
    "GOOGLE_CLOUD_PROJECT",
)  # fmt: skip


@pytest.fixture(params=["pool"])
def backend(request: pytest.FixtureRequest) -> str:
    """The backend that reads files does not matter here; one is enough."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Those of the machine that runs the tests are nobody's business."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def store() -> GcsServer:
    return GcsServer()


@pytest.fixture
def server(store: GcsServer) -> Iterator[Scripted]:
    with scripted(store.answer) as running:
        yield running


class Desk:
    """Opens objects of the server, sync or by a loop."""

    def __init__(self, open_reader: Any) -> None:
        self._open = open_reader
        self.url = ""
        self._held: list[Any] = []

    def open(self, uri: str, **options: Any) -> Any:
        who = {} if {"anonymous", "access_key_id", "credentials"} & set(options) else {"bearer_token": TOKEN}
        reader = self._open(uri, **{"endpoint_url": self.url, **who, **FAST, **options})
        self._held.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._held:
            reader.close()


@pytest.fixture(params=["sync", "asyncio"])
def desk(request: pytest.FixtureRequest, server: Scripted) -> Iterator[Desk]:
    for made in by_each(request.param, Desk):
        made.url = server.url
        yield made
