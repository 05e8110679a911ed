"""The contract of every Reader, over Azure Blob Storage: Azurite, and the scripted server over TLS; sync and async."""

from collections.abc import Iterator
from typing import Any

import pytest
from awaited import Loop
from contract import Make
from faults.machine import need_module
from http_contract import Asking, HttpContract
from servers.azure_server import azure_server

import _uring
import rangeio

need_module("urllib3")


@pytest.fixture(scope="module")
def scripted_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with azure_server(tmp_path_factory.mktemp("scripted")) as server:
        yield server


SERVERS = ["azurite", "scripted_azure"]
# Each loop, and each server, but not all pairs of them.
AWAITED = [("azurite", "asyncio"), ("scripted_azure", "uvloop"), ("azurite", "trio")]


class AzureContract(HttpContract):
    @pytest.fixture
    def name(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def server(self, request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        found = request.getfixturevalue(name)
        # Where a pickled reader finds its own.
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", found.key_options["account_key"])
        return found


class TestAzure(AzureContract):
    @pytest.fixture(params=SERVERS)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, server: Any, keep: Any) -> Make:
        return lambda data: keep(
            rangeio.open(server.put(f"contract/{len(data)}", data), reactor=reactor, **server.key_options)
        )


class TestAzureAsync(AzureContract):
    @pytest.fixture(params=AWAITED, ids="-".join)
    def both(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        server, loop = request.param
        return server, loop

    @pytest.fixture
    def name(self, both: tuple[str, str]) -> str:
        return both[0]

    @pytest.fixture
    def loop(self, both: tuple[str, str]) -> Iterator[Loop]:
        need_module(both[1])
        made = Loop(both[1])
        yield made
        made.close()

    @pytest.fixture
    def make(self, reactor: _uring.Reactor, server: Any, keep: Any, loop: Loop) -> Make:
        def make(data: bytes) -> Any:
            uri = server.put(f"contract/{len(data)}", data)
            return Asking(keep(rangeio.open_async(uri, reactor=reactor, **server.key_options)), loop)

        return make
